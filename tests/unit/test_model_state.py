import numpy as np
import pytest
import tensorflow as tf

from tests.transformed_files import striped_images
from trainer_module.acceleration import Acceleration
from trainer_module.model_state import create_variables
from trainer_module.settings import ModelSettings, SamSettings, TrainerSettings, TrainingSettings
from trainer_module.training import compiled_model

SIZE = 16
ACCELERATIONS = [Acceleration(), Acceleration(precision="float16"), Acceleration(steps_per_execution=2)]
TRAINERS = [
    TrainerSettings(ema=0.9, class_weights="balanced"),
    TrainerSettings(sam=SamSettings(rho=0.1), optimizer="sgd"),
]


@pytest.mark.parametrize("how", ACCELERATIONS, ids=str)
@pytest.mark.parametrize("trainer", TRAINERS, ids=["ema", "sam"])
def test_a_step_is_traced_once(how, trainer):
    settings = TrainingSettings(
        image_size=SIZE, model=ModelSettings(architecture="pooling", width=0.1), trainer=trainer
    )
    model = compiled_model(settings, 2, 4, how, tf.distribute.get_strategy())
    create_variables(model)
    images, labels = striped_images(64, SIZE)
    model.fit(images.astype(np.float32), labels, batch_size=16, sample_weight=np.ones(64), verbose=0)
    assert model.train_function.experimental_get_tracing_count() == 1
    assert model.optimizer.iterations == 4
