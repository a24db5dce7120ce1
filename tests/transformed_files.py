"""Transformed examples for tests: a learnable task in the files that Transform would write."""

from pathlib import Path

import numpy as np
import tensorflow as tf

from trainer_module import features


def striped_images(count: int, size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Makes noisy images of two classes: label 0 has horizontal stripes, label 1 vertical ones."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % 2
    stripes = np.where(np.arange(size) // 2 % 2, 200, 50)
    horizontal = np.broadcast_to(stripes[:, None, None], (size, size, 3))
    images = np.where(labels[:, None, None, None] == 0, horizontal, horizontal.transpose(1, 0, 2))
    noisy = images + rng.normal(0, 20, (count, size, size, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8), labels


def write_transformed(path: Path, images: np.ndarray, labels: np.ndarray) -> str:
    """Writes a gzipped TFRecord file and returns its glob pattern."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for image, label in zip(images, labels, strict=True):
            example = tf.train.Example()
            example.features.feature[features.PIXELS].bytes_list.value.append(image.tobytes())
            example.features.feature[features.LABEL].int64_list.value.append(int(label))
            writer.write(example.SerializeToString())
    return str(path)
