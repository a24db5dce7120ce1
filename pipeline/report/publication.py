"""Writes the report and the model card of a run; what goes wrong is logged and never the run's fault."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from trainer_module.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.workspace import Workspace

_logger = logging.getLogger(__name__)


def publish(workspace: Workspace, summary: Mapping[str, Any], trouble: str = "") -> bool:
    """Writes the report like `write_report`, but never raises.

    Returns:
        Whether it was written. If not, the log says why, and no page of an earlier run is left in its place.
    """
    try:
        write_report(workspace, summary, trouble)
    except Exception:
        # Any: the models are judged and pushed by now, or the run has failed for a reason of its own.
        _logger.exception("the report cannot be written")
        for path in (workspace.report, workspace.model_card, workspace.model_card_json):
            path.unlink(missing_ok=True)
        return False
    return True


def write_report(workspace: Workspace, summary: Mapping[str, Any], trouble: str = "") -> None:
    """Writes index.html, and the model card if a model was judged.

    Args:
        workspace: Output directory of the run.
        summary: What `summary.gather` returned, or summary.json says.
        trouble: Why the run failed; "" if it did not.
    """
    # Here, so that a library that cannot be loaded spoils the report only.
    from pipeline.report.facts import collect
    from pipeline.report.model_card import model_card, model_card_markdown
    from pipeline.report.page import render

    facts = collect(workspace, summary, trouble)
    write_whole(workspace.report, render(facts))
    if summary["shipped"]:
        card = model_card(facts)
        write_whole(workspace.model_card_json, json.dumps(card, indent=2))
        write_whole(workspace.model_card, model_card_markdown(card))
