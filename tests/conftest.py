"""What all tests share: TensorFlow's environment, and a browser."""

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

# Set before anything imports TensorFlow: TFX and TFMOT work with Keras 2 only.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


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
