"""What flows where in a functional model, read from its configuration.

The layers' own records of it also hold what other models, such as TFMOT's wrapped ones, do with the same layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainer_module.folding import references

if TYPE_CHECKING:
    import tf_keras as keras


def sources(model: keras.Model) -> dict[str, list[str]]:
    """Returns the names of the layers whose outputs each layer takes, in an order in which each follows its sources."""
    return {
        layer["name"]: [reference[0] for reference in references(layer["inbound_nodes"])]
        for layer in model.get_config()["layers"]
    }


def consumers(model: keras.Model) -> dict[str, list[str]]:
    """Returns the names of the layers that take each layer's output."""
    found: dict[str, list[str]] = {name: [] for name in sources(model)}
    for name, taken in sources(model).items():
        for source in taken:
            found[source].append(name)
    return found
