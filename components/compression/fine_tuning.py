"""Fine-tuning after a stage: the Trainer's own batches and loss, with the float parent as teacher."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from typing import TYPE_CHECKING

import numpy as np
import tf_keras as keras

from components.compression.errors import VariantError
from trainer_module import optimization
from trainer_module.batches import Batches
from trainer_module.callbacks import EpochProgress
from trainer_module.distillation import DistilledModel
from trainer_module.progress import COMPRESSION
from trainer_module.repeatability import make_repeatable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from components.compression.settings import CompressionSettings
    from components.compression.store import Store
    from trainer_module.acceleration import Acceleration
    from trainer_module.input_pipeline import Records
    from trainer_module.settings import TrainingSettings

_logger = logging.getLogger(__name__)

_SHARE_OF_TRAINING = 0.1
_LEAST_EPOCHS = 2


@dataclasses.dataclass
class FineTuner:
    """Trains models a little further.

    Attributes:
        settings: Epochs, learning rate, weight of the teacher, time budget.
        training: Settings of the training that made the parent: batches, augmentation, smoothing, seed.
        records: The training split.
        teacher: The float parent: float32 pixels [N, S, S, 3] in [0, 255] -> probabilities [N, C].
        how: How the Trainer executed its steps. Its precision is not used: what is learned here are the very numbers
            that are rounded afterwards, so these steps are in float32.
        store: Where finished work is kept.
        deadline: Value of `time.monotonic` after which no fine-tuning begins.
        is_short_of_time: Whether a fine-tuning was left out for want of time.
    """

    settings: CompressionSettings
    training: TrainingSettings
    records: Records
    teacher: keras.Model
    how: Acceleration
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
        share = round(_SHARE_OF_TRAINING * self.training.trainer.epochs)
        return self.settings.epochs or max(_LEAST_EPOCHS, share)

    @property
    def steps(self) -> int:
        """Optimizer steps of one fine-tuning."""
        return self.epochs * self._batches.steps

    def once(self, name: str, model: keras.Model, work: Callable[[], None]) -> None:
        """Does work that changes the weights of a model, or takes over what an earlier run kept of it.

        Args:
            name: Of the work; the same for the same work.
            model: Has the result afterwards.
            work: Changes the model's weights.

        Raises:
            VariantError: The time budget does not allow the work.
        """
        kept = self.store.load(name)
        if kept is not None:
            model.set_weights(kept)
            return
        self._require_time(name)
        self._work = name
        # What was kept of an earlier run draws no random numbers this time.
        make_repeatable(self.training.seed, name)
        work()
        self.store.save(name, model.get_weights())

    def fit(
        self, model: keras.Model, callbacks: Sequence[keras.callbacks.Callback] = (), *, one_by_one: bool = False
    ) -> None:
        """Trains a model in place.

        Args:
            model: Functional model of the teacher's input and classes.
            callbacks: Of the stage.
            one_by_one: Whether the stage's callbacks must see every single step.

        Raises:
            VariantError: The loss or a weight is not a finite number any more.
        """
        started = time.monotonic()
        weight = self.settings.distillation.weight
        taught = (
            DistilledModel(model, self.teacher, weight, self.settings.distillation.temperature) if weight else model
        )
        taught.compile(
            optimizer=optimization.optimizer(self._schedule(), self._batches.steps),
            loss=self._loss,
            jit_compile=self.how.jit,
            steps_per_execution=1 if one_by_one else self.how.steps_per_execution,
        )
        history = taught.fit(
            self._batches.training(0),
            epochs=self.epochs,
            steps_per_epoch=self._batches.steps,
            callbacks=[
                keras.callbacks.TerminateOnNaN(),
                EpochProgress(COMPRESSION, f"fine-tuning {self._work}"),
                *callbacks,
            ],
            verbose=0,
        ).history
        self._seconds_per_epoch = (time.monotonic() - started) / self.epochs
        finite = np.isfinite(history["loss"]).all() and all(np.isfinite(w).all() for w in model.get_weights())
        if not finite:
            raise VariantError(
                f"its fine-tuning diverged; lower compression.learning_rate (now {self.settings.learning_rate:g})"
            )
        _logger.info("Fine-tuned %s in %.1f s, loss %.4f", model.name, time.monotonic() - started, history["loss"][-1])

    def _schedule(self) -> optimization.TrainerSettings:
        own = {
            "optimizer": "adamw",
            "learning_rate": self.settings.learning_rate,
            "epochs": self.epochs,
            "weight_decay": 0.0,
            "ema": 0.0,
        }
        return self.training.trainer.model_copy(update=own)

    def _require_time(self, name: str) -> None:
        if time.monotonic() + self._seconds_per_epoch * self.epochs > self.deadline:
            self.is_short_of_time = True
            raise VariantError(
                f"no time was left to fine-tune {name}: compression.time_budget_s={self.settings.time_budget_s:g}; "
                "run again with more: what is finished is kept"
            )
