import functools
import json
import logging
import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from trainer_module import acceleration
from trainer_module.acceleration import Acceleration
from trainer_module.errors import UserError
from trainer_module.settings import AccelerationSettings

BATCH = (np.random.default_rng(0).uniform(0, 255, (8, 8, 8, 3)).astype(np.float32), np.arange(8, dtype=np.int64) % 2)

without_gpu = pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="is about machines without a GPU")


TWO_DEVICES = """
import json

import numpy as np
import tensorflow as tf

from trainer_module import acceleration
from trainer_module.settings import ModelSettings, TrainerSettings, TrainingSettings
from trainer_module.training import compiled_model

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
# As on GPUs.
acceleration.reduced_precision = lambda: "float16"
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
model_settings = ModelSettings(architecture="naive", width=0.1, dropout=0.5)
settings = TrainingSettings(image_size=16, seed=1, model=model_settings, trainer=TrainerSettings(ema=0.9))
batch = np.random.default_rng(0).uniform(0, 255, (8, 16, 16, 3)).astype(np.float32), np.arange(8, dtype=np.int64) % 2


def build(how):
    return compiled_model(settings, 2, 10, how, strategy)


choice, model = acceleration.choose(settings.acceleration, build, batch, 1_000_000, strategy)
alike = all(map(np.array_equal, model.get_weights(), build(choice.chosen).get_weights()))
model.fit(tf.data.Dataset.from_tensors(batch).repeat(), steps_per_epoch=8, verbose=0)
print("RESULT", json.dumps([choice.to_json(), alike, int(model.optimizer.iterations.numpy())]))
"""


def _builder(*layers):
    """Makes the function that builds a classifier with the given layers between the pixels and the convolution."""

    def build(how):
        with acceleration.computing(how.precision):
            image = keras.Input([8, 8, 3])
            x = keras.layers.Rescaling(1 / 255)(image)
            for layer in layers:
                x = keras.layers.Lambda(layer)(x)
            x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(8, 3)(x))
            model = keras.Model(image, keras.layers.Dense(2, activation="softmax", dtype="float32")(x))
        model.compile(
            "sgd",
            "sparse_categorical_crossentropy",
            jit_compile=how.jit,
            steps_per_execution=how.steps_per_execution,
        )
        return model

    return build


def _choose(build, total_steps=10, **settings):
    return acceleration.choose(
        AccelerationSettings(**settings), build, BATCH, total_steps, tf.distribute.get_strategy()
    )[0]


def test_what_the_device_can_do_is_used_as_set():
    choice = _choose(_builder(), mode="manual", precision="bfloat16", steps_per_execution=1000)
    assert choice.chosen == Acceleration(precision="bfloat16", steps_per_execution=1000)
    assert choice.probes == ()


def _in_python(pixels):
    answer = tf.numpy_function(np.abs, [pixels], pixels.dtype)
    answer.set_shape(pixels.shape)
    return answer


def test_a_step_that_the_device_cannot_do_is_refused_by_the_names_of_the_settings():
    with pytest.raises(UserError, match=r"^acceleration\.precision=bfloat16, acceleration\.jit=true: .*PyFunc.*auto"):
        _choose(_builder(_in_python), mode="manual", jit=True, precision="bfloat16")


def test_a_precision_in_which_the_loss_is_no_number_is_refused():
    # 1e5 is more than the largest float16.
    build = _builder(lambda pixels: pixels * 60_000 * 60_000 / 60_000)
    with pytest.raises(UserError, match=r"^acceleration\.precision=float16: the loss is not a number"):
        _choose(build, mode="manual", precision="float16")


def test_a_loss_that_is_no_number_in_float32_either_is_not_blamed_on_the_precision():
    build = _builder(lambda pixels: pixels * math.nan)
    assert _choose(build, mode="manual", precision="bfloat16").chosen.precision == "bfloat16"


@without_gpu
def test_float16_on_a_cpu_is_slow_but_works(caplog):
    with caplog.at_level(logging.WARNING):
        choice = _choose(_builder(), mode="manual", precision="float16")
    assert choice.chosen.precision == "float16"
    assert "acceleration.precision=float16: CPUs have no float16 arithmetic" in caplog.text


def _slowly(pixels, seconds=0.01):
    def wait(values):
        time.sleep(seconds)
        return values

    answer = tf.numpy_function(wait, [pixels], pixels.dtype)
    answer.set_shape(pixels.shape)
    return answer


@pytest.mark.component  # Trains for several seconds.
def test_auto_takes_no_longer_than_a_tenth_of_the_training(monkeypatch):
    """Waiting makes up most of each probe, so that the result does not depend on what else the machine does."""

    def build(how):
        time.sleep(0.3)
        return _builder(_slowly)(how)

    # So much that XLA would take too long however slow the steps are.
    monkeypatch.setattr(acceleration, "_XLA_COST", 150.0)
    # 30 seconds: enough for the other candidates on a busy machine too.
    total_steps = 30_000
    choice = _choose(build, total_steps)
    outcomes = {probe.candidate: probe.outcome for probe in choice.probes}
    assert outcomes[Acceleration(precision=acceleration.reduced_precision())] == "measured"
    assert [outcome for how, outcome in outcomes.items() if how.jit] == [
        "not measured: it would take longer than a tenth of the training"
    ]
    assert choice.probes[0].seconds_per_step >= 0.01
    assert choice.seconds < 0.1 * total_steps * choice.probes[0].seconds_per_step


@pytest.mark.component  # Trains for several seconds.
def test_auto_gives_up_a_candidate_that_is_much_slower_than_was_expected():
    reduced = acceleration.reduced_precision()

    def build(how):
        return _builder(functools.partial(_slowly, seconds=1.0 if how.precision == reduced else 0.01))(how)

    total_steps = 6000
    choice = _choose(build, total_steps)
    outcomes = {probe.candidate: probe.outcome for probe in choice.probes}
    assert outcomes[Acceleration(precision=reduced)] == (
        "not measured: it would take longer than a tenth of the training"
    )
    assert choice.chosen.precision == "float32"
    # Whole, the probe of that candidate would take more than 30 seconds. A step cannot be cut short, nor can what comes
    # before the first one, which takes long on a busy machine.
    assert choice.seconds < 0.1 * total_steps * choice.probes[0].seconds_per_step + 15.0


def test_a_loss_that_is_no_number_is_none_in_the_record():
    choice = _choose(_builder(lambda pixels: pixels * math.nan))
    (record,) = json.loads(json.dumps(choice.to_json(), allow_nan=False))["probes"]
    assert (record["outcome"], record["loss"]) == ("rejected: the loss is not finite", None)


@pytest.mark.component  # A process that loads TensorFlow and traces several networks.
def test_several_devices_of_one_host_are_measured_too():
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", TWO_DEVICES], capture_output=True, text=True, cwd=root, timeout=300)
    assert run.returncode == 0, run.stderr
    choice, alike, steps = json.loads(run.stdout.partition("RESULT")[2])
    outcomes = [probe["outcome"] for probe in choice["probes"]]
    assert outcomes == ["measured"] * 3 + ["not measured: XLA is not tried on several devices at once"]
    assert choice["strategy"] == "MirroredStrategy"
    # The trained model has forgotten the steps that were tried.
    assert alike
    assert steps == 8


@without_gpu
def test_mirrored_without_gpus_is_refused():
    with pytest.raises(UserError, match=r"^acceleration\.strategy=mirrored: .* no GPU"):
        acceleration.distribution_strategy(AccelerationSettings(strategy="mirrored"))


CLUSTER = {"worker": ["localhost:1", "localhost:2"]}


@pytest.mark.parametrize(
    ("cluster_description", "message"),
    [
        (None, r"^acceleration\.strategy=multi_worker: .*TF_CONFIG names no workers"),
        (json.dumps({"task": {"type": "worker", "index": 0}}), "TF_CONFIG names no workers"),
        ("{worker", "TF_CONFIG describes no cluster"),
        (json.dumps({"cluster": ["localhost:1"]}), "TF_CONFIG describes no cluster"),
        (json.dumps({"cluster": CLUSTER}), "TF_CONFIG does not say which host this is"),
    ],
)
def test_several_hosts_need_a_whole_description(monkeypatch, cluster_description, message):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if cluster_description is not None:
        monkeypatch.setenv("TF_CONFIG", cluster_description)
    with pytest.raises(UserError, match=message):
        acceleration.distribution_strategy(AccelerationSettings(strategy="multi_worker"))


@pytest.mark.parametrize("cluster", [{}, {"worker": ["localhost:1"]}, {"ps": ["localhost:1", "localhost:2"]}])
def test_auto_on_one_host_needs_no_strategy(monkeypatch, cluster):
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster}))
    assert acceleration.distribution_strategy(AccelerationSettings()) is tf.distribute.get_strategy()
