"""What a run came to: gathered from its artifacts, written as summary.json and as the report's page."""

from __future__ import annotations

import itertools
import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tensorflow as tf
from pydantic import ValidationError

from components.compression.executor import REPORT_FILE
from components.image_example_gen.engine import report as ingest_report
from components.release_gate.engine import ARTIFACTS, FIDELITY, GATES
from components.release_gate.report import REPORT_FILE as GATES_FILE
from components.release_gate.report import indentation
from components.release_gate.results import BASELINE, CANDIDATE
from pipeline.config import PipelineSettings
from pipeline.metadata import Metadata, OutputArtifact, Outputs
from pipeline.report.publication import publish, write_report
from trainer_module.errors import UserError
from trainer_module.files import write_whole
from trainer_module.run import TRAINING_FILE

if TYPE_CHECKING:
    from collections.abc import Collection

    from pipeline.workspace import Workspace

_logger = logging.getLogger(__name__)

_PUSHERS = ("PusherSavedModel", "PusherTFLite")
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
    classes = max(map(len, summary["images"]["splits"].values()))
    content = json.dumps(summary, indent=indentation(classes))
    write_whole(workspace.run_summaries / f"{summary['run']}.json", content)
    write_whole(workspace.summary_file, content)
    publish(workspace, summary)
    return summary


def publish_failure(settings: PipelineSettings, workspace: Workspace, known: Collection[str], trouble: str) -> None:
    """Writes the report of a run that failed, as far as it got; summary.json stays that of the last finished run.

    Args:
        settings: Settings of the run.
        workspace: Its output directory.
        known: The runs before it. Where there is no other, the run failed before it began, and nothing is written.
        trouble: Why it failed.
    """
    try:
        metadata = Metadata(workspace.metadata_file)
        if set(metadata.runs()) - set(known):
            write_whole(workspace.trouble_file, trouble)
            publish(workspace, gather(settings, metadata), trouble)
    except Exception:
        # Any: the run has failed for a reason of its own, which must not be hidden by this one.
        _logger.exception("the report of the failed run cannot be written")


def rebuild_report(workspace: Workspace) -> None:
    """Writes the report and the model card anew: of the latest run if it failed, of the last finished one otherwise.

    Args:
        workspace: Output directory in which something has run.

    Raises:
        UserError: No run got so far that there is something to report.
    """
    metadata = Metadata(workspace.metadata_file)
    latest = (metadata.runs() or [""])[-1]
    if not latest:
        raise UserError(f"{workspace.root}: no run has been recorded there; start one with trimline run")
    failed = any(component.state == "failed" for component in metadata.components(latest))
    if workspace.summary_file.exists() and not failed:
        write_report(workspace, _gathered_again(workspace, metadata))
        return
    trouble = workspace.trouble_file.read_text(encoding="utf-8") if workspace.trouble_file.exists() else ""
    write_report(workspace, gather(workspace.read_settings(), metadata, latest), trouble)


def _gathered_again(workspace: Workspace, metadata: Metadata) -> dict[str, Any]:
    """Gathers the last finished run anew; takes it from summary.json where its artifacts are no longer there."""
    summary = _read_json(workspace.summary_file)
    try:
        return gather(PipelineSettings.model_validate(summary["settings"]), metadata, summary["run"])
    except (OSError, LookupError, ValidationError, tf.errors.OpError):
        _logger.exception("%s is reported from its summary", summary["run"])
        return summary


def gather(settings: PipelineSettings, metadata: Metadata, run: str | None = None) -> dict[str, Any]:
    """Gathers the results of a run.

    Args:
        settings: Settings of the run.
        metadata: The store that recorded it.
        run: Its id; None for the latest.

    Returns:
        The content of summary.json; see docs/outputs.md. What a failed run did not get to is None or empty.
    """
    run = run or metadata.runs()[-1]
    outputs = Outputs(metadata, run)
    ingest = outputs.find("ImageExampleGen", "report")
    training = _read_output(outputs, "Trainer", "model", TRAINING_FILE)
    compression = _read_output(outputs, "Compression", "report", REPORT_FILE)
    gates = _read_output(outputs, "ReleaseGate", "report", GATES_FILE)
    accuracies = _accuracies(gates) if gates else {}
    blessing = outputs.find("ReleaseGate", "blessing")
    blessed = blessing is not None and blessing.properties.get("blessed") == 1
    return {
        "format_version": 1,
        "status": _status(outputs, blessed=blessed),
        "blessed": blessed,
        "run": run,
        "images": _images(ingest.uri) if ingest else None,
        "model": _model(settings, training, accuracies) if training else None,
        "acceleration": training["acceleration"] if training else None,
        "variants": compression["variants"] if compression else [],
        "dropped_variants": compression["dropped"] if compression else [],
        "compression": _compression(compression) if compression else None,
        "shipped": _shipped(compression, gates, accuracies) if compression and gates else None,
        "gates": _gates(settings, gates, accuracies) if gates else None,
        "pushed": [_pushed(outputs.get(name, "pushed_model")) for name in _PUSHERS] if blessed else [],
        "components": [
            {"name": name, "seconds": round(component.seconds, 3), "cached": component.state == "cached"}
            for name, component in outputs.components.items()
        ],
        "settings": settings.model_dump(mode="json"),
    }


def _status(outputs: Outputs, *, blessed: bool) -> str:
    if outputs.find("ReleaseGate", "blessing"):
        return "pushed" if blessed else "refused"
    return "failed"


def _model(settings: PipelineSettings, training: dict[str, Any], accuracies: dict) -> dict[str, Any]:
    return {
        "architecture": settings.model.architecture,
        "params": training["params"],
        "accuracy": accuracies.get((FIDELITY, "tflite", BASELINE)),
        "validation_accuracy": training["validation_accuracy"],
        "best_epoch": training["best_epoch"],
        "epochs": training["epochs"],
        "train_seconds": training["seconds"],
        "history": training["history"],
        "teacher": training["teacher"],
    }


def _compression(compression: dict[str, Any]) -> dict[str, Any]:
    return {key: compression[key] for key in ("naive", "done", "skipped", "budget", "seconds")}


def _gates(settings: PipelineSettings, gates: dict[str, Any], accuracies: dict) -> dict[str, Any]:
    return {
        "refused_by": gates["refused_by"],
        "settings": settings.gate.model_dump(),
        "baseline_accuracy": accuracies["release", "saved_model", BASELINE],
        "checks": gates["checks"],
        "evaluations": gates["evaluations"],
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
        "leaks": [asdict(leak) for leak in ingest_report.read_leaks(uri)[:_NAMED_LEAKS]],
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


def _read_output(outputs: Outputs, component: str, key: str, file: str) -> dict[str, Any] | None:
    """Reads a JSON file of an artifact; None if the run did not get to making it."""
    artifact = outputs.find(component, key)
    return _read_json(Path(artifact.uri) / file) if artifact else None


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
