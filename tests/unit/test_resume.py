import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.transformed_files import striped_images, write_transformed
from trainer_module import input_pipeline, training
from trainer_module.settings import AccelerationSettings, ModelSettings, TrainerSettings, TrainingSettings

ROOT = Path(__file__).parents[2]
# For what hangs, not for what is slow.
PATIENCE = 600

# Batches do not divide the images evenly, and dropout and the moving average have a state of their own.
SCRIPT = """
import hashlib
import json
import logging
import sys
from pathlib import Path

from tests.transformed_files import striped_images, write_transformed
from trainer_module import input_pipeline, progress, training
from trainer_module.settings import (
    AccelerationSettings,
    ModelSettings,
    ProgressiveResizingSettings,
    SamSettings,
    TrainerSettings,
    TrainingSettings,
)

logging.basicConfig(level=logging.INFO, format="%(message)s")
directory = Path(sys.argv[1])
records = [
    input_pipeline.measure([write_transformed(directory / f"{seed}.gz", *striped_images(count, 16, seed))])
    for seed, count in enumerate((1000, 40))
]
settings = TrainingSettings(
    image_size=16,
    seed=5,
    model=ModelSettings(architecture="pooling", width=0.1, dropout=0.5),
    trainer=TrainerSettings(
        epochs=6,
        batch_size=32,
        ema=0.9,
        progressive_resizing=ProgressiveResizingSettings(initial_scale=0.75, share=0.5),
        sam=SamSettings(rho=0.05, share=0.5),
    ),
    acceleration=AccelerationSettings(mode="manual"),
)
for name in sys.argv[2:]:
    run = directory / name
    run.mkdir(exist_ok=True)
    with progress.kept_in(run / "progress.json"):
        result = training.train(settings, *records, 2, run / "logs", checkpoint_directory=str(run / "checkpoints"))
    digest = hashlib.sha256(b"".join(weight.tobytes() for weight in result.model.get_weights())).hexdigest()
    print("RESULT", json.dumps({"weights": digest, "history": result.history}))
"""


def _start(directory, *names):
    script = directory / "train.py"
    script.write_text(SCRIPT)
    return subprocess.Popen(
        [sys.executable, str(script), str(directory), *names],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


@pytest.mark.component  # Two processes that load TensorFlow.
def test_a_killed_training_ends_like_one_that_was_never_killed(tmp_path):
    process = _start(tmp_path, "killed")
    deadline = time.monotonic() + PATIENCE
    while not _is_within_an_epoch(tmp_path / "killed/progress.json"):
        assert process.poll() is None, process.stdout.read()
        if time.monotonic() > deadline:
            process.kill()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    killed = _output(process)
    assert process.returncode == -signal.SIGKILL
    assert "Epoch 3/6" in killed

    process = _start(tmp_path, "killed", "unharmed")
    output = _output(process)
    assert process.returncode == 0, output
    resumed, unharmed = re.split("^RESULT", output, flags=re.MULTILINE)[:2]
    assert re.search("the training goes on after epoch [2345]$", resumed, re.MULTILINE)
    assert "Epoch 1/6" not in resumed
    assert "Epoch 1/6" in unharmed
    results = [json.loads(line.removeprefix("RESULT")) for line in output.splitlines() if line.startswith("RESULT")]
    assert results[0] == results[1]


def _output(process):
    """Returns what a process has written when it has ended; one that does not end is killed, and the test fails."""
    try:
        return process.communicate(timeout=PATIENCE)[0]
    finally:
        process.kill()


def _is_within_an_epoch(file):
    report = json.loads(file.read_text())["Trainer"] if file.exists() else {}
    return report.get("epoch", 0) >= 3 and report["step"] < report["steps"]


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    directory = tmp_path_factory.mktemp("splits")
    train = write_transformed(directory / "train.gz", *striped_images(64, 16))
    validation = write_transformed(directory / "validation.gz", *striped_images(32, 16, seed=1))
    return input_pipeline.measure([train]), input_pipeline.measure([validation])


def _train(splits, directory, steps_per_execution=1):
    settings = TrainingSettings(
        image_size=16,
        model=ModelSettings(architecture="pooling", width=0.1),
        trainer=TrainerSettings(epochs=2, batch_size=32),
        acceleration=AccelerationSettings(mode="manual", steps_per_execution=steps_per_execution),
    )
    return training.train(settings, *splits, 2, directory / "logs", checkpoint_directory=str(directory / "checkpoints"))


@pytest.mark.component  # Three trainings.
def test_a_finished_training_is_taken_up_and_a_damaged_one_starts_anew(splits, tmp_path, caplog):
    first = _train(splits, tmp_path, steps_per_execution=2)
    again = _train(splits, tmp_path)
    # The acceleration is part of the record: how fast the machine is now does not matter any more.
    assert again.record == first.record
    assert again.choice.chosen.steps_per_execution == 2
    assert all((a == b).all() for a, b in zip(first.model.get_weights(), again.model.get_weights(), strict=True))

    data = tmp_path / "checkpoints/ckpt-2.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    anew = _train(splits, tmp_path)
    assert anew.record.epochs == 2
    assert anew.record.seconds != first.record.seconds
    assert "the training starts anew" in caplog.text
