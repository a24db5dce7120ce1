"""A copy of a network that computes in another precision, as the Trainer's networks do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tf_keras as keras

from trainer_module import acceleration
from trainer_module.view_averaging import WithMirrored, WithShifted

if TYPE_CHECKING:
    from typing import Any

# bfloat16 cannot tell neighbouring pixel values above 128 apart.
_NEVER_REDUCED = (keras.layers.InputLayer, keras.layers.Rescaling, WithMirrored, WithShifted)


def computing_in(model: keras.Model, precision: str) -> keras.Model:
    """Rebuilds a classifier so that it computes in a precision; its weights stay float32.

    Args:
        model: Functional model of Keras' own layers, in float32.
        precision: "float32", "bfloat16" or "float16".

    Returns:
        A model with the same layer names and weights, whose pixels and probabilities stay float32.
    """
    policy = acceleration.policy(precision)

    def rebuild(layer: keras.layers.Layer) -> keras.layers.Layer:
        config: dict[str, Any] = layer.get_config()
        if not isinstance(layer, _NEVER_REDUCED) and layer.name not in model.output_names:
            config["dtype"] = policy
        return type(layer).from_config(config)

    with acceleration.computing(precision):
        copied = keras.models.clone_model(model, clone_function=rebuild)
    copied.set_weights(model.get_weights())
    return copied
