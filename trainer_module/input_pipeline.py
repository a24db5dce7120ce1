"""From transformed TFRecords to batches of images and labels."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

import numpy as np
import psutil
import tensorflow as tf

from trainer_module import features
from trainer_module.augmentation import augment
from trainer_module.preprocessing import bytes_to_pixels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainer_module.settings import AugmentationSettings

# A cache may take this share of what is free: the model, its activations and the rest of the machine need room too.
_CACHE_SHARE_OF_FREE_MEMORY = 0.4
_COMPRESSION = "GZIP"
_FEATURE_SPEC = {
    features.PIXELS: tf.io.FixedLenFeature([], tf.string),
    features.LABEL: tf.io.FixedLenFeature([], tf.int64),
}


@dataclasses.dataclass(frozen=True)
class Records:
    """One split's files with what was measured of them.

    Attributes:
        files: Paths of gzipped TFRecord files.
        count: Number of examples.
        size: Bytes of all serialised examples, uncompressed.
    """

    files: tuple[str, ...]
    count: int
    size: int


def measure(file_patterns: Sequence[str]) -> Records:
    """Reads a split once and counts its examples and their bytes.

    Args:
        file_patterns: Glob patterns of gzipped TFRecord files.

    Returns:
        The files, sorted, with count and size.
    """
    files = sorted(path for pattern in file_patterns for path in tf.io.gfile.glob(pattern))
    if not files:
        return Records((), 0, 0)
    lengths = _read(files, deterministic=False).batch(1024).map(tf.strings.length)
    count, size = 0, 0
    for batch in lengths.as_numpy_iterator():
        count += batch.size
        size += int(batch.sum(dtype=np.int64))
    return Records(tuple(files), count, size)


def cache_kind(size: int) -> Literal["memory", "none"]:
    """Decides where a split of `size` bytes is cached: in memory only when it fits."""
    free = psutil.virtual_memory().available
    return "memory" if size <= free * _CACHE_SHARE_OF_FREE_MEMORY else "none"


def training_batches(
    records: Records, image_size: int, batch_size: int, augmentation: AugmentationSettings, seed: int | None
) -> tf.data.Dataset:
    """Builds the endless, shuffled, augmented stream of training batches.

    Args:
        records: The training split.
        image_size: Side of the images, in pixels.
        batch_size: Images per batch; every batch is full.
        augmentation: Random changes of the images.
        seed: Makes order and augmentation repeatable, at some cost in speed.

    Returns:
        Dataset of (float32 [batch_size, S, S, 3] in [0, 255], int64 [batch_size]).
    """
    dataset = _read(records.files, deterministic=seed is not None)
    if cache_kind(records.size) == "memory":
        dataset = dataset.cache().shuffle(records.count, seed=seed)
    else:
        dataset = dataset.shuffle(min(records.count, 10_000), seed=seed)
    generator = _generator(seed)

    def prepare(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = _parse(serialized, image_size)
        return augment(tf.cast(images, tf.float32), augmentation, generator), labels

    calls = 1 if seed is not None else tf.data.AUTOTUNE
    dataset = dataset.repeat().batch(batch_size, drop_remainder=True)
    return dataset.map(prepare, num_parallel_calls=calls).prefetch(tf.data.AUTOTUNE)


def evaluation_batches(records: Records, image_size: int, batch_size: int) -> tf.data.Dataset:
    """Builds one pass over a split in file order, without augmentation.

    Args:
        records: The split.
        image_size: Side of the images, in pixels.
        batch_size: Images per batch; the last one may be smaller.

    Returns:
        Dataset of (float32 [N, S, S, 3] in [0, 255], int64 [N]).
    """
    dataset = _read(records.files, deterministic=True).batch(batch_size)

    def prepare(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = _parse(serialized, image_size)
        return tf.cast(images, tf.float32), labels

    dataset = dataset.map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
    if cache_kind(records.count * image_size * image_size * 3 * 4) == "memory":
        dataset = dataset.cache()
    # Keras must know the number of batches to execute several steps at once.
    batches = tf.data.experimental.assert_cardinality(-(-records.count // batch_size))
    return dataset.apply(batches).prefetch(tf.data.AUTOTUNE)


def load_arrays(
    file_patterns: Sequence[str], image_size: int, limit: int | None = None, seed: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Loads a split, or a random sample of it, into memory.

    Args:
        file_patterns: Glob patterns of gzipped TFRecord files.
        image_size: Side of the images, in pixels.
        limit: Most images to load; None loads all, in file order.
        seed: Seed of the sample.

    Returns:
        uint8 images of shape [N, S, S, 3] and int64 labels of shape [N].
    """
    files = sorted(path for pattern in file_patterns for path in tf.io.gfile.glob(pattern))
    if not files:
        return np.zeros((0, image_size, image_size, 3), np.uint8), np.zeros((0,), np.int64)
    dataset = _read(files, deterministic=True)
    if limit is not None:
        dataset = dataset.shuffle(10 * limit, seed=seed).take(limit)
    batches = list(dataset.batch(256).map(lambda s: _parse(s, image_size)).as_numpy_iterator())
    if not batches:
        return np.zeros((0, image_size, image_size, 3), np.uint8), np.zeros((0,), np.int64)
    return np.concatenate([images for images, _ in batches]), np.concatenate([labels for _, labels in batches])


def _read(files: Sequence[str], *, deterministic: bool) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(list(files)).interleave(
        lambda path: tf.data.TFRecordDataset(path, compression_type=_COMPRESSION),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=deterministic,
    )


def _generator(seed: int | None) -> tf.random.Generator:
    if seed is None:
        return tf.random.Generator.from_non_deterministic_state()
    return tf.random.Generator.from_seed(seed)


def _parse(serialized: tf.Tensor, image_size: int) -> tuple[tf.Tensor, tf.Tensor]:
    parsed = tf.io.parse_example(serialized, _FEATURE_SPEC)
    return bytes_to_pixels(parsed[features.PIXELS], image_size), parsed[features.LABEL]
