"""A small real data set that needs no download: scikit-learn's handwritten digits."""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from trainer_module.errors import UserError

# Number of images of the data set and their brightest value, as scikit-learn documents them.
_COUNT = 1_797
_WHITE = 16


def write_digits(directory: str | os.PathLike[str]) -> Path:
    """Writes the 1,797 handwritten digits as a class-per-folder tree of 8 x 8 grayscale PNG files.

    A complete tree is left as it is, times of change included, so that nothing that was cached for it goes stale. The
    tree appears as a whole or not at all, also when several processes write it at once.

    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, as shipped
    with scikit-learn.

    Args:
        directory: where the folders 0 to 9 go; created if it is missing or empty.

    Returns:
        The directory.

    Raises:
        UserError: the directory holds something else, or cannot be written.
    """
    target = Path(directory)
    try:
        if not _is_complete(target):
            _write(target)
    except OSError as error:
        raise UserError(f"{target}: cannot write the digits there ({error.strerror}); name another folder") from error
    if not _is_complete(target):
        raise UserError(f"{target}: holds something other than the {_COUNT} digits; remove it or name another folder")
    return target


def _is_complete(target: Path) -> bool:
    return {path.name for path in target.glob("*")} == set("0123456789") and len(list(target.glob("*/*.png"))) == _COUNT


def _write(target: Path) -> None:
    # Importing scikit-learn takes a second, which a complete tree does not need.
    from sklearn.datasets import load_digits

    digits = load_digits()
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        temporary.chmod(0o755)
        for label in range(10):
            (temporary / str(label)).mkdir()
        for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            gray = np.rint(pixels * (255 / _WHITE)).astype(np.uint8)
            Image.fromarray(gray).save(temporary / str(label) / f"{number:04d}.png")
        # Fails on a folder that is not empty, which is for the caller to judge.
        if not (target.exists() and any(target.iterdir())):
            temporary.replace(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
