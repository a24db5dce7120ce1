"""The ladder's table: its figures as text, beside the lesson's own. The terminal and the report show the same."""

from __future__ import annotations

import dataclasses
from typing import Any

# The lesson's own figures (GPU, 6 classes), to compare the gains with; what it does not tell is missing.
LESSON = (
    {"name": "naive", "params": 7_476_742, "accuracy": 0.82, "train_s_per_epoch": 171.0, "inference_ms_per_step": 52.0},
    {"name": "pooling", "params": 5_873_478},
    {"name": "separable", "params": 679_137, "train_s_per_epoch": 250.0, "inference_ms_per_step": 36.0},
    {"name": "jit", "train_s_per_epoch": 89.0, "inference_ms_per_step": 19.0},
    {"name": "amp", "train_s_per_epoch": 67.0, "inference_ms_per_step": 22.0},
    {"name": "fusing", "accuracy": 0.79, "train_s_per_epoch": 66.0, "inference_ms_per_step": 22.0},
)
HEADINGS = ("Parameters", "Accuracy", "Train s/epoch", "Inference ms/step")
_ACCURACY = "accuracy"
_FORMS = {
    "params": "{:,}",
    _ACCURACY: "{:.1%}",
    "train_s_per_epoch": "{:.2f}",
    "inference_ms_per_step": "{:.2f}",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        name: What the row is about.
        own: A text for each of `HEADINGS`.
        told: The same of the lesson; "" where it tells nothing.
    """

    name: str
    own: tuple[str, ...]
    told: tuple[str, ...]


def ladder_rows(rungs: list[dict[str, Any]], lesson: list[dict[str, Any]]) -> list[Row]:
    """Tabulates the rungs.

    Args:
        rungs: As in ladder.json, bottom first.
        lesson: The lesson's rungs.

    Returns:
        A row for each rung, and last what the last rung gains against the first.
    """
    told = {rung["name"]: rung for rung in lesson}
    rows = [Row(rung["name"], _cells(rung), _cells(told.get(rung["name"], {}))) for rung in rungs]
    against = f"{rungs[-1]['name']} against {rungs[0]['name']}"
    return [*rows, Row(against, _gain_cells(rungs), _gain_cells(lesson))]


def gains(rungs: list[dict[str, Any]]) -> dict[str, float]:
    """Returns what the last rung gains against the first.

    Args:
        rungs: Bottom first; a figure that a rung does not tell is that of the rung below.

    Returns:
        Of costs the share that is saved, 0.9 for 90 % less; of "accuracy" the difference.
    """
    told = {key: [rung[key] for rung in rungs if key in rung] for key in _FORMS}
    saved = {key: 1 - figures[-1] / figures[0] for key, figures in told.items() if key != _ACCURACY}
    return saved | {_ACCURACY: told[_ACCURACY][-1] - told[_ACCURACY][0]}


def _cells(rung: dict[str, Any]) -> tuple[str, ...]:
    return tuple(form.format(rung[key]) if key in rung else "" for key, form in _FORMS.items())


def _gain_cells(rungs: list[dict[str, Any]]) -> tuple[str, ...]:
    gained = gains(rungs)
    return tuple(
        f"{100 * gained[key]:+.1f} points" if key == _ACCURACY else f"{-100 * gained[key]:+.0f} %" for key in _FORMS
    )
