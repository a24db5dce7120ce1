"""The state of a training under way: its models, and the record of what has happened so far."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import TYPE_CHECKING

import pydantic

from trainer_module import acceleration

if TYPE_CHECKING:
    from collections.abc import Mapping

    import tf_keras as keras

BALANCED_ACCURACY = "balanced_accuracy"
_LOSS, _ACCURACY = "val_loss", "val_accuracy"


@dataclasses.dataclass
class Record:
    """What has happened in a training.

    Attributes:
        choice: How the steps are executed.
        history: Metric values by name, one for each finished epoch.
        seconds: Time of the finished epochs.
    """

    choice: acceleration.Choice
    history: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0

    @property
    def epochs(self) -> int:
        """Number of finished epochs."""
        return len(self.history.get(_LOSS, ()))

    @property
    def best_epoch(self) -> int | None:
        """Index of the epoch with the highest validation accuracy; None if no validation loss was a number yet.

        With class weights it is the balanced one: by the plain one an early epoch that knows only the frequent class
        would beat all later ones that find the rare ones. Of several with the same accuracy it is the one with the
        lowest loss, which on a small split, where many tie, is not the least trained. The loss alone would not do: late
        in a long training it rises while the accuracy still does too (CIFAR-10, 130 epochs: 86.7 % at the lowest loss,
        87.9 % at best).
        """
        losses = self.history.get(_LOSS, [])
        plain = self.history.get(_ACCURACY, [0.0] * len(losses))
        accuracies = self.history.get(f"val_{BALANCED_ACCURACY}", plain)
        finite = [epoch for epoch, loss in enumerate(losses) if math.isfinite(loss)]
        return max(finite, key=lambda epoch: (accuracies[epoch], -losses[epoch]), default=None)

    def add_epoch(self, metrics: Mapping[str, float]) -> None:
        """Appends the metrics of one more epoch."""
        for name, value in metrics.items():
            self.history.setdefault(name, []).append(float(value))

    def is_over(self, epochs: int, patience: int, prelude: int = 0) -> bool:
        """Tells whether all epochs are done, or the last `patience` of them brought no better one.

        The first `prelude` epochs are never among those: smaller images say little about how good it gets.
        """
        best = -1 if self.best_epoch is None else self.best_epoch
        return self.epochs >= epochs or self.epochs - 1 - max(best, prelude - 1) >= patience

    def has_diverged(self) -> bool:
        """Tells whether the training loss has stopped being a number."""
        return not all(math.isfinite(loss) for loss in self.history.get("loss", ()))

    def to_json(self) -> str:
        """Returns everything as JSON text."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Reads what `to_json` wrote.

        Raises:
            ValueError: If it is something else.
        """
        return pydantic.TypeAdapter(cls).validate_json(text)


@dataclasses.dataclass(frozen=True)
class TrainingState:
    """A training under way.

    Attributes:
        model: The compiled model, with the weights and the optimizer of the last finished step.
        kept: The same network in float32, because converters and other devices know only that; it has the weights of
            the best epoch.
        record: What has happened so far.
    """

    model: keras.Model
    kept: keras.Model
    record: Record
