"""The serving manifests, against the schemas of Kubernetes and KServe."""

import itertools
import shutil
import subprocess

import pytest
import yaml
from kubernetes.utils import parse_quantity

from pipeline.config import load_settings
from serving.guard import MOST_ARRIVING_BODIES
from serving.options import ServerOptions
from tests.image_files import MOST_BYTES_PER_PIXEL
from tests.kubeflow.api_objects import KINDS, faults
from tests.kubeflow.kustomize import build
from tests.kubeflow.pod import REPOSITORY

MANIFESTS = REPOSITORY / "kubeflow" / "serving"
OVERLAYS = ("overlays/cpu", "overlays/gpu", "overlays/canary")


def objects(overlay):
    return {(each["kind"], each["metadata"]["name"]): each for each in build(MANIFESTS / overlay)}


@pytest.mark.parametrize("overlay", [*OVERLAYS, "kserve"])
def test_every_object_is_one_that_the_cluster_would_take(overlay):
    for (kind, name), each in objects(overlay).items():
        assert faults(each, KINDS[each["apiVersion"], kind], name) == []


def test_the_check_finds_what_is_wrong():
    deployment = objects("overlays/cpu")["Deployment", "trimline-tflite"]
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    container["ports"][0]["containerport"] = container["ports"][0].pop("containerPort")
    container["readinessProbe"]["periodSeconds"] = "5"
    found = faults(deployment, "V1Deployment")
    assert any("no such field in V1ContainerPort" in fault for fault in found)
    assert any("`container_port`, must not be `None`" in fault for fault in found)
    assert any("'5' is no int" in fault for fault in found)


@pytest.mark.parametrize("overlay", [*OVERLAYS, "kserve"])
@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kubectl_builds_the_same(overlay):
    built = subprocess.run(["kubectl", "kustomize", MANIFESTS / overlay], capture_output=True, text=True, check=True)
    theirs = {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(built.stdout)}
    assert theirs == objects(overlay)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_all_that_selects_pods_selects_those_of_its_deployment(overlay):
    built = objects(overlay)
    for name in ("trimline-tflite", "trimline-saved-model"):
        template = built["Deployment", name]["spec"]["template"]
        ports = {port["name"] for port in template["spec"]["containers"][0]["ports"]}
        assert built["Service", name]["spec"]["selector"].items() <= template["metadata"]["labels"].items()
        assert {port["targetPort"] for port in built["Service", name]["spec"]["ports"]} == ports
        for kind, path in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
            selector = built[kind, name]["spec"][path]["matchLabels"]
            assert selector.items() <= template["metadata"]["labels"].items()
        (rule,) = built["NetworkPolicy", name]["spec"]["ingress"]
        assert {port["port"] for port in rule["ports"]} == ports
        assert built["HorizontalPodAutoscaler", name]["spec"]["scaleTargetRef"]["name"] == name


def our_server(overlay):
    """Returns the container of our server, and the settings that its command line makes."""
    ((kind, each),) = (
        (kind, each)
        for (kind, name), each in objects(overlay).items()
        if name == "trimline-tflite" and kind in ("Deployment", "InferenceService")
    )
    pod = each["spec"]["template"]["spec"] if kind == "Deployment" else each["spec"]["predictor"]
    (container,) = pod["containers"]
    words = container["args"]
    given = [following for word, following in itertools.pairwise(words) if word == "--set"]
    given += [f"serving.workers={words[words.index('--workers') + 1]}"]
    return container, load_settings(None, tuple(given)).serving


@pytest.mark.parametrize("overlay", [*OVERLAYS, "kserve"])
def test_our_server_computes_no_more_at_a_time_than_it_asks_processors_for(overlay):
    container, options = our_server(overlay)
    assert options.threads is not None, "else it would take the node's"
    assert options.workers * options.threads <= int(container["resources"]["requests"]["cpu"])


@pytest.mark.parametrize("overlay", [*OVERLAYS, "kserve"])
def test_the_largest_photos_and_all_bodies_fit_into_our_server_s_memory(overlay):
    container, options = our_server(overlay)
    decoding = options.workers * options.threads * options.max_pixels * MOST_BYTES_PER_PIXEL
    bodies = options.threads + options.queue + MOST_ARRIVING_BODIES
    # As much more of those that are computed, where they are JSON (docs/serving.md).
    bodies += 24 * options.threads
    needed = decoding + options.workers * bodies * options.max_body_mb * 1_000_000
    limit = container["resources"]["limits"]["memory"]
    assert limit.endswith("Gi")
    # Without photos the server takes some 170 MB (docs/serving.md).
    assert needed < int(limit.removesuffix("Gi")) * 2**30 - 512 * 2**20


@pytest.mark.parametrize("overlay", [*OVERLAYS, "kserve"])
def test_our_server_runs_without_rights_and_outlives_its_grace_period(overlay):
    for (kind, name), each in objects(overlay).items():
        if name != "trimline-tflite" or kind not in ("Deployment", "InferenceService"):
            continue
        pod = each["spec"]["template"]["spec"] if kind == "Deployment" else each["spec"]["predictor"]
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert pod["terminationGracePeriodSeconds"] > ServerOptions().grace_s
        assert "limits" in container["resources"]
        assert {"readinessProbe", "livenessProbe"} <= container.keys()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_tensorflow_serving_may_wait_a_day_for_the_first_push_with_its_ports_closed(overlay):
    (container,) = objects(overlay)["Deployment", "trimline-saved-model"]["spec"]["template"]["spec"]["containers"]
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 24 * 3600


def test_kserve_makes_deployments_because_knative_refuses_the_grace_period_and_the_security_context():
    for (_, name), each in objects("kserve").items():
        assert each["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "Standard", name
        # Shares requests between Knative's revisions; elsewhere it is passed over without a word.
        assert "canaryTrafficPercent" not in each["spec"]["predictor"], name


def test_kserve_finds_no_request_or_limit_to_add_and_no_request_is_above_its_limit():
    for (_, name), each in objects("kserve").items():
        predictor = each["spec"]["predictor"]
        for container in predictor.get("containers") or [predictor["model"]]:
            requests, limits = (container["resources"][kind] for kind in ("requests", "limits"))
            for amount in ("cpu", "memory"):
                assert parse_quantity(requests[amount]) <= parse_quantity(limits[amount]), name


def test_kserve_runs_the_tensorflow_serving_that_the_overlays_run():
    deployment = objects("overlays/cpu")["Deployment", "trimline-saved-model"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    model = objects("kserve")["InferenceService", "trimline-saved-model"]["spec"]["predictor"]["model"]
    assert container["image"] == f"tensorflow/serving:{model['runtimeVersion']}"


def test_a_rollout_waits_for_no_gpu_beyond_those_in_use():
    deployment = objects("overlays/gpu")["Deployment", "trimline-saved-model"]
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 1, "maxSurge": 0}


def test_only_the_gpu_overlay_asks_for_gpus_and_only_for_the_saved_model():
    asking = {
        (overlay, name)
        for overlay in OVERLAYS
        for (kind, name), each in objects(overlay).items()
        if kind == "Deployment"
        and "nvidia.com/gpu" in each["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    }
    assert asking == {("overlays/gpu", "trimline-saved-model")}
