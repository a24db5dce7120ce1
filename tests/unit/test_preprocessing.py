import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from trainer_module.preprocessing import bytes_to_pixels, decode_images, pixels_to_bytes


def _encode(pixels: np.ndarray, image_format: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format, quality=95)
    return buffer.getvalue()


def _gradient(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([255 * x / width, 255 * y / height, 128 + 0 * x], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("shape", [(40, 40), (30, 60), (61, 17)])
def test_png_is_resized_like_pillow(shape):
    pixels = _gradient(*shape)
    (result,) = decode_images(tf.constant([_encode(pixels, "PNG")]), 32).numpy()
    oracle = np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BILINEAR))
    assert result.dtype == np.uint8
    assert np.abs(result.astype(int) - oracle).max() <= 1


def test_jpeg_decodes_like_pillow():
    encoded = _encode(_gradient(48, 48), "JPEG")
    (result,) = decode_images(tf.constant([encoded]), 48).numpy()
    oracle = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
    assert np.abs(result.astype(int) - oracle).max() <= 2


def test_grayscale_becomes_rgb():
    gray = _gradient(20, 20)[..., 0]
    (result,) = decode_images(tf.constant([_encode(gray, "PNG")]), 20).numpy()
    np.testing.assert_array_equal(result, np.repeat(gray[..., None], 3, axis=-1))


def test_decoding_is_the_same_inside_tf_data():
    encoded = [_encode(_gradient(side, 50 - side), "JPEG") for side in (10, 25, 40)]
    eager = decode_images(tf.constant(encoded), 16).numpy()
    dataset = tf.data.Dataset.from_tensor_slices(encoded).batch(3).map(lambda batch: decode_images(batch, 16))
    np.testing.assert_array_equal(next(dataset.as_numpy_iterator()), eager)


def test_packing_is_inverted_exactly():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 24, 24, 3), dtype=np.uint8)
    packed = pixels_to_bytes(tf.constant(pixels), 24)
    assert [len(item) for item in packed.numpy()] == [24 * 24 * 3] * 5
    assert packed.numpy()[0] == pixels[0].tobytes()
    np.testing.assert_array_equal(bytes_to_pixels(packed, 24).numpy(), pixels)
