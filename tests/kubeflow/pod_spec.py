"""What the backend's driver makes of an executor: a PodSpec (initPodSpecPatch, extendPodSpecPatch)."""

from __future__ import annotations

from typing import Any

# What stands in the PodSpec under another name, or as another type.
_FIELDS = {
    "tolerations": ("tolerations", lambda tolerations: tolerations),
    "nodeSelector": ("nodeSelector", lambda selector: selector["labels"]),
    "activeDeadlineSeconds": ("activeDeadlineSeconds", int),
    "imagePullSecret": ("imagePullSecrets", lambda secrets: [{"name": secret["secretName"]} for secret in secrets]),
}

_EMPTY_DIR = {"medium": "medium", "sizeLimit": "sizeLimit"}


def pod_spec(container: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """Returns the PodSpec.

    Args:
        container: The executor's container, of the first document.
        config: Its Kubernetes part, of the second.
    """
    resources = container["resources"]
    limits = {"cpu": resources["resourceCpuLimit"], "memory": resources["resourceMemoryLimit"]}
    if "accelerator" in resources:
        limits[resources["accelerator"]["resourceType"]] = resources["accelerator"]["resourceCount"]
    volumes = _volumes(config)
    main = {
        "name": "main",
        "image": container["image"],
        "command": container["command"],
        "args": container["args"],
        "env": container["env"] + _secret_variables(config),
        "imagePullPolicy": config["imagePullPolicy"],
        "resources": {
            "limits": limits,
            "requests": {"cpu": resources["resourceCpuRequest"], "memory": resources["resourceMemoryRequest"]},
        },
        "volumeMounts": [{"name": name, "mountPath": path} for name, _, path in volumes],
    }
    if "securityContext" in config:
        main["securityContext"] = config["securityContext"] | {"runAsUser": int(config["securityContext"]["runAsUser"])}
    pod = {"containers": [main], "volumes": [{"name": name} | source for name, source, _ in volumes]}
    return pod | {target: make(config[name]) for name, (target, make) in _FIELDS.items() if name in config}


def _volumes(config: dict[str, Any]) -> list[tuple[str, dict[str, Any], str]]:
    """Lists name, source and mount path of each volume."""
    claims = [
        (mount["constant"], {"persistentVolumeClaim": {"claimName": mount["constant"]}}, mount["mountPath"])
        for mount in config.get("pvcMount", [])
    ]
    secrets = [
        (secret["secretName"], {"secret": {"secretName": secret["secretName"]}}, secret["mountPath"])
        for secret in config.get("secretAsVolume", [])
    ]
    own = [
        (
            each["volumeName"],
            {"emptyDir": {to: each[field] for field, to in _EMPTY_DIR.items() if field in each}},
            each["mountPath"],
        )
        for each in config.get("emptyDirMounts", [])
    ]
    return [*claims, *secrets, *own]


def _secret_variables(config: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": key["envVar"], "valueFrom": {"secretKeyRef": {"name": secret["secretName"], "key": key["secretKey"]}}}
        for secret in config.get("secretAsEnv", [])
        for key in secret["keyToEnv"]
    ]
