"""Random changes of training batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow as tf

if TYPE_CHECKING:
    from trainer_module.settings import AugmentationSettings


def augment(images: tf.Tensor, settings: AugmentationSettings, generator: tf.random.Generator) -> tf.Tensor:
    """Flips and shifts every image of a batch by amounts of its own.

    Args:
        images: float32 of shape [N, S, S, 3].
        settings: Which changes, and how large.
        generator: Source of the random amounts.

    Returns:
        Images of the same shape and dtype; what a shift uncovers is filled by reflection.
    """
    if not settings.flip and not settings.shift:
        return images
    count = tf.shape(images)[0]
    side = tf.cast(tf.shape(images)[1], tf.float32)
    mirrored = generator.uniform([count]) < 0.5 if settings.flip else tf.zeros([count], tf.bool)
    # Whole pixels: nothing is interpolated, so no detail is lost.
    shifts = tf.round(generator.uniform([2, count], -settings.shift, settings.shift) * side)
    one, zero = tf.ones([count]), tf.zeros([count])
    x_scale = tf.where(mirrored, -one, one)
    x_offset = tf.where(mirrored, (side - 1) * one, zero) + shifts[0]
    transforms = tf.stack([x_scale, zero, x_offset, zero, one, shifts[1], zero, zero], axis=1)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=transforms,
        output_shape=tf.shape(images)[1:3],
        fill_value=0.0,
        interpolation="NEAREST",
        fill_mode="REFLECT",
    )
