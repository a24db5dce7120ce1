import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from tests.transformed_files import striped_images, write_transformed
from trainer_module import cache_room, input_pipeline
from trainer_module.settings import AugmentationSettings

STILL = AugmentationSettings(flip=False, shift=0.0)
EVERYTHING = AugmentationSettings(flip=True, shift=0.2, color=0.3)

CACHING_ON_DISK = """
import sys
from trainer_module import cache_room, input_pipeline
cache_room.memory_room = lambda: 0
records = input_pipeline.measure([sys.argv[1]])
print(records.directory)
print(len(list(input_pipeline.evaluation_batches(records, 16, 25))))
"""


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    directory = tmp_path_factory.mktemp("split")
    images, labels = striped_images(50, 16)
    write_transformed(directory / "part-0.gz", images[:20], labels[:20])
    write_transformed(directory / "part-1.gz", images[20:20], labels[20:20])
    write_transformed(directory / "part-2.gz", images[20:], labels[20:])
    return str(directory / "part-*.gz"), images, labels


@pytest.fixture
def measured(split, tmp_path, monkeypatch):
    """Measures the split on a machine that has room in memory, on the disk only, or nowhere."""

    def measure(cache):
        free_memory, free_disk = {"memory": (2**30, 0), "disk": (1000, 2**30), "none": (1000, 1000)}[cache]
        monkeypatch.setattr(cache_room.psutil, "virtual_memory", lambda: SimpleNamespace(available=free_memory))
        monkeypatch.setattr(cache_room.shutil, "disk_usage", lambda _: SimpleNamespace(free=free_disk))
        records = input_pipeline.measure([split[0]])
        assert records.cache == cache
        return records

    return measure


def _bytes(batches):
    return [image.astype(np.uint8).tobytes() for images, _ in batches for image in images]


def _assert_equal(some, others):
    for (images, labels), (other_images, other_labels) in zip(some, others, strict=True):
        np.testing.assert_array_equal(images, other_images)
        np.testing.assert_array_equal(labels, other_labels)


def _training(records, batches, seed, augmentation=EVERYTHING, first_epoch=0, batch_size=10):
    dataset = input_pipeline.training_batches(records, 16, batch_size, augmentation, seed, first_epoch)
    return list(dataset.take(batches).as_numpy_iterator())


@pytest.mark.parametrize("cache", ["memory", "disk", "none"])
def test_measure_counts_examples_bytes_and_labels(measured, split, cache):
    _, images, labels = split
    records = measured(cache)
    assert records.count == len(records.labels) == 50
    assert records.size == images.nbytes
    assert len(records.files) == 3
    assert input_pipeline.label_counts(records, 3).tolist() == [25, 25, 0]
    assert Counter(records.labels) == Counter(labels)


def test_measure_of_nothing_is_empty(tmp_path):
    assert input_pipeline.measure([str(tmp_path / "*")]).count == 0
    write_transformed(tmp_path / "part-0.gz", *striped_images(0, 16))
    assert input_pipeline.measure([str(tmp_path / "*")]).count == 0


def test_classes_outside_the_vocabulary_are_not_counted(tmp_path):
    images, _ = striped_images(4, 16)
    records = input_pipeline.measure([write_transformed(tmp_path / "part-0.gz", images, np.array([1, -1, 1, 0]))])
    assert input_pipeline.label_counts(records, 2).tolist() == [1, 2]


@pytest.mark.parametrize("cache", ["memory", "disk", "none"])
def test_evaluation_reads_every_image_once_in_order(measured, split, cache):
    _, images, labels = split
    dataset = input_pipeline.evaluation_batches(measured(cache), 16, 16)
    batches = list(dataset.as_numpy_iterator())
    assert [len(batch) for batch, _ in batches] == [16, 16, 16, 2]
    assert len(dataset) == 4
    assert batches[0][0].dtype == np.float32
    assert _bytes(batches) == [image.tobytes() for image in images]
    np.testing.assert_array_equal(np.concatenate([batch_labels for _, batch_labels in batches]), labels)


@pytest.mark.parametrize("cache", ["memory", "disk", "none"])
def test_classes_get_other_numbers_wherever_the_images_are_kept(measured, split, cache):
    records = input_pipeline.relabelled(measured(cache), [1, 0])
    read = [labels.numpy() for _, labels in input_pipeline.evaluation_batches(records, 16, 20)]
    np.testing.assert_array_equal(np.concatenate(read), 1 - split[2])
    np.testing.assert_array_equal(records.labels, 1 - split[2])
    trained = np.concatenate([labels for _, labels in _training(records, 5, seed=0)])
    before = np.concatenate([labels for _, labels in _training(measured(cache), 5, seed=0)])
    np.testing.assert_array_equal(trained, 1 - before)


@pytest.mark.parametrize("cache", ["memory", "disk", "none"])
def test_every_epoch_shows_every_image_once_in_another_order(measured, split, cache):
    _, images, _ = split
    batches = _training(measured(cache), 15, 1, STILL)
    assert all(batch.shape == (10, 16, 16, 3) and batch.dtype == np.float32 for batch, _ in batches)
    epochs = [_bytes(batches[start : start + 5]) for start in (0, 5, 10)]
    in_file_order = [image.tobytes() for image in images]
    assert all(sorted(epoch) == sorted(in_file_order) for epoch in epochs)
    assert len({tuple(epoch) for epoch in [in_file_order, *epochs]}) == 4


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_an_epoch_has_full_batches_only_and_leaves_out_others_each_time(measured, cache):
    batches = _training(measured(cache), 9, 1, STILL, batch_size=16)
    epochs = [_bytes(batches[start : start + 3]) for start in (0, 3, 6)]
    assert all(len(set(epoch)) == 48 for epoch in epochs)
    assert len({frozenset(epoch) for epoch in epochs}) > 1


def test_images_keep_their_labels(measured, split):
    _, images, labels = split
    label_of = dict(zip((image.tobytes() for image in images), labels, strict=True))
    batches = _training(measured("memory"), 5, None, STILL)
    assert [label_of[image] for image in _bytes(batches)] == [label for _, some in batches for label in some]


@pytest.mark.parametrize("cache", ["memory", "disk", "none"])
def test_a_resumed_training_sees_the_batches_that_it_would_have_seen(measured, cache):
    records = measured(cache)
    _assert_equal(_training(records, 9, 7, first_epoch=2, batch_size=16), _training(records, 15, 7, batch_size=16)[6:])


def test_a_seed_repeats_order_and_augmentation(measured):
    records = measured("memory")
    run, other_seed = _training(records, 200, 7), _training(records, 200, 8)
    _assert_equal(run, _training(records, 200, 7))
    assert not any(np.array_equal(images, others) for (images, _), (others, _) in zip(run, other_seed, strict=True))


@pytest.mark.parametrize("cache", ["memory", "disk", "none"])
def test_the_seed_of_the_program_changes_nothing(measured, cache):
    records = measured(cache)
    before = _training(records, 5, 7)
    try:
        for seed in (0, 1, 12345):
            tf.random.set_seed(seed)
            _assert_equal(before, _training(records, 5, 7))
        # Eager code is as random, or not, as it was.
        tf.random.set_seed(12345)
        drawn = tf.random.uniform([]).numpy()
        tf.random.set_seed(12345)
        _training(records, 1, 7)
        assert tf.random.uniform([]).numpy() == drawn
    finally:
        tf.random.set_seed(1)


# 17 of the 50 images are shuffled at a time, or all.
@pytest.mark.parametrize("shuffled_at_once", [17 * 16 * 16 * 3, 2**20])
def test_where_the_images_are_kept_makes_no_difference_to_a_seeded_training(measured, monkeypatch, shuffled_at_once):
    monkeypatch.setattr(input_pipeline, "_BYTES_SHUFFLED_AT_ONCE", shuffled_at_once)
    in_memory = _training(measured("memory"), 10, 7)
    _assert_equal(in_memory, _training(measured("disk"), 10, 7))
    _assert_equal(in_memory, _training(measured("none"), 10, 7))


def test_without_a_seed_no_two_trainings_are_alike(measured):
    records = measured("memory")
    assert _bytes(_training(records, 5, None)) != _bytes(_training(records, 5, None))


def test_the_same_image_is_changed_in_another_way_in_every_epoch(tmp_path):
    records = input_pipeline.measure([write_transformed(tmp_path / "part-0.gz", *striped_images(1, 16))])
    assert len(set(_bytes(_training(records, 8, 1, batch_size=1)))) == 8


def test_too_few_images_for_a_batch_are_refused(measured):
    with pytest.raises(ValueError, match="50 images do not fill a batch of 51"):
        _training(measured("memory"), 1, None, batch_size=51)


def test_images_of_another_size_are_refused(measured):
    with pytest.raises(ValueError, match="shape"):
        input_pipeline.training_batches(measured("memory"), 8, 10, STILL, None)


@pytest.mark.component  # A process that loads TensorFlow.
def test_the_cache_on_disk_goes_with_the_process(split):
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", CACHING_ON_DISK, split[0]]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    directory, batches = run.stdout.splitlines()
    assert batches == "2"
    assert not Path(directory).parent.exists()


@pytest.mark.component  # A process that loads TensorFlow.
def test_what_killed_processes_left_on_the_disk_takes_no_room_from_a_cache(split, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    root = Path(__file__).parents[2]
    killed = [sys.executable, "-c", CACHING_ON_DISK + "\nimport os; os.kill(os.getpid(), 9)", split[0]]
    subprocess.run(killed, capture_output=True, check=False, cwd=root, env=os.environ | {"TMPDIR": str(tmp_path)})
    (left,) = tmp_path.iterdir()
    monkeypatch.setattr(cache_room, "memory_room", lambda: 0)
    monkeypatch.setattr(cache_room, "disk_room", lambda: 0 if left.exists() else 2**30)
    records = input_pipeline.measure([split[0]])
    assert list(tmp_path.iterdir()) == [Path(records.directory).parent]


def test_replicas_share_every_batch(measured):
    records = measured("memory")
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    dataset = input_pipeline.training_batches(records, 16, 10, EVERYTHING, 7)
    shared = list(zip(strategy.experimental_distribute_dataset(dataset), range(5), strict=False))
    _assert_equal([(images.numpy(), labels.numpy()) for (images, labels), _ in shared], _training(records, 5, 7))


def test_load_arrays_loads_all_in_file_order(split):
    pattern, images, labels = split
    loaded, loaded_labels = input_pipeline.load_arrays([pattern], 16)
    np.testing.assert_array_equal(loaded, images)
    np.testing.assert_array_equal(loaded_labels, labels)


def test_load_arrays_limits_to_a_sample(split):
    pattern, images, _ = split
    sample, labels = input_pipeline.load_arrays([pattern], 16, limit=12, seed=1)
    assert sample.shape == (12, 16, 16, 3)
    assert labels.shape == (12,)
    assert {image.tobytes() for image in sample} <= {image.tobytes() for image in images}
    assert not np.array_equal(sample, images[:12])


def test_load_arrays_takes_what_there_is_room_for(split):
    images, labels = input_pipeline.load_arrays([split[0]], 16, room=45 * 16 * 16 * 3)
    assert 0 < len(images) == len(labels) <= 45
    np.testing.assert_array_equal(images, split[1][: len(images)])
    np.testing.assert_array_equal(labels, split[2][: len(labels)])


def test_load_arrays_refuses_what_does_not_fit(split, monkeypatch):
    monkeypatch.setattr(cache_room.psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    with pytest.raises(MemoryError, match="more than the free memory"):
        input_pipeline.load_arrays([split[0]], 16)


def test_load_arrays_of_nothing_is_empty(tmp_path):
    images, labels = input_pipeline.load_arrays([str(tmp_path / "*")], 16)
    assert images.shape == (0, 16, 16, 3)
    assert labels.shape == (0,)
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64
