"""Before a run: the data and what `auto` settings mean for them."""

from __future__ import annotations

import os
import statistics
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from components.image_example_gen.engine.listing import list_images
from components.image_example_gen.engine.quarantine import printable
from pipeline.config import PipelineSettings, PushSettings, auto_image_size
from pipeline.digits import write_digits
from pipeline.paths import absolute, expanded
from trainer_module.consistency import require_consistent
from trainer_module.errors import UserError
from trainer_module.uri import is_remote

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
        Settings with `data.path` and `push.*_dir` absolute, and `data.image_size` a number.

    Raises:
        UserError: If the data folder is unusable, or the input smaller than the network's stride.
    """
    if settings.data.path is None:
        settings = _with_digits(settings, workspace)
    path = expanded(settings.data.path or Path()).absolute()
    if str(path) != str(path).encode(errors="replace").decode():
        raise UserError(f"{printable(str(path))}: the path of the data folder is no UTF-8; rename what is not")
    listing = list_images(path)
    max_side = settings.data.max_side
    size = settings.data.image_size
    if size == "auto":
        size = _image_size_for(listing, max_side)
    require_consistent(settings.model, settings.trainer, size, max_side)
    data = settings.data.model_copy(update={"path": path, "image_size": size})
    push = settings.push.model_copy(update=_given_directories(settings.push))
    return settings.model_copy(update={"data": data, "push": push})


def require_apart(data: Path | None, output: Path) -> None:
    """Refuses an output directory in the data folder, where the next run would take it for a class.

    Args:
        data: The user's folder of photos; None for the embedded ones.
        output: Where everything is to be written.

    Raises:
        UserError: The output is the data folder or lies in it, or the data folder is in the home of nobody.
    """
    if data is None:
        return
    # Not Path.resolve, which raises where links go round in circles: whoever opens them will say so.
    photos, written = Path(os.path.realpath(expanded(data))), Path(os.path.realpath(output))
    if not written.is_relative_to(photos):
        return
    if not any(part.startswith(".") for part in written.relative_to(photos).parts):
        raise UserError(
            f"{printable(str(output))}: the output lies in the data folder {printable(str(photos))}, where it would be "
            "taken for photos; give an --output outside of it"
        )


def require_destinations(push: PushSettings) -> None:
    """Refuses directories that nothing could be pushed to: after the training it would be late to find out.

    Args:
        push: Where to.

    Raises:
        UserError: Both artifacts have the same directory, or one on this machine cannot be written.
    """
    directories = _given_directories(push)
    if len(directories) == 2 and len(set(directories.values())) == 1:
        raise UserError(f"push.saved_model_dir and push.tflite_dir are both {push.tflite_dir}; give each its own")
    for key, directory in directories.items():
        if not is_remote(directory):
            _require_writable(f"push.{key}", Path(directory))


def _given_directories(push: PushSettings) -> dict[str, str]:
    """Returns what is set, so that it means the same wherever it is read later."""
    given = {"saved_model_dir": push.saved_model_dir, "tflite_dir": push.tflite_dir}
    return {key: absolute(value) for key, value in given.items() if value}


def _require_writable(key: str, directory: Path) -> None:
    """Looks at what is there of a directory that a push will make."""
    existing = next(each for each in (directory, *directory.parents) if each.exists())
    if not existing.is_dir():
        raise UserError(f"{key}={directory}: {existing} is a file; choose another directory")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"{key}={directory}: {existing} cannot be written to; choose another, or give access to it")


def _with_digits(settings: PipelineSettings, workspace: Workspace) -> PipelineSettings:
    """Takes the embedded digits; they are not mirrored, because a mirrored 2 is no digit, unless that was asked for."""
    data = settings.data.model_copy(update={"path": write_digits(workspace.root / "digits")})
    trainer = settings.trainer
    if "flip" not in trainer.augmentation.model_fields_set:
        augmentation = trainer.augmentation.model_copy(update={"flip": False})
        trainer = trainer.model_copy(update={"augmentation": augmentation})
    return settings.model_copy(update={"data": data, "trainer": trainer})


def _image_size_for(listing: Listing, max_side: int) -> int:
    """Returns the input size that suits the photos, and at most half of what ingest scales them down to."""
    return min(auto_image_size(_typical_side(listing, max_side)), max_side // 2)


def _typical_side(listing: Listing, max_side: int) -> int:
    """Returns the median of the shorter sides of a sample of the photos, in pixels, as ingest will scale them."""
    step = max(1, len(listing.files) // _SAMPLED_PHOTOS)
    with warnings.catch_warnings():
        # Of large photos, of which ingest will say what there is to be said.
        warnings.simplefilter("ignore")
        sizes = [size for file in listing.files[::step] if (size := _size(listing.root / file.path))]
    sides = [min(size) * min(1.0, max_side / max(size)) for size in sizes]
    return round(statistics.median(sides)) if sides else 0


def _size(path: Path) -> tuple[int, int] | None:
    try:
        with Image.open(path) as image:
            return image.size
    except Exception:
        # Any: Pillow's readers raise whatever they like on damaged files. Ingest will quarantine it with its reason.
        return None
