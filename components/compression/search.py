"""The search for how far a stage can go: the cheap evidence says where to begin, fine-tuned models decide."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from components.compression.errors import VariantError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Level = TypeVar("Level", int, float)
Made = TypeVar("Made")

# What fine-tuning was seen to win back with ease.
_RECOVERABLE = 0.1


def furthest(
    levels: Sequence[Level],
    estimate: Callable[[Level], float],
    intact: float,
    attempt: Callable[[Level], Made],
    fits: Callable[[Made], bool],
) -> Made:
    """Finds the furthest level at which what is made still fits.

    Args:
        levels: From the mildest to the harshest.
        estimate: Accuracy at a level before any fine-tuning.
        intact: The same without the stage.
        attempt: Makes the model of a level, which is the costly part.
        fits: Whether what was made is inside the budget.

    Returns:
        What was made at the furthest level that fits. It goes on from the first guess towards harsher levels as long
        as they fit, or back towards milder ones until one does.

    Raises:
        VariantError: Nothing fits, or the last level that was tried could not be made.
    """
    trouble: VariantError | None = None

    def made_if_fits(level: Level) -> Made | None:
        nonlocal trouble
        try:
            made, trouble = attempt(level), None
        except VariantError as error:
            trouble = error
            return None
        return made if fits(made) else None

    guesses = [number for number, level in enumerate(levels) if intact - estimate(level) <= _RECOVERABLE]
    number = guesses[-1] if guesses else 0
    best = made_if_fits(levels[number])
    step = 1 if best is not None else -1
    while 0 <= number + step < len(levels):
        number += step
        made = made_if_fits(levels[number])
        best = best if made is None else made
        if (made is None) == (step == 1):
            break
    if best is None:
        raise trouble or VariantError(
            f"not even the mildest of {', '.join(map(str, levels))} stays inside the accuracy budget"
        )
    return best
