"""What is compiled, read back from the file alone."""

from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format
from kfp import components
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from pipeline.config import load_settings
from pipeline.kubeflow.backend import check
from pipeline.kubeflow.settings import KubeflowSettings
from tests.kubeflow.api_objects import faults
from tests.kubeflow.conftest import ON_KUBEFLOW, QUICK, assignments, trimline
from tests.kubeflow.kfp_server import KfpServer, serving
from tests.kubeflow.pod_spec import pod_spec
from trainer_module.errors import UserError

pytestmark = pytest.mark.component

GOLDEN = Path(__file__).with_name("tasks.yaml")
REPOSITORY = Path(__file__).parents[2]
GPU_TASKS = {"Trainer", "Compression"}


@pytest.fixture(scope="module")
def gpu_package(tmp_path_factory):
    """Compiled from the settings file that comes with Trimline."""
    file = tmp_path_factory.mktemp("gpu") / "pipeline.yaml"
    secrets = "[{name: store, env: {key: STORE_KEY}}, {name: ca, mount_path: /etc/ca}]"
    result = trimline(
        "kubeflow", "compile", "--config", REPOSITORY / "kubeflow" / "settings-gpu.yaml", "--output", file,
        "--set", f"kubeflow.secrets={secrets}", "--set", "kubeflow.resources.trainer.timeout_s=7200",
        "--set", "kubeflow.image_pull_secrets=[registry]", "--set", "kubeflow.run_as_user=1000",
        "--set", "kubeflow.resources.push.scratch=1Gi",
        "--set", "kubeflow.resources.trainer.node_selector={pool: gpu}",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return file.read_text()


def documents(package):
    specification, platform = yaml.safe_load_all(package)
    return specification, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def test_the_tasks_their_order_and_what_is_cached_are_as_reviewed(package):
    specification, _ = documents(package)
    tasks = {
        name: {
            "after": sorted(task.get("dependentTasks", [])),
            "cached": task["cachingOptions"].get("enableCache", False),
        }
        | ({"only if": task["triggerPolicy"]["condition"]} if "triggerPolicy" in task else {})
        for name, task in specification["root"]["dag"]["tasks"].items()
    }
    assert tasks == yaml.safe_load(GOLDEN.read_text())


def test_a_directory_is_no_file_to_write_to(tmp_path):
    result = trimline("kubeflow", "compile", "--output", ".", *assignments(QUICK | ON_KUBEFLOW), cwd=tmp_path)
    assert (result.returncode, result.stderr) == (2, "trimline: .: cannot be written: Is a directory\n")
    assert list(tmp_path.iterdir()) == []


def test_kubeflows_own_sdk_loads_it(package):
    loaded = components.load_component_from_text(package)
    assert loaded.name == "trimline"
    assert loaded.platform_spec.platforms["kubernetes"].deployment_spec.executors["Trainer_executor"]


def test_both_documents_hold_nothing_that_the_protocol_does_not_know(gpu_package):
    specification, platform = yaml.safe_load_all(gpu_package)
    spec = json_format.ParseDict(specification, pipeline_spec_pb2.PipelineSpec())
    assert spec.schema_version == "2.1.0"
    json_format.ParseDict(specification["deploymentSpec"], pipeline_spec_pb2.PipelineDeploymentConfig())
    json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
    for config in documents(gpu_package)[1].values():
        json_format.ParseDict(config, kubernetes_executor_config_pb2.KubernetesExecutorConfig())


def test_every_pod_is_one_that_kubernetes_would_take(gpu_package):
    specification, platform = documents(gpu_package)
    for label, executor in specification["deploymentSpec"]["executors"].items():
        assert faults(pod_spec(executor["container"], platform[label]), "V1PodSpec", label) == []


def test_only_trainer_and_compression_ask_for_gpus(gpu_package):
    specification, platform = documents(gpu_package)
    for label, executor in specification["deploymentSpec"]["executors"].items():
        on_gpu = label.removesuffix("_executor") in GPU_TASKS
        pod = pod_spec(executor["container"], platform[label])
        container = pod["containers"][0]
        assert ("nvidia.com/gpu" in container["resources"]["limits"]) == on_gpu, label
        assert container["image"].endswith("-gpu" if on_gpu else "-cpu")
        assert ("tolerations" in pod) == on_gpu
        shared = [volume for volume in pod["volumes"] if volume.get("emptyDir", {}).get("medium") == "Memory"]
        assert bool(shared) == on_gpu


def test_what_was_set_for_a_group_reaches_its_pods(gpu_package):
    specification, platform = documents(gpu_package)
    trainer = platform["Trainer_executor"]
    assert trainer["activeDeadlineSeconds"] == "7200"
    assert trainer["nodeSelector"] == {"labels": {"pool": "gpu"}}
    assert "activeDeadlineSeconds" not in platform["Compression_executor"]
    (scratch,) = platform["PusherTFLite_executor"]["emptyDirMounts"]
    assert (scratch["mountPath"], scratch["sizeLimit"]) == ("/tmp", "1Gi")  # noqa: S108
    assert [mount["mountPath"] for mount in trainer["emptyDirMounts"]] == ["/dev/shm"]  # noqa: S108
    for config in platform.values():
        assert config["securityContext"] == {"runAsUser": "1000", "runAsNonRoot": True}
        assert {mount["constant"]: mount["mountPath"] for mount in config["pvcMount"]} == {
            "photos": "/mnt/photos",
            "models": "/mnt/models",
        }
        assert config["secretAsEnv"][0]["keyToEnv"] == [{"secretKey": "key", "envVar": "STORE_KEY"}]
        assert config["secretAsVolume"][0]["mountPath"] == "/etc/ca"
        assert config["imagePullSecret"][0]["secretName"] == "registry"
    retry = specification["root"]["dag"]["tasks"]["Trainer"]["retryPolicy"]
    assert (retry["maxRetryCount"], retry["backoffDuration"]) == (2, "60s")


def test_argo_gives_time_for_the_longest_pauses_and_a_month_of_attempts():
    from pipeline.kubeflow.runner import compile_settings

    most = ("kubeflow.resources.trainer.retries=10", "kubeflow.resources.trainer.retry_backoff_s=3600")
    compiled = compile_settings(load_settings(REPOSITORY / "kubeflow" / "settings.yaml", most))
    policies = {name: task.retry_policy for name, task in compiled.spec.root.dag.tasks.items()}
    longest = policies["Trainer"]
    pauses_s = sum(longest.backoff_duration.seconds * longest.backoff_factor**i for i in range(longest.max_retry_count))
    assert pauses_s > 40 * 24 * 3600
    # The backend makes it Argo's maxDuration: after it, counted from the first start, none is tried again.
    shortest_s = min(policy.backoff_max_duration.seconds for policy in policies.values())
    assert shortest_s > pauses_s + 30 * 24 * 3600


def test_the_settings_file_for_cpus_compiles_too():
    from pipeline.kubeflow.runner import compile_settings

    compiled = compile_settings(load_settings(REPOSITORY / "kubeflow" / "settings.yaml"))
    containers = compiled.spec.deployment_spec["executors"].values()
    assert {executor["container"]["image"] for executor in containers} == {"registry.example/trimline:0.1.0-cpu"}


def test_what_is_submitted_without_a_package_is_to_the_byte_what_is_compiled(package):
    server = KfpServer([("RUNNING", {})])
    with serving(server) as address:
        settings = QUICK | ON_KUBEFLOW | {"kubeflow.host": address}
        result = trimline("kubeflow", "submit", "--no-follow", *assignments(settings))
    assert result.returncode == 0, result.stderr
    assert {content.decode() for content in server.uploaded.values()} == {package}


def test_what_the_backend_would_not_honour_is_refused_by_the_nodes_name():
    from tfx import v1 as tfx
    from tfx.dsl.components.common.resolver import Resolver

    from pipeline.kubeflow.compiler import compile_pipeline

    def compile_stock(*nodes, **options):
        settings = KubeflowSettings(pipeline_root="s3://bucket/root")
        pipeline = tfx.dsl.Pipeline("stock", "s3://bucket/root", components=list(nodes), enable_cache=True)
        return compile_pipeline(pipeline, settings, "image", **options)

    with pytest.raises(UserError, match=r"node CsvExampleGen .* driver \(lifecycle\.preCacheCheck\) is never run"):
        compile_stock(tfx.components.CsvExampleGen(input_base="/mnt/data"))
    resolver = Resolver(
        strategy_class=tfx.dsl.experimental.LatestArtifactStrategy,
        model=tfx.dsl.Channel(type=tfx.types.standard_artifacts.Model),
    ).with_id("Baseline")
    with pytest.raises(UserError, match=r"node Baseline .* no executors of kind resolver"):
        compile_stock(resolver)
    schema = tfx.components.ImportSchemaGen(tfx.dsl.experimental.RuntimeParameter(name="schema", ptype=str))
    with pytest.raises(UserError, match=r"node ImportSchemaGen .* runtime parameter schema, whose default"):
        compile_stock(schema)


def test_a_kubernetes_setting_that_the_driver_does_not_read_is_refused(package):
    specification, platform = yaml.safe_load_all(package)
    config = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["Trainer_executor"]
    config["enabledSharedMemory"] = {"volumeName": "shm", "size": "1Gi"}
    documents = (
        json_format.ParseDict(specification, pipeline_spec_pb2.PipelineSpec()),
        json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec()),
    )
    with pytest.raises(UserError, match="node Trainer as it is: the driver does not read enabledSharedMemory"):
        check(*documents)
