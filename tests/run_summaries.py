"""Content of summary.json for runs that never ran: as many classes as wanted, shipped, refused or failed."""

from typing import Any

PLAIN = {"jit": False, "precision": "float32", "steps_per_execution": 1}
CHECK = {
    "gate": "fidelity",
    "artifact": "tflite",
    "rule": "gate.max_drop",
    "slice": None,
    "verdict": "passed",
    "reason": "drop of 1.00% (1 photos of 100 lost, 0 gained) within 2.00%",
    "value": 0.01,
    "limit": 0.02,
    "interval": {"lower": -0.01, "upper": 0.01, "confidence": 0.95},
}
LAYER = {"name": "0_conv_2d", "shape": [8, 3, 3, 3], "sparsity": 0.5, "unique_weights": 12}


def variant(name: str, size: int, accuracy: float, latency: float = 0.2) -> dict[str, Any]:
    return {
        "name": name,
        "bytes": size,
        "deflated_bytes": size - 10_000,
        "accuracy": accuracy,
        "agreement": 0.99,
        "latency_ms": latency,
        "sparsity": 0.5,
        "unique_weights": 12,
        "times_smaller_than_naive": 340.0,
        "layers": [LAYER, LAYER | {"name": "1_conv_2d", "sparsity": 0.0}],
        "within_budget": accuracy > 0.85,
        "reason": None if accuracy > 0.85 else "accuracy drop 0.1 > compression.budget.max_accuracy_drop 0.02",
    }


def evaluation(names: list[str], photos: int = 10) -> dict[str, Any]:
    """What a gate measured: of each class one photo is taken for the next class."""
    count = len(names)
    matrix = [[photos - 1 if t == a else int(a == (t + 1) % count) for a in range(count)] for t in range(count)]
    result = {
        "photos": photos,
        "accuracy": 1 - 1 / photos,
        "baseline_accuracy": 1.0,
        "agreement": 1 - 1 / photos,
        "only_baseline_right": 1,
        "only_candidate_right": 0,
    }
    figures = {
        "accuracy": 1 - 1 / photos,
        "balanced_accuracy": 0.9,
        "top_3_accuracy": 1.0,
        "auc": None,
        "expected_calibration_error": 0.05,
    }
    return {
        "gate": "fidelity",
        "artifact": "tflite",
        "slices": {"class": dict.fromkeys(names, result), "brightness": {"below 0.25": result | {"photos": 7}}},
        "metrics": {"candidate": figures, "baseline": figures | {"accuracy": 1.0}},
        "confusion_matrix": {
            "labels": names,
            "candidate": matrix,
            "baseline": [[photos if t == a else 0 for a in range(count)] for t in range(count)],
        },
    }


def summary(names: list[str] | None = None) -> dict[str, Any]:
    """A run that shipped; without names: two classes."""
    names = names or ["cat", "dog"]
    return {
        "format_version": 1,
        "status": "pushed",
        "blessed": True,
        "run": "2026-01-01",
        "images": {
            "read": 9,
            "used": 8,
            "quarantined": 1,
            "ignored": 0,
            "splits": {"train": dict.fromkeys(names, 3), "test": dict.fromkeys(names, 1)},
            "duplicates": {
                "copies": 1,
                "in_several_splits": 0,
                "in_several_classes": 0,
                "near_in_several_splits": 1,
            },
            "leaks": [{"kind": "near", "paths": ["cat/<i>.jpg", "cat/2.jpg"], "splits": ["train", "test"]}],
            "quarantine": [{"path": "cat/<b>.jpg", "reason": "broken"}],
            "warnings": [],
        },
        "model": {
            "architecture": "lean",
            "params": 52_426,
            "accuracy": 1.0,
            "validation_accuracy": 0.9,
            "best_epoch": 2,
            "epochs": 2,
            "train_seconds": 3.0,
            "history": {
                "loss": [0.5, 0.4],
                "accuracy": [0.8, 0.9],
                "val_loss": [None, 0.5],
                "val_accuracy": [0.8, 0.9],
            },
            "teacher": None,
        },
        "acceleration": {
            "chosen": PLAIN,
            "mode": "auto",
            "device": "CPU, 2 cores",
            "seconds": 4.0,
            "probes": [
                {"candidate": PLAIN, "seconds_per_step": 0.04, "loss": 2.0, "outcome": "measured"},
                {"candidate": PLAIN | {"jit": True}, "seconds_per_step": None, "loss": None, "outcome": "too long"},
            ],
        },
        "variants": [variant("float32", 280_000, 0.9), variant("int8", 70_000, 0.89), variant("tiny", 60_000, 0.8)],
        "dropped_variants": [{"name": "qat", "reason": "all weights are zero"}],
        "compression": {
            "naive": {"params": 5_680_362, "bytes": 22_721_448},
            "done": {
                "prune": {"sparsity": 0.5, "layers": {"stem": 0.25, "head": 0.9}},
                "cluster": {"clusters": 16, "layers": ["stem", "head"]},
                "prune_channels": {"multiply_accumulates": [2_000_000, 1_000_000], "channels": {"stem": 8}},
                "qat_mixed": {"mean_bits": 3.5, "bits": {"stem": 8, "head": 3}},
            },
            "skipped": {"prune": [{"layer": "depthwise", "reason": "depthwise kernel"}]},
            "budget": {"max_accuracy_drop": 0.02, "max_bytes": 90_000, "max_latency_ms": None, "size": "file"},
            "seconds": 20.0,
        },
        "shipped": {
            "name": "int8",
            "bytes": 70_000,
            "deflated_bytes": 60_000,
            "accuracy": 0.9,
            "latency_ms": 0.2,
            "class_accuracy": dict.fromkeys(names, 0.9),
            "saved_model_accuracy": 0.9,
        },
        "gates": {
            "refused_by": [],
            "settings": {"min_accuracy": 0.2, "max_drop": 0.02, "min_examples_per_slice": 10},
            "baseline_accuracy": None,
            "checks": [CHECK],
            "evaluations": [evaluation(names)],
        },
        "pushed": [{"version": "17", "path": "/out/pushed/tflite/17"}],
        "components": [{"name": "Trainer", "seconds": 3.0, "cached": False}],
        "settings": {
            "data": {"path": "photos", "image_size": 32},
            "compression": {"stages": ["quantize"]},
            "trainer": {"epochs": 7},
            "model": {"width": 1.0},
        },
    }


def refused() -> dict[str, Any]:
    """A run of which nothing could be evaluated."""
    whole = summary()
    refusal = CHECK | {
        "rule": "computed",
        "verdict": "refused",
        "reason": "the candidate cannot be loaded",
        "value": None,
        "limit": None,
        "interval": None,
    }
    unknown = {"accuracy": None, "class_accuracy": {}, "saved_model_accuracy": None}
    return whole | {
        "status": "refused",
        "blessed": False,
        "pushed": [],
        "shipped": whole["shipped"] | unknown,
        "model": whole["model"] | {"accuracy": None},
        "gates": whole["gates"] | {"checks": [refusal], "evaluations": [], "refused_by": ["fidelity"]},
    }


def failed() -> dict[str, Any]:
    """A run that failed in its Trainer."""
    nothing = dict.fromkeys(("model", "acceleration", "compression", "shipped", "gates"))
    empty: dict[str, Any] = {"variants": [], "dropped_variants": [], "pushed": []}
    return summary() | nothing | empty | {"status": "failed", "blessed": False}
