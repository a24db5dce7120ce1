"""Unstructured pruning: single weights become zero, by TFMOT with its polynomial schedule.

It makes files smaller once they are deflated. On x86 with AVX it makes nothing faster: see docs/compression.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow_model_optimization as tfmot
import tf_keras as keras

from components.compression.errors import VariantError
from components.compression.kernels import copy_of, kernel, sparsity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from components.compression.fine_tuning import FineTuner

# The weights that are left need the rest of the time to make up for those that went.
_SHARE_OF_SCHEDULE = 0.6
_UPDATES = 30
# Rounding a share to a whole number of weights.
_TOLERANCE = 0.01


def prune(model: keras.Model, sparsities: Mapping[str, float], tuner: FineTuner, name: str) -> keras.Model:
    """Prunes a model while it is fine-tuned.

    Args:
        model: A folded classifier; it stays as it is.
        sparsities: Share of zeros wanted, by layer name.
        tuner: Trains it.
        name: Of this work.

    Returns:
        The pruned model.

    Raises:
        VariantError: A layer missed its sparsity, or the fine-tuning failed.
    """
    pruned = copy_of(model)
    tuner.once(name, pruned, lambda: _tune(pruned, sparsities, tuner))
    for layer, wanted in sparsities.items():
        found = sparsity(kernel(pruned.get_layer(layer)).numpy())
        if found < wanted - _TOLERANCE:
            raise VariantError(f"layer {layer} has {found:.1%} zeros after pruning, not {wanted:.1%}")
    return pruned


def _tune(pruned: keras.Model, sparsities: Mapping[str, float], tuner: FineTuner) -> None:
    def wrap(layer: keras.layers.Layer) -> keras.layers.Layer:
        if not sparsities.get(layer.name):
            return layer
        return tfmot.sparsity.keras.prune_low_magnitude(layer, _schedule(sparsities[layer.name], tuner.steps))

    # The wrappers share the variables of `pruned`. Their callback counts calls, so no call may hold several steps: the
    # schedule would never come to its end.
    tuner.fit(
        keras.models.clone_model(pruned, clone_function=wrap),
        [tfmot.sparsity.keras.UpdatePruningStep()],
        one_by_one=True,
    )


def _schedule(wanted: float, steps: int) -> tfmot.sparsity.keras.PolynomialDecay:
    last = max(1, int(_SHARE_OF_SCHEDULE * steps))
    return tfmot.sparsity.keras.PolynomialDecay(
        initial_sparsity=0.0, final_sparsity=wanted, begin_step=0, end_step=last, frequency=max(1, last // _UPDATES)
    )
