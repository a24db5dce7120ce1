"""Layer fusing: batch normalisation and activation become part of the convolution before them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tf_keras as keras

if TYPE_CHECKING:
    from collections.abc import Iterator

# Whose `activation` is computed of what the layer's kernel makes.
_WITH_ACTIVATION = (keras.layers.Conv2D, keras.layers.Dense, keras.layers.DepthwiseConv2D)
# Their results have one range, whatever goes in; integer kernels compute them apart, of what has a range of its own.
FIXED_RANGE_ACTIVATIONS = ("sigmoid", "softmax", "tanh")


def fold_batch_norm(model: keras.Model) -> keras.Model:
    """Rebuilds a trained classifier for inference.

    A BatchNormalization that alone consumes a Conv2D or DepthwiseConv2D is folded into its kernel and bias as in
    Jacob et al. 2018 (https://arxiv.org/abs/1712.05877), section 3.2, and an activation layer that alone consumes the
    result becomes the convolution's own. Those of `FIXED_RANGE_ACTIVATIONS` become layers instead. Dropout is left out.
    All other layers stay as they are.

    Args:
        model: Functional or sequential model of Keras' own layers.

    Returns:
        A new model that computes the same, up to rounding, in the same precision.
    """
    model = functional(model)
    graph = _Graph(model)
    # First, because it may stand between a convolution and its normalisation.
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            graph.bypass(layer.name)
    norms = {}
    for layer in model.layers:
        if _is_linear_convolution(layer):
            norms[layer.name] = graph.take_norm(layer.name)
            graph.take_activation(layer.name)
        if type(layer) in _WITH_ACTIVATION and keras.activations.serialize(layer.activation) in FIXED_RANGE_ACTIVATIONS:
            graph.split_activation(layer.name)
    folded = keras.Model.from_config(graph.config)
    for layer in (layer for layer in folded.layers if layer.weights):
        source, norm = model.get_layer(layer.name), norms.get(layer.name)
        layer.set_weights(source.get_weights() if norm is None else _folded_weights(source, norm))
    return folded


def functional(model: keras.Model) -> keras.Model:
    """Returns a model whose configuration says what flows where, which that of a sequential model does not."""
    return keras.Model(model.inputs, model.outputs, name=model.name) if isinstance(model, keras.Sequential) else model


class _Graph:
    """The configuration of a model, in which every layer refers to those whose outputs it takes."""

    def __init__(self, model: keras.Model) -> None:
        self.config = model.get_config()
        self._model = model

    def take_norm(self, convolution: str) -> keras.layers.Layer | None:
        """Removes the normalisation of a convolution's channels and returns it, if there is one."""
        norm = self._only_consumer(convolution)
        if not isinstance(norm, keras.layers.BatchNormalization) or list(norm.axis) != [3]:
            return None
        self._entry(convolution)["config"]["use_bias"] = True
        self.bypass(norm.name)
        return norm

    def take_activation(self, convolution: str) -> None:
        """Makes the activation layer after a convolution part of it, if there is one."""
        layer = self._only_consumer(convolution)
        function = _activation_function(layer)
        if layer is not None and function not in (None, *FIXED_RANGE_ACTIVATIONS):
            self._entry(convolution)["config"]["activation"] = function
            self.bypass(layer.name)

    def split_activation(self, name: str) -> None:
        """Makes a layer of what is a layer's own activation."""
        entry = self._entry(name)
        own = _free_name(f"{name}_activation", {layer["name"] for layer in self.config["layers"]})
        config = {key: entry["config"][key] for key in ("trainable", "dtype", "activation")} | {"name": own}
        for reference in self._references_to(name):
            reference[0] = own
        calls = [[[name, call, 0, {}]] for call in range(len(entry["inbound_nodes"]))]
        activation = {"module": "keras.layers", "class_name": "Activation", "registered_name": None, "config": config}
        self.config["layers"].append(activation | {"name": own, "inbound_nodes": calls})
        entry["config"]["activation"] = "linear"

    def bypass(self, name: str) -> None:
        """Removes a layer that takes one tensor; its consumers take that tensor instead."""
        removed = self._entry(name)
        self.config["layers"].remove(removed)
        for reference in self._references_to(name):
            (source,) = references(removed["inbound_nodes"][reference[1]])
            reference[:3] = source[:3]

    def _only_consumer(self, name: str) -> keras.layers.Layer | None:
        """Returns the layer that nothing but the named one's output goes to, and that nothing else shares it with."""
        consumers = [layer for layer in self.config["layers"] if self._takes_only(layer, name)]
        alone = len(consumers) == len(self._references_to(name)) == 1
        return self._model.get_layer(consumers[0]["name"]) if alone else None

    @staticmethod
    def _takes_only(layer: dict[str, Any], name: str) -> bool:
        return [reference[0] for reference in references(layer["inbound_nodes"])] == [name]

    def _references_to(self, name: str) -> list[list[Any]]:
        takers = [layer["inbound_nodes"] for layer in self.config["layers"]]
        return [reference for reference in references([*takers, self.config["output_layers"]]) if reference[0] == name]

    def _entry(self, name: str) -> dict[str, Any]:
        return next(layer for layer in self.config["layers"] if layer["name"] == name)


def references(nodes: Any) -> Iterator[list[Any]]:
    """Yields each [layer, call of it, output of that call, ...] in a part of a model's configuration."""
    if isinstance(nodes, list) and len(nodes) >= 3 and isinstance(nodes[0], str) and isinstance(nodes[1], int):
        yield nodes
    children = nodes.values() if isinstance(nodes, dict) else nodes if isinstance(nodes, list) else ()
    for child in children:
        yield from references(child)


def _is_linear_convolution(layer: keras.layers.Layer) -> bool:
    # By name and not by class: the subclasses compute something else from their kernels.
    return type(layer) in (keras.layers.Conv2D, keras.layers.DepthwiseConv2D) and (
        layer.activation is keras.activations.linear and layer.data_format == "channels_last"
    )


def _free_name(wanted: str, taken: set[str]) -> str:
    candidates = (wanted, *(f"{wanted}_{number}" for number in range(1, len(taken) + 1)))
    return next(name for name in candidates if name not in taken)


def _activation_function(layer: keras.layers.Layer | None) -> str | None:
    """Names the function of an activation layer, as a convolution's `activation` takes it."""
    if isinstance(layer, keras.layers.Activation):
        return layer.get_config()["activation"]
    if isinstance(layer, keras.layers.ReLU) and not layer.negative_slope and not layer.threshold:
        maximum = layer.max_value
        return "relu" if maximum is None else "relu6" if maximum == 6 else None
    return None


def _folded_weights(convolution: keras.layers.Layer, norm: keras.layers.BatchNormalization) -> list[np.ndarray]:
    kernel, *bias = (weight.astype(np.float64) for weight in convolution.get_weights())
    variance, mean = norm.moving_variance.numpy().astype(np.float64), norm.moving_mean.numpy()
    scale = (norm.gamma.numpy() if norm.scale else 1.0) / np.sqrt(variance + norm.epsilon)
    shift = (norm.beta.numpy() if norm.center else 0.0) + scale * ((bias[0] if bias else 0.0) - mean)
    # Depthwise kernels are [height, width, channel, multiplier]; the others end with their output channels alone.
    channels = kernel.shape[2:] if isinstance(convolution, keras.layers.DepthwiseConv2D) else kernel.shape[3:]
    return [(kernel * scale.reshape(channels)).astype(np.float32), shift.astype(np.float32)]
