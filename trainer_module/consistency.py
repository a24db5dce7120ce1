"""What settings must agree on, checked before anything is trained; it needs no TensorFlow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainer_module.architectures import require_input_size
from trainer_module.errors import UserError
from trainer_module.training_sizes import require_training_sizes

if TYPE_CHECKING:
    from trainer_module.settings import ModelSettings, TrainerSettings


def require_consistent(model: ModelSettings, trainer: TrainerSettings, image_size: int, max_side: int) -> None:
    """Refuses settings with which no network can be trained, or only to answer what it has not learned.

    Args:
        model: Which network.
        trainer: How it is trained.
        image_size: Side of its input in pixels.
        max_side: Longest side of the photos that ingest stores, in pixels.

    Raises:
        UserError: Names the keys.
    """
    require_input_size(model.architecture, image_size)
    if trainer.distillation.teacher != "none":
        require_input_size(trainer.distillation.teacher, image_size, "trainer.distillation.teacher")
    require_training_sizes(model, trainer, image_size)
    _require_flips(model, trainer)
    _require_large_photos(image_size, max_side)


def _require_flips(model: ModelSettings, trainer: TrainerSettings) -> None:
    if model.flip_average and not trainer.augmentation.flip:
        raise UserError(
            "model.flip_average=true asks about mirror images, which trainer.augmentation.flip=false keeps out of the"
            " training; set both to true, or model.flip_average to false"
        )


def _require_large_photos(image_size: int, max_side: int) -> None:
    # Photos that are scaled down in two steps differ from those of the server, which takes one: the more, the smaller
    # the second step is.
    if max_side < 2 * image_size:
        raise UserError(
            f"data.max_side={max_side} is less than twice data.image_size={image_size}: photos that are stored so small"
            f" are not what servers see; set data.max_side to {2 * image_size} or more, or data.image_size to at most"
            f" {max_side // 2}"
        )
