import numpy as np
import tensorflow as tf

from trainer_module.augmentation import augment
from trainer_module.settings import AugmentationSettings


def _images(count: int = 64, size: int = 12) -> tf.Tensor:
    return tf.constant(np.random.default_rng(0).integers(0, 256, (count, size, size, 3)).astype(np.float32))


def _augment(images: tf.Tensor, **settings: float) -> np.ndarray:
    return augment(images, AugmentationSettings(**settings), tf.random.Generator.from_seed(3)).numpy()


def test_flip_mirrors_about_half_of_the_images_exactly():
    images = _images()
    result = _augment(images, flip=True, shift=0.0)
    same = [np.array_equal(a, b) for a, b in zip(result, images.numpy(), strict=True)]
    mirrored = [np.array_equal(a, b[:, ::-1]) for a, b in zip(result, images.numpy(), strict=True)]
    assert all(a != b for a, b in zip(same, mirrored, strict=True))
    assert 16 < sum(mirrored) < 48


def test_shift_moves_whole_pixels_at_most_as_far_as_set():
    images = _images()
    result = _augment(images, flip=False, shift=0.25)
    for before, after in zip(images.numpy(), result, strict=True):
        padded = np.pad(before, ((3, 3), (3, 3), (0, 0)), mode="symmetric")
        windows = [padded[y : y + 12, x : x + 12] for y in range(7) for x in range(7)]
        assert any(np.array_equal(after, window) for window in windows)
    assert (result != images.numpy()).any()


def test_nothing_set_changes_nothing():
    images = _images()
    np.testing.assert_array_equal(_augment(images, flip=False, shift=0.0), images.numpy())
