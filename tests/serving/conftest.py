"""Real bundles, made from one small untrained model, and a real server process."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from edge_bundles import BRIGHTEST_CALIBRATED, IMAGE_SIZE, LABELS, write_bundle
from edge_images import encode, photo, tinted_photos
from edge_servers import RunningServer, run_server

from serving.bundle import load_bundle
from serving.predictor import Predictor

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")


@pytest.fixture(scope="session")
def keras_model() -> Any:
    """Takes float32 RGB pixels in [0, 255], answers softmax probabilities; strong weights, so that images differ."""
    import tf_keras as keras

    keras.utils.set_random_seed(1)
    wide = keras.initializers.RandomNormal(stddev=0.3)
    return keras.Sequential(
        [
            keras.layers.Input((IMAGE_SIZE, IMAGE_SIZE, 3), name="image"),
            keras.layers.Rescaling(1 / 127.5, -1),
            keras.layers.Conv2D(8, 3, strides=3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(len(LABELS), activation="softmax", kernel_initializer=wide),
        ]
    )


@pytest.fixture(scope="session")
def tflite_models(keras_model: Any) -> dict[str, bytes]:
    """The model as .tflite bytes: float32, float16 (weights), uint8 and int8 (input, output and all between)."""
    import tensorflow as tf

    def calibration() -> Iterator[list[np.ndarray]]:
        photos = tinted_photos(np.random.default_rng(0), 30, IMAGE_SIZE, BRIGHTEST_CALIBRATED)
        for pixels in (*photos, np.zeros_like(photos[0]), np.full_like(photos[0], BRIGHTEST_CALIBRATED)):
            yield [pixels[np.newaxis].astype(np.float32)]

    def convert(kind: str) -> bytes:
        converter = tf.lite.TFLiteConverter.from_keras_model(keras_model)
        if kind != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if kind == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if kind in ("uint8", "int8"):
            converter.representative_dataset = calibration
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.dtypes.as_dtype(kind)
        return converter.convert()

    return {kind: convert(kind) for kind in ("float32", "float16", "uint8", "int8")}


@pytest.fixture
def make_bundle(tmp_path: Path, tflite_models: dict[str, bytes]) -> Callable[[str], Path]:
    """Writes a fresh bundle of a kind of model."""
    return lambda kind: write_bundle(tmp_path / "pushed" / "tflite" / "1", tflite_models[kind])


@pytest.fixture(scope="session")
def uint8_bundle(tmp_path_factory: pytest.TempPathFactory, tflite_models: dict[str, bytes]) -> Path:
    """A bundle that no test changes."""
    return write_bundle(tmp_path_factory.mktemp("out") / "pushed" / "tflite" / "3", tflite_models["uint8"])


@pytest.fixture(scope="session")
def server(uint8_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of the uint8 bundle, with one worker."""
    with run_server(uint8_bundle, tmp_path_factory.mktemp("server") / "log.txt") as running:
        yield running


@pytest.fixture
def http(server: RunningServer) -> Iterator[httpx.Client]:
    """A client of the server of the uint8 bundle."""
    with httpx.Client(base_url=server.url, timeout=30, trust_env=False) as client:
        yield client


@pytest.fixture(scope="session")
def predictor(uint8_bundle: Path) -> Predictor:
    """The model of the uint8 bundle, without a server."""
    return Predictor(load_bundle(uint8_bundle))


@pytest.fixture(scope="session")
def files() -> list[bytes]:
    """Two image files."""
    rng = np.random.default_rng(9)
    return [encode(photo(rng, 60, 90), "JPEG"), encode(photo(rng, 40, 20), "PNG")]
