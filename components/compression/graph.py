"""What flows where in a functional model, read from its configuration.

The layers' own records of it also hold what other models, such as TFMOT's wrapped ones, do with the same layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    flow = sources(model)
    found: dict[str, list[str]] = {name: [] for name in flow}
    for name, taken in flow.items():
        for source in taken:
            found[source].append(name)
    return found


def cut(config: dict[str, Any], gone: set[str]) -> None:
    """Takes layers out of a functional model's configuration, in place.

    What is added to the output of one of them, or joined with it, is left as it is: where one of them remains, it
    replaces the whole. A ReLU that then follows another changes nothing, and goes as well.

    Args:
        config: As of `model.get_config()`.
        gone: Names of the layers. What takes the output of one of them is among them, or adds something else to it.
    """
    replaced: dict[str, list[Any]] = {}
    layers = {layer["name"]: layer for layer in config["layers"]}
    for layer in list(config["layers"]):
        taken = list(references(layer["inbound_nodes"]))
        for reference in taken:
            reference[:3] = replaced.get(reference[0], reference[:3])
        left = [reference for reference in taken if reference[0] not in gone]
        if layer["name"] in gone:
            config["layers"].remove(layer)
        elif len(left) == 1 < len(taken) or (left and _repeats_relu(layers[left[0][0]], layer)):
            config["layers"].remove(layer)
            replaced[layer["name"]] = left[0][:3]
        else:
            layer["inbound_nodes"] = [left] if left else []
    for reference in references(config["output_layers"]):
        reference[:3] = replaced.get(reference[0], reference[:3])


def _repeats_relu(source: dict[str, Any], layer: dict[str, Any]) -> bool:
    """Tells whether a layer is a ReLU of what the same ReLU made."""
    # Kind first: the configurations of other layers can hold arrays, which have no equality that is one answer.
    if not source["class_name"] == layer["class_name"] == "ReLU" or layer["config"]["negative_slope"]:
        return False
    return source["config"] | {"name": ""} == layer["config"] | {"name": ""}
