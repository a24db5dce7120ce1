"""Builds kustomizations, as far as ours go: resources, images, labels and JSON patches."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from pathlib import Path

_KNOWN = {"apiVersion", "kind", "resources", "images", "labels", "patches"}


def build(directory: Path) -> list[dict[str, Any]]:
    """Returns the objects of a kustomization."""
    own = yaml.safe_load((directory / "kustomization.yaml").read_text())
    assert own.keys() <= _KNOWN, own.keys() - _KNOWN
    objects = []
    for name in own["resources"]:
        path = directory / name
        objects += build(path) if path.is_dir() else list(yaml.safe_load_all(path.read_text()))
    for patch in own.get("patches", []):
        target = patch["target"]
        (patched,) = (o for o in objects if (o["kind"], o["metadata"]["name"]) == (target["kind"], target["name"]))
        for operation in yaml.safe_load(patch["patch"]):
            _apply(patched, operation)
    for image in own.get("images", []):
        for each in objects:
            _set_images(each, image["name"], f"{image['newName']}:{image['newTag']}")
    for labels in own.get("labels", []):
        for each in objects:
            each["metadata"].setdefault("labels", {}).update(labels["pairs"])
    return objects


def _apply(document: Any, operation: dict[str, Any]) -> None:
    """Applies an operation of RFC 6902; only add, replace and remove."""
    *parents, last = (part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:])
    for part in parents:
        document = document[int(part) if isinstance(document, list) else part]
    if isinstance(document, list):
        assert (operation["op"], last) == ("add", "-"), operation
        document.append(operation["value"])
    elif operation["op"] == "remove":
        del document[last]
    else:
        assert operation["op"] == "add" or last in document, operation
        document[last] = copy.deepcopy(operation["value"])


def _set_images(node: Any, name: str, image: str) -> None:
    if isinstance(node, list):
        for each in node:
            _set_images(each, name, image)
    elif isinstance(node, dict):
        if node.get("image") == name:
            node["image"] = image
        for each in node.values():
            _set_images(each, name, image)
