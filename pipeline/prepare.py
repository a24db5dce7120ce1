"""Before a run: the data and what `auto` settings mean for them."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from components.image_example_gen.engine.listing import list_images
from pipeline.config import PipelineSettings, auto_image_size
from pipeline.digits import write_digits
from trainer_module.consistency import require_consistent

if TYPE_CHECKING:
    from components.image_example_gen.engine.listing import Listing
    from pipeline.workspace import Workspace

_SAMPLED_PHOTOS = 200


def resolve(settings: PipelineSettings, workspace: Workspace) -> PipelineSettings:
    """Decides what the settings leave open: the embedded data, and the input size.

    Args:
        settings: As the user gave them.
        workspace: Where the embedded data is written.

    Returns:
        Settings with `data.path` absolute and `data.image_size` a number.

    Raises:
        UserError: If the data folder is unusable, or the input smaller than the network's stride.
    """
    if settings.data.path is None:
        settings = _with_digits(settings, workspace)
    path = Path(settings.data.path or "").expanduser().absolute()
    listing = list_images(path)
    size = settings.data.image_size
    if size == "auto":
        size = auto_image_size(_typical_side(listing))
    require_consistent(settings.model, settings.trainer, size)
    return settings.model_copy(update={"data": settings.data.model_copy(update={"path": path, "image_size": size})})


def _with_digits(settings: PipelineSettings, workspace: Workspace) -> PipelineSettings:
    """Takes the embedded digits; they are not mirrored, because a mirrored 2 is no digit, unless that was asked for."""
    data = settings.data.model_copy(update={"path": write_digits(workspace.root / "digits")})
    trainer = settings.trainer
    if "flip" not in trainer.augmentation.model_fields_set:
        augmentation = trainer.augmentation.model_copy(update={"flip": False})
        trainer = trainer.model_copy(update={"augmentation": augmentation})
    return settings.model_copy(update={"data": data, "trainer": trainer})


def _typical_side(listing: Listing) -> int:
    """Returns the median of the shorter sides of a sample of the photos, in pixels."""
    step = max(1, len(listing.files) // _SAMPLED_PHOTOS)
    sides = [side for file in listing.files[::step] if (side := _shorter_side(listing.root / file.path))]
    return round(statistics.median(sides)) if sides else 0


def _shorter_side(path: Path) -> int | None:
    try:
        with Image.open(path) as image:
            return min(image.size)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        # Ingest will quarantine it with its reason.
        return None
