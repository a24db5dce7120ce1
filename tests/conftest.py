"""What all tests share: TensorFlow's environment, and a browser."""

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

# Set before anything imports TensorFlow: TFX and TFMOT work with Keras 2 only.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


_E2E = "tests/e2e/"


class _SharedRuns(LoadFileScheduling):
    """Keeps the tests of a file in one process, and all of e2e/, which look at the same run."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return _E2E if file.startswith(_E2E) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """Says which tests stay together where --dist is loadfile, as in the Makefile."""
    return _SharedRuns(config, log) if config.getvalue("dist") == "loadfile" else None


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
