"""The SavedModel that TensorFlow Serving loads, with its signatures."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf
import tf_keras as keras

# view_averaging: Keras finds registered layers in a saved network only where they have been imported.
from trainer_module import features, view_averaging  # noqa: F401
from trainer_module.errors import UserError
from trainer_module.folding import fold_batch_norm
from trainer_module.photo_files import decode_photos

if TYPE_CHECKING:
    from collections.abc import Sequence

# The file beside Format-Serving in the Trainer's model artifact: the model that Compression goes on from.
KERAS_MODEL_FILE = "keras_model.keras"
# Where TensorFlow Serving expects what it need not load: layers and classes, so that the model can be compressed later.
ARCHITECTURE_FILE = "assets.extra/architecture.json"
# Folding changes no more than the rounding of float32; a larger difference of a probability is a fault of the folding.
FOLDING_TOLERANCE = 1e-4
CHECKED_IMAGES = 32


class ServingModel(tf.Module):
    """A classifier with the signatures of Trimline's contract.

    * `serving_default`: `image_bytes` string [N] (encoded images)
      -> `label` string [N], `probabilities` float32 [N, C].
    * `serving_images`: `images` uint8 [N, S, S, 3] -> the same.
    * `serving_examples`: `inputs` string [N] (serialised tf.Example with image/encoded)
      -> `classes` string [N, C], `scores` float32 [N, C], which is what the Classify API answers. TensorFlow Serving
      classifies only through an input of that very name (CLASSIFY_INPUTS of tf.compat.v1.saved_model).
    """

    def __init__(self, model: keras.Model, class_names: Sequence[str], image_size: int) -> None:
        """Wraps a Keras model.

        Args:
            model: float32 pixels [N, S, S, 3] in [0, 255] -> probabilities [N, C].
            class_names: Names of the C classes in the order of the model's outputs.
            image_size: S, in pixels.
        """
        super().__init__()
        # Not the model itself: Keras would add a trace of every layer, for training too, which no signature needs.
        self.weights = model.weights
        self._classify = functools.partial(model, training=False)
        self.class_names = tf.constant(list(class_names))
        self.image_size = image_size

    def _probabilities(self, pixels: tf.Tensor) -> tf.Tensor:
        return tf.cast(self._classify(tf.cast(pixels, tf.float32)), tf.float32)

    def _predict(self, pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = self._probabilities(pixels)
        label = tf.gather(self.class_names, tf.argmax(probabilities, axis=1))
        return {"label": label, "probabilities": probabilities}

    def signatures(self) -> dict[str, tf.types.experimental.ConcreteFunction]:
        """Traces the signatures, by name."""

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
        def from_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
            return self._predict(decode_photos(image_bytes, self.image_size))

        shape = [None, self.image_size, self.image_size, 3]

        @tf.function(input_signature=[tf.TensorSpec(shape, tf.uint8, name="images")])
        def from_images(images: tf.Tensor) -> dict[str, tf.Tensor]:
            return self._predict(images)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
        def from_examples(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
            feature_spec = {features.IMAGE_ENCODED: tf.io.FixedLenFeature([], tf.string)}
            encoded = tf.io.parse_example(inputs, feature_spec)[features.IMAGE_ENCODED]
            scores = self._probabilities(decode_photos(encoded, self.image_size))
            classes = tf.broadcast_to(self.class_names[tf.newaxis], tf.shape(scores))
            return {"classes": classes, "scores": scores}

        functions = {"serving_default": from_bytes, "serving_images": from_images, "serving_examples": from_examples}
        return {name: function.get_concrete_function() for name, function in functions.items()}


def save_serving_model(
    model: keras.Model,
    directory: str,
    class_names: Sequence[str],
    image_size: int,
    *,
    fold: bool = True,
    images: np.ndarray | None = None,
) -> None:
    """Writes a SavedModel with the signatures of `ServingModel`.

    Args:
        model: float32 pixels [N, S, S, 3] in [0, 255] -> probabilities [N, C].
        directory: Where to write it.
        class_names: Names of the C classes in the order of the model's outputs.
        image_size: S, in pixels.
        fold: Whether batch normalisation and activations become part of the convolutions (see `folding`).
        images: Pixels [N, S, S, 3] in [0, 255], photos on which the folded model is compared with the model; by
            default noise.

    Raises:
        UserError: The folded model's probabilities differ by more than `FOLDING_TOLERANCE`. Nothing is written then.
    """
    if fold:
        model = _checked_fold(model, _noise(image_size) if images is None else images[:CHECKED_IMAGES])
    module = ServingModel(model, class_names, image_size)
    tf.saved_model.save(module, directory, signatures=module.signatures())
    architecture = f"{directory}/{ARCHITECTURE_FILE}"
    tf.io.gfile.makedirs(architecture.rpartition("/")[0])
    with tf.io.gfile.GFile(architecture, "w") as file:
        file.write(json.dumps({"model": model.get_config(), "classes": list(class_names)}))


def load_serving_model(directory: str) -> tuple[keras.Model, list[str]]:
    """Reads the classifier back from what `save_serving_model` wrote.

    Args:
        directory: A SavedModel.

    Returns:
        The Keras model, and the names of its classes.

    Raises:
        UserError: It is no SavedModel of Trimline's.
    """
    try:
        with tf.io.gfile.GFile(f"{directory}/{ARCHITECTURE_FILE}") as file:
            described = json.loads(file.read())
        model = keras.Model.from_config(described["model"])
        saved = tf.saved_model.load(directory)
        model.set_weights([weight.numpy() for weight in saved.weights])
    except (tf.errors.OpError, OSError, ValueError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{directory}: is no SavedModel that trimline run has written ({reason}); give one, or a .keras file"
        ) from None
    return model, described["classes"]


def _checked_fold(model: keras.Model, images: np.ndarray) -> keras.Model:
    folded = fold_batch_norm(model)
    # GPUs compute convolutions in TF32, which differs by more than the tolerance. To switch that off is not enough:
    # TensorFlow goes on with what it chose for the same shapes before (LazyOpRunner). CPUs know float32 only.
    with tf.device("CPU:0"):
        pixels = tf.cast(images, tf.float32)
        differences = folded(pixels, training=False).numpy() - model(pixels, training=False).numpy()
    difference = np.abs(differences).max()
    # So that NaN, which compares as false, is a difference too.
    if not difference <= FOLDING_TOLERANCE:
        raise UserError(
            f"acceleration.fold_batch_norm=true: folding changes the probabilities by {difference:.1e}, more than"
            f" {FOLDING_TOLERANCE:.1e}; set it to false"
        )
    return folded


def _noise(image_size: int) -> np.ndarray:
    shape = (CHECKED_IMAGES, image_size, image_size, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
