"""The settings: one typed tree, read from defaults, a YAML file and `--set` options."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from components.compression.settings import CompressionSettings
from components.image_example_gen.engine.settings import IngestSettings
from pipeline.kubeflow.settings import KubeflowSettings
from pipeline.strict_yaml import AmbiguousYAMLError, read_yaml
from serving.options import ServerOptions
from trainer_module.errors import UserError
from trainer_module.settings import AccelerationSettings, ModelSettings, Settings, TrainerSettings, TrainingSettings

# Photos smaller than the first are enlarged, so that the network has something to shrink; larger than the second
# costs more time on a CPU than it gains. Both are only what `auto` chooses from.
_AUTO_IMAGE_SIZES = (16, 96)
_IMAGE_SIZE_STEP = 8


class DataSettings(Settings):
    """Which photos are read, and how."""

    path: Path | None = Field(
        None, description="Class-per-folder tree of photos; unset: the handwritten digits that come with Trimline."
    )
    image_size: Literal["auto"] | int = Field(
        "auto",
        description="Side of the network's input in pixels, 8 to 1024; auto: that of the photos, 16 to 96.",
    )
    validation_fraction: float = Field(0.1, gt=0.0, le=0.5, description="Share of photos that choose the best epoch.")
    test_fraction: float = Field(0.1, gt=0.0, le=0.5, description="Share of photos that the gates judge with.")
    max_side: int = Field(1024, ge=16, le=16_384, description="Longer photos are scaled down to this side in pixels.")
    max_pixels: int = Field(
        100_000_000,
        ge=1_000,
        # Pillow refuses larger ones itself.
        le=178_956_970,
        description="Photos with more pixels are quarantined, not decoded (decompression bombs).",
    )
    max_quarantined: float = Field(0.1, ge=0.0, le=1.0, description="Largest share of unreadable photos accepted.")

    @field_validator("image_size")
    @classmethod
    def _image_size_in_range(cls, value: str | int) -> str | int:
        if isinstance(value, int) and not 8 <= value <= 1024:
            raise ValueError("must be auto or a number of pixels from 8 to 1024")
        return value

    def ingest(self) -> IngestSettings:
        """Returns the part that ImageExampleGen needs."""
        return IngestSettings(
            max_side=self.max_side,
            max_pixels=self.max_pixels,
            validation_fraction=self.validation_fraction,
            test_fraction=self.test_fraction,
            max_quarantined=self.max_quarantined,
        )


class GateSettings(Settings):
    """What a release must reach on the test split to be pushed; a drop counts only beyond its confidence interval."""

    min_accuracy: float = Field(0.2, ge=0.0, le=1.0, description="Lowest test accuracy of every shipped artifact.")
    min_kappa: float = Field(
        0.1,
        ge=-1.0,
        le=1.0,
        description="Lowest Cohen's kappa of every shipped artifact: 1 is all right, 0 guessing, such as the most "
        "frequent class for every photo.",
    )
    max_drop: float = Field(
        0.02, ge=0.0, le=1.0, description="Largest loss of test accuracy against the float model it was made from."
    )
    max_class_drop: float = Field(
        0.1, ge=0.0, le=1.0, description="Largest loss of one class's accuracy, in either comparison."
    )
    max_regression: float = Field(
        0.02, ge=0.0, le=1.0, description="Largest loss of test accuracy against the release before."
    )
    min_agreement: float = Field(
        0.9, ge=0.0, le=1.0, description="Smallest share of test photos answered as the float model answers them."
    )
    min_examples_per_slice: int = Field(
        10, ge=1, description="Test photos that a class must have for gate.max_class_drop to judge it."
    )


class PushSettings(Settings):
    """Where blessed models go: directories, or URIs of TensorFlow's filesystem layer such as gs://bucket/models."""

    saved_model_dir: str | None = Field(
        None, description="Base directory for TensorFlow Serving; unset: OUTPUT/pushed/saved_model."
    )
    tflite_dir: str | None = Field(None, description="Base directory for .tflite; unset: OUTPUT/pushed/tflite.")
    keep_versions: int | None = Field(
        None, ge=1, description="Newest versions that a push leaves in each directory; unset: all."
    )


class ServingSettings(Settings, ServerOptions):
    """How `trimline serve` listens and answers."""


class BeamSettings(Settings):
    """How Apache Beam runs the data components and the gates."""

    runner: Literal["DirectRunner", "FlinkRunner", "SparkRunner", "DataflowRunner", "DaskRunner"] = Field(
        "DirectRunner", description="Beam runner; DirectRunner is this machine."
    )
    workers: int = Field(
        1, ge=1, le=4096, description="Processes of the DirectRunner; Flink's parallelism; at most so many on Dataflow."
    )
    options: tuple[str, ...] = Field(
        (), description="Further flags for Beam, such as --flink_master=HOST:PORT; see docs/reliability.md."
    )


class PipelineSettings(Settings):
    """The whole tree."""

    seed: int | None = Field(
        None,
        ge=0,
        lt=2**31,
        description="Makes the training repeatable, at some cost in speed: to the bit with acceleration.mode=manual, "
        "because auto chooses by timing.",
    )
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    trainer: TrainerSettings = TrainerSettings()
    acceleration: AccelerationSettings = AccelerationSettings()
    compression: CompressionSettings = CompressionSettings()
    gate: GateSettings = GateSettings()
    push: PushSettings = PushSettings()
    serving: ServingSettings = ServingSettings()
    beam: BeamSettings = BeamSettings()
    kubeflow: KubeflowSettings = KubeflowSettings()

    def training(self) -> TrainingSettings:
        """Returns the part that the Trainer needs; `data.image_size` must be a number by then."""
        return TrainingSettings(
            image_size=self.data.image_size,
            seed=self.seed,
            model=self.model,
            trainer=self.trainer,
            acceleration=self.acceleration,
        )


def load_settings(file: Path | None = None, assignments: tuple[str, ...] = ()) -> PipelineSettings:
    """Reads the settings: defaults, then the file, then the assignments.

    Args:
        file: YAML file with any part of the tree.
        assignments: "a.b=value", the value in YAML syntax; later ones win.

    Returns:
        The validated tree.

    Raises:
        UserError: Naming the file or key that is wrong, why, and what is valid.
    """
    tree = _read_yaml(file) if file else {}
    for assignment in assignments:
        _assign(tree, assignment)
    try:
        return PipelineSettings.model_validate(tree)
    except ValidationError as error:
        raise UserError(_explain(error.errors()[0], str(file) if file else None)) from None


def auto_image_size(side: int) -> int:
    """Returns the input size for photos whose typical shorter side is `side` pixels."""
    smallest, largest = _AUTO_IMAGE_SIZES
    rounded = -(-side // _IMAGE_SIZE_STEP) * _IMAGE_SIZE_STEP
    return min(max(rounded, smallest), largest)


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        tree = read_yaml(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}; check the path given to --config") from None
    except AmbiguousYAMLError as error:
        raise UserError(f"{file}: line {error.line}: {error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        first_line = " ".join(str(error).split())
        raise UserError(f"{file}: is not valid YAML: {first_line}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"{file}: must hold settings such as 'trainer:', not a {type(tree).__name__}")
    return tree


def _assign(tree: dict[str, Any], assignment: str) -> None:
    key, equals, text = assignment.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {assignment}: must look like KEY=VALUE, for example trainer.epochs=10")
    try:
        value = read_yaml(text)
    except AmbiguousYAMLError as error:
        raise UserError(f"--set {assignment}: {error}") from None
    except yaml.YAMLError:
        raise UserError(f"--set {assignment}: the value is not valid YAML; quote it") from None
    *parents, name = key.strip().split(".")
    node = tree
    for parent in parents:
        group = node.get(parent, {})
        if not isinstance(group, dict):
            raise UserError(f"--set {assignment}: {parent} is a value, not a group of settings")
        # A copy, because an anchor of the file puts the same group in several places.
        node[parent] = dict(group)
        node = node[parent]
    node[name] = value


def _explain(error: ErrorDetails, file: str | None) -> str:
    location = [str(part) for part in error["loc"]]
    key = ".".join(_known_path(location))
    where = f" (in {file} or a --set option)" if file else ""
    if error["type"] == "extra_forbidden":
        known = ", ".join(_group_at(location[:-1]).model_fields)
        return f"unknown setting {'.'.join(location)}{where}; known here: {known}"
    description = _describe(_known_path(location))
    reason = error["msg"].removeprefix("Value error, ")
    # Who writes a secret's value instead of its name must not find it in the log.
    value = "(not shown)" if key.startswith("kubeflow.secrets") else repr(error["input"])
    return f"setting {key} = {value}{where}: {reason}.{description}"


def _known_path(location: list[str]) -> list[str]:
    """Cuts off what pydantic appends for union members and list items."""
    path: list[str] = []
    group: type[Settings] | None = PipelineSettings
    for part in location:
        if group is None or part not in group.model_fields:
            break
        path.append(part)
        annotation = group.model_fields[part].annotation
        group = annotation if isinstance(annotation, type) and issubclass(annotation, Settings) else None
    return path


def _group_at(location: list[str]) -> type[Settings]:
    group: type[Settings] = PipelineSettings
    for part in location:
        annotation = group.model_fields[part].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, Settings)):
            break
        group = annotation
    return group


def _describe(path: list[str]) -> str:
    if not path:
        return ""
    field = _group_at(path[:-1]).model_fields[path[-1]]
    valid = f" Valid: {field_range(field)}." if field_range(field) else ""
    return f"{valid} {path[-1]}: {field.description}" if field.description else valid


def field_range(field: FieldInfo) -> str:
    """Says what the numeric bounds of a field allow, for example "1 to 10000" or "0 to below 1"."""
    kinds = ("ge", "gt", "le", "lt")
    bounds = {kind: getattr(item, kind) for item in field.metadata for kind in kinds if hasattr(item, kind)}
    low = f"above {bounds['gt']:.16g}" if "gt" in bounds else f"{bounds['ge']:.16g}" if "ge" in bounds else ""
    high = f"below {bounds['lt']:.16g}" if "lt" in bounds else f"{bounds['le']:.16g}" if "le" in bounds else ""
    if low and high:
        return f"{low} to {high}"
    return f"at least {low}" if "ge" in bounds else low or high
