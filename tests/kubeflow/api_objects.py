"""Checks documents against the schemas of Kubernetes and KServe, as their own client libraries have them."""

from __future__ import annotations

import datetime
import re
from typing import Any

import kserve.models
import kubernetes.client

KINDS = {
    ("v1", "ServiceAccount"): "V1ServiceAccount",
    ("v1", "Service"): "V1Service",
    ("apps/v1", "Deployment"): "V1Deployment",
    ("autoscaling/v2", "HorizontalPodAutoscaler"): "V2HorizontalPodAutoscaler",
    ("policy/v1", "PodDisruptionBudget"): "V1PodDisruptionBudget",
    ("networking.k8s.io/v1", "NetworkPolicy"): "V1NetworkPolicy",
    ("serving.kserve.io/v1beta1", "InferenceService"): "V1beta1InferenceService",
}
_PLAIN = {"str": str, "int": int, "float": (int, float), "bool": bool, "datetime": datetime.datetime, "date": str}


def faults(document: Any, kind: str, path: str = "") -> list[str]:
    """Lists what of a document the schema does not know, has with another type, or requires and misses.

    Args:
        document: As YAML gives it.
        kind: Name of a model of the clients, or a type as they write them, such as "list[V1Container]".
        path: Where the document stands in a larger one.
    """
    listed = re.fullmatch(r"list\[(.+)\]", kind)
    if listed:
        if not isinstance(document, list):
            return [f"{path}: a list is needed"]
        return [fault for i, each in enumerate(document) for fault in faults(each, listed[1], f"{path}[{i}]")]
    mapped = re.fullmatch(r"dict\(str, (.+)\)", kind)
    if mapped:
        if not isinstance(document, dict):
            return [f"{path}: a mapping is needed"]
        return [fault for key, each in document.items() for fault in faults(each, mapped[1], f"{path}.{key}")]
    if kind == "object" or _is_quantity(kind):
        return []
    if kind in _PLAIN:
        right = isinstance(document, _PLAIN[kind]) and (kind == "bool" or not isinstance(document, bool))
        return [] if right else [f"{path}: {document!r} is no {kind}"]
    return _object_faults(document, _model(kind), path)


def _object_faults(document: Any, model: type, path: str) -> list[str]:
    if not isinstance(document, dict):
        return [f"{path}: a {model.__name__} is needed"]
    names = {json: python for python, json in model.attribute_map.items()}
    found = [f"{path}.{key}: no such field in {model.__name__}" for key in document if key not in names]
    for key, value in document.items():
        if key in names:
            found += faults(value, model.openapi_types[names[key]], f"{path}.{key}")
    try:
        model(**{names[key]: value for key, value in document.items() if key in names})
    except ValueError as error:
        found.append(f"{path}: {error}")
    return found


def _model(kind: str) -> type:
    return getattr(kubernetes.client, kind, None) or getattr(kserve.models, kind)


def _is_quantity(kind: str) -> bool:
    return kind in ("ResourceQuantity", "IntstrIntOrString", "KnativeURL")
