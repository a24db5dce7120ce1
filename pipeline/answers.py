"""Whether what a model that the user gives answers can be worked with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trainer_module.errors import UserError
from trainer_module.probabilities import are_probabilities

if TYPE_CHECKING:
    from pathlib import Path


def require_probabilities(answers: np.ndarray, path: Path) -> None:
    """Refuses a model whose answers are no probabilities.

    Args:
        answers: Some of its answers, [N, C].
        path: Of the model, for the message.

    Raises:
        UserError: A number is not finite or negative, or a row does not sum to 1.
    """
    if not np.isfinite(answers).all():
        raise UserError(
            f"{path}: its answers are not finite (NaN or infinite); train it again at a lower learning rate"
        )
    if not are_probabilities(answers):
        raise UserError(
            f"{path}: answers no probabilities: they are negative or do not sum to 1; give one that ends with softmax"
        )
