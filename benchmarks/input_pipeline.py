"""Images per second of the training input, beside keras.utils.image_dataset_from_directory on the same photos.

    python -m benchmarks.input_pipeline DATA [--set KEY=VALUE ...]

DATA must have a train/ folder, so that both read the same files. Both make float32 batches of the same size; ours
also augments. The epochs of both take turns. The share of a training step spent waiting for input is what a step takes
with the input pipeline, less what it takes with one batch that is always at hand.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.data_components import run_data_components
from pipeline.config import load_settings
from pipeline.metadata import Metadata
from pipeline.prepare import resolve
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    import tensorflow as tf

    from trainer_module.settings import TrainingSettings

_LATER_EPOCHS = 3
_TRAINING_STEPS = 60


def main() -> None:
    """Prepares the data, times both pipelines, and prints the figures."""
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--set", action="append", default=[])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        workspace = Workspace(Path(directory))
        workspace.prepare()
        # Only train/ is compared, so next to nothing is taken away from it for validation.
        fixed = (f"data.path={arguments.data}", "data.validation_fraction=0.001")
        settings = resolve(load_settings(assignments=(*arguments.set, *fixed)), workspace)
        workspace.write_settings(settings)
        run_data_components(workspace)
        _compare(settings.training(), arguments.data / "train", _train_files(workspace))


def _train_files(workspace: Workspace) -> str:
    metadata = Metadata(workspace.metadata_file)
    transform = next(c for c in metadata.components(metadata.runs()[-1]) if c.name == "Transform")
    examples = metadata.output(transform, "transformed_examples")
    if examples is None:
        raise LookupError("Transform left no examples")
    return f"{examples.uri}/Split-train/*"


def _compare(settings: TrainingSettings, photos: Path, files: str) -> None:
    import tf_keras as keras

    from trainer_module.input_pipeline import measure, training_batches

    size, batch_size = settings.image_size, settings.trainer.batch_size
    records = measure([files])
    ours = training_batches(records, size, batch_size, settings.trainer.augmentation, settings.seed)
    steps = records.count // batch_size
    theirs = keras.utils.image_dataset_from_directory(
        photos, image_size=(size, size), batch_size=batch_size, interpolation="bilinear"
    ).prefetch(-1)
    rates: dict[str, list[float]] = {"ours": [], "keras": []}
    for _ in range(1 + _LATER_EPOCHS):
        rates["ours"].append(steps * batch_size / _seconds(ours.take(steps)))
        rates["keras"].append(steps * batch_size / _seconds(theirs.take(steps)))
    for name, (first, *later) in rates.items():
        sys.stdout.write(f"{name:6}{first:10,.0f} images/s first epoch{statistics.median(later):10,.0f} later epochs\n")
    first, later = rates["ours"][0] / rates["keras"][0], _median_ratio(rates)
    sys.stdout.write(f"ratio {first:10.1f} first epoch{later:19.1f} later epochs\n")
    sys.stdout.write(f"waiting for input: {100 * _waiting_share(settings, ours):.1f} % of a training step\n")


def _median_ratio(rates: dict[str, list[float]]) -> float:
    return statistics.median(a / b for a, b in zip(rates["ours"][1:], rates["keras"][1:], strict=True))


def _seconds(dataset: tf.data.Dataset) -> float:
    started = time.perf_counter()
    for _ in dataset:
        pass
    return time.perf_counter() - started


def _waiting_share(settings: TrainingSettings, batches: tf.data.Dataset) -> float:
    import tensorflow as tf

    from trainer_module.acceleration import Acceleration
    from trainer_module.training import compiled_model

    classes = 10
    model = compiled_model(settings, classes, _TRAINING_STEPS, Acceleration(), tf.distribute.get_strategy())
    batches = batches.map(lambda images, labels: (images, labels % classes))
    at_hand = batches.take(1).cache().repeat()
    sources = {"real": batches, "at hand": at_hand}
    seconds: dict[str, list[float]] = {name: [] for name in sources}
    for source in sources.values():
        model.fit(source, steps_per_epoch=_TRAINING_STEPS, verbose=0)
    for _ in range(_LATER_EPOCHS):
        for name, source in sources.items():
            started = time.perf_counter()
            model.fit(source, steps_per_epoch=_TRAINING_STEPS, verbose=0)
            seconds[name].append(time.perf_counter() - started)
    real, ideal = (min(seconds[name]) for name in sources)
    return max(0.0, 1 - ideal / real)


if __name__ == "__main__":
    main()
