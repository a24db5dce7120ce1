"""What the serving package may not import, found out in fresh interpreters."""

import subprocess
import sys

import pytest
from edge_servers import REPOSITORY

HEAVY = ("tensorflow", "tf_keras", "tfx", "apache_beam", "pipeline", "components", "trainer_module")


def _assert_not_imported(modules: str, unwanted: tuple[str, ...]) -> None:
    call = (
        f"import {modules}, sys; assert not set({unwanted!r}) & set(sys.modules), set({unwanted!r}) & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", call], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_server_and_the_client_import_no_training_code() -> None:
    _assert_not_imported("serving.server, serving.client", HEAVY)


@pytest.mark.parametrize("module", ["serving.predictor", "serving.client"])
def test_prediction_and_client_are_quick_to_import(module: str) -> None:
    _assert_not_imported(module, (*HEAVY, "kserve", "fastapi", "pandas"))
