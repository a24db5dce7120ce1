import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# As run_fn does it: the strategy first.
SCRIPT = """
import hashlib
import json
import sys
from pathlib import Path

from tests.transformed_files import striped_images, write_transformed
from trainer_module import acceleration, input_pipeline, progress, training
from trainer_module.settings import (
    AccelerationSettings,
    ModelSettings,
    ProgressiveResizingSettings,
    SamSettings,
    TrainerSettings,
    TrainingSettings,
)

settings = TrainingSettings(
    image_size=16,
    seed=5,
    model=ModelSettings(architecture="pooling", width=0.1),
    trainer=TrainerSettings(
        epochs=2,
        batch_size=32,
        ema=0.9,
        progressive_resizing=ProgressiveResizingSettings(initial_scale=0.75, share=0.5),
        sam=SamSettings(rho=0.05, share=0.5),
    ),
    acceleration=AccelerationSettings(),
)
strategy = acceleration.distribution_strategy(settings.acceleration)
shared, own = Path(sys.argv[1]), Path(sys.argv[2])
records = [
    input_pipeline.measure([write_transformed(own / f"{seed}.gz", *striped_images(count, 16, seed))])
    for seed, count in enumerate((96, 40))
]
with progress.kept_in(own / "progress.json"):
    result = training.train(
        settings, *records, 2, own, checkpoint_directory=str(shared / "checkpoints"), strategy=strategy
    )
print("RESULT", json.dumps({
    "weights": hashlib.sha256(b"".join(weight.tobytes() for weight in result.model.get_weights())).hexdigest(),
    "history": result.history,
    "strategy": result.choice.strategy,
    "replicas": strategy.num_replicas_in_sync,
}))
"""

# What each worker learns from is seen inside its network; nothing is augmented.
UNSEEDED_SCRIPT = """
import json
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras as keras

from tests.transformed_files import striped_images, write_transformed
from trainer_module import acceleration, input_pipeline, training
from trainer_module.settings import (
    AccelerationSettings,
    AugmentationSettings,
    ModelSettings,
    TrainerSettings,
    TrainingSettings,
)

settings = TrainingSettings(
    image_size=16,
    model=ModelSettings(architecture="pooling", width=0.1),
    trainer=TrainerSettings(epochs=1, batch_size=32, augmentation=AugmentationSettings(flip=False, shift=0.0)),
    acceleration=AccelerationSettings(),
)
strategy = acceleration.distribution_strategy(settings.acceleration)
own = Path(sys.argv[2])
images, labels = striped_images(96, 16)
records = input_pipeline.measure([write_transformed(own / "images.gz", images, labels)])
number = {image.tobytes(): index for index, image in enumerate(images)}
seen = []


@keras.utils.register_keras_serializable()
class Witness(keras.layers.Layer):
    def call(self, inputs, training=None):
        return tf.ensure_shape(tf.numpy_function(self.see, [inputs], tf.float32), inputs.shape) if training else inputs

    def see(self, batch):
        seen.extend(number[image.astype(np.uint8).tobytes()] for image in batch)
        return batch


def build_model(*arguments):
    network = build_network(*arguments)
    return keras.Model(image := keras.Input(network.input_shape[1:]), network(Witness()(image)), name=network.name)


build_network, training.build_model = training.build_model, build_model
result = training.train(settings, records, records, 2, own, strategy=strategy)
print("RESULT", json.dumps({"seen": seen, "acceleration": result.choice.to_json()}))
"""


def _free_ports(count):
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def _train_on_two_workers(directory, source):
    script = directory / "train.py"
    script.write_text(source)
    workers = [f"localhost:{port}" for port in _free_ports(2)]
    processes = []
    for index in range(2):
        config = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        processes.append(
            subprocess.Popen(
                [sys.executable, str(script), str(directory), str(directory / f"worker{index}")],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT), "TF_CONFIG": json.dumps(config)},
            )
        )
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    return [
        json.loads(line.removeprefix("RESULT"))
        for output in outputs
        for line in output.splitlines()
        if line.startswith("RESULT")
    ]


@pytest.mark.component  # Two processes that load TensorFlow.
def test_two_workers_train_one_network(tmp_path):
    chief, other = _train_on_two_workers(tmp_path, SCRIPT)
    assert chief == other
    assert (chief["strategy"], chief["replicas"]) == ("CollectiveAllReduceStrategy", 2)
    assert len(chief["history"]["val_accuracy"]) == 2
    assert (tmp_path / "checkpoints/ckpt-2.index").exists()
    assert json.loads((tmp_path / "worker0/progress.json").read_text())["Trainer"]["epoch"] == 2
    assert list((tmp_path / "worker0").glob("train/events.out.tfevents.*"))
    assert sorted(path.name for path in (tmp_path / "worker1").rglob("*")) == ["0.gz", "1.gz", "progress.json"]
    assert "epoch" not in json.loads((tmp_path / "worker1/progress.json").read_text())["Trainer"]


@pytest.mark.component  # Two processes that load TensorFlow.
def test_two_workers_share_out_every_photo_once_without_a_seed_too(tmp_path):
    results = _train_on_two_workers(tmp_path, UNSEEDED_SCRIPT)
    assert [len(result["seen"]) for result in results] == [48, 48]
    assert sorted(results[0]["seen"] + results[1]["seen"]) == list(range(96))
    for result in results:
        (probe,) = result["acceleration"]["probes"]
        assert probe["outcome"].startswith("not measured: several hosts")
