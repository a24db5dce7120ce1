"""How far the server's preprocessing is from the Transform graph of a run, over many photos, as a table.

python -m benchmarks.preprocessing_parity OUT PHOTOS [--limit NUMBER] [--scale FACTOR]

OUT is a run's output folder, whose Transform graph and pushed .tflite are used; PHOTOS is a folder of image files, or
of folders of them. With --scale they are first enlarged so many times, which makes large photos of small ones.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.metadata import Metadata, Outputs
from pipeline.workspace import Workspace
from serving.bundle import find_bundle, load_bundle
from serving.predictor import Predictor

if TYPE_CHECKING:
    from collections.abc import Callable

_BATCH = 64


def main() -> None:
    """Compares all photos and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--limit", type=int, default=5000)
    parser.add_argument("--scale", type=int, default=1)
    arguments = parser.parse_args()
    files = sorted(path for path in arguments.photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    # From all classes, not only the first ones.
    chosen = files[:: max(1, len(files) // arguments.limit)][: arguments.limit]
    predictor = Predictor(load_bundle(find_bundle(arguments.out)))
    transform = _transform_graph(arguments.out, predictor.image_size)
    largest, different, total = 0, 0, 0
    ours_named: list[str] = []
    theirs_named: list[str] = []
    for start in range(0, len(chosen), _BATCH):
        contents = [_content(path, arguments.scale) for path in chosen[start : start + _BATCH]]
        ours = np.stack([predictor.prepare(content) for content in contents])
        theirs = transform(contents)
        difference = np.abs(ours.astype(int) - theirs)
        largest = max(largest, int(difference.max()))
        different += int((difference > 0).sum())
        total += difference.size
        ours_named += [best[0].label for best in predictor.top(predictor.predict(ours))]
        theirs_named += [best[0].label for best in predictor.top(predictor.predict(theirs))]
    sys.stdout.write(
        "| Photos | Largest pixel difference | Values that differ | Top-1 agrees | Accuracy, server | and graph |\n"
        "| --- | --- | --- | --- | --- | --- |\n"
        f"| {len(chosen):,} | {largest} of 255 | {different / total:.2%} | {_share(ours_named, theirs_named):.2%} "
        f"| {_accuracy(ours_named, chosen)} | {_accuracy(theirs_named, chosen)} |\n"
    )


def _accuracy(named: list[str], photos: list[Path]) -> str:
    """Returns how often a photo is given the name of its folder; nothing where no folder is a class."""
    share = _share(named, [path.parent.name for path in photos])
    return f"{share:.2%}" if share else ""


def _share(some: list[str], others: list[str]) -> float:
    return sum(one == other for one, other in zip(some, others, strict=True)) / len(some)


def _content(path: Path, scale: int) -> bytes:
    if scale == 1:
        return path.read_bytes()
    with Image.open(path) as image:
        large = image.convert("RGB").resize((image.width * scale, image.height * scale), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    large.save(file, "JPEG", quality=90)
    return file.getvalue()


def _transform_graph(out: Path, image_size: int) -> Callable[[list[bytes]], NDArray[np.uint8]]:
    """Returns the run's own Transform graph, from image files to uint8 pixels [N, S, S, 3]."""
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf
    import tensorflow_transform as tft

    from trainer_module import features
    from trainer_module.preprocessing import bytes_to_pixels

    metadata = Metadata(Workspace(out).metadata_file)
    uri = Outputs(metadata, metadata.runs()[-1]).uri("Transform", "transform_graph")
    layer = tft.TFTransformOutput(uri).transform_features_layer()

    def transform(contents: list[bytes]) -> NDArray[np.uint8]:
        raw = {
            features.IMAGE_ENCODED: tf.constant(contents)[:, tf.newaxis],
            features.CLASS_TEXT: tf.constant(["none"] * len(contents))[:, tf.newaxis],
        }
        return bytes_to_pixels(layer(raw)[features.PIXELS], image_size).numpy()

    return transform


if __name__ == "__main__":
    main()
