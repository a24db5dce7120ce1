import json
from pathlib import Path

import pytest
from PIL import Image

from pipeline import ladder, local_runner
from pipeline.config import load_settings
from pipeline.ladder_chart import draw
from pipeline.ladder_table import LESSON, gains
from pipeline.ladder_view import ladder_table
from pipeline.workspace import Workspace
from tests.image_files import write_tree
from tests.notebooks import run_notebook
from tests.transformed_files import striped_images
from trainer_module import acceleration, input_pipeline
from trainer_module import ladder as climbing
from trainer_module.errors import UserError
from trainer_module.settings import (
    AccelerationSettings,
    ModelSettings,
    ProgressiveResizingSettings,
    SamSettings,
    TrainerSettings,
    TrainingSettings,
)

# XLA compiles three of the rungs, which takes most of a minute.
pytestmark = pytest.mark.component

NAMES = ["naive", "pooling", "separable", "jit", "amp", "fusing", "auto"]


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """Runs the notebook, which runs `trimline ladder`, and returns what its cells printed and the output directory."""
    directory = tmp_path_factory.mktemp("ladder")
    write_tree(directory / "photos", {"cat": 40, "dog": 40}, width=32, height=32)
    settings = ["model.width=0.1", "trainer.epochs=2", "trainer.batch_size=8"]
    parameters = f"data, output, settings = {str(directory / 'photos')!r}, {str(directory / 'out')!r}, {settings}"
    return run_notebook(Path(__file__).parents[2] / "docs" / "ladder.ipynb", parameters), directory / "out"


@pytest.fixture(scope="module")
def climbed(walked):
    _, out = walked
    lines = (out / "logs" / "ladder.jsonl").read_text().splitlines()
    events = [(event["rung"], event["epoch"]) for event in map(json.loads, lines)]
    return json.loads((out / "ladder.json").read_text())["rungs"], events


def test_photos_too_small_for_a_rung_are_refused_before_anything_runs(tmp_path, monkeypatch):
    workspace = Workspace(tmp_path)
    workspace.write_settings(load_settings(None, ("data.image_size=8",)))
    monkeypatch.setattr(local_runner, "run_pipeline", lambda *_, **__: pytest.fail("it runs"))
    with pytest.raises(UserError, match=r"data\.image_size=8 .* stride 16 of the ladder's architecture=naive"):
        ladder.run(workspace)


def test_what_changes_the_network_or_the_number_of_devices_is_left_out(monkeypatch):
    rung = climbing.Rung("fusing", "separable", acceleration.Acceleration(), folded=True)
    monkeypatch.setattr(climbing, "rungs", lambda _: (rung,))
    splits = climbing.Splits(*(input_pipeline.from_arrays(*striped_images(16, 16, seed)) for seed in (0, 1)))
    settings = TrainingSettings(
        image_size=16,
        model=ModelSettings(width=0.1),
        trainer=TrainerSettings(
            epochs=1,
            batch_size=8,
            ema=0.9,
            sam=SamSettings(rho=0.05),
            progressive_resizing=ProgressiveResizingSettings(initial_scale=0.5),
        ),
        acceleration=AccelerationSettings(strategy="mirrored"),
    )
    (measured,) = climbing.climb(settings, splits, 2, lambda *_: None)
    assert measured["inference"]["folded"]
    assert measured["inference_ms_per_step"] > 0


def test_every_rung_is_measured(climbed):
    rungs, _ = climbed
    assert [rung["name"] for rung in rungs] == NAMES
    for rung in rungs:
        assert 0 <= rung["accuracy"] <= 1
        assert rung["params"] > 0
        assert rung["train_s_per_epoch"] > 0
        assert rung["inference_ms_per_step"] > 0


def test_each_rung_adds_its_trick(climbed):
    rungs = {rung["name"]: rung for rung in climbed[0]}
    assert rungs["naive"]["params"] > rungs["pooling"]["params"] > rungs["separable"]["params"]
    assert len({rungs[name]["params"] for name in ("separable", "jit", "amp", "fusing")}) == 1
    assert [rungs[name]["execution"]["jit"] for name in ("separable", "jit", "amp", "fusing")] == [False, *[True] * 3]
    assert rungs["jit"]["execution"]["precision"] == "float32"
    assert rungs["amp"]["execution"]["precision"] in ("bfloat16", "float16")
    assert rungs["amp"]["execution"]["steps_per_execution"] == 1 < rungs["fusing"]["execution"]["steps_per_execution"]


def test_fusing_and_auto_answer_without_batch_normalization(climbed):
    assert {rung["name"]: rung["inference"]["folded"] for rung in climbed[0]} == {
        name: name in ("fusing", "auto") for name in NAMES
    }


def test_every_rung_answers_as_it_was_trained_but_auto_as_it_is_fastest(climbed):
    *rungs, auto = climbed[0]
    for rung in rungs:
        assert len(rung["inference_measured"]) == 1
        assert rung["inference"]["precision"] == rung["execution"]["precision"]
        assert rung["inference"]["jit"] == rung["execution"]["jit"]
        assert rung["acceleration"] is None
    measured = {each["precision"]: each for each in auto["inference_measured"] if not each["jit"]}
    assert set(measured) == {"float32", acceleration.reduced_precision()}
    assert auto["inference_ms_per_step"] <= measured["float32"]["ms_per_step"]
    assert auto["inference_ms_per_step"] in [each["ms_per_step"] for each in measured.values()]
    assert auto["acceleration"]["chosen"] == auto["execution"]
    assert auto["acceleration"]["probes"]


def test_the_rungs_take_turns(climbed):
    _, events = climbed
    assert events == [(name, epoch) for epoch in (1, 2) for name in NAMES]


def test_the_picture_and_the_table_show_every_rung(climbed, tmp_path):
    rungs, _ = climbed
    draw(rungs, tmp_path / "ladder.png")
    with Image.open(tmp_path / "ladder.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 1000
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 10
    table = ladder_table(rungs, list(LESSON))
    assert list(table.columns[0].cells)[: len(NAMES)] == NAMES
    assert "(7,476,742)" in next(iter(table.columns[1].cells))


def test_the_notebook_walks_through_what_was_measured(walked):
    printed, _ = walked
    text = "\n".join(printed)
    assert [name for name in NAMES if name not in text] == []
    steps = (("naive", "pooling"), ("pooling", "separable"), ("separable", "jit"), ("jit", "amp"), ("amp", "fusing"))
    for before, after in steps:
        assert f"{before} -> {after}\n  parameters" in text
    (probed,) = [each for each in printed if "naive -> auto" in each]
    assert "ms a step" in probed


def test_gains_compare_the_last_rung_with_the_first():
    first = {"params": 1000, "accuracy": 0.8, "train_s_per_epoch": 10.0, "inference_ms_per_step": 4.0}
    last = {"params": 30, "accuracy": 0.85, "train_s_per_epoch": 2.0, "inference_ms_per_step": 5.0}
    assert gains([first, last]) == pytest.approx(
        {"params": 0.97, "accuracy": 0.05, "train_s_per_epoch": 0.8, "inference_ms_per_step": -0.25}
    )


def test_the_lessons_own_gains_are_those_it_tells():
    told = gains(list(LESSON))
    assert told == pytest.approx(
        {"params": 0.91, "accuracy": -0.03, "train_s_per_epoch": 0.61, "inference_ms_per_step": 0.57}, abs=0.01
    )
