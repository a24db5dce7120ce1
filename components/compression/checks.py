"""What a variant must show before it is a candidate; each check looks at the file on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from components.compression.errors import VariantError
from components.compression.flatbuffer import ModelFile
from trainer_module.tflite import TFLiteClassifier

if TYPE_CHECKING:
    from pathlib import Path


def load(path: Path) -> TFLiteClassifier:
    """Loads a variant from disk as a device would.

    Args:
        path: The .tflite file.

    Returns:
        The classifier, on one thread.

    Raises:
        VariantError: The LiteRT interpreter does not take the file.
    """
    try:
        return TFLiteClassifier(path)
    except (RuntimeError, ValueError) as error:
        raise VariantError(f"the LiteRT interpreter does not load it: {' '.join(str(error).split())}") from error


def check_covers_pixels(classifier: TFLiteClassifier) -> None:
    """Checks that no pixel value in 0..255 is clipped by the input's quantisation.

    Args:
        classifier: The loaded variant.

    Raises:
        VariantError: A pixel value comes back from the input's type more than half a grey level off the range's ends.
    """
    ends = np.array([0.0, 255.0], np.float32)
    represented = classifier.input.decode(classifier.input.encode(ends))
    if np.abs(represented - ends).max() > 0.5:
        low, high = represented
        raise VariantError(f"its input covers the pixel values {low:.1f} to {high:.1f}, not 0 to 255")


def check_integer_only(path: Path) -> None:
    """Checks that a fully quantised variant computes nothing in floating point.

    Args:
        path: The .tflite file.

    Raises:
        VariantError: The file has a tensor of a float type.
    """
    floats = ModelFile(path).float_tensors()
    if floats:
        raise VariantError(f"{len(floats)} of its tensors are floating point, the first is {floats[0]!r}")


def predict(classifier: TFLiteClassifier, images: np.ndarray) -> np.ndarray:
    """Classifies images and checks that every prediction is a finite number.

    Args:
        classifier: The loaded variant.
        images: uint8 [N, S, S, 3], N > 0.

    Returns:
        float32 probabilities [N, C].

    Raises:
        VariantError: The interpreter gave up on an image, or some image got NaN or infinity.
    """
    try:
        probabilities = classifier.predict(images)
    except (RuntimeError, ValueError) as error:
        raise VariantError(f"the LiteRT interpreter fails on an image: {' '.join(str(error).split())}") from error
    broken = int((~np.isfinite(probabilities)).any(axis=1).sum())
    if broken:
        raise VariantError(f"its predictions for {broken} of {len(probabilities)} validation images are not finite")
    return probabilities
