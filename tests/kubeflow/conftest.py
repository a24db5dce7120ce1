"""A pipeline compiled for Kubeflow, as the command line does it."""

import subprocess
import sys
from pathlib import Path

import pytest

TRIMLINE = Path(sys.executable).with_name("trimline")
# Small and repeatable: what is tested is the platform.
QUICK = {
    "seed": 1,
    "data.image_size": 16,
    "model.width": 0.5,
    "trainer.epochs": 6,
    "trainer.augmentation.flip": "false",
    "acceleration.mode": "manual",
    "compression.stages": "[quantize]",
}
ON_KUBEFLOW = {
    "data.path": "/mnt/photos/digits",
    "push.saved_model_dir": "/mnt/models/saved_model",
    "push.tflite_dir": "/mnt/models/tflite",
    "kubeflow.image": "registry.example/trimline:0.1.0",
    "kubeflow.pipeline_root": "minio://mlpipeline/v2/artifacts",
    "kubeflow.checkpoints_dir": "/mnt/models/checkpoints",
    "kubeflow.volumes": "[{claim: photos, mount_path: /mnt/photos}, {claim: models, mount_path: /mnt/models}]",
}


def assignments(settings):
    return [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]


def trimline(*arguments, **options):
    return subprocess.run([TRIMLINE, *map(str, arguments)], capture_output=True, text=True, timeout=900, **options)


def compiled(directory, settings):
    """Compiles and returns the text of the package."""
    file = directory / "pipeline.yaml"
    result = trimline("kubeflow", "compile", "--output", file, *assignments(settings))
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return file.read_text()


@pytest.fixture(scope="session")
def package(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("package"), QUICK | ON_KUBEFLOW)
