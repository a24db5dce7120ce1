"""What a run came to: gathered from its artifacts, written as summary.json and as the report's page."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tensorflow_model_analysis as tfma

from components.compression.executor import REPORT_FILE
from components.image_example_gen.engine import report as ingest_report
from components.release_gate.executor import REFUSED_BY_PROPERTY
from pipeline import gates
from pipeline.metadata import Metadata, OutputArtifact, Outputs
from pipeline.report import write_report
from trainer_module.files import write_whole
from trainer_module.run import TRAINING_FILE

if TYPE_CHECKING:
    from pipeline.config import PipelineSettings
    from pipeline.workspace import Workspace

_OVERALL = ""


def write_summary(settings: PipelineSettings, workspace: Workspace) -> dict[str, Any]:
    """Gathers the latest run's results and writes summary.json and the report.

    Args:
        settings: Settings of the run.
        workspace: Its output directory.

    Returns:
        What was written to summary.json.
    """
    summary = gather(settings, Metadata(workspace.metadata_file))
    write_whole(workspace.summary_file, json.dumps(summary, indent=2))
    write_report(workspace)
    return summary


def gather(settings: PipelineSettings, metadata: Metadata) -> dict[str, Any]:
    """Gathers the latest run's results.

    Args:
        settings: Settings of the run.
        metadata: The store that recorded it.

    Returns:
        The content of summary.json; see docs/outputs.md.
    """
    run = metadata.runs()[-1]
    outputs = Outputs(metadata, run)
    training = _read_json(Path(outputs.uri("Trainer", "model")) / TRAINING_FILE)
    compression = _read_json(Path(outputs.uri("Compression", "report")) / REPORT_FILE)
    blessing = outputs.get("ReleaseGate", "blessing")
    blessed = blessing.properties.get("blessed") == 1
    fidelity = _accuracies(outputs.uri("EvaluatorFidelity", "evaluation"))
    release = _accuracies(outputs.uri("EvaluatorRelease", "evaluation"))
    return {
        "format_version": 1,
        "status": "pushed" if blessed else "refused",
        "blessed": blessed,
        "run": run,
        "images": _images(outputs.uri("ImageExampleGen", "report")),
        "model": {
            "architecture": settings.model.architecture,
            "params": training["params"],
            "accuracy": fidelity["baseline"][_OVERALL],
            "validation_accuracy": training["validation_accuracy"],
            "epochs": training["epochs"],
            "train_seconds": training["seconds"],
            "history": training["history"],
        },
        "acceleration": training["acceleration"],
        "variants": compression["variants"],
        "dropped_variants": compression["dropped"],
        "compression": {key: compression[key] for key in ("naive", "done", "skipped", "budget", "seconds")},
        "shipped": _shipped(compression, fidelity, release),
        "gates": {
            "refused_by": [gate for gate in blessing.properties[REFUSED_BY_PROPERTY].split(",") if gate],
            "settings": settings.gate.model_dump(),
            "baseline_accuracy": release.get("baseline", {}).get(_OVERALL),
        },
        "pushed": [_pushed(outputs.get(name, "pushed_model")) for name in ("PusherSavedModel", "PusherTFLite")]
        if blessed
        else [],
        "components": [
            {"name": name, "seconds": round(component.seconds, 3), "cached": component.state == "cached"}
            for name, component in outputs.components.items()
        ],
        "settings": settings.model_dump(mode="json"),
    }


def _images(uri: str) -> dict[str, Any]:
    statistics = ingest_report.read_statistics(uri)
    return {
        "read": statistics.images.read,
        "used": statistics.images.used,
        "quarantined": statistics.images.quarantined,
        "ignored": statistics.images.ignored,
        "splits": statistics.splits,
        "quarantine": [item.model_dump() for item in ingest_report.read_quarantined(uri)],
        "warnings": statistics.warnings,
    }


def _accuracies(uri: str) -> dict[str, dict[str, float]]:
    """Reads the test accuracy from an Evaluator's output: by model, then by class; "" is the whole split."""
    accuracies: dict[str, dict[str, float]] = defaultdict(dict)
    for metrics in tfma.load_metrics(uri):
        keys = metrics.slice_key.single_slice_keys
        name = keys[0].bytes_value.decode() if keys else _OVERALL
        for item in metrics.metric_keys_and_values:
            if item.key.name == gates.ACCURACY and not item.key.is_diff:
                # TFMA records no model name where there is only one model: a candidate without a baseline.
                accuracies[item.key.model_name or "candidate"][name] = item.value.double_value.value
    return accuracies


def _shipped(compression: dict[str, Any], fidelity: dict, release: dict) -> dict[str, Any]:
    variant = next(v for v in compression["variants"] if v["name"] == compression["selected"])
    return {
        "name": variant["name"],
        "bytes": variant["bytes"],
        "deflated_bytes": variant["deflated_bytes"],
        "accuracy": fidelity["candidate"][_OVERALL],
        "validation_accuracy": variant["accuracy"],
        "latency_ms": variant["latency_ms"],
        "class_accuracy": {name: value for name, value in sorted(fidelity["candidate"].items()) if name},
        "saved_model_accuracy": release["candidate"][_OVERALL],
    }


def _pushed(artifact: OutputArtifact) -> dict[str, str]:
    return {
        "version": artifact.properties["pushed_version"],
        "path": artifact.properties["pushed_destination"],
    }


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
