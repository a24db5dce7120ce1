import pytest

from trainer_module.consistency import require_consistent
from trainer_module.errors import UserError
from trainer_module.settings import DistillationSettings, ModelSettings, TrainerSettings


def test_images_smaller_than_the_networks_stride_are_refused_by_key():
    pooling = ModelSettings(architecture="pooling")
    with pytest.raises(UserError, match=r"data\.image_size=8 .* stride 16 of model\.architecture=pooling; .* least 16"):
        require_consistent(pooling, TrainerSettings(), 8)
    require_consistent(pooling, TrainerSettings(), 16)


def test_images_smaller_than_the_teachers_stride_are_refused_by_key():
    taught = TrainerSettings(distillation=DistillationSettings(teacher="pooling"))
    with pytest.raises(UserError, match=r"data\.image_size=8 .* stride 16 of trainer\.distillation\.teacher=pooling;"):
        require_consistent(ModelSettings(), taught, 8)
    require_consistent(ModelSettings(), taught, 16)
    require_consistent(ModelSettings(), TrainerSettings(), 8)
