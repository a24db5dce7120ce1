"""The container image: its steps, run in a clean folder where no builder is."""

import fnmatch
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.kubeflow.dockerfile import exec_form, read_stages
from tests.kubeflow.pod import REPOSITORY, Pod, pods_are_possible

STAGES = read_stages(REPOSITORY / "kubeflow" / "Dockerfile")
BUILT = ("tools", "packages-cpu", "trimline-cpu")


def lock(name):
    """Returns the packages of a lock, with their versions and how many hashes each has."""
    entries = re.split(r"\n(?=\S)", (REPOSITORY / name).read_text().strip())
    parsed = (re.match(r"([\w.-]+)==([^\s;]+)", entry) for entry in entries if not entry.startswith("#"))
    return {match[1]: match[2] for match in parsed}, [entry for entry in entries if "--hash=sha256:" not in entry]


def test_everything_that_is_copied_is_there_and_in_the_context():
    rules = (REPOSITORY / ".dockerignore").read_text().split()
    allowed = [rule[1:] for rule in rules if rule.startswith("!")]
    for name, stage in STAGES.items():
        for source in stage.copied():
            assert (REPOSITORY / source).exists(), f"{name}: {source}"
            assert any(fnmatch.fnmatch(source, pattern) for pattern in allowed), f"{name}: {source}"
        for arguments in stage.all("COPY"):
            if arguments.startswith("--from="):
                assert arguments.split()[0].removeprefix("--from=") in STAGES


def test_pods_run_as_a_user_without_rights_under_tini():
    base = STAGES["base"]
    user, group = base.all("USER")[0].split(":")
    assert int(user) > 0
    assert int(group) > 0
    assert exec_form(base.all("ENTRYPOINT")[0]) == ["tini", "--"]
    assert "tini" in base.all("RUN")[0]
    assert {stage.base for stage in (STAGES["cpu"], STAGES["gpu"])} == {"base"}


def test_the_images_hold_the_versions_that_were_tested_by_their_hashes():
    tested, _ = lock("requirements.lock")
    for target in ("cpu", "gpu"):
        locked, without_hash = lock(f"kubeflow/requirements-{target}.lock")
        assert without_hash == []
        own = {name: version for name, version in locked.items() if not name.startswith("nvidia-")}
        assert {name: tested.get(name) for name in own} == own
        assert "pytest" not in own


def test_the_gpu_image_has_the_cuda_libraries_that_this_tensorflow_was_built_for():
    locked, _ = lock("kubeflow/requirements-gpu.lock")
    wanted = [Requirement(text) for text in importlib.metadata.requires("tensorflow")]
    cuda = [
        each for each in wanted if each.marker and each.marker.evaluate({"extra": "and-cuda"}) and "nvidia" in each.name
    ]
    assert len(cuda) > 5
    assert [each.name for each in cuda if not each.specifier.contains(locked[each.name])] == []


@pytest.mark.long
@pytest.mark.skipif(not pods_are_possible(), reason="this machine gives processes no mount namespace of their own")
def test_what_the_steps_build_runs_as_a_pod_does(tmp_path):
    source, prefix = tmp_path / "src", tmp_path / "trimline"
    source.mkdir()
    # Not the image's settings, but this machine's: what make setup has downloaded need not be downloaded again.
    own = {"PREFIX": str(prefix), "PIP_NO_CACHE_DIR": "0", "UV_NO_CACHE": "0", "UV_LINK_MODE": "hardlink"}
    path = f"{Path(sys.base_prefix) / 'bin'}:{os.environ['PATH']}"
    environment = os.environ | STAGES["tools"].environment() | own | {"PATH": path}
    for name in BUILT:
        for instruction, arguments in STAGES[name].steps:
            if instruction == "COPY":
                _copy(arguments.split()[:-1], arguments.split()[-1], source)
            elif instruction == "RUN":
                subprocess.run(["sh", "-ec", arguments], cwd=source, env=environment, check=True)
    shutil.rmtree(source)
    pod = Pod(
        tmp_path / "pod",
        {str(prefix): prefix},
        {
            name: value.replace("/opt/trimline", str(prefix)).replace("$PATH", "/usr/bin:/bin")
            for name, value in STAGES["base"].environment().items()
        },
    )
    log = tmp_path / "log.txt"
    status = pod.run(["trimline", "kubeflow", "compile", "--set", "data.image_size=32"], log, None, lambda: False)
    assert (status, log.read_text()) == (
        2, "trimline: kubeflow.image is not set; it must be the image that pods run, made from kubeflow/Dockerfile\n"
    )  # fmt: skip


def _copy(sources, target, root):
    for name in sources:
        destination = root / target / Path(name).name if target.endswith((".", "/")) else root / target
        if (REPOSITORY / name).is_dir():
            shutil.copytree(REPOSITORY / name, destination, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(REPOSITORY / name, destination)
