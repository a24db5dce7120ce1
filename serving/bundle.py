"""The pushed edge bundle: finding it, reading it, and proving that it is whole."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from serving.errors import ServingError

MODEL_FILE = "model.tflite"
LABELS_FILE = "labels.txt"
MANIFEST_FILE = "model.json"
PUSHED_FOLDER = Path("pushed") / "tflite"


class TensorSpec(BaseModel):
    """What model.json says of a tensor of the interpreter.

    Attributes:
        name: Name of the interpreter's tensor.
        shape: Shape, with a batch of one.
        dtype: Element type.
        scale: Real value of one quantisation step; None for float32.
        zero_point: Quantised value of the real value 0; None for float32.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    shape: tuple[int, ...]
    dtype: Literal["float32", "uint8", "int8"]
    scale: float | None = None
    zero_point: int | None = None

    @model_validator(mode="after")
    def _check_quantization(self) -> Self:
        quantized = self.dtype != "float32"
        if (self.scale is not None) != quantized or (self.zero_point is not None) != quantized:
            raise ValueError("scale and zero_point belong to quantised tensors, and to all of them")
        return self


class InputSpec(TensorSpec):
    """The image tensor: RGB pixels of shape [1, image_size, image_size, 3]."""

    image_size: int

    @model_validator(mode="after")
    def _check_shape(self) -> Self:
        expected = (1, self.image_size, self.image_size, 3)
        if self.shape != expected:
            raise ValueError(
                f"shape {list(self.shape)} does not agree with image_size, which asks for {list(expected)}"
            )
        return self


class Manifest(BaseModel):
    """The content of model.json.

    Attributes:
        format_version: Version of the bundle's format.
        name: Name of the variant that was shipped, such as "int8".
        sha256: Hex digest of each of the other files of the bundle.
        labels: Class names; the position is the index of the class in the output.
        input: The image tensor.
        output: The probabilities tensor, of shape [1, number of labels].
        metrics: What was measured of the variant before it was pushed.
        lineage: ids of the artifacts it was made from, in the pipeline's metadata store.
    """

    model_config = ConfigDict(frozen=True)

    format_version: Literal[1]
    name: str
    sha256: dict[str, str]
    labels: tuple[str, ...]
    input: InputSpec
    output: TensorSpec
    metrics: dict[str, Any]
    lineage: dict[str, Any]

    @model_validator(mode="after")
    def _check_output(self) -> Self:
        if self.output.shape != (1, len(self.labels)):
            raise ValueError(f"{len(self.labels)} labels, but the output has shape {list(self.output.shape)}")
        return self


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files were read once and found to agree with each other.

    Attributes:
        directory: Where it was read from; for messages only.
        manifest: The content of model.json.
        model: The bytes of model.tflite, the very ones whose digest was checked.
    """

    directory: Path
    manifest: Manifest
    model: bytes

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in the order of the output."""
        return self.manifest.labels

    @property
    def image_size(self) -> int:
        """Height and width of the model's input, in pixels."""
        return self.manifest.input.image_size


def load_bundle(directory: Path) -> Bundle:
    """Reads a bundle and checks it.

    Args:
        directory: Holds model.tflite, labels.txt and model.json.

    Returns:
        The bundle.

    Raises:
        ServingError: A file is missing or unreadable, model.json breaks the format, a digest differs, or the labels do.
    """
    manifest = _read_manifest(directory / MANIFEST_FILE)
    model = _read_verified(directory / MODEL_FILE, manifest)
    labels = _read_verified(directory / LABELS_FILE, manifest)
    _check_labels(directory / LABELS_FILE, labels, manifest)
    return Bundle(directory=directory, manifest=manifest, model=model)


def complete_versions(base: Path) -> dict[int, Path]:
    """Lists the versions that can be served.

    Args:
        base: A directory whose sub-directories are versions, named by digits only. Others are ignored, and so is a
            version without model.json, which the pusher has not finished.

    Returns:
        The directory of each version, the newest version first.

    Raises:
        ServingError: The directory is missing or cannot be read.
    """
    if not base.is_dir():
        raise ServingError(f"{base}: no such folder: name the output folder of a run, or a pushed model")
    try:
        found = {
            int(entry.name): entry
            for entry in base.iterdir()
            if entry.name.isascii() and entry.name.isdigit() and (entry / MANIFEST_FILE).is_file()
        }
    except OSError as error:
        raise ServingError(f"{base}: cannot be read: {error.strerror}") from error
    return dict(sorted(found.items(), reverse=True))


def latest_version(base: Path) -> Path:
    """Picks the newest complete version.

    Args:
        base: As for `complete_versions`.

    Returns:
        The directory of the highest version.

    Raises:
        ServingError: There is none.
    """
    versions = complete_versions(base)
    if not versions:
        raise ServingError(
            f"{base}: no pushed model in it: run the pipeline until it ends blessed, or name another folder"
        )
    return next(iter(versions.values()))


def is_bundle(directory: Path) -> bool:
    """Tells a bundle, or what is left of one, from a folder of versions or of a run."""
    return any((directory / name).is_file() for name in (MODEL_FILE, LABELS_FILE, MANIFEST_FILE))


def find_base(out: Path) -> Path:
    """Finds the folder of versions that a user means.

    Args:
        out: The output folder of a run, or its `pushed/tflite` folder.

    Returns:
        The folder whose sub-directories are versions.
    """
    pushed = out / PUSHED_FOLDER
    return pushed if pushed.is_dir() else out


def find_bundle(out: Path) -> Path:
    """Finds the bundle that a user means.

    Args:
        out: The output folder of a run, its `pushed/tflite` folder, or a bundle itself.

    Returns:
        The directory of the bundle; the latest version where there are several.

    Raises:
        ServingError: There is no bundle.
    """
    return out if is_bundle(out) else latest_version(find_base(out))


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ServingError(f"{path}: missing: the bundle is incomplete, push it again") from None
    except OSError as error:
        raise ServingError(f"{path}: cannot be read: {error.strerror}") from error


def _read_manifest(path: Path) -> Manifest:
    try:
        return Manifest.model_validate(json.loads(_read_bytes(path)))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = f"{where}: {first['msg']}" if where else first["msg"]
        raise ServingError(f"{path}: not a model description of format 1: {reason}; push the model again") from error
    except ValueError as error:
        raise ServingError(f"{path}: not JSON: {error}; push the model again") from error


def _read_verified(path: Path, manifest: Manifest) -> bytes:
    content = _read_bytes(path)
    if hashlib.sha256(content).hexdigest() != manifest.sha256.get(path.name):
        raise ServingError(f"{path}: its sha256 is not the one in {MANIFEST_FILE}: the file was changed, push it again")
    return content


def _check_labels(path: Path, content: bytes, manifest: Manifest) -> None:
    try:
        labels = tuple(content.decode().removesuffix("\n").split("\n"))
    except UnicodeDecodeError as error:
        raise ServingError(f"{path}: not UTF-8: {error.reason} at byte {error.start}; push the model again") from error
    if labels != manifest.labels:
        raise ServingError(
            f"{path}: its labels or their order differ from those in {MANIFEST_FILE}; push the model again"
        )
