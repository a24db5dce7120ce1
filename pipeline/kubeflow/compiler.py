"""Compiles a TFX pipeline into what the open-source backend of Kubeflow Pipelines runs."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from kubernetes.utils import parse_quantity
from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner

from pipeline.kubeflow.backend import check
from pipeline.kubeflow.groups import group_of
from pipeline.kubeflow.platform import SCRATCH, platform_spec
from pipeline.kubeflow.settings import NVIDIA_GPU

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from tfx import v1 as tfx

    from pipeline.kubeflow.settings import GroupSettings, KubeflowSettings

ENTRYPOINT = ("python", "-m", "pipeline.kubeflow.entrypoint")
_ENVIRONMENT = {
    # A user without a home is what most clusters run pods as.
    "HOME": SCRATCH,
    # Local folders that are called like one of our packages must not take its place.
    "PYTHONSAFEPATH": "1",
    # TFX and TFMA decide at import which Keras they use.
    "TF_USE_LEGACY_KERAS": "1",
    # As in a local run: TensorFlow's own choice is slower on CPUs without AVX-512 VNNI.
    "TF_ENABLE_ONEDNN_OPTS": "1",
    # As there, too: several processes of a pod may use its GPU.
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
}
# TFX appends it to the producer of a parameter, but to no task's name.
_TASK_SUFFIX = "_task"
_BACKOFF_FACTOR = 2.0
# So long after a task's first start Argo begins no retry and stops the one that runs; unset it counts as 0. A year is
# longer than any training and the longest pauses together.
_RETRY_WINDOW_S = 365 * 24 * 3600
_GIGABYTE = 10**9


@dataclasses.dataclass(frozen=True)
class Condition:
    """A value of another task without which a task is skipped.

    On a parameter, as the conditions of Kubeflow's own SDK are; TFX's look into artifacts.

    Attributes:
        producer: The other task.
        output: Its output, a String.
        value: What it must be.
    """

    producer: str
    output: str
    value: str


@dataclasses.dataclass(frozen=True)
class CompiledPipeline:
    """A pipeline as the backend takes it.

    Attributes:
        spec: Components, tasks, containers.
        platform: What only Kubernetes knows.
    """

    spec: pipeline_spec_pb2.PipelineSpec
    platform: pipeline_spec_pb2.PlatformSpec

    def to_yaml(self) -> str:
        """Returns the two YAML documents that are uploaded."""
        documents = [json_format.MessageToDict(message) for message in (self.spec, self.platform)]
        return yaml.safe_dump_all(documents, sort_keys=True, width=120)


def compile_pipeline(
    pipeline: tfx.dsl.Pipeline,
    settings: KubeflowSettings,
    image: str,
    uncached: Collection[str] = (),
    conditions: Mapping[str, Condition] | None = None,
) -> CompiledPipeline:
    """Compiles a pipeline.

    TFX compiles for Vertex AI. What the open-source backend needs beyond that is added here, and what it would not
    honour is refused.

    Args:
        pipeline: A pipeline of its own: compiling alters it.
        settings: What pods get.
        image: Image of all pods, but those with accelerators if they have their own.
        uncached: Nodes that always run.
        conditions: Condition of each node that has one.

    Raises:
        UserError: Naming the node that the backend would not run as it is meant.
    """
    node_ids = [component.id for component in pipeline.components]
    images = {node: _image(group_of(node, settings.resources), settings, image) for node in node_ids}
    config = kubeflow_v2_dag_runner.KubeflowV2DagRunnerConfig(
        default_image=images | {"default_image_path": image},
        default_commands=list(ENTRYPOINT),
        use_pipeline_spec_2_1=True,
    )
    job = kubeflow_v2_dag_runner.KubeflowV2DagRunner(config=config).run(pipeline, write_out=False)
    spec = json_format.ParseDict(job["pipelineSpec"], pipeline_spec_pb2.PipelineSpec())
    spec.default_pipeline_root = settings.pipeline_root or ""
    for node, task in spec.root.dag.tasks.items():
        _mend_producers(task, spec.root.dag.tasks)
        _set_retries(task, group_of(node, settings.resources))
        if node in uncached:
            task.caching_options.enable_cache = False
    for node, condition in (conditions or {}).items():
        _set_condition(spec, node, condition)
    deployment = json_format.ParseDict(
        json_format.MessageToDict(spec.deployment_spec), pipeline_spec_pb2.PipelineDeploymentConfig()
    )
    executors = {
        node: spec.components[task.component_ref.name].executor_label for node, task in spec.root.dag.tasks.items()
    }
    for node, executor in executors.items():
        if deployment.executors[executor].HasField("container"):
            _set_container(deployment.executors[executor].container, group_of(node, settings.resources))
    json_format.ParseDict(json_format.MessageToDict(deployment), spec.deployment_spec)
    compiled = CompiledPipeline(spec, platform_spec(settings, executors))
    check(compiled.spec, compiled.platform)
    return compiled


def _image(group: GroupSettings, settings: KubeflowSettings, image: str) -> str:
    return settings.gpu_image if group.gpu and settings.gpu_image else image


def _mend_producers(
    task: pipeline_spec_pb2.PipelineTaskSpec, tasks: Mapping[str, pipeline_spec_pb2.PipelineTaskSpec]
) -> None:
    for parameter in task.inputs.parameters.values():
        if parameter.HasField("task_output_parameter"):
            producer = parameter.task_output_parameter.producer_task
            if producer not in tasks:
                parameter.task_output_parameter.producer_task = producer.removesuffix(_TASK_SUFFIX)


def _set_condition(spec: pipeline_spec_pb2.PipelineSpec, node: str, condition: Condition) -> None:
    task = spec.root.dag.tasks[node]
    producer = spec.components[spec.root.dag.tasks[condition.producer].component_ref.name]
    text = pipeline_spec_pb2.ParameterType.STRING
    producer.output_definitions.parameters[condition.output].parameter_type = text
    definitions = spec.components[task.component_ref.name].input_definitions
    definitions.parameters[condition.output].parameter_type = text
    source = task.inputs.parameters[condition.output].task_output_parameter
    source.producer_task, source.output_parameter_key = condition.producer, condition.output
    if condition.producer not in task.dependent_tasks:
        task.dependent_tasks.append(condition.producer)
    task.trigger_policy.condition = f"inputs.parameter_values['{condition.output}'] == '{condition.value}'"


def _set_retries(task: pipeline_spec_pb2.PipelineTaskSpec, group: GroupSettings) -> None:
    task.retry_policy.max_retry_count = group.retries
    task.retry_policy.backoff_duration.seconds = group.retry_backoff_s
    task.retry_policy.backoff_factor = _BACKOFF_FACTOR
    task.retry_policy.backoff_max_duration.seconds = _RETRY_WINDOW_S


def _set_container(
    container: pipeline_spec_pb2.PipelineDeploymentConfig.PipelineContainerSpec, group: GroupSettings
) -> None:
    for name, value in _ENVIRONMENT.items():
        container.env.add(name=name, value=value)
    resources = container.resources
    # Newer backends read amounts as text, older ones as CPUs and gigabytes.
    resources.resource_cpu_request = resources.resource_cpu_limit = group.cpu
    resources.cpu_request = resources.cpu_limit = float(parse_quantity(group.cpu))
    resources.resource_memory_request = resources.resource_memory_limit = group.memory
    resources.memory_request = resources.memory_limit = float(parse_quantity(group.memory)) / _GIGABYTE
    if group.gpu:
        accelerator = resources.accelerator
        accelerator.type = accelerator.resource_type = group.gpu_type or NVIDIA_GPU
        accelerator.count = group.gpu
        accelerator.resource_count = str(group.gpu)
