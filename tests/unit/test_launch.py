import platform

import pytest

from pipeline.launch import run_module
from pipeline.workspace import Workspace


def _in_a_run(variable, directory, monkeypatch):
    """Runs a module that prints an environment variable, by which TensorFlow goes."""
    (directory / "telling.py").write_text(f"import os\nprint(os.environ.get({variable!r}))\n")
    monkeypatch.setenv("PYTHONPATH", str(directory))
    workspace = Workspace(directory / "out")
    workspace.prepare()
    with workspace.locked() as lock:
        run_module("telling", workspace, lock, lambda: None)
    return workspace.log_file.read_text().strip()


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="was measured on x86 alone")
def test_a_run_takes_the_faster_kernels_whatever_the_cpu(tmp_path, monkeypatch):
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    assert _in_a_run("TF_ENABLE_ONEDNN_OPTS", tmp_path, monkeypatch) == "1"


def test_a_run_leaves_memory_of_the_gpu_to_the_processes_beside_it(tmp_path, monkeypatch):
    monkeypatch.delenv("TF_FORCE_GPU_ALLOW_GROWTH", raising=False)
    assert _in_a_run("TF_FORCE_GPU_ALLOW_GROWTH", tmp_path, monkeypatch) == "true"


@pytest.mark.parametrize(
    ("variable", "value"), [("TF_ENABLE_ONEDNN_OPTS", "0"), ("TF_FORCE_GPU_ALLOW_GROWTH", "false")]
)
def test_the_users_own_choice_counts(tmp_path, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    assert _in_a_run(variable, tmp_path, monkeypatch) == value
