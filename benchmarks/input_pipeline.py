"""The training input: images per second beside keras.utils.image_dataset_from_directory, and its share of a step.

    python -m benchmarks.input_pipeline DATA [--set KEY=VALUE ...]

DATA must have a train/ folder, so that both read the same photos. Both make float32 batches of the same size; ours also
augments. Their epochs take turns. The first one begins with a list of files, and so contains all that comes before the
first batch.

The network of the settings is then trained, as acceleration.jit and acceleration.precision say, for some steps with
these batches and for some with one that is always at hand, in turns. Two shares are printed: the time that a step waits
for its batch, and what a step takes longer than with the batch at hand, where the input competes for no cores.
"""

from __future__ import annotations

import itertools
import os
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.data_components import prepared_workspace, run_data_components
from pipeline.metadata import Metadata, Outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trainer_module.settings import TrainingSettings

_LATER_EPOCHS = 3
_TRAINING_ROUNDS = 5
_STEPS_PER_ROUND = 30


def main() -> None:
    """Prepares the data, times both pipelines, and prints the figures."""
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    # Only train/ is compared, so next to nothing is taken away from it for validation.
    with prepared_workspace(__doc__, "data.validation_fraction=0.001") as workspace:
        run_data_components(workspace)
        metadata = Metadata(workspace.metadata_file)
        examples = Outputs(metadata, metadata.runs()[-1]).uri("Transform", "transformed_examples")
        settings = workspace.read_settings()
        _compare(settings.training(), Path(settings.data.path or "") / "train", f"{examples}/Split-train/*")


def _compare(settings: TrainingSettings, photos: Path, files: str) -> None:
    import tensorflow as tf
    import tf_keras as keras

    from trainer_module.batches import batch_size
    from trainer_module.input_pipeline import measure, training_batches

    # TensorFlow's own start belongs to neither.
    next(iter(tf.data.Dataset.range(1)))
    size = settings.image_size
    started = time.perf_counter()
    records = measure([files])
    images_per_step = batch_size(settings.trainer, records.count)
    ours = iter(training_batches(records, size, images_per_step, settings.trainer.augmentation, settings.seed))
    steps = records.count // images_per_step
    first_epochs = {"ours": _seconds(ours, steps, started)}
    started = time.perf_counter()
    theirs = keras.utils.image_dataset_from_directory(
        photos, image_size=(size, size), batch_size=images_per_step, interpolation="bilinear"
    ).prefetch(-1)
    first_epochs["keras"] = _seconds(iter(theirs), steps, started)
    rates = {name: [steps * images_per_step / seconds] for name, seconds in first_epochs.items()}
    for _ in range(_LATER_EPOCHS):
        for name, batches in (("ours", ours), ("keras", theirs)):
            rates[name].append(steps * images_per_step / _seconds(iter(batches), steps, time.perf_counter()))
    _print_rates(rates)
    _print_shares_of_a_step(settings, ours, classes=int(records.labels.max()) + 1)


def _seconds(batches: Iterator[Any], count: int, started: float) -> float:
    """Takes that many batches and returns the time since the start."""
    for _ in itertools.islice(batches, count):
        pass
    return time.perf_counter() - started


def _print_rates(rates: dict[str, list[float]]) -> None:
    for name, (first, *later) in rates.items():
        sys.stdout.write(f"{name:6}{first:10,.0f} images/s first epoch{statistics.median(later):10,.0f} later epochs\n")
    first, *later = (ours / theirs for ours, theirs in zip(rates["ours"], rates["keras"], strict=True))
    sys.stdout.write(f"ratio {first:10.1f} first epoch{statistics.median(later):19.1f} later epochs\n")


def _print_shares_of_a_step(settings: TrainingSettings, batches: Iterator[Any], classes: int) -> None:
    import tensorflow as tf

    from trainer_module.acceleration import Acceleration
    from trainer_module.training import compiled_model

    how = Acceleration(settings.acceleration.jit, settings.acceleration.precision)
    model = compiled_model(settings, classes, _STEPS_PER_ROUND, how, tf.distribute.get_strategy())
    step = tf.function(model.train_step, jit_compile=how.jit)
    at_hand = itertools.repeat(next(batches))
    _timed_steps(step, at_hand)  # The first one traces and compiles.
    real, ideal = [], []
    for _ in range(_TRAINING_ROUNDS):
        real += _timed_steps(step, batches)
        ideal += _timed_steps(step, at_hand)
    waiting = sum(wait for wait, _ in real) / sum(whole for _, whole in real)
    slower = statistics.median(whole for _, whole in real) / statistics.median(whole for _, whole in ideal) - 1
    sys.stdout.write(f"a step waits for its batch {100 * waiting:.2f} % of its time\n")
    sys.stdout.write(f"a step takes {100 * slower:.1f} % longer than with a batch at hand\n")


def _timed_steps(step: Callable[[Any], dict[str, Any]], batches: Iterator[Any]) -> list[tuple[float, float]]:
    """Trains some steps; returns, for each, the seconds until its batch was there and those until it was done."""
    times = []
    for _ in range(_STEPS_PER_ROUND):
        started = time.perf_counter()
        batch = next(batches)
        there = time.perf_counter()
        # Reading the loss waits for the device to finish.
        float(step(batch)["loss"])
        times.append((there - started, time.perf_counter() - started))
    return times


if __name__ == "__main__":
    main()
