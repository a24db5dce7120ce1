"""trimline kubeflow submit and status, against a server on a real socket."""

import json
import os

import pytest
import yaml

from tests.kubeflow.conftest import trimline
from tests.kubeflow.kfp_server import KfpServer, serving

pytestmark = pytest.mark.component

TASKS = ("ImageExampleGen", "Trainer", "ReleaseGate", "PusherSavedModel", "PusherTFLite")
# What the backend lists beside them, the attempts of a task among it.
OTHERS = ("root", "Trainer-driver", "executor", "executor(0)", "executor(1)")


def states(**exceptions):
    """Says how the tasks of a run stand: succeeded, but for the exceptions."""
    return {name: (exceptions.get(name, "SUCCEEDED"), {}) for name in (*OTHERS, *TASKS)}


RUNNING = ("RUNNING", {"root": ("RUNNING", {}), "ImageExampleGen": ("SUCCEEDED", {}), "Trainer": ("RUNNING", {})})
PUSHED = ("SUCCEEDED", states())
REFUSED = ("SUCCEEDED", states(PusherSavedModel="SKIPPED", PusherTFLite="SKIPPED"))


@pytest.fixture
def package(tmp_path):
    file = tmp_path / "pipeline.yaml"
    tasks = {"Trainer": {"cachingOptions": {"enableCache": True}}}
    specification = {"pipelineInfo": {"name": "trimline"}, "root": {"dag": {"tasks": tasks}}, "schemaVersion": "2.1.0"}
    file.write_text(yaml.safe_dump_all([specification, {"platforms": {}}]))
    return file


def submit(address, package, *options, token=None):
    environment = os.environ | ({"TRIMLINE_KUBEFLOW_TOKEN": token} if token else {})
    return trimline(
        "kubeflow", "submit", "--package", package, "--set", f"kubeflow.host={address}", *options, env=environment
    )


def test_a_run_is_uploaded_started_and_followed_to_the_push(package):
    server = KfpServer([RUNNING, RUNNING, PUSHED])
    with serving(server) as address:
        own = ("--set", "kubeflow.service_account=trainer", "--set", "kubeflow.pipeline_root=s3://bucket/root")
        result = submit(address, package, *own)
        again = submit(address, package)
    assert result.returncode == again.returncode == 0, result.stderr
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0].startswith("Run run-1 (trimline-")
    assert lines[1:4] == ["ImageExampleGen: succeeded", "Trainer: running", "Trainer: succeeded"]
    assert lines[-1] == "Pushed"
    assert not any(name in result.stdout for name in ("driver", "executor", "root"))
    run = server.runs["run-1"]
    assert run["service_account"] == "trainer"
    assert run["runtime_config"]["pipeline_root"] == "s3://bucket/root"
    assert server.uploaded[run["display_name"]] == package.read_bytes()
    assert run["pipeline_version_reference"]["pipeline_version_id"] == f"version of {run['display_name']}"
    # The second submission is a version of the same pipeline, in the same experiment.
    assert len(server.pipelines) == len(server.experiments) == 1


def test_a_release_that_the_gates_refused_ends_with_3(package):
    with serving(KfpServer([REFUSED])) as address:
        result = submit(address, package)
    assert result.returncode == 3
    assert result.stderr.startswith("trimline: not pushed")


@pytest.mark.parametrize(
    ("last", "part"),
    [
        (("FAILED", {"Trainer": ("FAILED", {"error": {"message": "out of memory"}})}), "Trainer: out of memory"),
        (("CANCELED", states(Trainer="CANCELED")), "ended as CANCELED"),
        (("SUCCEEDED", {}), "does not say whether it was pushed"),
    ],
)
def test_a_run_that_did_not_work_ends_with_1_and_says_which_task(package, last, part):
    with serving(KfpServer([RUNNING, last])) as address:
        result = submit(address, package)
    assert result.returncode == 1
    assert part in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_server_that_is_away_for_a_moment_is_asked_again(package):
    with serving(KfpServer([RUNNING, 503, 502, PUSHED])) as address:
        result = submit(address, package)
    assert (result.returncode, result.stdout.splitlines()[-1]) == (0, "Pushed"), result.stderr


def test_a_token_that_expires_on_the_way_ends_with_1_and_the_run_is_said_to_go_on(package):
    with serving(KfpServer([RUNNING, 401])) as address:
        result = submit(address, package)
    assert result.returncode == 1
    assert "refused (401)" in result.stderr
    assert result.stderr.endswith("the run may go on; look with trimline kubeflow status run-1\n")
    assert result.stderr.count("\n") == 1


def test_without_following_and_cache_it_only_says_the_run_and_no_task_is_cached(package):
    server = KfpServer([RUNNING])
    with serving(server) as address:
        result = submit(address, package, "--no-follow", "--no-cache")
    assert (result.returncode, len(result.stdout.splitlines())) == (0, 1)
    for content in server.uploaded.values():
        specification, platform = yaml.safe_load_all(content)
        assert specification["root"]["dag"]["tasks"]["Trainer"]["cachingOptions"] == {}
        assert platform == {"platforms": {}}


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ([], "kubeflow.host is not set"),
        (["--set", "kubeflow.host=http://127.0.0.1:9"], "no Kubeflow Pipelines API answers there"),
    ],
)
def test_no_server_is_a_users_mistake(package, options, part):
    result = trimline("kubeflow", "submit", "--package", package, *options)
    assert result.returncode == 2
    assert part in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_token_comes_from_the_environment_and_is_never_shown(package):
    with serving(KfpServer([PUSHED], token="s3cret")) as address:  # noqa: S106 (made up)
        without, wrong, right = (submit(address, package, token=token) for token in (None, "wr0ng", "s3cret"))
    assert (without.returncode, wrong.returncode, right.returncode) == (2, 2, 0)
    assert "$TRIMLINE_KUBEFLOW_TOKEN" in without.stderr
    assert not any("wr0ng" in text or "s3cret" in text for r in (wrong, right) for text in (r.stdout, r.stderr))


def test_status_lists_runs_and_the_tasks_of_one(package):
    server = KfpServer([("FAILED", {"Trainer": ("FAILED", {"error": {"message": "no node has a GPU"}})})])
    with serving(server) as address:
        host = ("--set", f"kubeflow.host={address}")
        empty = trimline("kubeflow", "status", *host)
        submit(address, package, "--no-follow")
        runs = trimline("kubeflow", "status", *host)
        tasks = trimline("kubeflow", "status", "run-1", *host)
        unknown = trimline("kubeflow", "status", "run-7", *host)
        document = trimline("kubeflow", "status", "run-1", "--json", *host)
    assert empty.returncode == runs.returncode == tasks.returncode == 0
    assert "run-1" in runs.stdout
    assert "run-1" not in empty.stdout
    assert "Trainer" in tasks.stdout
    assert "no node has a GPU" in tasks.stdout
    assert unknown.returncode == 2
    assert json.loads(document.stdout)["errors"] == {"Trainer": "no node has a GPU"}
