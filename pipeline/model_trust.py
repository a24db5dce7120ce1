"""What a model file would run on being loaded: Keras rebuilds functions from bytecode and imports what is named."""

from __future__ import annotations

import builtins
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer_module.errors import UserError
from trainer_module.export import ARCHITECTURE_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator

_KERAS_METADATA = "keras_metadata.pb"
_LAMBDAS = ("Lambda", "__lambda__")
_KNOWN_PACKAGES = ("keras", "tf_keras")
# By name, because importing trainer_module.view_averaging for a check of a file would take TensorFlow's time.
_OWN_LAYERS = tuple(
    f"trainer_module.view_averaging.{layer}" for layer in ("AverageOfViews", "WithMirrored", "WithShifted")
)


def require_no_code(path: Path) -> None:
    """Refuses a model that would run code of its own when it is loaded.

    Keras' own safe mode does not do: it covers .keras files alone, and neither the functions of its wrapper layers nor
    the modules that a file makes it import.

    Args:
        path: A .keras or .h5 file, a SavedModel of Keras', or one that trimline run has pushed.

    Raises:
        UserError: It holds code, names modules other than Keras', or what it is built of cannot be read.
    """
    try:
        found = next((code for description in _descriptions(path) for code in _code_in(description)), None)
    # Each format has a reader of its own, which raises whatever it does.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: Keras cannot load it: {reason}; give a .keras or .h5 file") from None
    if found:
        raise UserError(
            f"{path}: holds code that would run on loading it: {found}; if you trust whoever made the file, say "
            "--allow-code"
        )


def _descriptions(path: Path) -> Iterator[Any]:
    """Yields what describes the layers, as JSON values."""
    if path.is_dir():
        if (path / ARCHITECTURE_FILE).exists():
            yield json.loads((path / ARCHITECTURE_FILE).read_text(encoding="utf-8"))
        if (path / _KERAS_METADATA).exists():
            yield from _saved_model_descriptions((path / _KERAS_METADATA).read_bytes())
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield json.loads(archive.read("config.json"))
    else:
        yield from _h5_descriptions(path)


def _saved_model_descriptions(content: bytes) -> Iterator[Any]:
    from tf_keras.protobuf import saved_metadata_pb2

    for node in saved_metadata_pb2.SavedMetadata.FromString(content).nodes:
        yield json.loads(node.metadata)


def _h5_descriptions(path: Path) -> Iterator[Any]:
    import h5py

    with h5py.File(path) as file:
        for name in ("model_config", "training_config"):
            if name in file.attrs:
                yield json.loads(file.attrs[name])


def _code_in(node: Any) -> Iterator[str]:
    """Yields what is code in a JSON value."""
    if isinstance(node, list):
        for item in node:
            yield from _code_in(item)
    if not isinstance(node, dict):
        return
    name, module = node.get("class_name"), str(node.get("module") or "")
    if name in _LAMBDAS:
        yield "a Lambda layer or function"
    elif any(key.endswith("function_type") and value == "lambda" for key, value in node.items()):
        yield "a layer with a function of its own"
    elif name is not None and module.partition(".")[0] == "builtins":
        if name != "function" or hasattr(builtins, str(node.get("config"))):
            yield f"builtins.{node.get('config')}"
    elif name is not None and module and not _is_known(module, name):
        yield f"{module}.{name}"
    for value in node.values():
        yield from _code_in(value)


def _is_known(module: str, name: str) -> bool:
    return module.partition(".")[0] in _KNOWN_PACKAGES or f"{module}.{name}" in _OWN_LAYERS
