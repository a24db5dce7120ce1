"""Exact intervals for shares of photos, and for the difference of two models that saw the same photos."""

from __future__ import annotations

import dataclasses

from scipy import stats

CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Interval:
    """A two-sided confidence interval.

    Attributes:
        lower: Lower end.
        upper: Upper end.
        confidence: Its level, for example 0.95.
    """

    lower: float
    upper: float
    confidence: float


def share_interval(hits: int, trials: int, confidence: float = CONFIDENCE) -> Interval:
    """Returns the exact interval of a share (Clopper and Pearson, Biometrika 26, 1934).

    Args:
        hits: Number of hits.
        trials: Number of trials, at least 1.
        confidence: Level of the interval.
    """
    ends = stats.binomtest(hits, trials).proportion_ci(confidence, method="exact")
    return Interval(float(ends.low), float(ends.high), confidence)


def drop_interval(lost: int, gained: int, photos: int, confidence: float = CONFIDENCE) -> Interval:
    """Returns the interval of the accuracy that a model lost against another on the same photos.

    Only the photos on which the two differ say anything. Were both equally good, a loss would be as likely as a gain,
    so the losses among them are binomial: McNemar's test (Psychometrika 12, 1947) in its exact form. With [l, u] the
    exact interval of the share of losses, the drop (lost - gained) / photos lies in (2 l - 1) d to (2 u - 1) d, where
    d is the share of photos that differ. It excludes 0 exactly when the test rejects at 1 - `confidence`.

    Args:
        lost: Photos that only the other model gets right.
        gained: Photos that only this model gets right.
        photos: All photos, at least 1.
        confidence: Level of the interval.
    """
    differing = lost + gained
    if not differing:
        return Interval(0.0, 0.0, confidence)
    share = share_interval(lost, differing, confidence)
    scale = differing / photos
    return Interval((2 * share.lower - 1) * scale, (2 * share.upper - 1) * scale, confidence)
