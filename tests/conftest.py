"""What all tests share: TensorFlow's environment, and a browser."""

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from trainer_module import progress

# Set before anything imports TensorFlow: TFX and TFMOT work with Keras 2 only.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keeps together what shares something that takes long to make: the tests of a file, and those that name a group.

    Where pytest runs in several processes, each group of pytest-xdist stays in one of them.
    """
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.name))


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
