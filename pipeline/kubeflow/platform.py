"""What only Kubernetes knows: the second document of a compiled pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2 as kubernetes
from kfp.pipeline_spec import pipeline_spec_pb2

from pipeline.kubeflow.groups import group_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.kubeflow.settings import GroupSettings, KubeflowSettings

PLATFORM = "kubernetes"
# What every pod may write to, with or without a volume there.
SCRATCH = "/tmp"  # noqa: S108 (the pod's own)


def platform_spec(settings: KubeflowSettings, executors: Mapping[str, str]) -> pipeline_spec_pb2.PlatformSpec:
    """Describes the pods of every executor.

    Args:
        settings: What pods get.
        executors: Label of the executor of each node.
    """
    spec = pipeline_spec_pb2.PlatformSpec()
    deployment = spec.platforms[PLATFORM].deployment_spec
    for node, executor in executors.items():
        config = executor_config(settings, group_of(node, settings.resources))
        json_format.ParseDict(json_format.MessageToDict(config), deployment.executors[executor])
    return spec


def executor_config(settings: KubeflowSettings, group: GroupSettings) -> kubernetes.KubernetesExecutorConfig:
    """Returns the Kubernetes part of an executor."""
    config = kubernetes.KubernetesExecutorConfig(
        image_pull_policy=settings.image_pull_policy,
        active_deadline_seconds=group.timeout_s or 0,
        node_selector=kubernetes.NodeSelector(labels=group.node_selector) if group.node_selector else None,
        tolerations=[kubernetes.Toleration(**each.model_dump(exclude_none=True)) for each in group.tolerations],
    )
    # Only where they are asked for: older backends fail over them (kubeflow/pipelines#11799).
    if group.scratch is not None:
        config.empty_dir_mounts.add(volume_name="scratch", mount_path=SCRATCH, size_limit=group.scratch)
    if group.shm is not None:
        # enabled_shared_memory is in the protocol, but the driver does not read it.
        config.empty_dir_mounts.add(
            volume_name="shm",
            mount_path="/dev/shm",  # noqa: S108 (that is its name)
            medium="Memory",
            size_limit=group.shm,
        )
    if settings.run_as_user is not None:
        config.security_context.run_as_user = settings.run_as_user
        config.security_context.run_as_non_root = True
    for name in settings.image_pull_secrets:
        secret = config.image_pull_secret.add(secret_name=name)
        _set_name(secret.secret_name_parameter, name)
    for volume in settings.volumes:
        mount = config.pvc_mount.add(constant=volume.claim, mount_path=volume.mount_path, sub_path=volume.sub_path)
        _set_name(mount.pvc_name_parameter, volume.claim)
    for each in settings.secrets:
        if each.env:
            variables = config.secret_as_env.add(secret_name=each.name)
            _set_name(variables.secret_name_parameter, each.name)
            for key, variable in each.env.items():
                variables.key_to_env.add(secret_key=key, env_var=variable)
        if each.mount_path is not None:
            files = config.secret_as_volume.add(secret_name=each.name, mount_path=each.mount_path)
            _set_name(files.secret_name_parameter, each.name)
    return config


def _set_name(parameter: pipeline_spec_pb2.TaskInputsSpec.InputParameterSpec, name: str) -> None:
    """Sets a name where newer backends look for it; the plain field is for older ones."""
    parameter.runtime_value.constant.string_value = name
