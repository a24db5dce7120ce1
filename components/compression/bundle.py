"""The edge bundle: a .tflite model with what a device needs to use it and to know where it came from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer_module.bundle_files import DESCRIPTION_FILE, LABELS_FILE, TFLITE_FILE
from trainer_module.errors import UserError
from trainer_module.tflite import TFLiteClassifier

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from components.compression.measurement import Measurement

FORMAT_VERSION = 1


@dataclasses.dataclass(frozen=True)
class BundleContent:
    """What goes into a bundle.

    Attributes:
        name: Name of the variant.
        model: Its .tflite file.
        class_names: Names of the C classes in the order of the model's outputs.
        measurement: Its figures.
        lineage: Ids of the artifacts it was made from, by the name of the input.
    """

    name: str
    model: Path
    class_names: Sequence[str]
    measurement: Measurement
    lineage: Mapping[str, int]


def write_bundle(content: BundleContent, directory: Path) -> None:
    """Writes `model.tflite`, `labels.txt` and `model.json`.

    The directory appears whole or not at all: it is filled elsewhere and renamed.

    Args:
        content: What goes into the bundle.
        directory: The bundle's directory; it must not exist yet, its parent must.

    Raises:
        UserError: A class name has a line break, which labels.txt cannot hold.
        ValueError: The model has another number of outputs than there are class names.
    """
    with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
        partial = Path(scratch) / directory.name
        partial.mkdir()
        shutil.copyfile(content.model, partial / TFLITE_FILE)
        (partial / LABELS_FILE).write_text(label_lines(content.class_names), encoding="utf-8")
        description = json.dumps(_describe(content, partial), indent=2, ensure_ascii=False)
        (partial / DESCRIPTION_FILE).write_text(f"{description}\n", encoding="utf-8")
        partial.rename(directory)


def label_lines(class_names: Sequence[str]) -> str:
    """Returns the content of labels.txt, a line for each class; raises UserError for a name that fills none or two."""
    for name in class_names:
        if name.splitlines() != [name]:
            raise UserError(f"class name {name!r} is empty or has a line break; rename its folder in data.path")
    return "".join(f"{name}\n" for name in class_names)


def _describe(content: BundleContent, directory: Path) -> dict[str, Any]:
    classifier = TFLiteClassifier(directory / TFLITE_FILE)
    if classifier.output.shape[-1] != len(content.class_names):
        raise ValueError(f"{classifier.output.shape[-1]} outputs for the {len(content.class_names)} class names")
    return {
        "format_version": FORMAT_VERSION,
        "name": content.name,
        "sha256": {name: _sha256(directory / name) for name in (TFLITE_FILE, LABELS_FILE)},
        "labels": list(content.class_names),
        "input": {**dataclasses.asdict(classifier.input), "image_size": classifier.input.shape[1]},
        "output": dataclasses.asdict(classifier.output),
        "metrics": {
            "validation_accuracy": content.measurement.accuracy,
            "bytes": content.measurement.bytes,
            "deflated_bytes": content.measurement.deflated_bytes,
            "latency_ms": content.measurement.latency_ms,
        },
        "lineage": dict(content.lineage),
    }


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
