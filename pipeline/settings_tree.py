"""Every setting, by its key."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from pipeline.config import PipelineSettings
from trainer_module.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo


@dataclasses.dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        key: For example "trainer.epochs".
        default: Its value where nobody sets it.
        field: Its type, limits and description.
    """

    key: str
    default: Any
    field: FieldInfo


@dataclasses.dataclass(frozen=True)
class Group:
    """Settings that belong together.

    Attributes:
        key: For example "trainer"; "" for the whole tree.
        description: What they are about.
        settings: In the order of the tree; groups inside it are groups of their own.
    """

    key: str
    description: str
    settings: tuple[Setting, ...]


def groups(tree: Settings | None = None, key: str = "") -> Iterator[Group]:
    """Yields every group, outer ones first.

    Args:
        tree: Where to begin; None for all settings with their defaults.
        key: Its key.
    """
    tree = PipelineSettings() if tree is None else tree
    values = {name: getattr(tree, name) for name in type(tree).model_fields}
    own = tuple(
        Setting(f"{key}.{name}".strip("."), value, type(tree).model_fields[name])
        for name, value in values.items()
        if not isinstance(value, Settings)
    )
    yield Group(key, (type(tree).__doc__ or "").strip(), own)
    for name, value in values.items():
        if isinstance(value, Settings):
            yield from groups(value, f"{key}.{name}".strip("."))
