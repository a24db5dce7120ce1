"""From transformed TFRecords to batches of images and labels."""

from __future__ import annotations

import dataclasses
import logging
import math
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import tensorflow as tf

from trainer_module import cache_room, features, own_folder
from trainer_module.augmentation import augment
from trainer_module.image_buffer import ImageBuffer
from trainer_module.preprocessing import bytes_to_pixels

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trainer_module.settings import AugmentationSettings

_logger = logging.getLogger(__name__)

# The functions below hold no control flow of TensorFlow's; to look for some takes AutoGraph half a second.
_as_it_is = tf.autograph.experimental.do_not_convert

_CHANNELS = 3
_COMPRESSION = "GZIP"
_FEATURE_SPEC = {
    features.PIXELS: tf.io.FixedLenFeature([], tf.string),
    features.LABEL: tf.io.FixedLenFeature([], tf.int64),
}
_BYTES_PARSED_AT_ONCE = 4 * 2**20
_FOLDER_PREFIX = "trimline-images-"
# Goes up when a seed comes to give other batches: a training that was begun with those before cannot go on with these.
ORDER = 2
# Both are fixed and not fitted to the machine: a training that resumes elsewhere must find the examples in the order in
# which it left them. Ingest has mixed the files already, so to shuffle a part of a large split at a time is enough.
_FILES_READ_AT_ONCE = 16
_BYTES_SHUFFLED_AT_ONCE = 256 * 2**20


@dataclasses.dataclass(frozen=True, eq=False)
class Records:
    """One split: its files, what is in them, and where its decoded images are kept.

    Attributes:
        files: Paths of gzipped TFRecord files.
        count: Number of examples.
        size: Bytes of all images, decoded.
        labels: int64 of shape [count].
        images: uint8 of shape [count, S, S, 3], if they fit in memory.
        directory: Where tf.data saved them, if they fit on the disk only. It is removed when the process ends.
        classes: The number that a class has in `labels` for each of those in the files; empty where they are the same.
    """

    files: tuple[str, ...]
    count: int
    size: int
    labels: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0,), np.int64))
    images: tf.Variable | None = None
    directory: str | None = None
    classes: tuple[int, ...] = ()

    @property
    def cache(self) -> Literal["memory", "disk", "none"]:
        """Where the decoded images are kept; none: the files are read again in every epoch."""
        if self.images is not None:
            return "memory"
        return "none" if self.directory is None else "disk"


def measure(file_patterns: Sequence[str]) -> Records:
    """Reads a split, counts its examples, and keeps the decoded images where there is room for them.

    Args:
        file_patterns: Glob patterns of gzipped TFRecord files.

    Returns:
        The split; the order of its examples follows from the files alone.
    """
    files = _matching(file_patterns)
    image_size = _image_size(files)
    if image_size is None:
        return Records(files, 0, 0)
    shape = (image_size, image_size, _CHANNELS)
    buffer: ImageBuffer | None = ImageBuffer(shape, cache_room.memory_room())
    labels = []
    for images, some_labels in _decoded(files, image_size).as_numpy_iterator():
        labels.append(some_labels)
        if buffer is not None and not buffer.add(images):
            # Too large for the memory; the rest of the pass only counts.
            buffer = None
    count = sum(map(len, labels))
    size = count * math.prod(shape)
    return Records(
        files,
        count,
        size,
        np.concatenate(labels),
        images=None if buffer is None else buffer.move_to_variable(),
        directory=_saved(files, image_size, size) if buffer is None else None,
    )


def from_arrays(images: np.ndarray, labels: np.ndarray) -> Records:
    """Makes a split of images that are in memory already.

    Args:
        images: uint8 [N, S, S, 3].
        labels: Their classes, integers [N].

    Returns:
        The split.
    """
    with tf.device("CPU"):
        return Records((), len(images), images.nbytes, labels.astype(np.int64), tf.Variable(images, trainable=False))


def relabelled(records: Records, classes: Sequence[int]) -> Records:
    """Gives the classes of a split other numbers.

    Args:
        records: The split, as `measure` or `from_arrays` made it.
        classes: The new number of each class, by the old one.

    Returns:
        The split with the same images.
    """
    return dataclasses.replace(records, labels=relabel(records.labels, classes), classes=tuple(classes))


def relabel(labels: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    """Returns the new number of each label's class.

    Args:
        labels: int64 of shape [N]; -1 where the class is not in the vocabulary, which stays so.
        classes: See `relabelled`.
    """
    # The last one is where -1 points to.
    return np.array([*classes, -1], np.int64)[labels]


def label_counts(records: Records, classes: int) -> np.ndarray:
    """Counts the examples of each class.

    Args:
        records: The split.
        classes: Number of classes.

    Returns:
        int64 of shape [classes]. Examples of a class that is not in the vocabulary (label -1) are left out.
    """
    return np.bincount(records.labels[records.labels >= 0], minlength=classes)


def training_batches(
    records: Records,
    image_size: int,
    batch_size: int,
    augmentation: AugmentationSettings,
    seed: int | None,
    first_epoch: int = 0,
) -> tf.data.Dataset:
    """Builds the endless, shuffled, augmented stream of training batches.

    Each epoch has count // batch_size batches, all full, in which no image comes twice. With a seed, the batches of an
    epoch follow from the seed and the number of the epoch alone, wherever the images are kept: a training that resumes
    with `first_epoch` gets those that it would have got.

    Args:
        records: The training split.
        image_size: Side of the images, in pixels.
        batch_size: Images per batch, at most `records.count`.
        augmentation: Random changes of the images.
        seed: Makes order and augmentation repeatable; None draws another one for each call.
        first_epoch: Number of the epoch that the stream, whenever it is iterated, starts with.

    Returns:
        Dataset of (float32 [batch_size, S, S, 3] in [0, 255], int64 [batch_size]).

    Raises:
        ValueError: If there are too few images for one batch.
    """
    if records.count < batch_size:
        raise ValueError(f"{records.count} images do not fill a batch of {batch_size}")
    order_seed, change_seed = _seeds(seed)

    @_as_it_is
    def epoch(number: tf.Tensor) -> tf.data.Dataset:
        epoch_seed = tf.random.fold_in(order_seed, number)
        in_memory = records.images is not None
        examples = tf.data.Dataset.range(records.count) if in_memory else _examples(records, image_size)
        shuffled = _shuffled(examples, records, image_size, epoch_seed)
        return shuffled.batch(batch_size, drop_remainder=True)

    @_as_it_is
    def prepare(step: tf.Tensor, batch: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = batch
        images = tf.ensure_shape(images, [batch_size, image_size, image_size, _CHANNELS])
        return augment(images, augmentation, tf.random.fold_in(change_seed, step)), labels

    batches = tf.data.Dataset.counter(first_epoch).flat_map(epoch)
    if records.images is not None:
        batches = batches.map(_look_up(records), tf.data.AUTOTUNE)
    batches = batches.enumerate(first_epoch * (records.count // batch_size)).map(prepare, tf.data.AUTOTUNE)
    options = tf.data.Options()
    options.deterministic = seed is not None
    return batches.with_options(options).prefetch(tf.data.AUTOTUNE)


def evaluation_batches(records: Records, image_size: int, batch_size: int) -> tf.data.Dataset:
    """Builds one pass over a split in file order, without augmentation.

    Args:
        records: The split.
        image_size: Side of the images, in pixels.
        batch_size: Images per batch; the last one may be smaller.

    Returns:
        Dataset of (float32 [N, S, S, 3] in [0, 255], int64 [N]).
    """
    if records.images is None:
        batches = _examples(records, image_size).batch(batch_size)
    else:
        batches = tf.data.Dataset.range(records.count).batch(batch_size).map(_look_up(records), tf.data.AUTOTUNE)

    @_as_it_is
    def prepare(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images = tf.ensure_shape(images, [None, image_size, image_size, _CHANNELS])
        return tf.cast(images, tf.float32), labels

    # Keras must know the number of batches to execute several steps at once.
    cardinality = tf.data.experimental.assert_cardinality(-(-records.count // batch_size))
    return batches.map(prepare, tf.data.AUTOTUNE).apply(cardinality).prefetch(tf.data.AUTOTUNE)


def load_arrays(
    file_patterns: Sequence[str],
    image_size: int,
    limit: int | None = None,
    seed: int | None = None,
    room: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Loads a split, or a random sample of it, into memory.

    Args:
        file_patterns: Glob patterns of gzipped TFRecord files.
        image_size: Side of the images, in pixels.
        limit: Most images to load; None loads all, in file order.
        seed: Seed of the sample.
        room: Most bytes that the images may take, of which the first ones are loaded; None: all of the free memory.

    Returns:
        uint8 images of shape [N, S, S, 3] and int64 labels of shape [N].

    Raises:
        MemoryError: If they do not fit, and `room` is None.
    """
    shape = (image_size, image_size, _CHANNELS)
    buffer = ImageBuffer(shape, cache_room.free_memory() if room is None else room)
    labels = [np.zeros((0,), np.int64)]
    batches = _decoded(_matching(file_patterns), image_size)
    if limit is not None:
        sample = batches.unbatch().shuffle(_shuffle_buffer(10 * limit, image_size), seed=seed).take(limit)
        batches = sample.batch(_BYTES_PARSED_AT_ONCE // math.prod(shape) + 1)
    for images, some_labels in batches.as_numpy_iterator():
        if not buffer.add(images):
            if room is None:
                raise MemoryError(f"the images of {list(file_patterns)} take more than the free memory")
            _logger.warning("%s: only the first %d MB of the images are used", list(file_patterns), room // 10**6)
            break
        labels.append(some_labels)
    return buffer.array(), np.concatenate(labels)


def _matching(file_patterns: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(path for pattern in file_patterns for path in tf.io.gfile.glob(pattern)))


def _image_size(files: Sequence[str]) -> int | None:
    """Reads the side of the images, which are square, from the first example there is."""
    paths = tf.constant(files, tf.string)
    for example in tf.data.TFRecordDataset(paths, _COMPRESSION).take(1):
        pixels = tf.io.parse_single_example(example, _FEATURE_SPEC)[features.PIXELS]
        return math.isqrt(len(pixels.numpy()) // _CHANNELS)
    return None


def _decoded(files: Sequence[str], image_size: int) -> tf.data.Dataset:
    """Reads batches of some size, uint8 images and labels, in an order that follows from the files."""
    batch_size = max(1, _BYTES_PARSED_AT_ONCE // (image_size * image_size * _CHANNELS))

    @_as_it_is
    def read(path: tf.Tensor) -> tf.data.Dataset:
        return tf.data.TFRecordDataset(path, _COMPRESSION).batch(batch_size)

    @_as_it_is
    def parse(examples: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        parsed = tf.io.parse_example(examples, _FEATURE_SPEC)
        return bytes_to_pixels(parsed[features.PIXELS], image_size), parsed[features.LABEL]

    paths = tf.data.Dataset.from_tensor_slices(tf.constant(files, tf.string))
    batches = paths.interleave(read, _FILES_READ_AT_ONCE, num_parallel_calls=tf.data.AUTOTUNE)
    return batches.map(parse, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def _saved(files: Sequence[str], image_size: int, size: int) -> str | None:
    """Saves the decoded images, of so many bytes, in a folder of this process; None if there is no room for them."""
    # Before the room is measured, because they take some of it.
    own_folder.remove_abandoned(_FOLDER_PREFIX)
    if size > cache_room.disk_room():
        return None
    directory = str(Path(own_folder.make(_FOLDER_PREFIX)) / "images")
    _decoded(files, image_size).save(directory)
    return directory


def _examples(records: Records, image_size: int) -> tf.data.Dataset:
    if records.directory is not None:
        batches = tf.data.Dataset.load(records.directory)
    else:
        batches = _decoded(records.files, image_size)
    return (batches.map(_new_labels(records.classes)) if records.classes else batches).unbatch()


def _new_labels(classes: Sequence[int]) -> Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    numbers = tf.constant([-1, *classes], tf.int64)

    @_as_it_is
    def change(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return images, tf.gather(numbers, labels + 1)

    return change


def _shuffled(examples: tf.data.Dataset, records: Records, image_size: int, seed: tf.Tensor) -> tf.data.Dataset:
    """Shuffles the examples of a split, or in their place the positions of them: both come in the same order."""
    one_seed = tf.random.stateless_uniform([], seed, minval=None, maxval=None, dtype=tf.int64)
    buffer_size = _shuffle_buffer(records.count, image_size)
    # Shuffling mixes in the program's own seed, and where that is 0, asks in Python if the tensor is 0 too.
    # This sets the seed of the graph of an epoch, in which it stands, and no other.
    tf.random.set_seed(1)
    return examples.shuffle(buffer_size, one_seed, reshuffle_each_iteration=False)


def _shuffle_buffer(most: int, image_size: int) -> int:
    return max(1, min(most, _BYTES_SHUFFLED_AT_ONCE // (image_size * image_size * _CHANNELS)))


def _look_up(records: Records) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    with tf.device("CPU"):
        labels = tf.constant(records.labels)

    @_as_it_is
    def look_up(positions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.gather(records.images, positions), tf.gather(labels, positions)

    return look_up


def _seeds(seed: int | None) -> tuple[tf.Tensor, tf.Tensor]:
    """Makes two seeds that have nothing to do with each other: of the order, and of the changes."""
    root = tf.constant([0, secrets.randbits(63) if seed is None else seed], tf.int64)
    order_seed, change_seed = tf.unstack(tf.random.split(root))
    return order_seed, change_seed
