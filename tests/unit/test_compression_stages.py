"""Every stage of compression on a small trained network: what it made is looked for in the files themselves."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tf_keras as keras

from components.compression import fine_tuning
from components.compression.data import LabelledImages, Splits
from components.compression.engine import FineTuning, Result, compress
from components.compression.errors import VariantError
from components.compression.flatbuffer import ModelFile
from components.compression.narrow_kernels import integer_range
from components.compression.settings import BudgetSettings, CompressionSettings
from components.compression.store import Store
from tests.transformed_files import striped_images
from trainer_module.acceleration import Acceleration
from trainer_module.errors import UserError
from trainer_module.input_pipeline import from_arrays
from trainer_module.models import build_model
from trainer_module.settings import AugmentationSettings, ModelSettings, TrainerSettings, TrainingSettings
from trainer_module.tflite import TFLiteClassifier

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.component

SIZE = 16
TRAIN = LabelledImages(*striped_images(256, SIZE, seed=1))
VALIDATION = LabelledImages(*striped_images(64, SIZE, seed=2))
AS_IT_IS = Acceleration()
ALL_STAGES = ["prune", "cluster", "quantize", "qat", "prune_channels"]


def train(architecture: str) -> keras.Model:
    keras.utils.set_random_seed(0)
    network = build_model(ModelSettings(architecture=architecture, width=0.5), SIZE, 2)
    network.compile(keras.optimizers.Adam(0.005), "sparse_categorical_crossentropy")
    network.fit(TRAIN.images.astype(np.float32), TRAIN.labels, batch_size=32, epochs=4, verbose=0)
    return network


def run(
    network: keras.Model,
    directory: Path,
    checkpoints: Path | None = None,
    how: Acceleration | None = AS_IT_IS,
    **settings: object,
) -> Result:
    variants = directory / "variants"
    variants.mkdir(parents=True, exist_ok=True)
    wanted = {
        "epochs": 2,
        "channel_sparsity": 0.15,
        "channel_epochs": 4,
        "budget": BudgetSettings(max_accuracy_drop=0.1),
    } | settings
    training = TrainingSettings(
        image_size=SIZE,
        trainer=TrainerSettings(batch_size=32, augmentation=AugmentationSettings(flip=False, shift=0.0)),
    )
    return compress(
        network,
        Splits(TRAIN, VALIDATION, from_arrays(TRAIN.images, TRAIN.labels)),
        CompressionSettings.model_validate(wanted),
        variants,
        fine_tuning=FineTuning(training, how, None if checkpoints is None else str(checkpoints)),
    )


@pytest.fixture(scope="module")
def network() -> keras.Model:
    return train("lean")


@pytest.fixture(scope="module")
def residual() -> keras.Model:
    return train("residual")


@pytest.fixture(scope="module")
def result(network: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Result:
    before = [weights.copy() for weights in network.get_weights()]
    found = run(network, tmp_path_factory.mktemp("all"), stages=ALL_STAGES)
    for kept, weights in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, weights)
    return found


def file_of(result: Result, name: str) -> ModelFile:
    return ModelFile(result.selected.path.with_name(f"{name}.tflite"))


def row_of(result: Result, name: str) -> dict:
    return next(row for row in result.report["variants"] if row["name"] == name)


def test_all_variants_are_there_and_know_the_stripes(result: Result) -> None:
    assert result.report["dropped"] == []
    names = [row["name"] for row in result.report["variants"]]
    for expected in (
        *("float32", "float16", "dynamic", "int8", "int8_litert", "qat_int8", "qat_int4", "qat_int4_in_int8"),
        *("pruned_float32", "pruned_int8", "pruned_qat_int4", "pruned_qat_int4_in_int8"),
        *("pruned_clustered_float32", "pruned_clustered_int8", "pruned_clustered_qat"),
        *("channel_pruned_float32", "channel_pruned_int8", "channel_pruned_qat_int4"),
    ):
        assert expected in names
        path = result.selected.path.with_name(f"{expected}.tflite")
        predicted = TFLiteClassifier(path).predict(VALIDATION.images).argmax(axis=1)
        assert np.mean(predicted == VALIDATION.labels) == row_of(result, expected)["accuracy"] > 0.9


def test_pruned_weights_are_zero_in_every_file(result: Result) -> None:
    assert file_of(result, "float32").sparsity() < 0.05
    for name in ("pruned_float32", "pruned_int8", "pruned_qat_int4", "pruned_clustered_int8", "pruned_clustered_qat"):
        assert file_of(result, name).sparsity() > 0.4, name


def test_files_shrink_when_deflated(result: Result) -> None:
    rows = [
        row_of(result, name)["deflated_bytes"] for name in ("float32", "pruned_float32", "pruned_clustered_float32")
    ]
    assert rows == sorted(rows, reverse=True)
    rows = [row_of(result, name)["deflated_bytes"] for name in ("int8", "qat_int4_in_int8", "pruned_qat_int4_in_int8")]
    assert rows == sorted(rows, reverse=True)


def test_clusters_are_in_the_file(result: Result) -> None:
    clustered = set(result.report["done"]["cluster"]["layers"])
    for name in ("pruned_clustered_float32", "pruned_clustered_int8", "pruned_clustered_qat"):
        few = [kernel for kernel in file_of(result, name).kernels if kernel.unique <= 16]
        assert len(few) >= len(clustered), name


def test_narrow_weights_take_half_a_byte(result: Result) -> None:
    narrow, wide = (row_of(result, name) for name in ("qat_int4", "qat_int4_in_int8"))
    halved = sum(np.prod(layer["shape"]) for layer in wide["layers"] if layer["unique_weights"] <= 15) / 2
    assert wide["bytes"] - narrow["bytes"] == pytest.approx(halved, rel=0.1)
    for left, right in zip(
        file_of(result, "qat_int4").kernels, file_of(result, "qat_int4_in_int8").kernels, strict=True
    ):
        np.testing.assert_array_equal(left.values, right.values)


def test_auto_finds_the_bits_of_each_layer(residual: keras.Model, tmp_path: Path) -> None:
    found = run(residual, tmp_path, stages=["qat"], bits="auto", epochs=1, budget={"max_bytes": 10**6})
    assert found.report["dropped"] == []
    note = found.report["done"]["qat_mixed"]
    assert note["mean_bits"] < 6
    # 3 would take 4 in the file, whose bytes the budget limits.
    assert set(note["bits"].values()) <= {2, 4, 8}
    # The file has its kernels in another order.
    largest = sorted(np.abs(kernel.values).max() for kernel in file_of(found, "qat_mixed").kernels)
    limits = sorted(-integer_range(bits)[0] for bits in note["bits"].values())
    assert all(found <= limit for found, limit in zip(largest, limits, strict=True))
    narrow, wide = (row_of(found, name) for name in ("qat_mixed", "qat_mixed_in_int8"))
    assert narrow["bytes"] < wide["bytes"]
    assert narrow["accuracy"] > 0.9


def test_mean_bits_are_shared_out_without_a_search(residual: keras.Model, tmp_path: Path) -> None:
    found = run(residual, tmp_path, stages=["qat"], bits="auto", mean_bits=4.5, epochs=1, budget={})
    assert found.report["dropped"] == []
    note = found.report["done"]["qat_mixed"]
    assert note["mean_bits"] == 4.5
    sizes = {layer.name: layer.kernel.shape.num_elements() for layer in residual.layers if layer.name in note["bits"]}
    mean = sum(sizes[name] * bits for name, bits in note["bits"].items()) / sum(sizes.values())
    assert 4 < mean <= 4.5
    assert len(set(note["bits"].values())) > 1
    assert row_of(found, "qat_mixed")["accuracy"] > 0.9


def test_two_bits_take_a_quarter_of_a_byte(residual: keras.Model, tmp_path: Path) -> None:
    found = run(residual, tmp_path, stages=["qat"], bits=[4, 2], epochs=1)
    assert found.report["dropped"] == []
    narrow, wide, four = (row_of(found, name) for name in ("qat_int2", "qat_int2_in_int8", "qat_int4"))
    assert narrow["deflated_bytes"] < 0.8 * four["deflated_bytes"]
    quartered = sum(size for layer in wide["layers"] if (size := np.prod(layer["shape"])) > 600) * 3 / 4
    assert wide["bytes"] - narrow["bytes"] == pytest.approx(quartered, rel=0.1)
    assert [layer["name"] for layer in narrow["layers"]] == [layer["name"] for layer in wide["layers"]]
    for left, right in zip(file_of(found, "qat_int2").kernels, file_of(found, "qat_int2_in_int8").kernels, strict=True):
        np.testing.assert_array_equal(left.values, right.values)
    packed, stored = (
        TFLiteClassifier(found.selected.path.with_name(f"{name}.tflite")).predict(VALIDATION.images)
        for name in ("qat_int2", "qat_int2_in_int8")
    )
    np.testing.assert_allclose(packed, stored, atol=0.05)
    assert narrow["accuracy"] > 0.9


def test_channels_are_gone_from_the_network(result: Result) -> None:
    before, after = result.report["done"]["prune_channels"]["multiply_accumulates"]
    assert after <= 0.85 * before
    size, whole = (sum(k.values.size for k in file_of(result, n).kernels) for n in ("channel_pruned_int8", "int8"))
    assert size < whole


@pytest.mark.parametrize("how", [None, Acceleration(precision="bfloat16", steps_per_execution=4)])
def test_channels_go_whatever_executes_the_steps(
    residual: keras.Model, how: Acceleration | None, tmp_path: Path
) -> None:
    found = run(residual, tmp_path, how=how, stages=["prune_channels"], epochs=1)
    assert found.report["dropped"] == []
    assert row_of(found, "channel_pruned_float32")["accuracy"] > 0.9
    assert keras.mixed_precision.global_policy().name == "float32"


def test_the_selected_is_the_smallest_and_its_float_model_agrees(result: Result) -> None:
    smallest = min(row["deflated_bytes"] for row in result.report["variants"] if row["within_budget"])
    assert row_of(result, result.report["selected"])["deflated_bytes"] <= 1.02 * smallest
    probabilities = result.model.predict(VALIDATION.images.astype(np.float32), verbose=0)
    predicted = TFLiteClassifier(result.selected.path).predict(VALIDATION.images)
    assert np.mean(probabilities.argmax(axis=1) == predicted.argmax(axis=1)) > 0.95


def test_skipped_layers_are_named_with_reason(result: Result, network: keras.Model) -> None:
    skipped = {skip["layer"]: skip["reason"] for skip in result.report["skipped"]["prune"]}
    for layer in network.layers:
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            assert skipped[layer.name] == "depthwise kernel"
    json.dumps(result.report)


def test_auto_searches_and_a_second_run_takes_over_what_is_finished(residual: keras.Model, tmp_path: Path) -> None:
    budget = BudgetSettings(max_accuracy_drop=0.1, max_bytes=1)
    wanted = {"stages": ["prune"], "sparsity": "auto", "epochs": 1, "budget": budget}
    with pytest.raises(UserError, match="max_bytes 1"):
        run(residual, tmp_path, tmp_path / "kept", **wanted)
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "kept").iterdir()}
    assert len(kept) >= 1
    with pytest.raises(UserError, match="max_bytes 1"):
        run(residual, tmp_path, tmp_path / "kept", **wanted)
    assert kept == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "kept").iterdir()}


def test_auto_finds_more_than_the_mildest(residual: keras.Model, tmp_path: Path) -> None:
    found = run(residual, tmp_path, tmp_path / "kept", stages=["prune"], sparsity="auto")
    assert found.report["done"]["prune"]["sparsity"] > 0.3
    found.kept.clear()
    assert not (tmp_path / "kept").exists()


def test_a_spent_time_budget_leaves_what_needs_no_time(residual: keras.Model, tmp_path: Path) -> None:
    found = run(residual, tmp_path, stages=["quantize", "qat", "prune"], sparsity="auto", time_budget_s=1e-6)
    reasons = {entry["name"]: entry["reason"] for entry in found.report["dropped"]}
    assert set(reasons) == {"qat_int8", "qat_int4", "pruned"}
    assert all("compression.time_budget_s" in reason for reason in reasons.values())
    assert found.selected.name.startswith("int8")


def test_what_was_finished_is_kept_for_a_run_with_more_time(residual: keras.Model, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    wanted = {"stages": ["prune", "qat"], "epochs": 1}
    with pytest.raises(UserError, match="max_bytes 1"):
        run(residual, tmp_path, kept, **wanted | {"stages": ["prune"]}, budget=BudgetSettings(max_bytes=1))
    found = run(residual, tmp_path, kept, **wanted, time_budget_s=1e-6)
    assert found.selected.name == "pruned_float32"
    assert "run again with more" in found.report["dropped"][0]["reason"]
    found.kept.clear()
    assert len(list(kept.iterdir())) == 1


class Clock(keras.callbacks.Callback):
    """Stands for the module `time` in a world where every step takes a second."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0

    def monotonic(self) -> float:
        return self.now

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        del batch, logs
        self.now += 1


@pytest.mark.parametrize(("budget", "epochs"), [(1, 1), (7, 2), (10, 5)])
def test_a_fine_tuning_that_would_not_end_in_time_is_given_up(
    budget: int, epochs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(fine_tuning, "time", clock)
    model = build_model(ModelSettings(architecture="pooling", width=0.25), SIZE, 2)
    tuner = fine_tuning.FineTuner(
        CompressionSettings(epochs=5, distillation={"weight": 0}, time_budget_s=budget),
        TrainingSettings(image_size=SIZE, trainer=TrainerSettings(batch_size=128)),
        from_arrays(TRAIN.images, TRAIN.labels),
        model,
        AS_IT_IS,
        Store(None),
        deadline=budget,
    )
    given_up = epochs < 5
    refusal = pytest.raises(VariantError, match=r"compression\.time_budget_s") if given_up else contextlib.nullcontext()
    with refusal:
        tuner.once("work", model, lambda: tuner.fit(model, [clock]))
    # Two steps each.
    assert clock.now == 2 * epochs
    assert tuner.is_short_of_time == given_up


def test_two_clusters_of_a_pruned_network_are_refused_with_the_reason(residual: keras.Model, tmp_path: Path) -> None:
    found = run(residual, tmp_path, stages=["prune", "cluster"], clusters=2, epochs=1)
    [dropped] = found.report["dropped"]
    assert dropped["name"] == "pruned_clustered"
    assert "compression.clusters" in dropped["reason"]
    assert found.selected.name == "pruned_float32"
