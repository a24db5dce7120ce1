"""A network that Keras 3 describes, rebuilt of tf_keras' layers: one graph in float32, without models in models."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import tf_keras as keras

from trainer_module.errors import UserError
from trainer_module.folding import references

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MERGES = frozenset({"Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Subtract"})
# Of the same name and parameters in both, as far as the answer depends on them.
_ALIKE = _MERGES | _words(
    "AveragePooling2D BatchNormalization Conv2D Conv2DTranspose Cropping2D Dense DepthwiseConv2D Dropout ELU Flatten "
    "GlobalAveragePooling2D GlobalMaxPooling2D GroupNormalization LayerNormalization MaxPooling2D PReLU Permute ReLU "
    "Reshape Resizing Softmax SpatialDropout2D UnitNormalization UpSampling2D ZeroPadding2D"
)
_CHANGED = frozenset({"Activation", "InputLayer", "LeakyReLU", "Normalization", "Rescaling", "SeparableConv2D"})
# They change nothing but in training.
_IDENTITIES = _words(
    "ActivityRegularization AlphaDropout AugMix CutMix GaussianDropout GaussianNoise Identity MixUp RandAugment "
    "RandomBrightness RandomColorDegeneration RandomColorJitter RandomContrast RandomElasticTransform RandomErasing "
    "RandomFlip RandomGaussianBlur RandomGrayscale RandomHue RandomInvert RandomPerspective RandomPosterization "
    "RandomRotation RandomSaturation RandomSharpness RandomShear RandomTranslation RandomZoom"
)
LAYERS = _ALIKE | _CHANGED | _IDENTITIES
MODELS = {"Functional": "keras.src.models.functional", "Sequential": "keras"}
_OPERATION_ACTIVATIONS = {
    "HardSigmoid": "hard_sigmoid",
    "HardSilu": "hard_silu",
    "Relu": "relu",
    "Relu6": "relu6",
    "Sigmoid": "sigmoid",
    "Silu": "silu",
    "Tanh": "tanh",
}
_ARITHMETIC = ("Add", "Divide", "Maximum", "Minimum", "Multiply", "Negative", "Subtract", "TrueDivide")
# Keras 3 makes these of arithmetic and of keras.ops; each with the module that it names.
OPERATIONS = {
    **dict.fromkeys((*_ARITHMETIC, "Concatenate", "GetItem", "Stack", "Tanh"), "keras.src.ops.numpy"),
    **dict.fromkeys((*_OPERATION_ACTIVATIONS.keys() - {"Tanh"}, "Softmax"), "keras.src.ops.nn"),
    "Cast": "keras.src.ops.core",
}
# The functions that tf_keras has too. Its hard_sigmoid is another one.
_ACTIVATIONS = {
    name: name
    for name in _words("elu exponential gelu linear mish relu relu6 selu sigmoid softmax softplus softsign tanh")
} | {"silu": "swish", "swish": "swish"}
_SMALLEST_DEVIATION = 1e-7
_LEAKY_SLOPE = 0.2

Route = tuple[str, ...]


@dataclasses.dataclass(eq=False)
class _Scaled:
    """A tensor of tf_keras, and what it is to be multiplied with and then increased by: one number, or one a channel.

    Kept apart, so that several steps of arithmetic become one layer, made where something else needs the result.
    """

    tensor: Any
    scale: Any = 1.0
    offset: Any = 0.0
    route: Route = ()
    made: Any = None

    def then(self, scale: Any, offset: Any, route: Route) -> _Scaled:
        scale, offset = (_constant(value, self.tensor.shape[-1]) for value in (scale, offset))
        return _Scaled(self.tensor, self.scale * scale, self.offset * scale + offset, route)


@dataclasses.dataclass(frozen=True)
class _Channel:
    source: _Scaled
    index: int


def rebuild(
    description: Mapping[str, Any],
    weights: Mapping[Route, list[np.ndarray]],
    shape: Sequence[int],
    path: Path,
) -> keras.Model:
    """Builds the network.

    Args:
        description: The model, as `get_config` describes layers: with `class_name` and `config`, and `module`, which
            tells operations from layers. Of layers, models and operations that this module knows.
        weights: Those of each layer, by its name and the names of the models around it.
        shape: Of an image.
        path: Of the model, for messages.

    Returns:
        A functional model, without what only changes its training, such as noise; dropout stays. All layers are
        trainable, but those that take channels out of others.

    Raises:
        UserError: Names a layer that cannot be rebuilt.
    """
    return _Rebuilding(weights, path).model(description, shape)


class _Rebuilding:
    def __init__(self, weights: Mapping[Route, list[np.ndarray]], path: Path) -> None:
        self._weights = weights
        self._path = path
        self._layers: dict[Route, keras.layers.Layer] = {}
        self._names: set[str] = set()

    def model(self, description: Mapping[str, Any], shape: Sequence[int]) -> keras.Model:
        image = keras.Input(shape, name=self._name(("image",)))
        (answer,) = self._run(description, [_Scaled(image)], ())
        return keras.Model(image, self._tensor(answer), name=_allowed(description["config"]["name"]))

    def _run(self, description: Mapping[str, Any], inputs: list[Any], scope: Route) -> list[Any]:
        """Applies a model to values, and returns what it makes of them."""
        config = description["config"]
        if description["class_name"] == "Functional":
            return self._run_graph(config, inputs, scope)
        values = inputs
        for layer in config["layers"]:
            if layer["class_name"] != "InputLayer":
                values = self._call(layer, scope, values)
        return values

    def _run_graph(self, config: Mapping[str, Any], inputs: list[Any], scope: Route) -> list[Any]:
        sources = references(config["input_layers"])
        done = {(source[0], source[1]): [value] for source, value in zip(sources, inputs, strict=True)}
        pending = [(layer, *each) for layer in config["layers"] for each in enumerate(layer["inbound_nodes"])]
        while pending:
            waiting = []
            for layer, number, node in pending:
                if all((name, call) in done for name, call, _ in _histories(node)):
                    arguments = [
                        *node["args"],
                        *(node["kwargs"].get(key) for key in node["kwargs"] if key not in _ASIDE),
                    ]
                    done[layer["name"], number] = self._call(layer, scope, _resolved(arguments, done))
                else:
                    waiting.append((layer, number, node))
            if len(waiting) == len(pending):
                raise UserError(f"{self._path}: the graph of its layers goes round in circles; save it anew")
            pending = waiting
        # Keras 3 counts the calls of an inner model from 1 here, and only here.
        inner = {layer["name"] for layer in config["layers"] if layer["class_name"] == "Functional"}
        return [done[name, call - (name in inner)][which] for name, call, which in references(config["output_layers"])]

    def _call(self, described: Mapping[str, Any], scope: Route, arguments: list[Any]) -> list[Any]:
        """Applies a layer, an inner model or an operation."""
        kind, route = described["class_name"], (*scope, described["config"]["name"])
        if kind in MODELS:
            return self._run(described, list(_flat(arguments)), route)
        try:
            if described["module"].startswith("keras.src.ops"):
                return [self._operate(kind, route, described["config"], arguments)]
            return [self._apply_layer(kind, route, described["config"], list(_flat(arguments)))]
        # tf_keras raises whatever its layers do.
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{self._path}: its layer {'/'.join(route)!r} ({kind} of Keras 3) cannot be rebuilt for compression: "
                f"{reason}; replace it, or build the model with tf_keras"
            ) from None

    def _apply_layer(self, kind: str, route: Route, config: dict[str, Any], values: list[Any]) -> Any:
        if config.get("data_format", "channels_last") != "channels_last":
            raise ValueError("it is channels_first")
        if kind in _MERGES:
            return self._make(route, getattr(keras.layers, kind), config, [self._tensor(value) for value in values])
        (value,) = values
        if kind in _IDENTITIES:
            return value
        if kind in _ALIKE:
            return self._apply_alike(kind, route, config, value)
        return getattr(self, _SPECIAL[kind])(route, config, value)

    def _apply_alike(self, kind: str, route: Route, config: dict[str, Any], value: _Scaled) -> _Scaled:
        config, activation = _without_unknown_activation(config)
        layer = getattr(keras.layers, kind)
        made = self._make(route, layer, config, self._tensor(value), self._weights.get(route, []))
        return made if activation is None else self._activate(activation, _part(route, "activation"), made)

    def _leaky_relu(self, route: Route, config: dict[str, Any], value: _Scaled) -> _Scaled:
        slope = {"alpha": config.get("negative_slope", _LEAKY_SLOPE)}
        return self._make(route, keras.layers.LeakyReLU, slope, self._tensor(value))

    def _normalize(self, route: Route, config: dict[str, Any], value: _Scaled) -> _Scaled:
        mean, variance = config.get("mean"), config.get("variance")
        if mean is None:
            mean, variance = self._weights[route][:2]
        if np.size(mean) > 1 and list(np.ravel(config["axis"])) not in ([-1], [len(value.tensor.shape) - 1]):
            raise ValueError(f"it normalises along axis {config['axis']}, not each channel")
        deviation = np.maximum(np.sqrt(np.asarray(variance, np.float64)), _SMALLEST_DEVIATION)
        if config.get("invert"):
            return value.then(deviation, mean, route)
        return value.then(1 / deviation, -np.asarray(mean) / deviation, route)

    def _rescale(self, route: Route, config: dict[str, Any], value: _Scaled) -> _Scaled:
        return value.then(_resolved(config["scale"], {}), _resolved(config["offset"], {}), route)

    def _separate(self, route: Route, config: dict[str, Any], value: _Scaled) -> _Scaled:
        """Makes two convolutions of a separable one, which the stages with fine-tuning do not know."""
        depthwise, pointwise, *bias = self._weights[route]
        first = {key: value for key, value in config.items() if key != "filters"}
        first |= {"use_bias": False, "activation": "linear"}
        layer = keras.layers.DepthwiseConv2D
        made = self._make(_part(route, "depthwise"), layer, first, self._tensor(value), [depthwise])
        config, activation = _without_unknown_activation(config)
        second = {key: config[key] for key in ("filters", "use_bias", "activation")} | {"kernel_size": 1}
        made = self._make(_part(route, "pointwise"), keras.layers.Conv2D, second, made.tensor, [pointwise, *bias])
        return made if activation is None else self._activate(activation, _part(route, "activation"), made)

    def _activation_layer(self, route: Route, config: dict[str, Any], value: _Scaled) -> _Scaled:
        return self._activate(config["activation"], route, value)

    def _activate(self, function: Any, route: Route, value: _Scaled) -> _Scaled:
        """Applies a function, given by its name, or by the description of a layer."""
        if isinstance(function, dict):
            return self._apply_layer(function["class_name"], route, function["config"], [value])
        if function == "linear":
            return value
        if function in _ACTIVATIONS:
            activation = {"activation": _ACTIVATIONS[function]}
            return self._make(route, keras.layers.Activation, activation, self._tensor(value))
        if function == "leaky_relu":
            return self._leaky_relu(route, {}, value)
        if function not in _HARD_ACTIVATIONS:
            raise ValueError(f"Keras 2 has no activation {function!r}")
        raised = self._tensor(value.then(1, 3, _part(route, "plus_3")))
        gate = self._make(_part(route, "relu6"), keras.layers.ReLU, {"max_value": 6}, raised)
        if function != "hard_sigmoid":
            gate = self._make(_part(route, "times"), keras.layers.Multiply, {}, [self._tensor(value), gate.tensor])
        return gate.then(1 / 6, 0, _part(route, "sixth"))

    def _operate(self, kind: str, route: Route, config: dict[str, Any], arguments: list[Any]) -> Any:
        if kind in _ARITHMETIC:
            return self._calculate(kind, route, *arguments)
        if kind in _OPERATION_ACTIVATIONS:
            return self._activate(_OPERATION_ACTIVATIONS[kind], route, arguments[0])
        if kind == "Softmax":
            return self._make(route, keras.layers.Softmax, {"axis": config["axis"]}, self._tensor(arguments[0]))
        if kind == "Concatenate":
            return self._apply_layer(kind, route, config, list(_flat(arguments)))
        if kind == "GetItem":
            return self._select(route, *arguments)
        if kind == "Stack":
            return self._stack(route, config, list(_flat(arguments)))
        # A cast, and everything is float32 here.
        return arguments[0]

    def _calculate(self, kind: str, route: Route, *operands: Any) -> _Scaled:
        constants = [operand for operand in operands if not isinstance(operand, _Scaled)]
        if kind == "Negative":
            return operands[0].then(-1, 0, route)
        if not constants and kind in _MERGES:
            tensors = [self._tensor(operand) for operand in operands]
            return self._make(route, getattr(keras.layers, kind), {}, tensors)
        one, other = operands
        if isinstance(one, _Scaled) and constants and kind in _WITH_CONSTANT:
            return one.then(*_WITH_CONSTANT[kind](np.asarray(other)), route)
        if isinstance(other, _Scaled) and kind in ("Add", "Multiply"):
            return other.then(*_WITH_CONSTANT[kind](np.asarray(one)), route)
        if isinstance(other, _Scaled) and kind == "Subtract":
            return other.then(-1, one, route)
        raise ValueError("such arithmetic has no layer")

    def _select(self, route: Route, value: _Scaled, key: Any) -> Any:
        """Takes channels: one, or several, as who turns RGB to BGR does."""
        others, channels = (key[:-1], key[-1]) if isinstance(key, list) else ([], key)
        rank = len(value.tensor.shape)
        whole = others == [Ellipsis] or (len(others) == rank - 1 and all(other == slice(None) for other in others))
        if not whole or channels is Ellipsis:
            raise ValueError("it takes a part of its input other than some channels")
        if isinstance(channels, int):
            return _Channel(value, channels)
        return self._take(route, value, np.arange(value.tensor.shape[-1])[channels].tolist())

    def _stack(self, route: Route, config: dict[str, Any], channels: list[Any]) -> _Scaled:
        source = channels[0].source if isinstance(channels[0], _Channel) else None
        if any(not isinstance(channel, _Channel) or channel.source is not source for channel in channels):
            raise ValueError("it joins what are not channels of one tensor")
        if source is None or config["axis"] not in (-1, len(source.tensor.shape) - 1):
            raise ValueError(f"it joins channels along axis {config['axis']}")
        return self._take(route, source, [channel.index for channel in channels])

    def _take(self, route: Route, value: _Scaled, channels: Sequence[int]) -> _Scaled:
        kernel = np.eye(value.tensor.shape[-1], dtype=np.float32)[:, list(channels)]
        config = {"filters": len(channels), "kernel_size": 1, "use_bias": False}
        taken = self._make(route, keras.layers.Conv2D, config, self._tensor(value), [kernel[np.newaxis, np.newaxis]])
        self._layers[route].trainable = False
        return taken

    def _make(
        self,
        route: Route,
        kind: type[keras.layers.Layer],
        config: dict[str, Any],
        inputs: Any,
        weights: Sequence[np.ndarray] = (),
    ) -> _Scaled:
        """Calls a layer, which is made at its first call."""
        layer = self._layers.get(route)
        if layer is not None:
            return _Scaled(layer(inputs))
        known = {key: value for key, value in config.items() if key in _parameters(kind)}
        layer = self._layers[route] = kind(**known, name=self._name(route))
        made = layer(inputs)
        layer.set_weights(weights)
        return _Scaled(made)

    def _tensor(self, value: _Scaled) -> Any:
        """Returns the tensor that a value is."""
        if not isinstance(value, _Scaled):
            raise TypeError("one of its inputs is no tensor")
        if value.made is None:
            plain = np.all(value.scale == 1) and not np.any(value.offset)
            numbers = {"scale": np.asarray(value.scale).tolist(), "offset": np.asarray(value.offset).tolist()}
            scaled = keras.layers.Rescaling(**numbers, name=None if plain else self._name(value.route))
            value.made = value.tensor if plain else scaled(value.tensor)
        return value.made

    def _name(self, route: Route) -> str:
        """Names a layer as it was, with the names of the models around it where another has its name."""
        candidates = [_allowed("_".join(route[start:])) for start in range(len(route) - 1, -1, -1)]
        candidates += [f"{candidates[-1]}_{number}" for number in range(len(self._names) + 1)]
        name = next(name for name in candidates if name not in self._names)
        self._names.add(name)
        return name


# What says how a call is to be made, not what goes in.
_ASIDE = ("mask", "training")
_SPECIAL = {
    "Activation": "_activation_layer",
    "LeakyReLU": "_leaky_relu",
    "Normalization": "_normalize",
    "Rescaling": "_rescale",
    "SeparableConv2D": "_separate",
}
_HARD_ACTIVATIONS = ("hard_sigmoid", "hard_silu", "hard_swish")
_WITH_CONSTANT: dict[str, Callable[[np.ndarray], tuple[Any, Any]]] = {
    "Add": lambda constant: (1, constant),
    "Divide": lambda constant: (1 / constant, 0),
    "Multiply": lambda constant: (constant, 0),
    "Subtract": lambda constant: (1, -constant),
    "TrueDivide": lambda constant: (1 / constant, 0),
}


def _part(route: Route, name: str) -> Route:
    """Names one of several layers that one becomes."""
    return (*route[:-1], f"{route[-1]}_{name}")


def _histories(node: Any) -> Iterator[list[Any]]:
    """Yields the [layer, call, output] of each tensor in a part of a node."""
    if isinstance(node, dict) and node.get("class_name") == "__keras_tensor__":
        yield node["config"]["keras_history"]
        return
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _histories(child)


def _resolved(argument: Any, done: Mapping[tuple[str, int], list[Any]]) -> Any:
    """Returns what a description of an argument stands for."""
    if isinstance(argument, list):
        return [_resolved(item, done) for item in argument]
    if not isinstance(argument, dict):
        return argument
    kind, config = argument["class_name"], argument["config"]
    if kind == "__keras_tensor__":
        name, call, output = config["keras_history"]
        return done[name, call][output]
    if kind == "__slice__":
        return slice(config["start"], config["stop"], config["step"])
    return Ellipsis if kind == "__ellipsis__" else np.asarray(config["value"], np.float64)


def _flat(arguments: Any) -> Iterator[Any]:
    for argument in arguments:
        if isinstance(argument, list):
            yield from _flat(argument)
        elif argument is not None:
            yield argument


def _constant(value: Any, channels: int) -> Any:
    """Returns a number, or one for each channel."""
    array = np.asarray(value, np.float64)
    if array.size == 1:
        return array.item()
    if array.shape[-1] != array.size or array.size != channels:
        raise ValueError(f"a constant of shape {array.shape} is neither one number nor one for each channel")
    return array.reshape(-1)


def _without_unknown_activation(config: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Returns a layer's configuration, and the function that tf_keras would not know as a part of it."""
    function = config.get("activation")
    if function is None:
        return config, None
    if isinstance(function, str) and function in _ACTIVATIONS:
        return config | {"activation": _ACTIVATIONS[function]}, None
    return config | {"activation": "linear"}, function


def _parameters(kind: type[keras.layers.Layer]) -> frozenset[str]:
    """Names what a layer is configured with, as far as its answers depend on it."""
    kinds = kind.__mro__[: kind.__mro__.index(keras.layers.Layer)]
    names = {name for each in kinds for name in inspect.signature(vars(each).get("__init__", object)).parameters}
    aside = r"(.*_(initializer|regularizer|constraint)|renorm.*|self|args|kwargs|name|trainable|dtype|dynamic)"
    return frozenset(name for name in names if not re.fullmatch(aside, name))


def _allowed(name: str) -> str:
    """Returns a name without what TensorFlow does not allow in one."""
    return re.sub(r"^[^A-Za-z0-9]+|[^A-Za-z0-9_.-]", "_", name).lstrip("_") or "layer"
