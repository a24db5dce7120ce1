import numpy as np
import pytest

from tests.transformed_files import striped_images, write_transformed
from trainer_module import input_pipeline
from trainer_module.settings import AugmentationSettings

STILL = AugmentationSettings(flip=False, shift=0.0)


@pytest.fixture
def split(tmp_path):
    images, labels = striped_images(50, 16)
    write_transformed(tmp_path / "part-0.gz", images[:20], labels[:20])
    write_transformed(tmp_path / "part-1.gz", images[20:], labels[20:])
    return str(tmp_path / "part-*.gz"), images, labels


def test_measure_counts_examples_and_bytes(split):
    pattern, images, _ = split
    records = input_pipeline.measure([pattern])
    assert records.count == 50
    assert len(records.files) == 2
    assert images.nbytes < records.size < images.nbytes + 50 * 100


def test_measure_of_nothing_is_empty(tmp_path):
    assert input_pipeline.measure([str(tmp_path / "*")]).count == 0


def test_evaluation_reads_every_image_once_in_order(split):
    pattern, images, labels = split
    batches = list(input_pipeline.evaluation_batches(input_pipeline.measure([pattern]), 16, 16).as_numpy_iterator())
    assert [len(batch) for batch, _ in batches] == [16, 16, 16, 2]
    seen = np.concatenate([batch for batch, _ in batches])
    # Interleaving mixes the files, so the order is fixed but not that of one file after the other.
    assert sorted(image.astype(np.uint8).tobytes() for image in seen) == sorted(image.tobytes() for image in images)
    assert np.concatenate([label for _, label in batches]).sum() == labels.sum()


def test_training_batches_are_full_shuffled_and_cover_the_split(split):
    pattern, images, _ = split
    records = input_pipeline.measure([pattern])
    dataset = input_pipeline.training_batches(records, 16, 10, STILL, seed=None)
    batches = list(dataset.take(5).as_numpy_iterator())
    assert all(batch.shape == (10, 16, 16, 3) for batch, _ in batches)
    seen = [image.astype(np.uint8).tobytes() for batch, _ in batches for image in batch]
    assert sorted(seen) == sorted(image.tobytes() for image in images)
    assert seen != [image.tobytes() for image in images]


def test_a_seed_repeats_order_and_augmentation(split):
    pattern, _, _ = split
    records = input_pipeline.measure([pattern])
    runs = [
        list(input_pipeline.training_batches(records, 16, 10, AugmentationSettings(), seed).take(7).as_numpy_iterator())
        for seed in (7, 7, 8)
    ]
    for (first, first_labels), (second, second_labels) in zip(runs[0], runs[1], strict=True):
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(first_labels, second_labels)
    assert any((a != b).any() for (a, _), (b, _) in zip(runs[0], runs[2], strict=True))


def test_load_arrays_limits_to_a_sample(split):
    pattern, images, _ = split
    sample, labels = input_pipeline.load_arrays([pattern], 16, limit=12, seed=1)
    assert sample.shape == (12, 16, 16, 3)
    assert labels.shape == (12,)
    assert {image.tobytes() for image in sample} <= {image.tobytes() for image in images}


def test_cache_only_what_fits():
    assert input_pipeline.cache_kind(1000) == "memory"
    assert input_pipeline.cache_kind(10**15) == "none"
