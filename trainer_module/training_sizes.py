"""The size of the training images, epoch by epoch. It needs no TensorFlow, so that settings can be checked by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainer_module.architectures import ARCHITECTURES
from trainer_module.errors import UserError

if TYPE_CHECKING:
    from trainer_module.settings import ModelSettings, TrainerSettings

# Smaller sizes before the full one, as in EfficientNetV2 (Tan and Le 2021, arXiv:2104.00298, section 4.2). Each costs a
# trace of the training step, and with XLA a compilation.
_SMALLER_SIZES = 3
# Feature maps are halved several times, and vector units work on whole lanes.
_SIZE_MULTIPLE = 4


def training_sizes(settings: TrainerSettings, image_size: int) -> list[int]:
    """Lists the size of the training images for every epoch: it rises in equal steps, each for as many epochs.

    Args:
        settings: Says how many epochs there are, and how many of them begin at which size.
        image_size: Side of the images in pixels at the end.

    Returns:
        Side of the images in pixels for each epoch, never falling.
    """
    scale = settings.progressive_resizing.initial_scale
    smaller = int(settings.epochs * settings.progressive_resizing.share) if scale < 1 else 0
    sizes = [_rounded(image_size * (scale + (1 - scale) * step / _SMALLER_SIZES)) for step in range(_SMALLER_SIZES)]
    first = [min(sizes[_SMALLER_SIZES * epoch // smaller], image_size) for epoch in range(smaller)]
    return first + [image_size] * (settings.epochs - smaller)


def full_size_epochs(sizes: list[int], image_size: int) -> float:
    """Returns how many epochs at full size take the time of the given ones: it goes with the number of pixels."""
    return sum((size / image_size) ** 2 for size in sizes)


def require_training_sizes(model: ModelSettings, settings: TrainerSettings, image_size: int) -> None:
    """Refuses to train on images that the network, or its teacher, cannot be given.

    Raises:
        UserError: Names the keys.
    """
    smallest = training_sizes(settings, image_size)[0]
    if smallest == image_size:
        return
    initial = f"trainer.progressive_resizing.initial_scale={settings.progressive_resizing.initial_scale}"
    trained = {"model.architecture": model.architecture, "trainer.distillation.teacher": settings.distillation.teacher}
    for key, name in trained.items():
        if name == "none":
            continue
        if ARCHITECTURES[name].head == "flatten":
            raise UserError(
                f"{initial}, but {key}={name} has weights for every position in images of one size;"
                " set it to 1, or choose another architecture"
            )
        stride = ARCHITECTURES[name].stride(image_size)
        if smallest < stride:
            raise UserError(
                f"{initial} begins with {smallest} pixels, fewer than the stride {stride} of {key}={name};"
                f" set it to at least {stride / image_size:.2g}"
            )


def _rounded(pixels: float) -> int:
    return max(_SIZE_MULTIPLE, round(pixels / _SIZE_MULTIPLE) * _SIZE_MULTIPLE)
