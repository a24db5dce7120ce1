import platform

import pytest

from pipeline.launch import run_module
from pipeline.workspace import Workspace


def _kernels_in_a_run(directory, monkeypatch):
    """Runs a module that prints whether TensorFlow is to use oneDNN's kernels."""
    (directory / "kernels.py").write_text("import os\nprint(os.environ.get('TF_ENABLE_ONEDNN_OPTS'))\n")
    monkeypatch.setenv("PYTHONPATH", str(directory))
    workspace = Workspace(directory / "out")
    workspace.prepare()
    with workspace.locked() as lock:
        run_module("kernels", workspace, lock, lambda: None)
    return workspace.log_file.read_text().strip()


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="was measured on x86 alone")
def test_a_run_takes_the_faster_kernels_whatever_the_cpu(tmp_path, monkeypatch):
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    assert _kernels_in_a_run(tmp_path, monkeypatch) == "1"


def test_the_users_own_choice_of_kernels_counts(tmp_path, monkeypatch):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    assert _kernels_in_a_run(tmp_path, monkeypatch) == "0"
