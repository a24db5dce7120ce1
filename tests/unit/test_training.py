import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.transformed_files import striped_images, write_transformed
from trainer_module import acceleration, input_pipeline, optimization, training
from trainer_module.batches import Batches, batch_size
from trainer_module.errors import UserError
from trainer_module.settings import (
    AccelerationSettings,
    AugmentationSettings,
    DistillationSettings,
    ModelSettings,
    TrainerSettings,
    TrainingSettings,
)

# The fastest to trace: it has the fewest layers.
SMALLEST = ModelSettings(architecture="pooling", width=0.1)

SEEDED_TRAINING = """
import hashlib
import sys
from pathlib import Path

from tests.transformed_files import striped_images, write_transformed
from trainer_module import input_pipeline, training
from trainer_module.settings import AccelerationSettings, ModelSettings, TrainerSettings, TrainingSettings

directory = Path(sys.argv[1])
records = [
    input_pipeline.measure([write_transformed(directory / f"{seed}.gz", *striped_images(count, 16, seed))])
    for seed, count in enumerate((96, 32))
]
for run, seed in enumerate((5, 5, 6)):
    settings = TrainingSettings(
        image_size=16,
        seed=seed,
        model=ModelSettings(width=0.1),
        trainer=TrainerSettings(epochs=3, batch_size=32),
        acceleration=AccelerationSettings(mode="manual"),
    )
    model = training.train(settings, *records, 2, directory / str(run)).model
    print(hashlib.sha256(b"".join(weight.tobytes() for weight in model.get_weights())).hexdigest())
"""


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    directory = tmp_path_factory.mktemp("splits")
    train = write_transformed(directory / "train.gz", *striped_images(96, 16))
    validation = write_transformed(directory / "validation.gz", *striped_images(32, 16, seed=1))
    return input_pipeline.measure([train]), input_pipeline.measure([validation])


def _settings(**changes):
    values = {
        "image_size": 16,
        "model": SMALLEST,
        "trainer": TrainerSettings(epochs=4, batch_size=32, augmentation=AugmentationSettings()),
        "acceleration": AccelerationSettings(mode="manual"),
    }
    return TrainingSettings(**(values | changes))


@pytest.mark.component  # Trains for several seconds.
def test_training_learns_and_records_what_it_did(splits, tmp_path, kept_reports):
    settings = _settings(model=ModelSettings(width=0.25), trainer=TrainerSettings(epochs=12, batch_size=16))
    result = training.train(settings, *splits, 2, tmp_path)
    record = json.loads(json.dumps(result.to_json()))
    assert record["validation_accuracy"] == result.history["val_accuracy"][record["best_epoch"] - 1] > 0.9
    assert record["params"] == result.model.count_params()
    assert record["acceleration"]["chosen"] == {"jit": False, "precision": "float32", "steps_per_execution": 1}
    progress = json.loads(kept_reports.read_text())["Trainer"]
    assert progress["epoch"] == record["epochs"]
    assert progress["step"] == progress["steps"] == 6
    assert list(tmp_path.glob("train/events.out.tfevents.*"))


@pytest.mark.component  # Trains for several seconds.
def test_the_model_has_the_weights_of_the_best_epoch(splits, tmp_path):
    result = training.train(_settings(), *splits, 2, tmp_path)
    images, labels = zip(*input_pipeline.evaluation_batches(splits[1], 16, 32).as_numpy_iterator(), strict=True)
    predicted = result.model.predict(np.concatenate(images), verbose=0).argmax(axis=1)
    best = result.to_json()["best_epoch"]
    history = list(zip(result.history["val_accuracy"], [-loss for loss in result.history["val_loss"]], strict=True))
    assert history[best - 1] == max(history)
    assert (predicted == np.concatenate(labels)).mean() == pytest.approx(result.history["val_accuracy"][best - 1])


@pytest.mark.component  # A process that trains three networks with reproducible, slow kernels.
def test_a_seed_repeats_the_training(tmp_path):
    # In a process of its own, because TensorFlow's determinism cannot be switched off again.
    script = tmp_path / "train.py"
    script.write_text(SEEDED_TRAINING)
    root = Path(__file__).parents[2]
    command = [sys.executable, str(script), str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=root, env=os.environ | {"PYTHONPATH": str(root)})
    assert run.returncode == 0, run.stderr
    first, second, other_seed = (line for line in run.stdout.splitlines() if len(line) == 64)
    assert first == second
    assert first != other_seed


@pytest.mark.component  # Trains for several seconds.
def test_mixed_precision_gives_a_float32_model(splits, tmp_path):
    how = AccelerationSettings(mode="manual", precision="bfloat16")
    result = training.train(_settings(acceleration=how), *splits, 2, tmp_path)
    assert result.choice.chosen.precision == "bfloat16"
    assert {layer.compute_dtype for layer in result.model.layers} == {"float32"}


@pytest.mark.component  # Trains for several seconds.
def test_fused_steps_train_as_well(splits, tmp_path):
    how = AccelerationSettings(mode="manual", steps_per_execution=2)
    result = training.train(_settings(acceleration=how), *splits, 2, tmp_path)
    assert result.choice.chosen.steps_per_execution == 2
    assert len(result.history["val_accuracy"]) == 4


@pytest.mark.component  # Trains for several seconds.
def test_steps_are_tried_under_a_strategy_of_one_replica_too(splits, tmp_path):
    settings = _settings(
        trainer=TrainerSettings(epochs=1, batch_size=32, ema=0.9), acceleration=AccelerationSettings(mode="auto")
    )
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    result = training.train(settings, *splits, 2, tmp_path, strategy=strategy)
    assert result.choice.probes[0].outcome == "measured"
    assert len(result.history["val_accuracy"]) == 1


def test_an_empty_split_is_refused(splits, tmp_path):
    with pytest.raises(UserError, match="validation split has no images"):
        training.train(_settings(), splits[0], input_pipeline.Records((), 0, 0), 2, tmp_path)


def _taught(directory, splits):
    wanted = DistillationSettings(teacher="pooling", width=0.2, epochs=2)
    settings = _settings(
        trainer=TrainerSettings(epochs=3, batch_size=32, ema=0.9, class_weights="balanced", distillation=wanted),
        acceleration=AccelerationSettings(mode="manual", precision="bfloat16", steps_per_execution=2),
    )
    return training.train(settings, *splits, 2, directory, checkpoint_directory=str(directory / "checkpoints"))


@pytest.mark.component  # Two networks, each built twice, because a step is tried first.
def test_a_student_learns_from_a_teacher_that_is_trained_first(splits, tmp_path, kept_reports):
    result = _taught(tmp_path, splits)
    record = json.loads(json.dumps(result.to_json()))
    assert (record["teacher"]["epochs"], record["epochs"]) == (2, 3)
    assert record["teacher"]["params"] > record["params"]
    chosen = {"jit": False, "precision": "bfloat16", "steps_per_execution": 2}
    assert record["teacher"]["acceleration"]["chosen"] == record["acceleration"]["chosen"] == chosen
    progress = json.loads(kept_reports.read_text())["Trainer"]
    assert (progress["epoch"], progress["epochs"]) == (5, 5)
    assert list(tmp_path.glob("teacher/train/events.out.tfevents.*"))
    # Both are finished, so both are taken up.
    assert _taught(tmp_path, splits).to_json() == result.to_json()


@pytest.mark.component  # Trains for several seconds.
def test_with_class_weights_each_class_counts_the_same_in_either_split(tmp_path):
    images, labels = striped_images(96, 16)
    few, many = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    train_of, validation_of = np.concatenate([many, few[:16]]), np.concatenate([many[:4], few])
    train, validation = (
        input_pipeline.measure([write_transformed(tmp_path / f"{len(chosen)}.gz", images[chosen], labels[chosen])])
        for chosen in (train_of, validation_of)
    )
    settings = _settings(trainer=TrainerSettings(epochs=1, batch_size=32, class_weights="balanced"))
    _, taken, weights = next(Batches(settings, train, validation, 2).training(0).as_numpy_iterator())
    assert weights == pytest.approx(np.where(taken == 1, 64 / (2 * 16), 64 / (2 * 48)))
    result = training.train(settings, train, validation, 2, tmp_path)
    probabilities = result.model.predict(images.astype(np.float32), verbose=0)
    losses = optimization.label_loss(settings.trainer.label_smoothing, 2)(labels, probabilities).numpy()
    right = probabilities.argmax(axis=1) == labels
    assert result.history["val_loss"] == pytest.approx([(losses[many[:4]].mean() + losses[few].mean()) / 2], rel=1e-3)
    balanced = (right[many[:4]].mean() + right[few].mean()) / 2
    assert result.history["val_balanced_accuracy"] == pytest.approx([balanced])
    assert result.history["val_accuracy"] == pytest.approx([right[validation_of].mean()])


def test_few_photos_are_many_steps_unless_the_batch_has_a_size():
    sizes = {count: batch_size(TrainerSettings(), count) for count in (1, 8, 80, 256, 1024, 100_000)}
    assert sizes == {1: 1, 8: 8, 80: 8, 256: 16, 1024: 64, 100_000: 64}
    assert batch_size(TrainerSettings(batch_size=32), 80) == 32


def test_a_class_without_images_is_refused_when_classes_are_to_count_the_same(splits, tmp_path):
    settings = _settings(trainer=TrainerSettings(class_weights="balanced"))
    with pytest.raises(UserError, match="1 of 3 classes have no training image"):
        training.train(settings, *splits, 3, tmp_path)


def test_a_training_that_comes_to_nothing_is_an_error_and_leaves_no_checkpoint(splits, tmp_path):
    # Each step multiplies the weights by -9.
    trainer = TrainerSettings(
        epochs=1, batch_size=4, optimizer="sgd", learning_rate=10.0, weight_decay=1.0, warmup_share=0.0
    )
    settings = _settings(trainer=trainer)
    with pytest.raises(UserError, match=r"not .* numbers?.*; lower trainer.learning_rate \(now 10.0\)"):
        training.train(settings, *splits, 2, tmp_path, checkpoint_directory=str(tmp_path / "checkpoints"))
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.component  # XLA compiles two of the candidates.
def test_auto_times_candidates_and_keeps_the_fastest(splits):
    settings = _settings(acceleration=AccelerationSettings(mode="auto"))
    batch = next(input_pipeline.training_batches(splits[0], 16, 32, AugmentationSettings(), None).as_numpy_iterator())
    strategy = acceleration.distribution_strategy(settings.acceleration)

    def build(how):
        return training.compiled_model(settings, 2, 3, how, strategy)

    choice, _ = acceleration.choose(settings.acceleration, build, batch, total_steps=1_000_000, strategy=strategy)
    measured = [probe for probe in choice.probes if probe.outcome == "measured"]
    assert len(measured) >= 3
    assert choice.chosen == min(measured, key=lambda probe: probe.seconds_per_step).candidate
    assert all(math.isfinite(probe.loss) for probe in measured)


@pytest.mark.component  # Two trainings.
def test_steps_that_were_tried_leave_no_trace_in_the_training(splits, tmp_path):
    def train(mode):
        settings = _settings(
            seed=5,
            model=SMALLEST.model_copy(update={"dropout": 0.5}),
            trainer=TrainerSettings(epochs=3, batch_size=32, ema=0.9, class_weights="balanced"),
            acceleration=AccelerationSettings(mode=mode),
        )
        return training.train(settings, *splits, 2, tmp_path / mode)

    tried, untried = train("auto"), train("manual")
    assert tried.choice.probes
    assert tried.choice.chosen == untried.choice.chosen
    assert tried.history == untried.history
    assert all((a == b).all() for a, b in zip(tried.model.get_weights(), untried.model.get_weights(), strict=True))


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_the_steps_of_the_training_are_not_traced_again(splits, class_weights):
    settings = _settings(
        trainer=TrainerSettings(batch_size=32, class_weights=class_weights),
        acceleration=AccelerationSettings(mode="auto"),
    )
    batches = Batches(settings, *splits, 2)
    strategy = acceleration.distribution_strategy(settings.acceleration)

    def build(how):
        return training.compiled_model(settings, 2, batches.steps, how, strategy)

    _, model = acceleration.choose(settings.acceleration, build, batches.probe(), total_steps=12, strategy=strategy)
    step = model.train_function
    model.fit(batches.training(0), steps_per_epoch=batches.steps, verbose=0)
    assert model.train_function is step
    assert step.experimental_get_tracing_count() == 1


def test_auto_measures_no_more_than_a_short_training_is_worth(splits):
    settings = _settings(acceleration=AccelerationSettings(mode="auto"))
    batch = next(input_pipeline.training_batches(splits[0], 16, 32, AugmentationSettings(), None).as_numpy_iterator())
    strategy = acceleration.distribution_strategy(settings.acceleration)

    def build(how):
        return training.compiled_model(settings, 2, 3, how, strategy)

    choice, _ = acceleration.choose(settings.acceleration, build, batch, total_steps=12, strategy=strategy)
    assert [probe.outcome for probe in choice.probes[1:]] == [
        "not measured: it would take longer than a tenth of the training"
    ] * 3
    assert choice.chosen == acceleration.Acceleration()
