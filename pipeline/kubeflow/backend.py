"""What the open-source backend of Kubeflow Pipelines does not do, found before a pipeline is uploaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml
from google.protobuf import json_format, struct_pb2
from kfp.kubernetes import kubernetes_executor_config_pb2 as kubernetes
from kfp.pipeline_spec import pipeline_spec_pb2

from pipeline.kubeflow.settings import OBJECT_STORES
from trainer_module.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA_VERSION = "2.1.0"


def check(spec: pipeline_spec_pb2.PipelineSpec, platform: pipeline_spec_pb2.PlatformSpec) -> None:
    """Checks that the backend runs every task as it is meant.

    Args:
        spec: The pipeline.
        platform: What only Kubernetes knows.

    Raises:
        UserError: Naming the first node that would not run so, and why.
    """
    for node, fault in _faults(spec, platform):
        raise UserError(f"Kubeflow Pipelines cannot run node {node} as it is: {fault}")


def _faults(
    spec: pipeline_spec_pb2.PipelineSpec, platform: pipeline_spec_pb2.PlatformSpec
) -> Iterator[tuple[str, str]]:
    if spec.schema_version != SCHEMA_VERSION:
        yield "(the pipeline)", f"schema {spec.schema_version} is refused at upload, {SCHEMA_VERSION} is needed"
    if not spec.default_pipeline_root.startswith(OBJECT_STORES):
        yield "(the pipeline)", f"the pipeline root {spec.default_pipeline_root!r} is no object store"
    deployment = json_format.ParseDict(
        json_format.MessageToDict(spec.deployment_spec), pipeline_spec_pb2.PipelineDeploymentConfig()
    )
    for node, task in spec.root.dag.tasks.items():
        if task.component_ref.name not in spec.components:
            yield node, f"there is no component {task.component_ref.name}"
            continue
        component = spec.components[task.component_ref.name]
        yield from ((node, fault) for fault in _task_faults(task, component, spec))
        executor = deployment.executors.get(component.executor_label)
        yield from ((node, fault) for fault in _executor_faults(executor))
        config = platform.platforms["kubernetes"].deployment_spec.executors[component.executor_label]
        yield from ((node, fault) for fault in _platform_faults(config))


def _task_faults(
    task: pipeline_spec_pb2.PipelineTaskSpec,
    component: pipeline_spec_pb2.ComponentSpec,
    spec: pipeline_spec_pb2.PipelineSpec,
) -> Iterator[str]:
    for producer in task.dependent_tasks:
        if producer not in spec.root.dag.tasks:
            yield f"it waits for {producer}, which is no task"
    for name, artifact in task.inputs.artifacts.items():
        source = artifact.task_output_artifact
        if not _has_output(spec, source.producer_task, "artifacts", source.output_artifact_key):
            yield f"no task has the output that its input {name} comes from"
    for name, parameter in task.inputs.parameters.items():
        fault = _parameter_fault(parameter, spec)
        if fault:
            yield f"parameter {name} {fault}"
    for name, definition in component.output_definitions.artifacts.items():
        title = (yaml.safe_load(definition.artifact_type.instance_schema) or {}).get("title")
        if not title:
            yield f"output {name} has no type"


def _parameter_fault(
    parameter: pipeline_spec_pb2.TaskInputsSpec.InputParameterSpec, spec: pipeline_spec_pb2.PipelineSpec
) -> str:
    kind = parameter.WhichOneof("kind")
    if kind == "task_output_parameter":
        source = parameter.task_output_parameter
        known = _has_output(spec, source.producer_task, "parameters", source.output_parameter_key)
        return "" if known else f"comes from {source.producer_task}, which has no such output"
    if kind == "component_input_parameter":
        name = parameter.component_input_parameter
        known = spec.root.input_definitions.parameters[name].HasField("default_value")
        return "" if known else f"is the runtime parameter {name}, whose default TFX does not keep"
    constant = kind == "runtime_value" and parameter.runtime_value.WhichOneof("value") == "constant"
    return "" if constant else "is given in a way that the backend does not read"


def _has_output(spec: pipeline_spec_pb2.PipelineSpec, task: str, kind: str, key: str) -> bool:
    if task not in spec.root.dag.tasks:
        return False
    outputs = spec.components[spec.root.dag.tasks[task].component_ref.name].output_definitions
    return key in getattr(outputs, kind)


def _executor_faults(
    executor: pipeline_spec_pb2.PipelineDeploymentConfig.ExecutorSpec | None,
) -> Iterator[str]:
    if executor is None:
        yield "it has no executor"
        return
    kind = executor.WhichOneof("spec")
    if kind not in ("container", "importer"):
        yield f"there are no executors of kind {kind}; a component of its own must do its work"
        return
    container = executor.container
    if kind == "container":
        if container.HasField("lifecycle"):
            yield "its driver (lifecycle.preCacheCheck) is never run; the cache would answer for changed data"
        if not container.image:
            yield "it has no image"
        if not container.command:
            yield "it has no command; the launcher does not use the image's entrypoint"
        accelerator = container.resources.accelerator
        if bool(accelerator.type or accelerator.resource_type) != bool(accelerator.count or accelerator.resource_count):
            yield "an accelerator needs a type and a count"
        for argument in (*container.command, *container.args):
            if ".value}}" in argument:
                yield f"the launcher puts nothing in for {argument}"


def _platform_faults(config: struct_pb2.Struct) -> Iterator[str]:
    try:
        known = json_format.ParseDict(json_format.MessageToDict(config), kubernetes.KubernetesExecutorConfig())
    except json_format.ParseError as error:
        yield f"its Kubernetes settings have what the backend does not know: {error}"
        return
    if known.HasField("enabled_shared_memory"):
        yield "the driver does not read enabledSharedMemory; a mount of medium Memory at /dev/shm does the same"
