"""With which of the settings networks are trained further."""

import numpy as np
import pytest
import tf_keras as keras

from components.compression.fine_tuning import FineTuner
from components.compression.settings import CompressionSettings
from components.compression.store import Store
from tests.transformed_files import striped_images
from trainer_module.acceleration import Acceleration
from trainer_module.input_pipeline import from_arrays
from trainer_module.models import build_model
from trainer_module.settings import ModelSettings, TrainerSettings, TrainingSettings

SIZE = 16
STILL, MOVING = 1e-9, 0.01
NETWORK = ModelSettings(architecture="pooling", width=0.25, dropout=0.0)


def kernel_moves(work: str, learning_rate: float, training_rate: float) -> float:
    """How far the first kernel moves in an epoch of fine-tuning with these rates."""
    keras.utils.set_random_seed(0)
    network = build_model(NETWORK, SIZE, 2)
    trainer = TrainerSettings(batch_size=32, learning_rate=training_rate, weight_decay=0.0)
    tuner = FineTuner(
        CompressionSettings(epochs=1, channel_epochs=1, learning_rate=learning_rate),
        TrainingSettings(image_size=SIZE, trainer=trainer),
        from_arrays(*striped_images(64, SIZE, seed=1)),
        build_model(NETWORK, SIZE, 2),
        Acceleration(),
        Store(None),
    )
    kernel = network.trainable_variables[0]
    before = kernel.numpy()
    if work == "channels":
        tuner.fit_channels(work, network)
    else:
        tuner.once(work, network, lambda: tuner.fit(network))
    return float(np.abs(kernel.numpy() - before).max())


@pytest.mark.parametrize(
    ("work", "rates"),
    [
        ("channels", {"training_rate": MOVING, "learning_rate": STILL}),
        ("stage", {"training_rate": STILL, "learning_rate": MOVING}),
    ],
)
def test_lost_channels_are_made_up_for_as_in_training_and_a_stage_by_fine_tuning(work, rates):
    assert kernel_moves(work, **rates) > MOVING / 10
