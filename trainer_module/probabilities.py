"""Whether what a classifier answers are probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Of softmax in reduced precision.
_SUM_TOLERANCE = 0.01


def are_probabilities(answers: NDArray[np.float32], step: float = 0.0) -> bool:
    """Tells whether each row is one probability distribution.

    Args:
        answers: Finite numbers [N, C].
        step: What each class may be off by more, where it is rounded to whole steps.

    Returns:
        Whether none is negative and every row sums to 1.
    """
    tolerance = _SUM_TOLERANCE + answers.shape[1] * step
    return bool(answers.min() >= 0 and np.abs(answers.sum(axis=1) - 1).max() <= tolerance)
