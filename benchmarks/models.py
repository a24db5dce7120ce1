"""Parameters and multiply-accumulates of every architecture, as a Markdown table.

python -m benchmarks.models [--image-size PIXELS] [--classes N] [--width FACTOR]
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tf_keras as keras


def main() -> None:
    """Builds each network and prints its row."""
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--width", type=float, default=1.0)
    arguments = parser.parse_args()
    sys.stdout.write("| Architecture | Parameters | Multiply-accumulates |\n| --- | --- | --- |\n")
    for name, model in _models(arguments):
        sys.stdout.write(f"| {name} | {model.count_params():,} | {_multiply_accumulates(model) / 1e6:,.1f} M |\n")


def _models(arguments: argparse.Namespace) -> list[tuple[str, keras.Model]]:
    from trainer_module.architectures import ARCHITECTURES
    from trainer_module.models import build_model
    from trainer_module.settings import ModelSettings

    return [
        (
            name,
            build_model(
                ModelSettings(architecture=name, width=arguments.width), arguments.image_size, arguments.classes
            ),
        )
        for name in ARCHITECTURES
    ]


def _multiply_accumulates(model: keras.Model) -> int:
    """Counts those of convolutions and dense layers for one image; everything else is next to nothing."""
    import tf_keras as keras

    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            # One kernel application for every position of the output; a depthwise kernel [3, 3, C, 1] has C of them.
            total += math.prod(layer.output_shape[1:3]) * layer.weights[0].shape.num_elements()
        elif isinstance(layer, keras.layers.Dense):
            total += layer.kernel.shape.num_elements()
    return total


if __name__ == "__main__":
    main()
