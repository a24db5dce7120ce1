"""What the networks are made of: descriptions that need no TensorFlow, so that settings can be checked against them."""

from __future__ import annotations

import dataclasses
from typing import Literal

from trainer_module.errors import UserError

_CHANNEL_MULTIPLE = 8


@dataclasses.dataclass(frozen=True)
class Stage:
    """Blocks of one width at one resolution.

    Attributes:
        block: Kind of block: "conv" (3x3 convolution), "separable" (3x3 depthwise, then pointwise convolution),
            "inverted" (inverted residual: pointwise convolution to more channels, 3x3 depthwise, linear pointwise
            convolution back, and a shortcut; Sandler et al. 2018, arXiv:1801.04381), "fused" (the same with its
            first two convolutions fused to one plain 3x3; Tan and Le 2021, arXiv:2104.00298), "residual" (two plain
            3x3 convolutions, a shortcut and a ReLU after their addition; He et al. 2015, arXiv:1512.03385) or "dense"
            (a 3x3 convolution whose channels join those that came in; Huang et al. 2017, arXiv:1608.06993, with the
            convolution before its normalisation, so that they can be folded).
        width: Output channels, before the width multiplier; of a "dense" block those that join (its growth).
        depth: Number of blocks.
        stride: Stride of the first block. Before a "dense" one a transition of average pooling and a 1x1 convolution
            to half of the channels does it.
        expansion: Channels inside an "inverted" or "fused" block, as a multiple of those that come in.
    """

    block: Literal["conv", "separable", "inverted", "fused", "residual", "dense"]
    width: int
    depth: int
    stride: int = 1
    expansion: int = 1


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A network: a stem, stages and a head.

    Attributes:
        stem: Output channels of the first convolution, before the width multiplier.
        stages: What follows the stem.
        head: "flatten" (Flatten and a hidden dense layer) or "pool" (global average pooling).
        hidden: Units of the hidden dense layer, before the width multiplier; 0 for none.
        halving_sizes: Input sizes in pixels from which the stem halves the resolution once more: small images carry
            their detail in single pixels, large ones cost too much at full resolution.
    """

    stem: int
    stages: tuple[Stage, ...]
    head: Literal["flatten", "pool"] = "pool"
    hidden: int = 0
    halving_sizes: tuple[int, ...] = (64,)

    def stem_halvings(self, image_size: int) -> int:
        """Returns how many times the stem halves the resolution of images of this size in pixels."""
        return sum(image_size >= size for size in self.halving_sizes)

    def stride(self, image_size: int) -> int:
        """Returns how many pixels of the input, along one side, one position of the last feature map stands for."""
        stride = 2 ** self.stem_halvings(image_size)
        for stage in self.stages:
            stride *= stage.stride
        return int(stride)


def _lesson(block: Literal["conv", "separable"], head: Literal["flatten", "pool"]) -> Architecture:
    """Describes a rung of the ladder.

    At the lesson's scale (150 pixels, 6 classes) these have 7.47, 5.68 and 0.73 million parameters; the lesson's own
    networks have 7.48, 5.87 and 0.68 million.
    """
    widths = (32, 64, 128, 256, 584)
    stages = tuple(Stage(block, width, depth=2, stride=2 if place else 1) for place, width in enumerate(widths))
    return Architecture(widths[0], stages, head, hidden=128)


ARCHITECTURES = {
    "naive": _lesson("conv", "flatten"),
    "pooling": _lesson("conv", "pool"),
    "separable": _lesson("separable", "pool"),
    "lean": Architecture(
        stem=16,
        stages=(
            Stage("fused", 32, depth=1, stride=2, expansion=3),
            Stage("inverted", 32, depth=4, expansion=2),
            Stage("inverted", 48, depth=3, stride=2, expansion=3),
        ),
        halving_sizes=(64, 128),
    ),
    # Two thirds of the training time of `lean` for a better network with twice its weights: plain convolutions are not
    # bound by memory as depthwise ones are. Fewer channels in all, so that less of a small file is scales and biases.
    "residual": Architecture(
        stem=16,
        stages=(
            Stage("residual", 16, depth=2),
            Stage("residual", 32, depth=3, stride=2),
            Stage("residual", 56, depth=2, stride=2),
        ),
        halving_sizes=(64, 128),
    ),
    # All that was computed at a resolution stays at hand there, so that no weights are spent on computing it again.
    "densenet": Architecture(
        stem=32,
        stages=(
            Stage("dense", 16, depth=4),
            Stage("dense", 16, depth=6, stride=2),
            Stage("dense", 16, depth=3, stride=2),
        ),
        halving_sizes=(64, 128),
    ),
}


def require_input_size(name: str, image_size: int, key: str = "model.architecture") -> None:
    """Refuses inputs that the network would shrink to less than one position.

    Args:
        name: Key of `ARCHITECTURES`.
        image_size: Side of the input in pixels.
        key: The setting that names the network, for the message.

    Raises:
        UserError: If the input is smaller than the network's stride.
    """
    stride = ARCHITECTURES[name].stride(image_size)
    if image_size < stride:
        raise UserError(
            f"data.image_size={image_size} is smaller than the stride {stride} of {key}={name};"
            f" set it to at least {stride}"
        )


def scale_channels(channels: int, width: float) -> int:
    """Applies the width multiplier, rounded to a multiple of 8 because vector units work on whole lanes."""
    return max(_CHANNEL_MULTIPLE, round(channels * width / _CHANNEL_MULTIPLE) * _CHANNEL_MULTIPLE)
