"""A block of memory that takes images as they come, and of which there is never a second copy."""

from __future__ import annotations

import math
import mmap

import numpy as np
import tensorflow as tf

_BYTES_COPIED_AT_ONCE = 8 * 2**20


class ImageBuffer:
    """Collects batches of images whose number is not known beforehand."""

    def __init__(self, image_shape: tuple[int, int, int], room: int) -> None:
        """Creates an empty buffer.

        Args:
            image_shape: Height, width and channels.
            room: Most bytes that the images may take.
        """
        self._bytes_per_image = math.prod(image_shape)
        capacity = max(1, room // self._bytes_per_image)
        # A page that was never written takes no memory, so all of the room can be asked for.
        self._memory = mmap.mmap(-1, capacity * self._bytes_per_image, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._images = np.frombuffer(self._memory, np.uint8).reshape(capacity, *image_shape)
        self._count = 0

    def add(self, images: np.ndarray) -> bool:
        """Appends images if there is room for them.

        Args:
            images: uint8 of shape [N, height, width, channels].

        Returns:
            Whether there was.
        """
        end = self._count + len(images)
        if end > len(self._images):
            return False
        self._images[self._count : end] = images
        self._count = end
        return True

    def array(self) -> np.ndarray:
        """Returns the images where they are: uint8 of shape [count, height, width, channels]."""
        return self._images[: self._count]

    def move_to_variable(self) -> tf.Variable:
        """Moves the images into TensorFlow's memory, which NumPy cannot share, and leaves zeros behind.

        Returns:
            uint8 of shape [count, height, width, channels], in main memory whatever the device. A variable, because
            tf.data copies a captured tensor as a whole when it optimises a pipeline.
        """
        images = self.array()
        step = max(1, _BYTES_COPIED_AT_ONCE // self._bytes_per_image)
        with tf.device("CPU"):
            variable = tf.Variable(tf.raw_ops.Empty(shape=images.shape, dtype=tf.uint8), trainable=False)
            for start in range(0, len(images), step):
                part = images[start : start + step]
                variable.scatter_update(tf.IndexedSlices(part, tf.range(start, start + len(part))))
                self._give_back(start + len(part))
        return variable

    def _give_back(self, count: int) -> None:
        pages = count * self._bytes_per_image // mmap.PAGESIZE
        self._memory.madvise(mmap.MADV_DONTNEED, 0, pages * mmap.PAGESIZE)
