"""The model card: what a model is, what it is for, and how well it does, for those who are to use it.

The sections are those of Mitchell et al., Model Cards for Model Reporting (2019).
"""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING, Any

import jinja2
import yaml

from components.release_gate.engine import FIDELITY
from components.release_gate.paired import share_interval
from components.release_gate.results import CANDIDATE
from pipeline.report import texts
from pipeline.report.evaluations import class_figures, confusions, find_evaluation, photos_in
from trainer_module import features

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.report.evaluations import ClassFigures
    from pipeline.report.facts import Facts

# In the text; the JSON has all.
_NAMED_CLASSES = 50
_LISTED_CLASSES = 20

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("pipeline"),
    autoescape=False,  # noqa: S701 (Markdown, not HTML; names are escaped by the filter)
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def model_card(facts: Facts) -> dict[str, Any]:
    """Writes the card of the model that a run has judged.

    Args:
        facts: Of a run that got to the gates.

    Returns:
        The content of model_card.json; see docs/report.md.
    """
    summary = facts.summary
    measured = find_evaluation(summary, FIDELITY, "tflite")
    figures = class_figures(measured) if measured else []
    return {
        "format_version": 1,
        "model_details": _details(summary),
        "intended_use": _intended_use(summary),
        "factors": _factors(measured),
        "metrics": _metrics(summary),
        "evaluation_data": _data(summary, features.TEST_SPLIT),
        "training_data": _data(summary, features.TRAIN_SPLIT) | _ingest(summary),
        "quantitative_analyses": _analyses(summary, measured, figures),
        "ethical_considerations": _ethical_considerations(),
        "caveats_and_recommendations": _caveats(summary, figures),
    }


def model_card_markdown(card: Mapping[str, Any]) -> str:
    """Returns the card as Markdown, with the front matter that model hubs read.

    Args:
        card: From `model_card`.
    """
    front = yaml.safe_dump(_front_matter(card), sort_keys=False, allow_unicode=True)
    template = _ENVIRONMENT.get_template("report/model_card.md.j2")
    return template.render(card, front_matter=front, named=_NAMED_CLASSES, listed=_LISTED_CLASSES)


def _details(summary: Mapping[str, Any]) -> dict[str, Any]:
    model, shipped = summary["model"], summary["shipped"]
    return {
        "name": shipped["name"],
        "run": summary["run"],
        "status": summary["status"],
        "versions": [push["version"] for push in summary["pushed"]],
        "made_with": f"trimline {importlib.metadata.version('trimline')}",
        "architecture": model["architecture"],
        "parameters": model["params"],
        "input": _input(summary),
        "bytes": shipped["bytes"],
        "deflated_bytes": shipped["deflated_bytes"],
        "compression": list(summary["settings"]["compression"]["stages"]),
        "training": {
            "epochs": model["epochs"],
            "seconds": model["train_seconds"],
            "device": summary["acceleration"]["device"],
        },
    }


def _input(summary: Mapping[str, Any]) -> str:
    settings = summary["settings"]
    size = settings["data"]["image_size"]
    return f"one upright RGB photo, scaled to {size} x {size} pixels{_averaging(settings['model'])}"


def _averaging(model: Mapping[str, Any]) -> str:
    # Cards of former versions' runs are written too.
    match bool(model.get("flip_average")), bool(model.get("shift_average")):
        case True, True:
            views = "it, two copies shifted by a pixel, and the mirror images of all three"
        case True, False:
            views = "it and its mirror image"
        case False, True:
            views = "it and two copies shifted by a pixel"
        case _:
            return ""
    return f"; the answer is the average over {views}"


def _intended_use(summary: Mapping[str, Any]) -> dict[str, Any]:
    classes = sorted(summary["images"]["splits"].get(features.TRAIN_SPLIT, {}))
    return {
        "primary_use": f"Naming which of {len(classes)} classes a photo shows.",
        "classes": classes,
        "out_of_scope": (
            "Photos of anything else, or taken in another way than those it was trained on: it answers every photo "
            "with one of its classes."
        ),
    }


def _factors(measured: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Returns the groups of photos that were measured on their own, besides the classes."""
    slices = measured["slices"] if measured else {}
    return [
        {"factor": kind, "group": name, "photos": result["photos"], "accuracy": result["accuracy"]}
        for kind in ("size", "brightness")
        for name, result in slices.get(kind, {}).items()
    ]


def _metrics(summary: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "measured": "Top-1 accuracy on the test split, of the very bytes that ship, run by the LiteRT interpreter.",
        "intervals": "Exact binomial intervals (Clopper and Pearson) at 95 %.",
        "latency": "Median of one photo on one thread, on the machine that ran the pipeline.",
        "limits": dict(summary["gates"]["settings"]),
    }


def _data(summary: Mapping[str, Any], split: str) -> dict[str, Any]:
    counts = summary["images"]["splits"].get(split, {})
    return {"split": split, "photos": sum(counts.values()), "classes": dict(counts)}


def _ingest(summary: Mapping[str, Any]) -> dict[str, Any]:
    images = summary["images"]
    return {
        "source": summary["settings"]["data"]["path"],
        "read": images["read"],
        "quarantined": images["quarantined"],
        "duplicates": images.get("duplicates"),
        "split_rule": "A hash of the content decides, or the folders train, validation and test where there are any.",
    }


def _analyses(
    summary: Mapping[str, Any], measured: Mapping[str, Any] | None, figures: Sequence[ClassFigures]
) -> dict[str, Any]:
    shipped = summary["shipped"]
    return {
        "accuracy": _with_interval(shipped["accuracy"], photos_in(measured)),
        "float_model_accuracy": summary["model"]["accuracy"],
        "other_metrics": dict(measured["metrics"][CANDIDATE]) if measured else {},
        "latency_ms": shipped["latency_ms"],
        "classes": [_class_row(each) for each in figures],
        "most_confused": [
            {"true": each.true, "answer": each.answer, "photos": each.photos}
            for each in (confusions(measured) if measured else [])[:10]
        ],
        "refused_by": summary["gates"]["refused_by"],
    }


def _class_row(figures: ClassFigures) -> dict[str, Any]:
    return {
        "name": figures.name,
        "recall": _with_interval(figures.recall, figures.photos),
        "precision": figures.precision,
        "f1": figures.f1,
    }


def _with_interval(share: float | None, photos: int) -> dict[str, Any]:
    if share is None or not photos:
        return {"value": share, "photos": photos, "lower": None, "upper": None}
    interval = share_interval(round(share * photos), photos)
    return {"value": share, "photos": photos, "lower": interval.lower, "upper": interval.upper}


def _ethical_considerations() -> list[str]:
    return [
        "Nothing is known about what the photos show, or about their owners' consent: whoever collected them must say.",
        "Groups that the classes, sizes and brightness do not tell apart were not measured on their own.",
    ]


def _caveats(summary: Mapping[str, Any], figures: Sequence[ClassFigures]) -> list[str]:
    caveats = list(summary["images"]["warnings"])
    least = summary["gates"]["settings"]["min_examples_per_slice"]
    rare = [each.name for each in figures if each.photos < least]
    if rare:
        some = ", ".join(rare[:5]) + (f" and {len(rare) - 5} more" if len(rare) > 5 else "")
        caveats.append(f"Too few test photos to judge these classes (fewer than {least}): {some}.")
    if summary["status"] != "pushed":
        caveats.append(
            f"This model was not released: refused by the {' and the '.join(summary['gates']['refused_by'])} gate."
        )
    caveats.append("Probabilities are not calibrated for photos unlike the training photos; see the calibration error.")
    return caveats


def _front_matter(card: Mapping[str, Any]) -> dict[str, Any]:
    accuracy = card["quantitative_analyses"]["accuracy"]["value"]
    metrics = [] if accuracy is None else [{"type": "accuracy", "value": round(accuracy, 4), "name": "test accuracy"}]
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"name": "test split", "type": "image-folder"},
        "metrics": metrics,
    }
    return {
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "tflite"],
        "model-index": [{"name": card["model_details"]["name"], "results": [result]}],
    }


def _markdown_cell(text: object) -> str:
    """Escapes what would end a cell or begin markup: names come from folders and files."""
    escaped = str(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return "".join(f"\\{character}" if character in "*_`[]" else character for character in escaped)


_ENVIRONMENT.filters.update(percent=texts.percent, kilobytes=texts.kilobytes, number=texts.number, cell=_markdown_cell)
