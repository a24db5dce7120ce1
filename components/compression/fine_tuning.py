"""Fine-tuning after a stage: the Trainer's own batches and loss, with the float parent as teacher."""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import time
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf
import tf_keras as keras

from components.compression.errors import VariantError
from components.compression.precision import computing_in
from trainer_module import acceleration, optimization
from trainer_module.batches import Batches
from trainer_module.callbacks import EpochProgress
from trainer_module.distillation import DistilledModel
from trainer_module.model_state import create_variables
from trainer_module.progress import COMPRESSION, report
from trainer_module.repeatability import make_repeatable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from components.compression.settings import CompressionSettings
    from components.compression.store import Store
    from trainer_module.acceleration import Acceleration
    from trainer_module.input_pipeline import Records
    from trainer_module.settings import TrainerSettings, TrainingSettings

_logger = logging.getLogger(__name__)

_SHARE_OF_TRAINING = 0.1
# Much is to be learned anew: CIFAR-10's `residual`, whose training took 100 epochs, needed some 60.
_CHANNEL_SHARE_OF_TRAINING = 0.5
_LEAST_EPOCHS = 2
# The first one is longer, by what is traced in it.
_EPOCHS_TO_TELL = 2


class _InTime(keras.callbacks.Callback):
    """Ends a training early on, when it would not end in time.

    That is told from its second epoch, and after the first only by the time being over. Later it goes on whatever
    happens, because too much would be lost.

    Attributes:
        gave_up: Whether it did.
    """

    def __init__(self, deadline: float, epochs: int) -> None:
        """Creates the callback.

        Args:
            deadline: Value of `time.monotonic` at which the training is to have ended.
            epochs: Of the training.
        """
        super().__init__()
        self.gave_up = False
        self._deadline = deadline
        self._epochs = epochs
        self._started = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Notes the time."""
        del epoch, logs
        self._started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Gives the training up if the rest of it would not end in time."""
        del logs
        now, left = time.monotonic(), self._epochs - epoch - 1
        seconds = now - self._started if epoch else 0.0
        if left and epoch < _EPOCHS_TO_TELL and now + left * seconds > self._deadline:
            self.gave_up = self.model.stop_training = True


@dataclasses.dataclass(frozen=True)
class _Plan:
    """How a model is trained further.

    Attributes:
        schedule: Optimizer, epochs, learning rate.
        how: How the steps are executed.
        rate: The key of the learning rate in the settings.
    """

    schedule: TrainerSettings
    how: Acceleration
    rate: str


@dataclasses.dataclass
class FineTuner:
    """Trains models a little further.

    Attributes:
        settings: Epochs, learning rate, weight of the teacher, time budget.
        training: Settings of the training that made the parent: batches, augmentation, smoothing, seed.
        records: The training split.
        teacher: The float parent: float32 pixels [N, S, S, 3] in [0, 255] -> probabilities [N, C].
        known_acceleration: How the Trainer executed its steps; None if that is not known, and must be chosen anew.
        store: Where finished work is kept.
        deadline: Value of `time.monotonic` at which every fine-tuning is to have ended.
        is_short_of_time: Whether a fine-tuning was left out, or given up, for want of time.
    """

    settings: CompressionSettings
    training: TrainingSettings
    records: Records
    teacher: keras.Model
    known_acceleration: Acceleration | None
    store: Store
    deadline: float = math.inf
    is_short_of_time: bool = False
    _seconds_per_epoch: float = 0.0
    _work: str = ""

    def __post_init__(self) -> None:
        """Makes the batches, whose number the schedules of the stages depend on."""
        classes = self.teacher.output_shape[-1]
        self._batches = Batches(self.training, self.records, self.records, classes)
        self._loss = optimization.label_loss(self.training.trainer.label_smoothing, classes)

    @property
    def epochs(self) -> int:
        """Epochs of one fine-tuning."""
        return self.settings.epochs or self._share_of_training(_SHARE_OF_TRAINING)

    @property
    def channel_epochs(self) -> int:
        """Epochs of the training of a network that has lost channels."""
        return self.settings.channel_epochs or self._share_of_training(_CHANNEL_SHARE_OF_TRAINING)

    @property
    def steps(self) -> int:
        """Optimizer steps of one fine-tuning."""
        return self.epochs * self._batches.steps

    @functools.cached_property
    def how(self) -> Acceleration:
        """How steps are executed: as the Trainer's were, or as this device does them fastest."""
        return self.known_acceleration or self._fastest(self.teacher, self.epochs)

    def once(self, name: str, model: keras.Model, work: Callable[[], None]) -> None:
        """Does work that changes the weights of a model, or takes over what an earlier run kept of it.

        Args:
            name: Of the work; the same for the same work.
            model: Has the result afterwards.
            work: Changes the model's weights, by one fine-tuning.

        Raises:
            VariantError: The time budget does not allow the work.
        """
        self._once(name, model, self.epochs, lambda: self.how, lambda _: work())

    def fit(
        self, model: keras.Model, callbacks: Sequence[keras.callbacks.Callback] = (), *, one_by_one: bool = False
    ) -> None:
        """Trains a model in place, a little: in float32, because it learns the very numbers that are rounded.

        Args:
            model: Functional model of the teacher's input and classes.
            callbacks: Of the stage.
            one_by_one: Whether the stage's callbacks must see every single step.

        Raises:
            VariantError: The loss or a weight is not a finite number any more, or the training would not end in time.
        """
        how = dataclasses.replace(self.how, steps_per_execution=1) if one_by_one else self.how
        self._fit(model, self._plan(how), callbacks)

    def fit_channels(self, name: str, model: keras.Model) -> None:
        """Trains a network that has lost channels in place, in whatever precision is fastest, or see `once`.

        Args:
            name: Of the work.
            model: Functional model of the teacher's input and classes.

        Raises:
            VariantError: The time budget does not allow it, or the loss or a weight is not a finite number any more.
        """

        def choose() -> Acceleration:
            # Anew, because what is fast depends on the channels: with 8 of them, bfloat16 took 1.3 times as long as
            # float32 on a CPU with AVX-512, with 16 of them 0.6 times.
            return self._fastest(model, self.channel_epochs)

        def work(how: Acceleration) -> None:
            with acceleration.computing(how.precision):
                network = computing_in(model, how.precision)
                self._fit(network, self._channel_plan(how))
            model.set_weights(network.get_weights())

        self._once(name, model, self.channel_epochs, choose, work)

    def _once(
        self,
        name: str,
        model: keras.Model,
        epochs: int,
        choose: Callable[[], Acceleration],
        work: Callable[[Acceleration], None],
    ) -> None:
        kept = self.store.load(name)
        if kept is not None:
            model.set_weights(kept)
            return
        self._require_time(name, epochs)
        self._work = name
        # Before the seed is set, because trying steps draws random numbers.
        how = choose()
        _logger.info("Fine-tuning %s with %s", name, how)
        # What was kept of an earlier run draws no random numbers this time.
        make_repeatable(self.training.seed, name)
        work(how)
        self.store.save(name, model.get_weights())

    def _fit(
        self,
        model: keras.Model,
        plan: _Plan,
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ) -> None:
        started = time.monotonic()
        taught = self._compiled(model, plan)
        create_variables(taught)
        in_time = _InTime(self.deadline, plan.schedule.epochs)
        history = taught.fit(
            self._batches.training(0),
            epochs=plan.schedule.epochs,
            steps_per_epoch=self._batches.steps,
            callbacks=[
                keras.callbacks.TerminateOnNaN(),
                EpochProgress(COMPRESSION, f"fine-tuning {self._work}"),
                in_time,
                *callbacks,
            ],
            verbose=0,
        ).history
        seconds = time.monotonic() - started
        self._seconds_per_epoch = seconds / len(history["loss"])
        finite = np.isfinite(history["loss"]).all() and all(np.isfinite(w).all() for w in model.get_weights())
        if not finite:
            raise VariantError(f"its fine-tuning diverged; lower {plan.rate} (now {plan.schedule.learning_rate:g})")
        if in_time.gave_up:
            raise self._short_of_time(self._work)
        _logger.info("Fine-tuned %s in %.1f s, loss %.4f", model.name, seconds, history["loss"][-1])

    def _fastest(self, model: keras.Model, epochs: int) -> Acceleration:
        """Chooses how to execute so many epochs of a network, as the Trainer does."""

        def build(how: Acceleration) -> keras.Model:
            with acceleration.computing(how.precision):
                return self._compiled(computing_in(model, how.precision), self._plan(how))

        report(COMPRESSION, "choosing how to execute the steps")
        settings, steps = self.training.acceleration, epochs * self._batches.steps
        choice, _ = acceleration.choose(settings, build, self._batches.probe(), steps, tf.distribute.get_strategy())
        return choice.chosen

    def _compiled(self, model: keras.Model, plan: _Plan) -> keras.Model:
        wanted, taught = self.settings.distillation, model
        if wanted.weight:
            teacher = computing_in(self.teacher, plan.how.precision)
            taught = DistilledModel(model, teacher, wanted.weight, wanted.temperature)
        taught.compile(
            optimizer=optimization.optimizer(plan.schedule, self._batches.steps),
            loss=self._loss,
            jit_compile=plan.how.jit,
            steps_per_execution=plan.how.steps_per_execution,
        )
        return taught

    def _plan(self, how: Acceleration) -> _Plan:
        own = {
            "optimizer": "adamw",
            "learning_rate": self.settings.learning_rate,
            "epochs": self.epochs,
            "weight_decay": 0.0,
            "ema": 0.0,
        }
        return _Plan(self.training.trainer.model_copy(update=own), how, "compression.learning_rate")

    def _channel_plan(self, how: Acceleration) -> _Plan:
        # As the Trainer's: with the rates of a training, not of a fine-tuning, pruned networks get further (Renda et
        # al. 2020, "Comparing rewinding and fine-tuning", https://arxiv.org/abs/2003.02389).
        own = {"epochs": self.channel_epochs, "ema": 0.0}
        return _Plan(self.training.trainer.model_copy(update=own), how, "trainer.learning_rate")

    def _share_of_training(self, share: float) -> int:
        return max(_LEAST_EPOCHS, round(share * self.training.trainer.epochs))

    def _require_time(self, name: str, epochs: int) -> None:
        if time.monotonic() + self._seconds_per_epoch * epochs > self.deadline:
            raise self._short_of_time(name)

    def _short_of_time(self, name: str) -> VariantError:
        self.is_short_of_time = True
        return VariantError(
            f"no time was left to fine-tune {name}: compression.time_budget_s={self.settings.time_budget_s:g}; "
            "run again with more: what is finished is kept"
        )
