"""What a model file would run on being loaded: Keras rebuilds functions from bytecode and imports what is named."""

from __future__ import annotations

import builtins
import json
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer_module.errors import UserError
from trainer_module.export import ARCHITECTURE_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator

_KERAS_METADATA = "keras_metadata.pb"
_KERAS_CONFIG = "config.json"
_LAMBDAS = ("Lambda", "__lambda__")
# Of the modules that Keras' own files name, those of what describes layers. Others have functions that fetch and write.
_KNOWN_MODULES = re.compile(
    r"(tf_)?keras(\.src)?(\.(activations|constraints|dtype_policies|engine|initializers|layers|losses|metrics"
    r"|mixed_precision|models|ops|optimizers|quantizers|regularizers)(\.\w+)*)?"
)
# Layers that are any function of TensorFlow's, by its name, such as io.write_file; and what computes and no more.
_SYMBOL_LAYERS = ("ClassMethod", "InstanceMethod", "SlicingOpLambda", "TFOpLambda", "TensorFlowOpLayer")
_PLAIN_FUNCTIONS = (
    "abs add argmax argmin broadcast_to cast clip_by_value concat convert_to_tensor exp expand_dims gather identity "
    "matmul maximum minimum multiply negative norm one_hot ones_like pad pow reshape reverse round shape sigmoid sign "
    "slice split sqrt square squeeze stack stop_gradient strided_slice subtract tanh tensordot tile transpose unstack "
    "where zeros_like reduce_max reduce_mean reduce_min reduce_prod reduce_sum"
)
_CALCULATIONS = re.compile(
    rf"(compat\.v1\.)?((__operators__|image|keras\.backend|linalg|math|nn)\.\w+|{'|'.join(_PLAIN_FUNCTIONS.split())})"
)
ALLOWING = "if you trust whoever made the file, say --allow-code"
# By name, because importing trainer_module.view_averaging for a check of a file would take TensorFlow's time.
_OWN_LAYERS = tuple(
    f"trainer_module.view_averaging.{layer}" for layer in ("AverageOfViews", "WithMirrored", "WithShifted")
)


def require_no_code(path: Path, remedy: str = ALLOWING) -> None:
    """Refuses a model that would run code of its own when it is loaded.

    Keras' own safe mode does not do: it covers .keras files alone, and neither the functions of its wrapper layers nor
    the modules that a file makes it import.

    Args:
        path: A .keras or .h5 file, a SavedModel of Keras', or one that trimline run has pushed.
        remedy: What the message tells the user to do about code.

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
        raise UserError(f"{path}: holds code that would run on loading it: {found}; {remedy}")


def _descriptions(path: Path) -> Iterator[Any]:
    """Yields what describes the layers, as JSON values."""
    if path.is_dir():
        if (path / ARCHITECTURE_FILE).exists():
            yield json.loads((path / ARCHITECTURE_FILE).read_text(encoding="utf-8"))
        if (path / _KERAS_METADATA).exists():
            yield from _saved_model_descriptions((path / _KERAS_METADATA).read_bytes())
        if (path / _KERAS_CONFIG).exists():
            yield _without_training((path / _KERAS_CONFIG).read_bytes())
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield _without_training(archive.read(_KERAS_CONFIG))
    else:
        yield from _h5_descriptions(path)


def _without_training(content: bytes) -> Any:
    """Leaves out the loss and the metrics, often functions of the user's own: nothing here compiles a model."""
    described = json.loads(content)
    return {key: value for key, value in described.items() if key != "compile_config"}


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
    if isinstance(node, dict):
        yield from _code_of(node)
        for value in node.values():
            yield from _code_in(value)


def _code_of(node: dict[str, Any]) -> Iterator[str]:
    """Yields what is code in an object itself."""
    name, module = node.get("class_name"), str(node.get("module") or "")
    if name in _LAMBDAS:
        yield "a Lambda layer or function"
    elif any(key.endswith("function_type") and value == "lambda" for key, value in node.items()):
        yield "a layer with a function of its own"
    elif name in _SYMBOL_LAYERS and not _calculates(node):
        yield f"an operation of TensorFlow's that may do anything ({name} {_symbol(node)})"
    elif name is not None and module.partition(".")[0] == "builtins":
        function = str(node.get("config"))
        if name != "function" or hasattr(builtins, function) or not function.isidentifier():
            yield f"builtins.{function}"
    elif name is not None and module and not _is_known(module, name):
        yield f"{module}.{name}"


def _calculates(node: dict[str, Any]) -> bool:
    return bool(_CALCULATIONS.fullmatch(str(_symbol(node))))


def _symbol(node: dict[str, Any]) -> Any:
    config = node.get("config")
    return config.get("function") if isinstance(config, dict) else None


def _is_known(module: str, name: Any) -> bool:
    # A name with a dot is that of something in another module, which the named one happens to import.
    inside = str(name).isidentifier() and _KNOWN_MODULES.fullmatch(module)
    return bool(inside) or f"{module}.{name}" in _OWN_LAYERS
