"""The training: its model, the loop, and what was learned on the way."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import secrets
import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from trainer_module import acceleration, checkpoints, distillation, optimization
from trainer_module.batches import Batches
from trainer_module.callbacks import EpochKeeper, EpochProgress, WeightAverage, replay_history
from trainer_module.errors import UserError
from trainer_module.model_state import create_variables
from trainer_module.models import build_model
from trainer_module.progress import TRAINER, report
from trainer_module.progressive_resizing import ProgressiveSizes, ResizingModel
from trainer_module.repeatability import make_repeatable
from trainer_module.sharpness import SharpnessAwareEpochs, SharpnessAwareModel
from trainer_module.state import BALANCED_ACCURACY, Record, TrainingState
from trainer_module.training_sizes import full_size_epochs, training_sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from trainer_module import input_pipeline
    from trainer_module.settings import TrainingSettings


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """A trained model and how it came about.

    Attributes:
        model: The weights of the best epoch (see `Record.best_epoch`), computing in float32.
        record: How the steps were executed, the metrics of every epoch, and the time without that choice.
        teacher: The training of the network that this one learned from, if there was one.
    """

    model: keras.Model
    record: Record
    teacher: TrainingResult | None = None

    @property
    def history(self) -> dict[str, list[float]]:
        """Metric values by name, one for each epoch."""
        return self.record.history

    @property
    def choice(self) -> acceleration.Choice:
        """How the steps were executed."""
        return self.record.choice

    def to_json(self) -> dict[str, Any]:
        """Returns everything but the weights as plain JSON values."""
        best = self.record.best_epoch
        return {
            "architecture": self.model.name,
            "params": self.model.count_params(),
            "validation_accuracy": None if best is None else self.history["val_accuracy"][best],
            "best_epoch": None if best is None else best + 1,
            "epochs": self.record.epochs,
            "seconds": self.record.seconds,
            # JSON knows no NaN, which the validation loss of an early epoch may be.
            "history": {
                name: [value if math.isfinite(value) else None for value in values]
                for name, values in self.history.items()
            },
            "acceleration": self.choice.to_json(),
            "teacher": None if self.teacher is None else self.teacher.to_json(),
        }


def train(
    settings: TrainingSettings,
    train_records: input_pipeline.Records,
    validation_records: input_pipeline.Records,
    classes: int,
    run_directory: Path,
    *,
    checkpoint_directory: str | None = None,
    strategy: tf.distribute.Strategy | None = None,
) -> TrainingResult:
    """Trains a classifier, after its teacher if it has one, and keeps the weights of the best epoch.

    Args:
        settings: Network, schedule and acceleration.
        train_records: The training split.
        validation_records: The split that decides which epoch is the best.
        classes: Number of classes.
        run_directory: Where TensorBoard logs go.
        checkpoint_directory: Where the state is kept after every epoch, and from where a training that was killed goes
            on. It must belong to these settings and data alone, be shared by all hosts, and stays for the caller to
            remove. None keeps nothing.
        strategy: How the steps are distributed; None lets the settings decide. Several hosts must have made it before
            TensorFlow did anything else, the measuring of the records included.

    Returns:
        The trained model.

    Raises:
        UserError: If a split is empty, if loss, weights or predictions are not finite, or if several hosts begin with
            different photos or checkpoints.
    """
    strategy = strategy or acceleration.distribution_strategy(settings.acceleration)
    counts = {"training photos": train_records.count, "validation photos": validation_records.count}
    # First: a host that sees no photos must not leave the others waiting.
    _require_alike(strategy, counts)
    _require_images(train_records, validation_records)
    job = _Job(settings, train_records, validation_records, classes, run_directory, checkpoint_directory, strategy)
    make_repeatable(settings.seed)
    if settings.trainer.distillation.teacher == "none":
        return _train(job, EpochProgress(TRAINER, "training"), None)
    teacher_job = _teacher_job(job)
    epochs, teacher_epochs = settings.trainer.epochs, teacher_job.settings.trainer.epochs
    teacher = _train(teacher_job, EpochProgress(TRAINER, "training the teacher", epochs_after=epochs), None)
    return _train(job, EpochProgress(TRAINER, "training", epochs_before=teacher_epochs), teacher)


@dataclasses.dataclass(frozen=True)
class _Job:
    """What one network is trained with; see `train`."""

    settings: TrainingSettings
    train_records: input_pipeline.Records
    validation_records: input_pipeline.Records
    classes: int
    run_directory: Path
    checkpoint_directory: str | None
    strategy: tf.distribute.Strategy

    @property
    def sizes(self) -> list[int]:
        """Side of the training images in pixels, for each epoch."""
        return training_sizes(self.settings.trainer, self.settings.image_size)

    @property
    def prelude(self) -> int:
        """Number of epochs with smaller images than the network's input."""
        return sum(size < self.settings.image_size for size in self.sizes)


def _teacher_job(job: _Job) -> _Job:
    return dataclasses.replace(
        job,
        settings=distillation.teacher_settings(job.settings),
        run_directory=job.run_directory / "teacher",
        checkpoint_directory=job.checkpoint_directory and f"{job.checkpoint_directory}/teacher",
    )


def _train(job: _Job, progress: EpochProgress, teacher: TrainingResult | None) -> TrainingResult:
    batches = Batches(job.settings, job.train_records, job.validation_records, job.classes, _common_seed(job))

    def build(how: acceleration.Acceleration) -> keras.Model:
        teacher_model = None if teacher is None else teacher.model
        return compiled_model(job.settings, job.classes, batches.steps, how, job.strategy, teacher_model)

    state = _resumed(job, build, batches) or _started(job, build, batches)
    if not state.record.is_over(job.settings.trainer.epochs, job.settings.trainer.patience, job.prelude):
        _fit(job, state, batches, progress)
    trouble = _trouble(state, batches)
    if trouble:
        _forget(job)
        raise UserError(
            f"{trouble}; lower trainer.learning_rate (now {job.settings.trainer.learning_rate})"
            " or use acceleration.precision=float32"
        )
    return TrainingResult(state.kept, state.record, teacher)


def _common_seed(job: _Job) -> int | None:
    """Draws a seed for several hosts without one, which share out each batch and so must have them in one order."""
    if job.settings.seed is not None or not acceleration.spans_hosts(job.strategy):
        return None
    with job.strategy.scope():
        # The first host's initial value becomes that of all.
        drawn = tf.Variable(secrets.randbits(63), trainable=False, dtype=tf.int64)
    return int(drawn.numpy())


def _require_alike(strategy: tf.distribute.Strategy, figures: dict[str, int]) -> None:
    """Refuses hosts that begin differently, on all of them: they would mix two trainings, then wait for ever."""
    if not acceleration.spans_hosts(strategy):
        return
    with strategy.scope():
        by_host = strategy.gather(tf.constant([list(figures.values())], tf.int64), axis=0).numpy()
    differing = [
        f"{name} {', '.join(map(str, values))}"
        for name, values in zip(figures, by_host.T.tolist(), strict=True)
        if len(set(values)) > 1
    ]
    if differing:
        raise UserError(
            f"the hosts that TF_CONFIG names differ, in their order: {'; '.join(differing)}; give all of them the same"
            " photos and settings, and one directory of checkpoints that all see, or empty it on all"
        )


def _started(job: _Job, build: Callable[[acceleration.Acceleration], keras.Model], batches: Batches) -> TrainingState:
    total_steps = round(batches.steps * full_size_epochs(job.sizes, job.settings.image_size))
    report(TRAINER, "choosing how to execute the steps")
    choice, model = acceleration.choose(job.settings.acceleration, build, batches.probe(), total_steps, job.strategy)
    return TrainingState(model, _float32_model(job.settings, job.classes), Record(choice))


def _resumed(
    job: _Job, build: Callable[[acceleration.Acceleration], keras.Model], batches: Batches
) -> TrainingState | None:
    """Returns the training of the job's checkpoint; None if there is none that can be read."""
    directory = job.checkpoint_directory
    record = None if directory is None else checkpoints.saved_record(directory)
    # Before the network's variables, which several hosts make together.
    _require_alike(
        job.strategy,
        {"finished epochs": 0 if record is None else record.epochs, "steps an epoch": batches.steps},
    )
    if directory is None or record is None:
        return None
    state = TrainingState(build(record.choice.chosen), _float32_model(job.settings, job.classes), record)
    restored = checkpoints.restore(directory, state)
    # A file that is damaged, or not there yet, may be so on one host alone.
    _require_alike(job.strategy, {"finished epochs": record.epochs if restored else 0})
    if not restored:
        return None
    logging.getLogger(__name__).info("%s: the training goes on after epoch %d", directory, record.epochs)
    if _is_chief(job.strategy):
        replay_history(record.history, job.run_directory)
    return state


def _fit(job: _Job, state: TrainingState, batches: Batches, progress: EpochProgress) -> None:
    settings = job.settings.trainer
    # The order matters: see WeightAverage.
    callbacks = [
        keras.callbacks.TensorBoard(str(job.run_directory), write_graph=False),
        keras.callbacks.TerminateOnNaN(),
        EpochKeeper(state, settings.patience, job.prelude),
    ]
    if job.prelude:
        callbacks.append(ProgressiveSizes(job.sizes))
    if settings.sam.rho:
        callbacks.append(SharpnessAwareEpochs(settings.sam, settings.epochs))
    if settings.ema:
        callbacks.append(WeightAverage())
    if _is_chief(job.strategy):
        callbacks.append(progress)
    create_variables(state.model)
    with _writable(job) as directory:
        if directory is not None:
            callbacks.append(checkpoints.CheckpointWriter(directory, state))
        state.model.fit(
            batches.training(state.record.epochs),
            initial_epoch=state.record.epochs,
            epochs=settings.epochs,
            steps_per_epoch=batches.steps,
            validation_data=batches.validation(),
            callbacks=callbacks,
            verbose=2,
        )


@contextlib.contextmanager
def _writable(job: _Job) -> Iterator[str | None]:
    """Yields where this worker writes checkpoints: the others than the chief must, but nobody reads what they write."""
    if job.checkpoint_directory is None or _is_chief(job.strategy):
        yield job.checkpoint_directory
    else:
        with tempfile.TemporaryDirectory() as directory:
            yield directory


def _is_chief(strategy: tf.distribute.Strategy) -> bool:
    return strategy.extended.should_checkpoint


def _require_images(train_records: input_pipeline.Records, validation_records: input_pipeline.Records) -> None:
    for split, records in (("train", train_records), ("validation", validation_records)):
        if not records.count:
            raise UserError(f"the {split} split has no images; add photos, or a {split}/ folder that holds some")


def _trouble(state: TrainingState, batches: Batches) -> str | None:
    """Says why a training must not be used: something in it is not a finite number. None if all is well."""
    if state.record.has_diverged():
        return "the training loss is not a number any more"
    if state.record.best_epoch is None:
        return "the validation loss was not a number after any epoch"
    if not all(np.isfinite(weights).all() for weights in state.kept.get_weights()):
        return "the trained weights are not all numbers"
    if not np.isfinite(state.kept.predict(batches.validation(), verbose=0)).all():
        return "the trained network's answers are not all numbers"
    return None


def _forget(job: _Job) -> None:
    """Removes the checkpoint of a training that came to nothing, or the next one would come to the same."""
    if (
        job.checkpoint_directory is not None
        and _is_chief(job.strategy)
        and tf.io.gfile.exists(job.checkpoint_directory)
    ):
        tf.io.gfile.rmtree(job.checkpoint_directory)


def compiled_model(
    settings: TrainingSettings,
    classes: int,
    steps: int,
    how: acceleration.Acceleration,
    strategy: tf.distribute.Strategy,
    teacher: keras.Model | None = None,
) -> keras.Model:
    """Builds a network that is ready to be trained.

    Args:
        settings: Network and schedule.
        classes: Number of classes.
        steps: Steps per epoch, from which the schedule of the learning rate follows.
        how: How its steps are executed.
        strategy: Strategy under which its variables are made.
        teacher: The trained network of `settings.trainer.distillation`, if this one is to learn from it.

    Returns:
        The compiled model; its metrics are "accuracy" and, with class weights, "balanced_accuracy".
    """
    if settings.seed is not None:
        keras.utils.set_random_seed(settings.seed)
    with _layers_of(how.precision), strategy.scope():
        model = build_model(settings.model, settings.image_size, classes)
        if teacher is not None:
            model = _distilled(model, teacher, settings, classes)
        elif settings.trainer.sam.rho:
            model = SharpnessAwareModel(model, settings.trainer.sam.rho)
        elif settings.trainer.progressive_resizing.initial_scale < 1:
            model = ResizingModel(model)
        model.compile(
            optimizer=optimization.optimizer(settings.trainer, steps),
            loss=optimization.label_loss(settings.trainer.label_smoothing, classes),
            metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
            weighted_metrics=_balanced_metrics(settings),
            jit_compile=how.jit,
            steps_per_execution=how.steps_per_execution,
        )
    return model


def _balanced_metrics(settings: TrainingSettings) -> list[keras.metrics.Metric]:
    """Returns the accuracy in which each class counts the same, as the weights of `Batches` make it."""
    if settings.trainer.class_weights == "none":
        return []
    return [keras.metrics.SparseCategoricalAccuracy(name=BALANCED_ACCURACY)]


@contextlib.contextmanager
def _layers_of(precision: str) -> Iterator[None]:
    """Lets layers compute in a precision, and dropout draw from variables, which a checkpoint can keep."""
    keras.backend.experimental.enable_tf_random_generator()
    try:
        with acceleration.computing(precision):
            yield
    finally:
        keras.backend.experimental.disable_tf_random_generator()


def _distilled(student: keras.Model, teacher: keras.Model, settings: TrainingSettings, classes: int) -> keras.Model:
    """Binds the student to a copy of the teacher that computes in the student's precision and under its strategy."""
    own = distillation.teacher_settings(settings)
    copy = build_model(own.model, own.image_size, classes)
    copy.set_weights(teacher.get_weights())
    wanted = settings.trainer.distillation
    rho = settings.trainer.sam.rho
    return distillation.DistilledModel(student, copy, wanted.weight, wanted.temperature, rho)


def _float32_model(settings: TrainingSettings, classes: int) -> keras.Model:
    with acceleration.computing("float32"):
        return build_model(settings.model, settings.image_size, classes)
