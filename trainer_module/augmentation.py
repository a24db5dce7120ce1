"""Random changes of training batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow as tf

if TYPE_CHECKING:
    from trainer_module.settings import AugmentationSettings

# From red, green and blue to the grey of the same brightness (ITU-R BT.601) in all three channels.
_TO_GREY = ((0.299,) * 3, (0.587,) * 3, (0.114,) * 3)
_GREY = 127.5


def augment(images: tf.Tensor, settings: AugmentationSettings, seed: tf.Tensor) -> tf.Tensor:
    """Flips, shifts, recolours and covers every image of a batch by amounts of its own.

    Args:
        images: uint8 of shape [N, S, S, 3].
        settings: Which changes, and how large.
        seed: Integers of shape [2]; the same seed changes the same images in the same way.

    Returns:
        float32 of the same shape in [0, 255]; what a shift uncovers is filled by reflection.
    """
    amounts = tf.random.stateless_uniform([8, tf.shape(images)[0]], seed)
    result = tf.cast(_move(images, settings, flip=amounts[0], shifts=amounts[1:3]), tf.float32)
    if settings.color:
        result = _recolor(result, settings.color, amounts[3:6])
    return _cover(result, settings.erase, amounts[6:]) if settings.erase else result


def _move(images: tf.Tensor, settings: AugmentationSettings, flip: tf.Tensor, shifts: tf.Tensor) -> tf.Tensor:
    side = tf.shape(images)[1]
    columns = positions = tf.range(side)[None]
    # Gathering bytes, one axis after the other, takes a quarter of the time of ImageProjectiveTransform.
    if settings.shift:
        # Whole pixels: nothing is interpolated, so no detail is lost.
        pixels = tf.round((2 * shifts - 1) * settings.shift * tf.cast(side, tf.float32))
        down, right = tf.unstack(tf.cast(pixels, tf.int32)[..., None])
        images = tf.gather(images, _reflect(positions + down, side), axis=1, batch_dims=1)
        columns = _reflect(positions + right, side)
    if settings.flip:
        columns = tf.where(flip[:, None] < 0.5, side - 1 - columns, columns)
    return tf.gather(images, columns, axis=2, batch_dims=1) if settings.shift or settings.flip else images


def _reflect(positions: tf.Tensor, side: tf.Tensor) -> tf.Tensor:
    """Maps positions beyond an edge to those as far on this side of it, the edge itself included."""
    beyond_start = tf.where(positions < 0, -1 - positions, positions)
    return tf.where(beyond_start >= side, 2 * side - 1 - beyond_start, beyond_start)


def _recolor(images: tf.Tensor, largest: float, amounts: tf.Tensor) -> tf.Tensor:
    """Changes saturation (around a pixel's grey), then contrast (around the image's mean grey), then brightness."""
    factors = 1 + (2 * amounts - 1) * largest
    saturation, contrast, brightness = tf.unstack(factors[..., None, None, None])
    grey = tf.tensordot(images, tf.constant(_TO_GREY), 1)
    mean = tf.reduce_mean(grey, axis=[1, 2, 3], keepdims=True)
    # brightness * (mean + contrast * (grey + saturation * (images - grey) - mean)), in half as many passes.
    kept = brightness * contrast
    changed = kept * saturation * images + kept * (1 - saturation) * grey + brightness * (1 - contrast) * mean
    return tf.clip_by_value(changed, 0.0, 255.0)


def _cover(images: tf.Tensor, share: float, amounts: tf.Tensor) -> tf.Tensor:
    """Greys a square around a random pixel, which may stick out (cutout: DeVries and Taylor 2017, arXiv:1708.04552)."""
    side = tf.cast(tf.shape(images)[1], tf.float32)
    positions = tf.range(side)
    centres = tf.floor(amounts * side)[..., None]
    size = tf.maximum(1.0, tf.round(share * side))
    starts = centres - tf.floor(size / 2)
    rows, columns = tf.unstack((positions >= starts) & (positions < starts + size))
    covered = rows[:, :, None, None] & columns[:, None, :, None]
    return tf.where(covered, _GREY, images)
