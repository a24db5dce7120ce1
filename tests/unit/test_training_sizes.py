import pytest

from trainer_module.errors import UserError
from trainer_module.settings import DistillationSettings, ModelSettings, ProgressiveResizingSettings, TrainerSettings
from trainer_module.training_sizes import full_size_epochs, require_training_sizes, training_sizes


def _settings(initial_scale=0.5, share=0.75, epochs=8, **others):
    resizing = ProgressiveResizingSettings(initial_scale=initial_scale, share=share)
    return TrainerSettings(epochs=epochs, progressive_resizing=resizing, **others)


def test_by_default_all_epochs_have_full_size():
    assert training_sizes(TrainerSettings(epochs=3), 96) == [96] * 3


@pytest.mark.parametrize(
    ("settings", "image_size", "sizes"),
    [
        (_settings(), 32, [16, 16, 20, 20, 28, 28, 32, 32]),
        (_settings(), 96, [48, 48, 64, 64, 80, 80, 96, 96]),
        (_settings(initial_scale=0.25, share=0.5), 32, [8, 8, 16, 24, 32, 32, 32, 32]),
        # The last epoch has full size, even if there is no other.
        (_settings(epochs=1), 32, [32]),
        (_settings(epochs=2), 32, [16, 32]),
        # No size is larger than the full one, which need not be a multiple of anything.
        (_settings(initial_scale=0.9, epochs=4), 10, [8, 8, 8, 10]),
        (_settings(initial_scale=0.99, epochs=4), 11, [11, 11, 11, 11]),
    ],
)
def test_the_size_rises_in_equal_steps_each_for_as_many_epochs(settings, image_size, sizes):
    assert training_sizes(settings, image_size) == sizes


def test_an_epoch_at_half_the_side_is_a_quarter_of_one():
    assert full_size_epochs([16, 16, 32], 32) == 1.5


def test_images_smaller_than_a_networks_stride_are_refused_by_key():
    pooling = ModelSettings(architecture="pooling")
    require_training_sizes(pooling, _settings(), 32)
    with pytest.raises(UserError, match=r"initial_scale=0\.4 .*12 pixels.* stride 16 of model\.architecture=pooling;"):
        require_training_sizes(pooling, _settings(initial_scale=0.4), 32)
    require_training_sizes(pooling, _settings(initial_scale=0.5), 32)


def test_networks_with_weights_for_positions_are_refused_by_key():
    naive = ModelSettings(architecture="naive")
    require_training_sizes(naive, _settings(initial_scale=1.0), 32)
    with pytest.raises(UserError, match=r"initial_scale=0\.5, but model\.architecture=naive has"):
        require_training_sizes(naive, _settings(), 32)
    taught = _settings(distillation=DistillationSettings(teacher="naive"))
    with pytest.raises(UserError, match=r"but trainer\.distillation\.teacher=naive has"):
        require_training_sizes(ModelSettings(), taught, 32)
