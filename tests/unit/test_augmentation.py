import numpy as np
import pytest
import tensorflow as tf

from trainer_module.augmentation import augment
from trainer_module.settings import AugmentationSettings

SEED = (3, 4)


def _images(count=64, size=12):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def _augment(images, seed=SEED, flip=False, shift=0.0, color=0.0, erase=0.0):
    settings = AugmentationSettings(flip=flip, shift=shift, color=color, erase=erase)
    return augment(tf.constant(images), settings, tf.constant(seed)).numpy()


def test_flip_mirrors_about_half_of_the_images_exactly():
    images = _images()
    result = _augment(images, flip=True)
    same = [np.array_equal(a, b) for a, b in zip(result, images, strict=True)]
    mirrored = [np.array_equal(a, b[:, ::-1]) for a, b in zip(result, images, strict=True)]
    assert all(a != b for a, b in zip(same, mirrored, strict=True))
    assert 16 < sum(mirrored) < 48


@pytest.mark.parametrize("flip", [False, True])
def test_shift_moves_whole_pixels_at_most_as_far_as_set(flip):
    images = _images(256)
    offsets = set()
    for before, after in zip(images, _augment(images, flip=flip, shift=0.25), strict=True):
        padded = np.pad(before, ((3, 3), (3, 3), (0, 0)), mode="symmetric")
        windows = {(y, x): padded[y : y + 12, x : x + 12] for y in range(7) for x in range(7)}
        found = [
            offset
            for offset, window in windows.items()
            if np.array_equal(after, window) or (flip and np.array_equal(after, window[:, ::-1]))
        ]
        assert found
        offsets.add(found[0])
    assert {y for y, _ in offsets} == {x for _, x in offsets} == set(range(7))


def test_nothing_set_changes_nothing():
    result = _augment(_images())
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, _images())


def test_recoloured_images_stay_in_range():
    result = _augment(_images(), color=0.5)
    assert result.min() == 0
    assert result.max() == 255


def test_brightness_contrast_and_saturation_each_change_by_a_factor_within_bounds():
    # The upper half of an image is reddish and dark, the lower one bluish and light.
    halves = np.array([[110, 90, 80], [100, 110, 130]], np.uint8)
    images = np.broadcast_to(halves[:, None], (512, 2, 4, 3))
    factors = _measured(_augment(images, color=0.2)) / _measured(images)
    assert (factors.min(axis=1) >= 0.8 - 1e-4).all()
    assert (factors.max(axis=1) <= 1.2 + 1e-4).all()
    assert (np.ptp(factors, axis=1) > 0.38).all()
    assert (abs(np.corrcoef(factors)) < 0.2)[~np.eye(3, dtype=bool)].all()


def _measured(images):
    """Brightness, contrast and saturation of images of two halves, [3, N], each without the influence of the others."""
    upper, lower = images[:, 0, 0].astype(float), images[:, 1, 0].astype(float)
    luma = np.array([0.299, 0.587, 0.114])
    brightness = (upper + lower) @ luma / 2
    difference = (lower - upper) @ luma
    return np.array([brightness, difference / brightness, (upper[:, 0] - upper[:, 2]) / difference])


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_a_square_of_the_set_size_is_greyed_anywhere_and_nothing_else_changes(size):
    images = np.full((2048, 12, 12, 3), 10, np.uint8)
    result = _augment(images, erase=size / 12)
    covered = (result == 127.5).all(axis=-1)
    heights, widths = covered.any(axis=2).sum(axis=1), covered.any(axis=1).sum(axis=1)
    # Squares that stick out are smaller.
    assert set(heights) == set(widths) == set(range(-(-size // 2), size + 1))
    np.testing.assert_array_equal(covered.sum(axis=(1, 2)), heights * widths)
    assert covered.any(axis=0).all()
    assert (result[~covered] == 10).all()


def test_the_same_seed_makes_the_same_changes_and_another_one_others():
    images = _images()
    every = {"flip": True, "shift": 0.2, "color": 0.3, "erase": 0.3}
    np.testing.assert_array_equal(_augment(images, **every), _augment(images, **every))
    assert (_augment(images, **every) != _augment(images, (3, 5), **every)).any(axis=(1, 2, 3)).mean() > 0.9


def test_eager_and_in_a_dataset_the_result_is_the_same():
    images = _images()
    settings = AugmentationSettings(flip=True, shift=0.2, color=0.3, erase=0.3)
    dataset = tf.data.Dataset.from_tensors(images).map(lambda batch: augment(batch, settings, tf.constant(SEED)))
    result = next(dataset.as_numpy_iterator())
    np.testing.assert_allclose(result, _augment(images, flip=True, shift=0.2, color=0.3, erase=0.3), atol=1e-3)
