"""The choice of the variant that ships: the smallest inside the budget."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from trainer_module.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from components.compression.measurement import Measurement

# Differences of accuracies such as 0.95 - 0.94 are off by some 1e-17, which must not decide.
_ROUNDING = 1e-9
# Files that differ by less are equally small in practice; then the better model ships.
_EQUALLY_SMALL = 1.02


@dataclasses.dataclass(frozen=True)
class Budget:
    """What the shipped model may cost.

    Attributes:
        max_accuracy_drop: How far the validation accuracy may be below the float parent's, as a share: 0.01 is one
            percentage point.
        balanced: Whether that accuracy is the balanced one, in which each class counts the same.
        max_bytes: Largest size, None for any.
        size: What `max_bytes` limits: "file", or "deflated" for the size after zlib.
        max_latency_ms: Longest median time for one image on one thread, None for any.
    """

    max_accuracy_drop: float
    max_bytes: int | None = None
    max_latency_ms: float | None = None
    size: Literal["file", "deflated"] = "file"
    balanced: bool = False

    def accuracy(self, measurement: Measurement) -> float:
        """Returns the accuracy that counts."""
        return measurement.balanced_accuracy if self.balanced else measurement.accuracy


@dataclasses.dataclass(frozen=True)
class Excess:
    """One limit that a variant is over.

    Attributes:
        amount: How far it is over, as a share of the limit (for the accuracy drop: as a share of all images).
        reason: The same in words, with the setting's key.
    """

    amount: float
    reason: str


def loses_too_much(accuracy: float, parent_accuracy: float, most: float) -> bool:
    """Tells whether an accuracy is further below the parent's than the budget allows."""
    return parent_accuracy - accuracy > most + _ROUNDING


def excesses(measurement: Measurement, parent_accuracy: float, budget: Budget) -> list[Excess]:
    """Compares a variant with the budget.

    Args:
        measurement: Figures of the variant.
        parent_accuracy: Validation accuracy of the float parent, the one that counts.
        budget: The limits.

    Returns:
        The limits it is over; none if it fits.
    """
    found = []
    accuracy = budget.accuracy(measurement)
    if loses_too_much(accuracy, parent_accuracy, budget.max_accuracy_drop):
        drop = parent_accuracy - accuracy
        kind = "balanced accuracy" if budget.balanced else "accuracy"
        reason = f"{kind} drop {drop:.4f} > compression.budget.max_accuracy_drop {budget.max_accuracy_drop:g}"
        found.append(Excess(drop - budget.max_accuracy_drop, reason))
    size, unit = measurement.bytes, "bytes"
    if budget.size == "deflated":
        size, unit = measurement.deflated_bytes, "bytes deflated"
    if budget.max_bytes is not None and size > budget.max_bytes:
        reason = f"{size} {unit} > compression.budget.max_bytes {budget.max_bytes}"
        found.append(Excess(size / budget.max_bytes - 1, reason))
    if budget.max_latency_ms is not None and measurement.latency_ms > budget.max_latency_ms:
        reason = f"{measurement.latency_ms:.3g} ms > compression.budget.max_latency_ms {budget.max_latency_ms:g}"
        found.append(Excess(measurement.latency_ms / budget.max_latency_ms - 1, reason))
    return found


def select(measurements: Mapping[str, Measurement], parent_accuracy: float, budget: Budget) -> str:
    """Chooses the smallest variant inside the budget; of equally small ones the better.

    Small is what remains after deflation: that is what a package or a download carries, and file bytes alone would hide
    what full-integer weights, pruning and clustering save.

    Args:
        measurements: Figures of every variant that passed its checks, by name; not empty.
        parent_accuracy: Validation accuracy of the float parent, the one that counts.
        budget: The limits.

    Returns:
        Name of the variant.

    Raises:
        UserError: None fits; the message names the nearest miss and which settings to relax.
    """
    over = {name: excesses(measurement, parent_accuracy, budget) for name, measurement in measurements.items()}
    fitting = [name for name, found in over.items() if not found]
    if fitting:
        limit = _EQUALLY_SMALL * min(measurements[name].deflated_bytes for name in fitting)
        small = (name for name in fitting if measurements[name].deflated_bytes <= limit)
        return max(small, key=lambda name: _merits(measurements[name], budget))
    nearest = min(over, key=lambda name: max(excess.amount for excess in over[name]))
    reasons = " and ".join(excess.reason for excess in over[nearest])
    raise UserError(
        f"compression: none of the variants {', '.join(measurements)} fits the budget; the nearest is {nearest}: "
        f"{reasons}; relax that limit, or train a smaller or more accurate model"
    )


def _merits(measurement: Measurement, budget: Budget) -> tuple[float, float, int]:
    # Not by latency: its noise would ship another model every time that two are as good as each other.
    return budget.accuracy(measurement), measurement.agreement, -measurement.deflated_bytes
