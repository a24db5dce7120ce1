"""The examples of docs/extending.md, applied to a copy of the sources and run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
# Language, path of a file if the block is one, content.
BLOCKS = re.findall(r"^```(\w+) ?(\S*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
MOST_LINES = 50


def test_each_walk_adds_less_than_50_lines():
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        blocks = re.findall(r"^```(\w+) ?(\S*)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
        files = sum(len(content.splitlines()) for _, path, content in blocks if path)
        added = sum(
            len(re.findall(r"^\+(?!\+)", content, re.MULTILINE)) for kind, _, content in blocks if kind == "diff"
        )
        assert 0 < files + added < MOST_LINES, section.splitlines()[0]


@pytest.mark.component  # Loads TFX and converts a network.
def test_the_examples_fit_the_sources_and_work(tmp_path):
    for package in ("pipeline", "components", "trainer_module", "serving"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    checks = []
    for kind, path, content in BLOCKS:
        if kind == "diff":
            subprocess.run(["git", "apply", "-"], input=content, text=True, cwd=tmp_path, check=True)
        elif path:
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_text(content)
        else:
            checks.append(content)
    assert len(checks) == 3
    wired = "from pipeline import create_pipeline\nassert create_pipeline.SizeNote is SizeNote\n"
    (tmp_path / "checks.py").write_text("\n".join([*checks, wired]))
    # The metadata of the installed package, whose version the pipeline asks for, is found there as ever.
    result = subprocess.run(
        [sys.executable, "checks.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr[-3000:]
