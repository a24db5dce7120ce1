"""Runs that are killed, stopped, or run out of disk; and runs whose data components work in several processes."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import tensorflow as tf

from benchmarks.data_components import run_data_components
from pipeline.config import load_settings
from pipeline.metadata import Metadata, Outputs
from pipeline.prepare import resolve
from pipeline.workspace import Workspace
from tests.e2e.commands import TRIMLINE
from tests.image_files import write_tree

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
QUICK = ("trainer.epochs=2", "acceleration.mode=manual", "compression.stages=[quantize]", "model.width=0.5")
OPTIONS = [word for setting in QUICK for word in ("--set", setting)]
SECRETS = {"TRIMLINE_API_KEY": "s3cret-of-trimline", "AWS_SECRET_ACCESS_KEY": "s3cret-of-the-store"}


@pytest.mark.long
def test_killed_runs_end_like_one_that_was_never_killed() -> None:
    """Two runs with one seed, of which one is killed twice, come to the same accuracy and one push."""
    command = [sys.executable, "-m", "benchmarks.kill_soak", "--kills", "2", "--set", "trainer.epochs=2"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=1800, cwd=ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 faults" in result.stdout
    assert result.stdout.count("killed ") >= 2


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("data") / "photos", {"a": 40, "b": 40})


def start(photos: Path, out: Path) -> subprocess.Popen[str]:
    command = [TRIMLINE, "run", "--data", photos, "--output", out, *OPTIONS]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | SECRETS
    )


@pytest.fixture(scope="module")
def stopped(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, str, float]:
    """A run that got SIGTERM while its second component was at work; and how it ended, after how many seconds."""
    out = tmp_path_factory.mktemp("stopped") / "out"
    process = start(photos, out)
    assert process.stdout is not None
    # Killed, it ends its output.
    watchdog = threading.Timer(600, process.kill)
    watchdog.start()
    seen = any("StatisticsGen: started" in line for line in process.stdout)
    watchdog.cancel()
    assert seen, f"StatisticsGen was not started: {process.communicate()}"
    children = psutil.Process(process.pid).children()
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=120)
    assert not any(child.is_running() for child in children)
    return out, process.returncode, stderr, time.monotonic() - started


def test_a_run_that_is_asked_to_end_does_so_in_seconds_and_says_how_to_go_on(
    stopped: tuple[Path, int, str, float],
) -> None:
    out, status, stderr, seconds = stopped
    assert status == 128 + signal.SIGTERM
    kept = "finished components, epochs and fine-tunings are kept"
    assert stderr.startswith(f"trimline: stopped; {kept}; to go on: trimline run --data ")
    assert stderr.count("\n") == 1
    assert seconds < 30
    metadata = Metadata(out / "metadata.db")
    (run,) = metadata.runs()
    assert next(component.state for component in metadata.components(run)) == "done"


def test_no_secret_of_the_environment_is_written_anywhere(stopped: tuple[Path, int, str, float]) -> None:
    out = stopped[0]
    files = [path for path in out.rglob("*") if path.is_file()]
    assert out / "metadata.db" in files
    assert out / "logs" / "run.log" in files
    found = [path for path in files for secret in SECRETS.values() if secret.encode() in path.read_bytes()]
    assert found == []


def _can_mount() -> bool:
    """Tells whether this system lets its users mount a file system of their own."""
    if shutil.which("unshare") is None:
        return False
    probe = ["unshare", "--map-root-user", "--mount", "sh", "-c", "mount -t tmpfs -o size=1m tmpfs /mnt"]
    return subprocess.run(probe, capture_output=True).returncode == 0


@pytest.mark.skipif(not _can_mount(), reason="no file system of limited size can be mounted here")
def test_a_full_disk_is_one_line_and_loses_nothing(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    run = f"{TRIMLINE} run --data {photos} --output {out} {' '.join(map(repr, OPTIONS))}"
    script = (
        f"mount -t tmpfs -o size=800k tmpfs {out} && {{ {run}; echo status $?; {TRIMLINE} status --output {out}; }}"
    )
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert "status 2" in result.stdout, result.stdout + result.stderr
    assert result.stderr.startswith(f"trimline: {out}: no space left on device; make room there"), result.stderr
    assert result.stderr.count("\n") == 1
    # The record of the run can be read.
    assert "not finished" in result.stdout


def transformed(photos: Path, out: Path, workers: int) -> list[bytes]:
    workspace = Workspace(out)
    workspace.prepare()
    settings = load_settings(assignments=(f"data.path={photos}", f"beam.workers={workers}"))
    workspace.write_settings(resolve(settings, workspace))
    run_data_components(workspace)
    metadata = Metadata(workspace.metadata_file)
    examples = Outputs(metadata, metadata.runs()[-1]).uri("Transform", "transformed_examples")
    files = [str(path) for path in Path(examples).glob("Split-*/*.gz")]
    records = [tf.train.Example.FromString(record.numpy()) for record in tf.data.TFRecordDataset(files, "GZIP")]
    # A map has no order of its own.
    return sorted(record.SerializeToString(deterministic=True) for record in records)


def test_several_processes_come_to_what_one_comes_to(photos: Path, tmp_path: Path) -> None:
    one, two = (transformed(photos, tmp_path / str(workers), workers) for workers in (1, 2))
    assert len(one) == 80
    assert one == two
