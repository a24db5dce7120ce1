"""Set before anything imports TensorFlow: TFX and TFMOT work with Keras 2 only."""

import os

import pytest

from trainer_module import progress

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@pytest.fixture
def kept_reports(tmp_path):
    """The file in which the latest progress reports are kept while a test runs."""
    file = tmp_path / "reports.json"
    with progress.kept_in(file):
        yield file
