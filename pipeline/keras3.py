"""Models that Keras 3 has written: read as data, rebuilt for tf_keras, and both compared."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.answers import require_probabilities
from trainer_module.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import tf_keras

# Of probabilities. Both compute in float32, in another order.
TOLERANCE = 1e-4
# Where all images have much the same answer, errors make less of a difference. So no more than this share of what the
# images' answers differ by, but as much as rounding makes.
_SHARE, _ROUNDING = 0.01, 1e-6
_WEIGHTS_FILE = "model.weights.h5"
_DATA_KINDS = ("__keras_tensor__", "__numpy__", "__tensor__", "__slice__", "__ellipsis__")
_FLOATS = ("bfloat16", "float16", "float32", "float64")
_IMAGES_OF_A_KIND = 4
# Of a batch: what the inner layers make of the images takes many times their memory.
_PIXELS_AT_ONCE = 2**18


@dataclasses.dataclass(frozen=True)
class Keras3Model:
    """A model of Keras 3's, in float32.

    Attributes:
        path: Where it is from.
        description: Its layers, as `keras3_layers.rebuild` takes them.
        model: The model itself.
    """

    path: Path
    description: dict[str, Any]
    model: Any

    def rebuilt(self) -> tf_keras.Model:
        """Returns a model of tf_keras' that answers the same.

        Raises:
            UserError: It has a layer that cannot be rebuilt, its answers are no probabilities, or those of both differ
                by more than `TOLERANCE`, if not by less, on some image.
        """
        from pipeline.keras3_layers import rebuild

        images = _images(self.model.input_shape[1])
        wanted = _answers(self.model, images)
        require_probabilities(wanted, self.path)
        model = rebuild(self.description, dict(_weights(self.model)), images.shape[1:], self.path)
        difference = np.abs(_answers(model, images) - wanted).max()
        tolerance = min(TOLERANCE, max(_ROUNDING, _SHARE * np.ptp(wanted, axis=0).max()))
        # So that NaN, which compares as false, is a difference too.
        if not difference <= tolerance:
            raise UserError(
                f"{self.path}: rebuilt for compression, its answers differ by {difference:.1e} from those in Keras 3, "
                f"more than {tolerance:.0e}; build the model with tf_keras"
            )
        return model


def wrote(path: Path) -> bool:
    """Tells whether Keras 3, or one after it, wrote a model's file or directory."""
    try:
        return int(_contents(path)[1].partition(".")[0]) >= 3
    # Each format has a reader of its own, which raises whatever it does.
    except Exception:
        return False


def read(path: Path) -> Keras3Model:
    """Reads a model without running anything that its file names: its layers are looked up by their names.

    Args:
        path: A .keras or .h5 file, or a .keras directory.

    Raises:
        UserError: It has a layer that cannot be rebuilt, or Keras 3 cannot load it.
    """
    # Which backend computes the answers does not matter, but only this one is installed.
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    import keras
    import tensorflow as tf

    try:
        description = _with_single_ends(_Cleaning(path).model(_contents(path)[0]))
        # Where the answers are computed: GPUs have less exact products.
        with tf.device("CPU:0"):
            # A copy, because Keras takes apart what it is given.
            model = keras.saving.deserialize_keras_object(copy.deepcopy(description), safe_mode=True)
            _require_input(model, path)
            model.load_weights(path / _WEIGHTS_FILE if path.is_dir() else path)
    except UserError:
        raise
    # Keras raises whatever its readers do.
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(f"{path}: Keras cannot load it: {reason}; save the whole model again") from None
    return Keras3Model(path, description, model)


def _require_input(model: Any, path: Path) -> None:
    if not model.built:
        raise UserError(
            f"{path}: does not say which images it takes; begin the model with Input([S, S, 3]), and save it again"
        )


def _contents(path: Path) -> tuple[dict[str, Any], str]:
    """Returns the description of a model, and the version of Keras that wrote it."""
    if path.is_dir() or zipfile.is_zipfile(path):
        described, metadata = (json.loads(_text(path, name)) for name in ("config.json", "metadata.json"))
        return described, metadata["keras_version"]
    import h5py

    with h5py.File(path) as file:
        version = file.attrs["keras_version"]
        return json.loads(file.attrs["model_config"]), version.decode() if isinstance(version, bytes) else version


def _text(path: Path, name: str) -> str | bytes:
    if path.is_dir():
        return (path / name).read_bytes()
    with zipfile.ZipFile(path) as archive:
        return archive.read(name)


class _Cleaning:
    """Takes from a description what the answers depend on, in float32; the rest, such as initializers, stays out.

    Of code only names are left, and those are known ones.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def model(self, described: dict[str, Any]) -> dict[str, Any]:
        from pipeline.keras3_layers import MODELS

        kind = described.get("class_name")
        if kind not in MODELS:
            raise UserError(
                f"{self._path}: is a model of the class {kind!r}, whose layers its file does not describe; give a "
                "functional or sequential one"
            )
        kept = ("name", "input_layers", "output_layers", "build_input_shape")
        config = {key: described["config"][key] for key in kept if key in described["config"]}
        config["layers"] = [self._layer(layer) for layer in described["config"]["layers"]]
        if kind == "Sequential" and not config.get("build_input_shape"):
            config["build_input_shape"] = _input_shape(config)
        return {"module": MODELS[kind], "class_name": kind, "config": config, "registered_name": None}

    def _layer(self, described: dict[str, Any]) -> dict[str, Any]:
        from pipeline.keras3_layers import MODELS

        own = {"name": described["config"]["name"]}
        if "inbound_nodes" in described:
            own["inbound_nodes"] = [self._node(node) for node in described["inbound_nodes"]]
        if described["class_name"] in MODELS:
            return self.model(described) | own
        return self._known(described) | own

    def _known(self, described: dict[str, Any]) -> dict[str, Any]:
        from pipeline.keras3_layers import LAYERS, OPERATIONS

        kind, config = described["class_name"], described["config"]
        # HDF5 files name no modules, and only layers have a data type.
        is_operation = ".ops" in str(described["module"]) if "module" in described else "trainable" not in config
        is_operation = is_operation and kind != "InputLayer"
        if kind not in (OPERATIONS if is_operation else LAYERS) or described.get("registered_name") not in (None, kind):
            raise self._unknown(config.get("name"), kind)
        module = OPERATIONS[kind] if is_operation else "keras.layers"
        cleaned = {key: self._value(key, value, config) for key, value in config.items() if _is_kept(key, value)}
        if kind == "InputLayer":
            cleaned["batch_shape"] = [None, *config["batch_shape"][1:]]
        return {"module": module, "class_name": kind, "config": cleaned, "registered_name": None}

    def _value(self, key: str, value: Any, config: dict[str, Any]) -> Any:
        if key == "dtype":
            return self._float32(value, config["name"])
        if key != "activation" or not isinstance(value, dict):
            return value
        if value["class_name"] == "function":
            return str(value["config"])
        return self._known(value)

    def _float32(self, policy: Any, name: str) -> str:
        if isinstance(policy, dict):
            policy = policy["config"].get("name", policy["class_name"])
        if str(policy).removeprefix("mixed_") not in (*_FLOATS, "uint8"):
            raise UserError(
                f"{self._path}: its layer {name!r} computes in {policy}; give the model in floating point, as trained"
            )
        return "float32"

    def _node(self, node: Any) -> Any:
        """Lets data pass alone."""
        if isinstance(node, list):
            return [self._node(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "class_name" in node and node["class_name"] not in _DATA_KINDS:
            raise self._unknown("?", node["class_name"])
        return {key: self._node(value) for key, value in node.items()}

    def _unknown(self, name: Any, kind: Any) -> UserError:
        return UserError(
            f"{self._path}: its layer {name!r} ({kind} of Keras 3) cannot be rebuilt for compression; replace it by "
            "layers that docs/compression.md names, or build the model with tf_keras"
        )


def _with_single_ends(description: dict[str, Any]) -> dict[str, Any]:
    """Takes an only input or output out of the list or dictionary that holds it."""
    from trainer_module.folding import references

    ends = {key: list(references(description["config"].get(key))) for key in ("input_layers", "output_layers")}
    single = {key: end[0] for key, end in ends.items() if len(end) == 1}
    return description | {"config": description["config"] | single}


def _input_shape(config: dict[str, Any]) -> list[int | None] | None:
    """Returns the shape that the first layer of a sequential model takes, if that is known."""
    first = config["layers"][0]["config"] if config["layers"] else {}
    return _input_shape(first) if "layers" in first else first.get("batch_shape")


def _is_kept(key: str, value: Any) -> bool:
    return key in ("activation", "dtype") or not isinstance(value, dict) or value.get("class_name") in _DATA_KINDS


def _weights(model: Any, scope: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], list[np.ndarray]]]:
    """Yields the weights of each layer, with its name and those of the models around it."""
    for layer in model.layers:
        route = (*scope, layer.name)
        if hasattr(layer, "layers"):
            yield from _weights(layer, route)
        else:
            yield route, layer.get_weights()


def _images(size: int) -> np.ndarray:
    """Makes uint8 images [N, S, S, 3] of several kinds: noise, coloured tiles, plain grey."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (_IMAGES_OF_A_KIND, size, size, 3))
    side = -(-size // 4)
    tiles = (
        rng.integers(0, 256, (_IMAGES_OF_A_KIND, 4, 4, 3)).repeat(side, axis=1).repeat(side, axis=2)[:, :size, :size]
    )
    grey = np.linspace(0, 255, _IMAGES_OF_A_KIND)[:, None, None, None] + np.zeros((size, size, 3))
    return np.concatenate([noise, tiles, grey]).astype(np.uint8)


def _answers(model: Any, images: np.ndarray) -> np.ndarray:
    """Computes the answers [N, C] of a model of either Keras, on the CPU."""
    import tensorflow as tf

    step = max(1, _PIXELS_AT_ONCE // images[0, ..., 0].size)
    with tf.device("CPU:0"):
        batches = [images[start : start + step].astype(np.float32) for start in range(0, len(images), step)]
        return np.concatenate([np.asarray(model(batch, training=False)) for batch in batches])
