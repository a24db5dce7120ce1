"""What all tests share: TensorFlow's environment, and a browser."""

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

from trainer_module import progress

# Set before anything imports TensorFlow: TFX and TFMOT work with Keras 2 only.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


# These look at the same run.
_DIGITS = {"tests/e2e/test_main_job.py", "tests/e2e/test_report_page.py"}


class _SharedRuns(LoadFileScheduling):
    """Keeps in one process what shares something that takes long to make: the tests of a file, and of some files.

    The groups of pytest-xdist 3.8 would do the same, but pytest 9.2 does not let it mark its tests with them.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "digits" if file in _DIGITS else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """Says which tests stay together where --dist is loadfile, as in the Makefile."""
    return _SharedRuns(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture
def kept_reports(tmp_path):
    """The file in which the latest progress reports are kept while a test runs."""
    file = tmp_path / "reports.json"
    with progress.kept_in(file):
        yield file


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real headless Chromium, through playwright; a test that uses it is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api")
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("no Chromium on the PATH")
    options = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    options += ["--disable-component-update", "--disable-sync"]
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=executable, args=options)
        yield chromium
        chromium.close()
