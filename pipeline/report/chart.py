"""A chart on the page: its Vega-Lite specification, and the words for those who do not see it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.report.vega import Spec


@dataclasses.dataclass(frozen=True)
class Chart:
    """A figure.

    Attributes:
        key: Id of its element on the page.
        spec: Vega-Lite.
        caption: What it shows, and how to read it.
        wide: Whether it keeps a least width and scrolls on a narrow screen.
    """

    key: str
    spec: Spec
    caption: str
    wide: bool = False
