"""Parameters and multiply-accumulates of every architecture, as a Markdown table.

python -m benchmarks.models [--image-size PIXELS] [--classes N] [--width FACTOR]
"""

from __future__ import annotations

import argparse
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
    from components.compression.channel_pruning import multiply_accumulates

    for name, model in _models(arguments):
        sys.stdout.write(f"| {name} | {model.count_params():,} | {multiply_accumulates(model) / 1e6:,.1f} M |\n")


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


if __name__ == "__main__":
    main()
