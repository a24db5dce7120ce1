"""From encoded images to uint8 pixels of one size: the one definition for Transform, the SavedModel and the gates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf
import tensorflow_transform as tft

from trainer_module import features

if TYPE_CHECKING:
    from collections.abc import Callable

_CHANNELS = 3


def decode_image(encoded: tf.Tensor, image_size: int) -> tf.Tensor:
    """Decodes one image that ingest has stored, and resizes it.

    Args:
        encoded: Scalar string, a JPEG or an RGB PNG.
        image_size: Side of the result, in pixels.

    Returns:
        uint8 RGB pixels of shape [image_size, image_size, 3].
    """
    return resize(decode_stored(encoded), image_size)


def decode_images(encoded: tf.Tensor, image_size: int) -> tf.Tensor:
    """Decodes and resizes a batch of images that ingest has stored.

    Args:
        encoded: Strings of shape [N], each an encoded image.
        image_size: Side of the result, in pixels.

    Returns:
        uint8 RGB pixels of shape [N, image_size, image_size, 3].
    """
    return map_images(lambda one: decode_image(one, image_size), encoded, image_size)


def decode_stored(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes an image as it lies in its file, without regard to transparency.

    Args:
        encoded: Scalar string, a JPEG or PNG.

    Returns:
        uint8 RGB pixels of shape [H, W, 3].
    """
    # INTEGER_ACCURATE is what Pillow and browsers use; TensorFlow's default is a faster, coarser transform.
    # Despite its name the kernel detects PNG too, and unlike decode_image it lets the DCT be chosen.
    return tf.io.decode_jpeg(encoded, channels=_CHANNELS, dct_method="INTEGER_ACCURATE")


def resize(pixels: tf.Tensor, image_size: int) -> tf.Tensor:
    """Resizes an image to the model's input.

    The aspect ratio is not kept; the filter is the antialiased triangle ("bilinear"), which Pillow's BILINEAR also is.

    Args:
        pixels: uint8 of shape [H, W, 3].
        image_size: Side of the result, in pixels.

    Returns:
        uint8 of shape [image_size, image_size, 3].
    """
    resized = tf.image.resize(pixels, [image_size, image_size], method="bilinear", antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), tf.uint8)


def map_images(decode: Callable[[tf.Tensor], tf.Tensor], encoded: tf.Tensor, image_size: int) -> tf.Tensor:
    """Calls a function for each image of a batch.

    Args:
        decode: From a scalar string to uint8 RGB pixels of shape [image_size, image_size, 3].
        encoded: Strings of shape [N].
        image_size: Side of the results, in pixels.

    Returns:
        uint8 RGB pixels of shape [N, image_size, image_size, 3].
    """
    shape = [image_size, image_size, _CHANNELS]
    pixels = tf.map_fn(decode, encoded, fn_output_signature=tf.TensorSpec(shape, tf.uint8))
    return tf.ensure_shape(pixels, [None, *shape])


def pixels_to_bytes(pixels: tf.Tensor, image_size: int) -> tf.Tensor:
    """Packs uint8 images into byte strings, because a tf.Example would store integers as int64.

    Args:
        pixels: uint8 of shape [N, image_size, image_size, 3].
        image_size: Side of the images, in pixels.

    Returns:
        Strings of shape [N], each image_size * image_size * 3 bytes, row-major.
    """
    size = image_size * image_size * _CHANNELS

    # A serialised TensorProto ends with the tensor's own bytes; TensorFlow has no batched inverse of decode_raw.
    def pack(image: tf.Tensor) -> tf.Tensor:
        return tf.strings.substr(tf.io.serialize_tensor(image), -size, size)

    return tf.map_fn(pack, pixels, fn_output_signature=tf.string)


def bytes_to_pixels(packed: tf.Tensor, image_size: int) -> tf.Tensor:
    """Inverse of `pixels_to_bytes`.

    Args:
        packed: Strings of shape [N], each image_size * image_size * 3 bytes.
        image_size: Side of the images, in pixels.

    Returns:
        uint8 of shape [N, image_size, image_size, 3].
    """
    return tf.reshape(tf.io.decode_raw(packed, tf.uint8), [-1, image_size, image_size, _CHANNELS])


def preprocessing_fn(inputs: dict[str, tf.Tensor], custom_config: dict[str, Any]) -> dict[str, tf.Tensor]:
    """TFX Transform's entry point: image geometry and label vocabulary.

    Args:
        inputs: Raw features, each of shape [N, 1].
        custom_config: `image_size`, the side of the transformed images in pixels.

    Returns:
        `pixels`: strings of shape [N] holding uint8 images; `label`: int64 of shape [N], -1 for a class not in train.
    """
    image_size = custom_config["image_size"]
    encoded = tf.reshape(inputs[features.IMAGE_ENCODED], [-1])
    class_text = tf.reshape(inputs[features.CLASS_TEXT], [-1])
    return {
        features.PIXELS: pixels_to_bytes(decode_images(encoded, image_size), image_size),
        features.LABEL: tft.compute_and_apply_vocabulary(class_text, vocab_filename=features.LABEL_VOCABULARY),
    }


def class_names(transform_output: tft.TFTransformOutput) -> list[str]:
    """Returns the names of the classes in the order of the label indices."""
    return [name.decode() for name in transform_output.vocabulary_by_name(features.LABEL_VOCABULARY)]
