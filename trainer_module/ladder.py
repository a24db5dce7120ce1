"""The ladder: every trick of the lean-vision checklist, one more on each rung, measured side by side.

The rungs and their order are those of the lesson that Trimline grew from; `auto` is what Trimline itself would do.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from trainer_module import acceleration, input_pipeline
from trainer_module.acceleration import Acceleration
from trainer_module.training import compiled_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import tf_keras as keras

    from trainer_module.settings import TrainingSettings

_INFERENCE_STEPS = 5
_INFERENCE_ROUNDS = 5


@dataclasses.dataclass(frozen=True)
class Rung:
    """One step of the ladder.

    Attributes:
        name: Name of the trick that this rung adds.
        architecture: Network that is trained.
        how: How its steps are executed; None lets the acceleration settings decide.
    """

    name: str
    architecture: str
    how: Acceleration | None


@dataclasses.dataclass(frozen=True)
class Splits:
    """The transformed data that all rungs share."""

    train: input_pipeline.Records
    test: input_pipeline.Records


@dataclasses.dataclass
class _Climber:
    """A rung under way."""

    rung: Rung
    how: Acceleration
    model: keras.Model
    predict: Callable[[tf.Tensor], tf.Tensor]
    epoch_seconds: list[float] = dataclasses.field(default_factory=list)
    step_seconds: list[float] = dataclasses.field(default_factory=list)


def rungs(reduced_precision: str) -> tuple[Rung, ...]:
    """Lists the rungs, bottom first.

    Args:
        reduced_precision: "bfloat16" or "float16", whichever the device computes.
    """
    jit = Acceleration(jit=True)
    amp = dataclasses.replace(jit, precision=reduced_precision)
    fusing = dataclasses.replace(amp, steps_per_execution=acceleration.FUSED_STEPS)
    return (
        Rung("naive", "naive", Acceleration()),
        Rung("pooling", "pooling", Acceleration()),
        Rung("separable", "separable", Acceleration()),
        Rung("jit", "separable", jit),
        Rung("amp", "separable", amp),
        Rung("fusing", "separable", fusing),
        Rung("auto", "lean", None),
    )


def climb(
    settings: TrainingSettings, splits: Splits, classes: int, report: Callable[[str, int, float], None]
) -> list[dict[str, Any]]:
    """Trains and measures every rung with the same data, epochs and batch size.

    The rungs take turns, an epoch each, and so do their inference timings: what slows the machine down for a while then
    slows all of them.

    Args:
        settings: Epochs, batch size, input size, width; architecture and acceleration are the rungs' own.
        splits: The data.
        classes: Number of classes.
        report: Is told the rung's name, the epoch and the seconds it took.

    Returns:
        For each rung: name, params, accuracy (test split), train_s_per_epoch and inference_ms_per_step (medians,
        without the first epoch, which compiles), batch_size and how its steps were executed.
    """
    batch_size = min(settings.trainer.batch_size, splits.train.count)
    steps = splits.train.count // batch_size
    batches = input_pipeline.training_batches(
        splits.train, settings.image_size, batch_size, settings.trainer.augmentation, settings.seed
    )
    batch = next(batches.take(1).as_numpy_iterator())
    climbers = [_start(rung, settings, classes, steps, batch) for rung in rungs(acceleration.reduced_precision())]
    for epoch in range(settings.trainer.epochs):
        for climber in climbers:
            started = time.perf_counter()
            climber.model.fit(batches, steps_per_epoch=steps, verbose=0)
            climber.epoch_seconds.append(time.perf_counter() - started)
            report(climber.rung.name, epoch + 1, climber.epoch_seconds[-1])
    images = tf.constant(batch[0])
    for climber in climbers:
        climber.predict(images)
    for _ in range(_INFERENCE_ROUNDS):
        for climber in climbers:
            climber.step_seconds.append(_seconds_per_step(climber.predict, images))
    return [_result(climber, splits.test, settings.image_size, batch_size) for climber in climbers]


def _start(
    rung: Rung,
    settings: TrainingSettings,
    classes: int,
    steps: int,
    batch: tuple[np.ndarray, np.ndarray],
) -> _Climber:
    own = settings.model_copy(update={"model": settings.model.model_copy(update={"architecture": rung.architecture})})
    strategy = acceleration.distribution_strategy(settings.acceleration)

    def build(how: Acceleration) -> keras.Model:
        return compiled_model(own, classes, steps, how, strategy)

    total_steps = steps * settings.trainer.epochs
    how = rung.how or acceleration.choose(settings.acceleration, build, batch, total_steps, strategy).chosen
    model = build(how)
    predict = tf.function(lambda images: model(images, training=False), jit_compile=how.jit)
    return _Climber(rung, how, model, predict)


def _seconds_per_step(predict: Callable[[tf.Tensor], tf.Tensor], images: tf.Tensor) -> float:
    started = time.perf_counter()
    for _ in range(_INFERENCE_STEPS):
        # Reading the result waits for the device to finish.
        predict(images).numpy()
    return (time.perf_counter() - started) / _INFERENCE_STEPS


def _result(climber: _Climber, test: input_pipeline.Records, image_size: int, batch_size: int) -> dict[str, Any]:
    later_epochs = climber.epoch_seconds[1:] or climber.epoch_seconds
    return {
        "name": climber.rung.name,
        "params": climber.model.count_params(),
        "accuracy": float(np.mean(list(_hits(climber.predict, test, image_size, batch_size)))),
        "train_s_per_epoch": statistics.median(later_epochs),
        "inference_ms_per_step": 1000 * statistics.median(climber.step_seconds),
        "batch_size": batch_size,
        "architecture": climber.rung.architecture,
        "execution": dataclasses.asdict(climber.how),
    }


def _hits(
    predict: Callable[[tf.Tensor], tf.Tensor], test: input_pipeline.Records, image_size: int, batch_size: int
) -> Iterator[bool]:
    for images, labels in input_pipeline.evaluation_batches(test, image_size, batch_size):
        yield from tf.argmax(predict(images), axis=1).numpy() == labels.numpy()
