import numpy as np
import pytest
import tf_keras as keras

from trainer_module.architectures import ARCHITECTURES, scale_channels
from trainer_module.errors import UserError
from trainer_module.models import build_model
from trainer_module.settings import ModelSettings


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
@pytest.mark.parametrize("image_size", [16, 33, 64])
def test_every_network_answers_probabilities(architecture, image_size):
    model = build_model(ModelSettings(architecture=architecture), image_size, classes=5)
    images = np.random.default_rng(0).uniform(0, 255, (2, image_size, image_size, 3)).astype(np.float32)
    probabilities = model(images).numpy()
    assert probabilities.shape == (2, 5)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-5)
    assert (probabilities[0] != probabilities[1]).any()


def test_each_rung_is_smaller_than_the_one_before():
    sizes = [
        build_model(ModelSettings(architecture=name), 96, 6).count_params()
        for name in ("naive", "pooling", "separable", "lean")
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 0.02 * sizes[0]


@pytest.mark.parametrize(
    ("architecture", "lesson"), [("naive", 7_476_742), ("pooling", 5_873_478), ("separable", 679_137)]
)
def test_the_lessons_networks_are_as_large_as_the_lesson_says(architecture, lesson):
    model = build_model(ModelSettings(architecture=architecture), 150, 6)
    assert model.count_params() == pytest.approx(lesson, rel=0.08)


def test_the_lean_network_has_no_flatten_and_no_fused_separable_layer():
    layers = build_model(ModelSettings(), 32, 10).layers
    assert not any(isinstance(layer, keras.layers.Flatten | keras.layers.SeparableConv2D) for layer in layers)
    assert any(isinstance(layer, keras.layers.DepthwiseConv2D) for layer in layers)
    assert any(isinstance(layer, keras.layers.GlobalAveragePooling2D) for layer in layers)


def test_width_scales_the_channels():
    narrow, wide = (build_model(ModelSettings(width=width), 32, 10).count_params() for width in (0.5, 2.0))
    assert wide > 10 * narrow
    assert [scale_channels(32, width) for width in (0.1, 0.5, 1.0, 1.3)] == [8, 16, 32, 40]


def test_mixed_precision_keeps_input_and_output_in_float32():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = build_model(ModelSettings(), 32, 4)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert model.input.dtype == model.output.dtype == "float32"
    assert model.get_layer("stem_conv").compute_dtype == "bfloat16"


def test_a_saved_model_predicts_the_same(tmp_path):
    model = build_model(ModelSettings(width=0.5), 24, 3)
    model.save(tmp_path / "model.keras")
    images = np.random.default_rng(1).uniform(0, 255, (3, 24, 24, 3)).astype(np.float32)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(images), model(images), rtol=1e-5)


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
@pytest.mark.parametrize("image_size", [16, 32, 64, 128])
def test_the_stride_is_what_the_network_really_shrinks_by(architecture, image_size):
    model = build_model(ModelSettings(architecture=architecture, width=0.1), image_size, classes=2)
    head = next(name for name in ("pool", "flatten") if name in [layer.name for layer in model.layers])
    last_map = model.get_layer(head).input.shape
    assert last_map[1] == image_size // ARCHITECTURES[architecture].stride(image_size)


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_what_is_pooled_went_through_an_activation(architecture):
    model = build_model(ModelSettings(architecture=architecture), 32, classes=2)
    head = next(layer for layer in model.layers if layer.name in {"pool", "flatten"})
    features = keras.Model(model.input, head.input)
    images = np.random.default_rng(2).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    assert features(images).numpy().min() == 0.0


def test_an_input_smaller_than_the_stride_is_refused():
    with pytest.raises(
        UserError, match=r"data\.image_size=8 is smaller than the stride 16 of model\.architecture=naive"
    ):
        build_model(ModelSettings(architecture="naive"), 8, 2)
