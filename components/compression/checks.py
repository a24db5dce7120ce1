"""What a variant must show before it is a candidate; each check looks at the file on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from components.compression.errors import VariantError
from components.compression.flatbuffer import ModelFile
from components.compression.measurement import deflated_bytes
from trainer_module.tflite import TFLiteClassifier

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from components.compression.flatbuffer import Kernel

# Quantisation only adds zeros; what it may take away is the rounding of this share.
_SPARSITY_TOLERANCE = 1e-3


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


def check_integer_only(path: Path, *, float_ends: bool = False) -> None:
    """Checks that a fully quantised variant computes nothing in floating point.

    Args:
        path: The .tflite file.
        float_ends: Whether its input and output are to be floating point all the same.

    Raises:
        VariantError: The file has a tensor of a float type.
    """
    floats = ModelFile(path).float_tensors(ends=not float_ends)
    if floats:
        raise VariantError(f"{len(floats)} of its tensors are floating point, the first is {floats[0]!r}")


def check_biases(path: Path) -> None:
    """Checks that the biases of an integer variant fit into the 32 bits that each has.

    They are stored in multiples of a step that follows the step of their channel's weights. So one beside weights next
    to zero may be beyond, and is then stored as another number, of the other sign even.

    Args:
        path: The .tflite file.

    Raises:
        VariantError: Some bias is at the ends of its bits.
    """
    cut = ModelFile(path).cut_biases()
    if cut:
        raise VariantError(f"{cut} of its biases do not fit into 32 bits: the weights beside them are next to zero")


def check_kernels(path: Path, reference: Sequence[Kernel]) -> None:
    """Checks that no kernel is all zeros that was not so in the float model's file.

    TFMOT's cluster-preserving training, for one, can zero a whole 1x1 convolution (tfmot#979).

    Args:
        path: The .tflite file.
        reference: Kernels of the float model's file.

    Raises:
        VariantError: Some kernel is.
    """
    silent = sum(not kernel.values.any() for kernel in reference)
    zeroed = [kernel.name for kernel in ModelFile(path).kernels if not kernel.values.any()]
    if len(zeroed) > silent:
        raise VariantError(f"all weights of {len(zeroed)} of its kernels are zero, the last is {zeroed[-1]}")


def check_sparsity(path: Path, least: float) -> None:
    """Checks that what was pruned is zero in the file.

    Args:
        path: The .tflite file.
        least: Share of zeros of the float model.

    Raises:
        VariantError: The file has fewer.
    """
    found = ModelFile(path).sparsity()
    if found < least - _SPARSITY_TOLERANCE:
        raise VariantError(f"pruning made {least:.1%} of the weights zero, but in the file only {found:.1%} are")


def check_clusters(path: Path, clusters: int, layers: int) -> None:
    """Checks that clustered kernels have few distinct weights in the file.

    Args:
        path: The .tflite file.
        clusters: Most distinct values of a clustered kernel.
        layers: Number of clustered kernels.

    Raises:
        VariantError: Fewer kernels than that have so few.
    """
    found = sum(kernel.unique <= clusters for kernel in ModelFile(path).kernels)
    if found < layers:
        raise VariantError(
            f"{layers} kernels were clustered, but only {found} in the file have {clusters} values or fewer"
        )


def check_shrunk(path: Path, larger: Path) -> None:
    """Checks that a variant with more zeros or fewer values is smaller, deflated, than the one without.

    Args:
        path: The .tflite file.
        larger: The file that it must be smaller than.

    Raises:
        VariantError: It is not.
    """
    size, before = (deflated_bytes(file.read_bytes()) for file in (path, larger))
    if size >= before:
        raise VariantError(f"it did not shrink: {size} bytes deflated, {larger.stem} has {before}")


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
