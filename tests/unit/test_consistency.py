import pytest

from trainer_module.consistency import require_consistent
from trainer_module.errors import UserError
from trainer_module.settings import DistillationSettings, ModelSettings, TrainerSettings


def test_images_smaller_than_the_networks_stride_are_refused_by_key():
    pooling = ModelSettings(architecture="pooling")
    with pytest.raises(UserError, match=r"data\.image_size=8 .* stride 16 of model\.architecture=pooling; .* least 16"):
        require_consistent(pooling, TrainerSettings(), 8, 1024)
    require_consistent(pooling, TrainerSettings(), 16, 1024)


def test_images_smaller_than_the_teachers_stride_are_refused_by_key():
    taught = TrainerSettings(distillation=DistillationSettings(teacher="pooling"))
    with pytest.raises(UserError, match=r"data\.image_size=8 .* stride 16 of trainer\.distillation\.teacher=pooling;"):
        require_consistent(ModelSettings(), taught, 8, 1024)
    require_consistent(ModelSettings(), taught, 16, 1024)
    require_consistent(ModelSettings(), TrainerSettings(), 8, 1024)


def test_photos_that_are_stored_hardly_larger_than_the_input_are_refused_by_key():
    with pytest.raises(UserError, match=r"data\.max_side=127 is less than twice data\.image_size=64: .* at most 63"):
        require_consistent(ModelSettings(), TrainerSettings(), 64, 127)
    require_consistent(ModelSettings(), TrainerSettings(), 64, 128)
