import numpy as np
import psutil

from trainer_module.image_buffer import ImageBuffer

SHAPE = (24, 20, 3)


def _images(count):
    return np.random.default_rng(0).integers(0, 256, (count, *SHAPE), dtype=np.uint8)


def test_images_move_whole_and_in_order():
    # More than are copied at once, and not a whole number of memory pages.
    images = _images(20_001)
    buffer = ImageBuffer(SHAPE, 2 * images.nbytes)
    assert buffer.add(images[:7])
    assert buffer.add(images[7:])
    np.testing.assert_array_equal(buffer.array(), images)
    variable = buffer.move_to_variable()
    np.testing.assert_array_equal(variable.numpy(), images)
    assert variable.device.endswith("CPU:0")


def test_what_has_moved_takes_no_memory_twice():
    images = _images(20_001)
    buffer = ImageBuffer(SHAPE, images.nbytes)
    buffer.add(images)
    buffer.move_to_variable()
    assert buffer.array()[:19_990].max() == 0


def test_no_more_images_than_there_is_room_for():
    images = _images(4)
    buffer = ImageBuffer(SHAPE, 3 * images[0].nbytes)
    assert buffer.add(images[:2])
    assert not buffer.add(images[2:])
    assert buffer.add(images[2:3])
    np.testing.assert_array_equal(buffer.array(), images[:3])


def test_asking_for_much_room_takes_no_memory():
    process = psutil.Process()
    before = process.memory_info().rss
    buffer = ImageBuffer(SHAPE, psutil.virtual_memory().available)
    assert buffer.add(_images(1))
    assert process.memory_info().rss - before < 50 * 2**20
