"""A fresh process that loads one exported model, answers requests with it, and ends.

    python -m components.serving_validator.probe DIRECTORY REQUESTS ANSWERS

REQUESTS is a JSON list of image files in base64; ANSWERS becomes a JSON list of probabilities for each.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from serving.bundle import MANIFEST_FILE, MODEL_FILE, load_bundle
from serving.predictor import Predictor
from trainer_module import features

if TYPE_CHECKING:
    from collections.abc import Sequence


def main() -> None:
    """Answers the requests."""
    directory, requests, answers = (Path(argument) for argument in sys.argv[1:])
    images = [base64.b64decode(image) for image in json.loads(requests.read_text())]
    bundle = any((directory / name).exists() for name in (MODEL_FILE, MANIFEST_FILE))
    probabilities = _ask_bundle(directory, images) if bundle else _ask_saved_model(directory, images)
    answers.write_text(json.dumps(probabilities))


def _ask_bundle(directory: Path, images: Sequence[bytes]) -> list[list[float]]:
    """Answers as `trimline serve` does, model.json and its digests included."""
    return Predictor(load_bundle(directory)).predict_images(images).tolist()


def _ask_saved_model(directory: Path, images: Sequence[bytes]) -> list[list[float]]:
    """Answers as TensorFlow Serving does, through the signatures of Predict and of Classify."""
    import tensorflow as tf

    model = tf.saved_model.load(str(directory))
    predicted = model.signatures["serving_default"](image_bytes=tf.constant(images))["probabilities"].numpy()
    classified = model.signatures["serving_examples"](inputs=tf.constant([_example(image) for image in images]))
    if abs(classified["scores"].numpy() - predicted).max() > 0:
        raise ValueError("the signatures serving_default and serving_examples give different answers")
    return predicted.tolist()


def _example(image: bytes) -> bytes:
    import tensorflow as tf

    example = tf.train.Example()
    example.features.feature[features.IMAGE_ENCODED].bytes_list.value.append(image)
    return example.SerializeToString()


if __name__ == "__main__":
    main()
