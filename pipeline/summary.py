"""What a run came to: gathered from its artifacts, written as summary.json and as the report's page."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.compression.executor import REPORT_FILE
from components.image_example_gen.engine import report as ingest_report
from components.release_gate.engine import ARTIFACTS, FIDELITY, GATES
from components.release_gate.report import REPORT_FILE as GATES_FILE
from components.release_gate.results import BASELINE, CANDIDATE
from pipeline.metadata import Metadata, OutputArtifact, Outputs
from pipeline.report import write_report
from trainer_module.files import write_whole
from trainer_module.run import TRAINING_FILE

if TYPE_CHECKING:
    from pipeline.config import PipelineSettings
    from pipeline.workspace import Workspace


# The report of ImageExampleGen has them all.
_NAMED_LEAKS = 100


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
    gates = _read_json(Path(outputs.uri("ReleaseGate", "report")) / GATES_FILE)
    blessed = outputs.get("ReleaseGate", "blessing").properties.get("blessed") == 1
    accuracies = _accuracies(gates)
    return {
        "format_version": 1,
        "status": "pushed" if blessed else "refused",
        "blessed": blessed,
        "run": run,
        "images": _images(outputs.uri("ImageExampleGen", "report")),
        "model": {
            "architecture": settings.model.architecture,
            "params": training["params"],
            "accuracy": accuracies["fidelity", "tflite", "baseline"],
            "validation_accuracy": training["validation_accuracy"],
            "epochs": training["epochs"],
            "train_seconds": training["seconds"],
            "history": training["history"],
        },
        "acceleration": training["acceleration"],
        "variants": compression["variants"],
        "dropped_variants": compression["dropped"],
        "compression": {key: compression[key] for key in ("naive", "done", "skipped", "budget", "seconds")},
        "shipped": _shipped(compression, gates, accuracies),
        "gates": {
            "refused_by": gates["refused_by"],
            "settings": settings.gate.model_dump(),
            "baseline_accuracy": accuracies["release", "saved_model", "baseline"],
            "checks": gates["checks"],
            "evaluations": gates["evaluations"],
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
        "duplicates": statistics.duplicates.model_dump(),
        "leaks": [leak.model_dump(mode="json") for leak in ingest_report.read_leaks(uri)[:_NAMED_LEAKS]],
        "quarantine": [item.model_dump() for item in ingest_report.read_quarantined(uri)],
        "warnings": statistics.warnings,
    }


def _accuracies(gates: dict[str, Any]) -> dict[tuple[str, str, str], float | None]:
    """Returns the test accuracies by gate, artifact and model; None where nothing could be evaluated."""
    known = {
        (measured["gate"], measured["artifact"], model): figures["accuracy"]
        for measured in gates["evaluations"]
        for model, figures in measured["metrics"].items()
    }
    keys = itertools.product(GATES, ARTIFACTS, (CANDIDATE, BASELINE))
    return {key: known.get(key) for key in keys}


def _shipped(compression: dict[str, Any], gates: dict[str, Any], accuracies: dict) -> dict[str, Any]:
    variant = next(v for v in compression["variants"] if v["name"] == compression["selected"])
    return {
        "name": variant["name"],
        "bytes": variant["bytes"],
        "deflated_bytes": variant["deflated_bytes"],
        "accuracy": accuracies["fidelity", "tflite", CANDIDATE],
        "validation_accuracy": variant["accuracy"],
        "latency_ms": variant["latency_ms"],
        "class_accuracy": _class_accuracy(gates),
        "saved_model_accuracy": accuracies["fidelity", "saved_model", CANDIDATE],
    }


def _class_accuracy(gates: dict[str, Any]) -> dict[str, float]:
    """Returns the .tflite's test accuracy by class; empty where it could not be evaluated."""
    for measured in gates["evaluations"]:
        if (measured["gate"], measured["artifact"]) == (FIDELITY, "tflite"):
            return {name: result["accuracy"] for name, result in measured["slices"].get("class", {}).items()}
    return {}


def _pushed(artifact: OutputArtifact) -> dict[str, str]:
    return {
        "version": artifact.properties["pushed_version"],
        "path": artifact.properties["pushed_destination"],
    }


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
