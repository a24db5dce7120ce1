"""The ladder: every trick of the lean-vision checklist, one more on each rung, measured side by side.

The rungs and their order are those of the lesson that Trimline grew from; `auto` is what Trimline itself would do.
"""

from __future__ import annotations

import dataclasses
import statistics
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from trainer_module import acceleration, inference, input_pipeline
from trainer_module.acceleration import Acceleration, Choice
from trainer_module.architectures import require_input_size
from trainer_module.batches import batch_size
from trainer_module.epoch_clock import EpochClock
from trainer_module.inference import Inference, Predictor
from trainer_module.model_state import create_variables
from trainer_module.models import build_model
from trainer_module.settings import ProgressiveResizingSettings, SamSettings
from trainer_module.training import compiled_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import tf_keras as keras

    from trainer_module.settings import AccelerationSettings, ModelSettings, TrainingSettings


@dataclasses.dataclass(frozen=True)
class Rung:
    """One step of the ladder.

    Attributes:
        name: Name of the trick that this rung adds.
        architecture: Network that is trained.
        how: How its steps are executed; None lets the acceleration settings decide.
        folded: Whether its batch normalisations are folded for inference, if not the settings decide that too.
    """

    name: str
    architecture: str
    how: Acceleration | None
    folded: bool = False


@dataclasses.dataclass(frozen=True)
class Splits:
    """The transformed data that all rungs share."""

    train: input_pipeline.Records
    test: input_pipeline.Records


@dataclasses.dataclass(frozen=True)
class _Climber:
    """A rung under way."""

    rung: Rung
    how: Acceleration
    choice: Choice | None
    model: keras.Model
    clock: EpochClock = dataclasses.field(default_factory=EpochClock)


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
        Rung("fusing", "separable", fusing, folded=True),
        Rung("auto", "lean", None),
    )


def require_input_sizes(image_size: int) -> None:
    """Refuses inputs that are too small for the network of a rung.

    Args:
        image_size: Side of the input in pixels.

    Raises:
        UserError: Names the rung.
    """
    for rung in rungs(acceleration.reduced_precision()):
        require_input_size(rung.architecture, image_size, "the ladder's architecture")


def climb(
    settings: TrainingSettings, splits: Splits, classes: int, report: Callable[[str, int, float], None]
) -> list[dict[str, Any]]:
    """Trains and measures every rung with the same data, epochs and batch size, on one device.

    The rungs take turns, an epoch each, and so do their inference timings: what slows the machine down for a while then
    slows all of them.

    Args:
        settings: Data, schedule and size; architecture and acceleration are the rungs' own. Moving average, class
            weights, distillation, progressive resizing and SAM are left out: they change what is learned.
        splits: The data.
        classes: Number of classes.
        report: Is told the rung's name, the epoch and the seconds it took.

    Returns:
        For each rung: name, params, accuracy (test split), train_s_per_epoch and inference_ms_per_step (medians,
        without the first epoch, which compiles), batch_size, architecture; execution and inference: how its steps were
        executed and how it answers; inference_measured and acceleration: all that was measured to choose these.
    """
    ladder = _Ladder(settings, splits, classes)
    climbers = [ladder.start(rung) for rung in rungs(acceleration.reduced_precision())]
    for epoch in range(settings.trainer.epochs):
        data = ladder.batches(epoch)
        for climber in climbers:
            climber.model.fit(data, steps_per_epoch=ladder.steps, callbacks=[climber.clock], verbose=0)
            report(climber.rung.name, epoch + 1, climber.clock.seconds[-1])
    predictors = [ladder.predictors(climber) for climber in climbers]
    inference.measure_in_turns([predictor for several in predictors for predictor in several], ladder.images)
    return [ladder.result(climber, several) for climber, several in zip(climbers, predictors, strict=True)]


class _Ladder:
    """What all rungs share."""

    def __init__(self, settings: TrainingSettings, splits: Splits, classes: int) -> None:
        # Whatever the settings say: XLA is not tried on several devices at once, and three of the rungs are about it.
        self._strategy = tf.distribute.get_strategy()
        self._settings = settings
        self._splits = splits
        self._classes = classes
        self._batch_size = batch_size(settings.trainer, splits.train.count)
        self.steps = splits.train.count // self._batch_size
        self._batch = next(self.batches(0).take(1).as_numpy_iterator())
        self.images = tf.constant(self._batch[0])

    def batches(self, epoch: int) -> tf.data.Dataset:
        """Returns the training batches from an epoch on."""
        return input_pipeline.training_batches(
            self._splits.train,
            self._settings.image_size,
            self._batch_size,
            self._settings.trainer.augmentation,
            self._settings.seed,
            first_epoch=epoch,
        )

    def start(self, rung: Rung) -> _Climber:
        settings = self._settings.model_copy(
            update={
                "model": self._model_settings(rung),
                "trainer": self._settings.trainer.model_copy(
                    update={
                        # Keras would put the average in place of the weights at the end of every epoch.
                        "ema": 0.0,
                        # Their models are not networks of Keras' own, which are all that can be folded.
                        "sam": SamSettings(),
                        "progressive_resizing": ProgressiveResizingSettings(),
                    }
                ),
            }
        )

        def build(how: Acceleration) -> keras.Model:
            return compiled_model(settings, self._classes, self.steps, how, self._strategy)

        if rung.how is not None:
            model = build(rung.how)
            create_variables(model)
            return _Climber(rung, rung.how, None, model)
        total_steps = self.steps * settings.trainer.epochs
        choice, model = acceleration.choose(settings.acceleration, build, self._batch, total_steps, self._strategy)
        return _Climber(rung, choice.chosen, choice, model)

    def predictors(self, climber: _Climber) -> list[Predictor]:
        """Makes the trained network's ways to answer: its own, or all that the settings leave open."""
        if climber.rung.how is not None:
            own = Inference(climber.how.precision, climber.how.jit, climber.rung.folded)
            return [Predictor(climber.model, own)]
        ways = _open_ways(self._settings.acceleration, climber.how)
        return [Predictor(self._in_precision(climber, way.precision), way) for way in ways]

    def result(self, climber: _Climber, predictors: list[Predictor]) -> dict[str, Any]:
        predictor = inference.fastest(predictors, self.images)
        return {
            "name": climber.rung.name,
            "params": climber.model.count_params(),
            "accuracy": float(np.mean(list(self._hits(predictor)))),
            "train_s_per_epoch": statistics.median(climber.clock.seconds[1:] or climber.clock.seconds),
            "inference_ms_per_step": 1000 * predictor.seconds_per_step,
            "batch_size": self._batch_size,
            "architecture": climber.rung.architecture,
            "execution": dataclasses.asdict(climber.how),
            "inference": dataclasses.asdict(predictor.how),
            "inference_measured": [
                {**dataclasses.asdict(each.how), "ms_per_step": 1000 * each.seconds_per_step} for each in predictors
            ],
            "acceleration": None if climber.choice is None else climber.choice.to_json(),
        }

    def _model_settings(self, rung: Rung) -> ModelSettings:
        return self._settings.model.model_copy(update={"architecture": rung.architecture})

    def _in_precision(self, climber: _Climber, precision: str) -> keras.Model:
        with acceleration.computing(precision):
            model = build_model(self._model_settings(climber.rung), self._settings.image_size, self._classes)
        model.set_weights(climber.model.get_weights())
        return model

    def _hits(self, predictor: Predictor) -> Iterator[bool]:
        size = self._batch_size
        for images, labels in input_pipeline.evaluation_batches(self._splits.test, self._settings.image_size, size):
            # XLA would compile once more for a smaller last batch.
            full = tf.pad(images, [[0, size - len(labels)], [0, 0], [0, 0], [0, 0]])
            yield from predictor.predict(full)[: len(labels)].argmax(axis=1) == labels.numpy()


def _open_ways(settings: AccelerationSettings, how: Acceleration) -> list[Inference]:
    """Lists the ways to answer that are worth measuring, float32 first; XLA only where it made the training faster."""
    if settings.mode == "manual":
        return [Inference(how.precision, how.jit, settings.fold_batch_norm)]
    precisions = ("float32", acceleration.reduced_precision())
    jits = (False, True) if how.jit else (False,)
    return [Inference(precision, jit, settings.fold_batch_norm) for jit in jits for precision in precisions]
