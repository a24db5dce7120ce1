import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from pipeline import ladder, local_runner
from pipeline.config import load_settings
from pipeline.workspace import Workspace
from tests.transformed_files import striped_images, write_transformed
from trainer_module import acceleration, features, run
from trainer_module.errors import UserError
from trainer_module.settings import AccelerationSettings

ROOT = Path(__file__).parents[2]

# As run_fn does it: the strategy first. Then the hosts begin with different checkpoints, and with different photos.
SCRIPT = """
import hashlib
import json
import sys
from pathlib import Path

from tests.transformed_files import striped_images, write_transformed
from trainer_module import acceleration, input_pipeline, progress, training
from trainer_module.errors import UserError
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


def refusal(checkpoints, photos):
    try:
        training.train(settings, *photos, 2, own, checkpoint_directory=str(checkpoints), strategy=strategy)
    except UserError as error:
        return str(error)


is_first = own.name == "worker0"
print("RESULT", json.dumps({
    "refusals": [
        refusal(shared / "checkpoints" if is_first else own / "none", records),
        refusal(own / "none", records if is_first else records[::-1]),
    ],
    "weights": hashlib.sha256(b"".join(weight.tobytes() for weight in result.model.get_weights())).hexdigest(),
    "history": result.history,
    "strategy": result.choice.strategy,
    "replicas": strategy.num_replicas_in_sync,
}))
"""

# What each worker learns from is seen inside its network; nothing is augmented.
RUN_FN_SCRIPT = """
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import tensorflow as tf
import tf_keras as keras

from tests.transformed_files import striped_images
from trainer_module import run, training
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
    acceleration=AccelerationSettings(fold_batch_norm=False),
)
shared, own = Path(sys.argv[1]), Path(sys.argv[2])
number = {image.tobytes(): index for index, image in enumerate(striped_images(96, 16)[0])}
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
(own / "model").mkdir(parents=True)
run.run_fn(
    SimpleNamespace(
        custom_config={
            "training": settings.model_dump_json(),
            "checkpoints": str(shared / "checkpoints"),
            "version": "1",
        },
        train_files=[str(shared / "images.gz")],
        eval_files=[str(shared / "images.gz")],
        transform_output=str(shared / "transform"),
        serving_model_dir=str(own / "model/Format-Serving"),
        model_run_dir=str(own / "model_run"),
    )
)
print("RESULT", json.dumps({"seen": seen}))
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
    # What they begin with must be the same, and all of them say so.
    checkpoints, photos = chief["refusals"]
    assert "differ, in their order: finished epochs 2, 0; give" in checkpoints
    assert "in their order: training photos 96, 40; validation photos 40, 96; give" in photos


@pytest.mark.component  # Two processes that load TensorFlow.
def test_two_workers_share_out_every_photo_once_without_a_seed_too_and_both_export(tmp_path):
    write_transformed(tmp_path / "images.gz", *striped_images(96, 16))
    vocabulary = tmp_path / "transform/transform_fn/assets" / features.LABEL_VOCABULARY
    vocabulary.parent.mkdir(parents=True)
    vocabulary.write_text("lying\nstanding\n")
    results = _train_on_two_workers(tmp_path, RUN_FN_SCRIPT)
    assert [len(result["seen"]) for result in results] == [48, 48]
    assert sorted(results[0]["seen"] + results[1]["seen"]) == list(range(96))
    for worker in ("worker0", "worker1"):
        # TFX fails a Trainer without it.
        assert (tmp_path / worker / "model/Format-Serving/saved_model.pb").exists()
        record = json.loads((tmp_path / worker / "model" / run.TRAINING_FILE).read_text())
        (probe,) = record["acceleration"]["probes"]
        assert probe["outcome"].startswith("not measured: several hosts")
    assert list((tmp_path / "checkpoints").iterdir()) == []


@pytest.fixture
def first_of_two_hosts(monkeypatch):
    config = {"cluster": {"worker": ["localhost:1", "localhost:2"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))


@pytest.mark.usefixtures("first_of_two_hosts")
def test_hosts_that_would_find_each_other_too_late_are_refused():
    # Whatever TensorFlow computes.
    tf.zeros([])
    with pytest.raises(UserError, match=r"before TensorFlow computes anything .*startup; run the Trainer"):
        acceleration.distribution_strategy(AccelerationSettings())


@pytest.mark.usefixtures("first_of_two_hosts")
@pytest.mark.parametrize("command", [local_runner, ladder])
def test_commands_refuse_several_hosts_before_anything_runs(tmp_path, monkeypatch, command):
    workspace = Workspace(tmp_path)
    workspace.write_settings(load_settings(None, ("data.image_size=32",)))
    monkeypatch.setattr(local_runner, "run_pipeline", lambda *_, **__: pytest.fail("it runs"))
    with pytest.raises(UserError, match=r"TF_CONFIG asks for several hosts, .*acceleration\.strategy=none"):
        command.run(workspace)
