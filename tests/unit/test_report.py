"""The report's page and the model card, from summaries alone."""

import json
import re

import pytest
import yaml

from pipeline.ladder_table import LESSON
from pipeline.metadata import ComponentRun
from pipeline.report.evaluations import class_figures, confusions
from pipeline.report.facts import Facts, ShownMistake
from pipeline.report.model_card import model_card, model_card_markdown
from pipeline.report.page import render
from pipeline.report.photos import Photo
from pipeline.report.publication import publish
from pipeline.report.sections.compression import pareto_frontier
from pipeline.workspace import Workspace
from tests.run_summaries import CHECK, PLAIN, evaluation, failed, refused, summary

PICTURE = "data:image/png;base64,iVBORw0KGgo="
RUNGS = [
    {
        "name": name,
        "params": params,
        "accuracy": accuracy,
        "train_s_per_epoch": seconds,
        "inference_ms_per_step": milliseconds,
        "batch_size": 64,
        "execution": PLAIN,
        "inference": {"precision": "bfloat16", "jit": False, "folded": True},
    }
    for name, params, accuracy, seconds, milliseconds in (
        ("naive", 5_680_362, 0.9, 2.5, 20.0),
        ("auto", 56_804, 0.93, 0.5, 1.0),
    )
]
LADDER = {
    "rungs": RUNGS,
    "lesson": LESSON,
    "device": {"name": "CPU, 2 cores"},
    "settings": {"trainer": {"epochs": 10}, "data": {"path": "photos", "image_size": 32}},
}


@pytest.fixture
def workspace(tmp_path):
    workspace = Workspace(tmp_path / "out")
    workspace.prepare()
    return workspace


def _facts(content=None, **parts):
    return Facts(content or summary(), (), **parts)


def _charts(page):
    """Returns the Vega-Lite specifications in a page by the ids of their elements."""
    found = re.findall(r'data-chart="chart-([\w-]+)">(.*?)</script>', page, re.DOTALL)
    return {key: json.loads(spec) for key, spec in found}


def _rows(spec):
    """Returns the rows of all layers of a chart."""
    layers = [spec, *spec.get("layer", ())]
    layers += [inner for layer in layers[1:] for inner in layer.get("layer", ())]
    sets = [
        layer["data"].get("values") or spec["datasets"][layer["data"]["name"]] for layer in layers if "data" in layer
    ]
    return [row for rows in sets for row in rows]


def _cells(page, row):
    """Returns the texts of the cells of the table row that begins with `row`."""
    return re.findall(r"<td[^>]*>(.*?)</td>", page.split(f'<th scope="row">{row}</th>')[1].split("</tr>")[0])


def test_the_first_screen_says_what_shipped_and_how_it_does():
    page = render(_facts())
    header = page[page.index("<header>") : page.index("<nav")]
    for figure in ("Shipped: int8", "90.00 %", "70.0 kB", "60.0 kB deflated", "0.200 ms", "340 times"):
        assert figure in header
    # 18 of 20 photos: Clopper and Pearson's interval.
    assert "68.3 to 98.8 % with 95 % confidence, 20 photos" in header


def test_the_report_says_which_rule_decided_and_why():
    refusal = {**CHECK, "rule": "gate.max_class_drop", "slice": "<cat>", "verdict": "refused", "reason": "no chance"}
    content = summary()
    gates = content["gates"] | {"checks": [CHECK, refusal], "refused_by": ["fidelity"]}
    page = render(_facts(content | {"status": "refused", "blessed": False, "pushed": [], "gates": gates}))
    header = page[page.index("<header>") : page.index("<nav")]
    assert "Not shipped" in header
    assert "tflite, gate.max_class_drop, class &lt;cat&gt;: no chance" in header
    assert "gate.max_class_drop</code>, class &lt;cat&gt;" in page
    assert CHECK["reason"] in page


def test_a_run_of_which_nothing_could_be_evaluated_has_a_report_and_a_card():
    facts = _facts(refused())
    page = render(facts)
    assert "the candidate cannot be loaded" in page
    assert "could not be drawn" not in page
    assert "not released: refused by the fidelity gate" in model_card_markdown(model_card(facts))


def test_a_run_that_failed_is_reported_as_far_as_it_got():
    page = render(_facts(failed(), trouble="trainer.learning_rate is too high"))
    header = page[page.index("<header>") : page.index("<nav")]
    assert "The run failed" in header
    assert "trainer.learning_rate is too high" in header
    assert set(_charts(page)) == {"class-balance"}
    assert "could not be drawn" not in page


@pytest.mark.parametrize(
    ("state", "headline"), [("running", "The run stopped before the gates had decided"), ("failed", "The run failed")]
)
def test_a_run_that_was_stopped_is_not_said_to_have_failed(state, headline):
    page = render(Facts(failed(), (ComponentRun("Trainer", state, started=1.0, updated=2.0, execution_id=1),)))
    assert f"{headline}</h1>" in page
    assert "could not be drawn" not in page


@pytest.mark.parametrize("classes", [1, 2, 300])
def test_any_number_of_classes_fits(classes):
    names = [f"class {index}" for index in range(classes)]
    page = render(_facts(summary(names)))
    assert "could not be drawn" not in page
    assert len(page) < 2_000_000
    assert len({row["true"] for row in _rows(_charts(page)["confusion"])}) == min(classes, 30)
    assert len(_rows(_charts(page)["class-accuracies"])) == min(classes, 40)
    assert _cells(page, f"class {classes - 1}")


def test_thousands_of_epochs_are_thinned_out_but_for_the_best():
    content = summary()
    history = {name: [0.5] * 5000 for name in ("loss", "accuracy", "val_loss", "val_accuracy")}
    content["model"] |= {"history": history, "epochs": 5000, "best_epoch": 4321}
    page = render(_facts(content))
    epochs = {row["epoch"] for row in _rows(_charts(page)["student-loss"])}
    assert len(epochs) < 500
    assert 4321 in epochs
    assert len(page) < 1_500_000


def test_what_users_named_breaks_out_of_nothing():
    evil = "</script><script>alert(1)</script>"
    mistake = ShownMistake(Photo(evil, evil, PICTURE), evil, 0.9, 0.1)
    page = render(_facts(summary([evil, "dog"]), mistakes=[mistake], lost=[mistake]))
    assert "<script>alert" not in page
    assert evil in {row["class"] for row in _rows(_charts(page)["class-balance"])}
    assert "cat/&lt;b&gt;.jpg" in page


def test_the_pareto_plot_has_every_variant_the_budget_and_what_shipped():
    spec = _charts(render(_facts()))["pareto"]
    rows = _rows(spec)
    states = {row["name"]: row["state"] for row in rows if "state" in row}
    assert states == {"float32": "in budget", "int8": "shipped", "tiny": "over budget"}
    limits = {row["limit"] for row in rows if "limit" in row}
    assert limits == {"budget: at least 88.00%", "budget: at most 90.0 kB"}
    # The budget limits the file, so the file is what is drawn.
    assert {row["name"]: row["size"] for row in rows if "latency" in row}["int8"] == 70.0


def test_the_frontier_is_what_none_beats_in_both():
    variants = [("a", 10.0, 0.8), ("b", 20.0, 0.8), ("c", 30.0, 0.9), ("d", 30.0, 0.85), ("e", 40.0, 0.9)]
    assert pareto_frontier(variants) == ["a", "c"]


def test_figures_of_classes_follow_from_the_confusion_matrix():
    measured = evaluation(["cat", "dog"])
    measured["confusion_matrix"] |= {"candidate": [[6, 2], [1, 3]], "baseline": [[8, 0], [2, 2]]}
    cat, dog = class_figures(measured)
    assert (cat.recall, cat.precision, cat.f1, cat.parent_recall) == (6 / 8, 6 / 7, 12 / 15, 1.0)
    assert (dog.photos, dog.answered, dog.recall) == (4, 5, 3 / 4)
    assert cat.recall_interval.lower < 0.75 < cat.recall_interval.upper
    assert [(each.true, each.answer, each.photos, each.share) for each in confusions(measured)] == [
        ("cat", "dog", 2, 0.25),
        ("dog", "cat", 1, 0.25),
    ]


def test_near_copies_in_other_splits_are_named():
    page = render(_facts())
    assert "1 held-out photo looks like one of another split." in page
    assert _cells(page, "near") == ["train, test", "<code>cat/&lt;i&gt;.jpg</code>, <code>cat/2.jpg</code>"]
    content = summary()
    content["images"]["duplicates"]["near_in_several_splits"] = None
    assert "too many photos to look for near copies" in render(_facts(content))


def test_what_each_stage_did_is_told():
    page = render(_facts())
    rows = re.findall(r'<th scope="row">(\w+)</th><td>([\w ]+)</td><td class="text">([^<]+)</td>', page)
    assert rows == [
        ("prune", "sparsity", "0.5"),
        ("prune", "layers", "stem 0.25, head 0.9"),
        ("cluster", "clusters", "16"),
        ("cluster", "layers", "stem, head"),
        ("prune_channels", "multiply accumulates", "2,000,000, 1,000,000"),
        ("prune_channels", "channels", "stem 8"),
        ("qat_mixed", "mean bits", "3.5"),
        ("qat_mixed", "bits", "stem 8, head 3"),
        ("prune", "depthwise", "depthwise kernel"),
    ]


def test_the_slices_are_told():
    assert _cells(render(_facts()), "brightness below 0.25") == ["7", "90.00 %", "100.00 %", "90.00 %"]


def test_settings_other_than_their_defaults_stand_out():
    page = render(_facts())
    marked = {
        key: re.search(rf"<tr([^>]*)><th[^>]*><code>{key}<", page)[1] for key in ("trainer.epochs", "model.width")
    }
    assert marked == {"trainer.epochs": ' class="marked"', "model.width": ""}


def test_the_report_shows_the_ladder_beside_the_lessons():
    page = render(_facts(ladder=LADDER))
    table = page[page.index('id="ladder-title"') :]
    assert _cells(table, "naive") == ["5,680,362", "7,476,742", "90.0%", "82.0%", "2.50", "171.00", "20.00", "52.00"]
    gained = _cells(table, "auto against naive")
    assert gained == ["-99 %", "-91 %", "+3.0 points", "-3.0 points", "-80 %", "-61 %", "-95 %", "-58 %"]
    assert [row["params"] for row in _rows(_charts(page)["ladder-params"])] == [5_680_362, 56_804]
    assert "Ladder" not in render(_facts())


def test_a_part_that_cannot_be_collected_is_named_with_its_reason(workspace):
    workspace.ladder_file.write_text("{")
    assert publish(workspace, summary())
    page = workspace.report.read_text()
    ladder, lineage = (page.split(f'id="{part}-title"')[1].split("</section>")[0] for part in ("ladder", "lineage"))
    assert "This could not be collected: JSONDecodeError" in ladder
    # There is no metadata store.
    assert "This could not be collected" in lineage
    assert "Shipped: int8" in page


def test_a_section_that_cannot_be_drawn_does_not_cost_the_others():
    content = summary() | {"acceleration": {"chosen": {}}}
    page = render(_facts(content))
    assert "This section could not be drawn: KeyError" in page
    assert "pareto" in _charts(page)


def test_a_report_that_cannot_be_written_leaves_none_of_an_earlier_run(workspace):
    workspace.report.write_text("an earlier run")
    assert not publish(workspace, {"run": "broken"})
    assert not workspace.report.exists()


def test_the_model_card_tells_the_run_in_the_usual_sections(workspace):
    assert publish(workspace, summary())
    card = json.loads(workspace.model_card_json.read_text())
    assert card["quantitative_analyses"]["accuracy"]["value"] == 0.9
    assert card["quantitative_analyses"]["classes"][0]["recall"]["photos"] == 10
    assert card["training_data"]["photos"] == 6
    text = workspace.model_card.read_text()
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == [
        "Model details",
        "Intended use",
        "Factors",
        "Metrics",
        "Evaluation data",
        "Training data",
        "Quantitative analyses",
        "Ethical considerations",
        "Caveats and recommendations",
    ]
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.9
    assert "Accuracy 90.00 %, from 68.30 % to 98.77 % with 95 % confidence (20 photos)" in text


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "pixels |"),
        ({"flip_average": True}, "; the answer is the average over it and its mirror image |"),
        ({"shift_average": True}, "; the answer is the average over it and two copies shifted by a pixel |"),
        (
            {"flip_average": True, "shift_average": True},
            "; the answer is the average over it, two copies shifted by a pixel, and the mirror images of all three |",
        ),
    ],
)
def test_the_model_card_says_of_what_answers_are_averages(settings, said):
    content = summary()
    content["settings"]["model"] |= settings
    [line] = [line for line in model_card_markdown(model_card(_facts(content))).splitlines() if "upright RGB" in line]
    assert said in line


def test_names_cannot_break_the_tables_of_the_model_card():
    text = model_card_markdown(model_card(_facts(summary(["a|b", "<i>*c*"]))))
    assert "| a\\|b | 10 |" in text
    assert "<i>" not in text
