import base64
import json
import re

import pytest

from pipeline.ladder_chart import draw
from pipeline.ladder_table import LESSON
from pipeline.report import write_report
from pipeline.workspace import Workspace

PLAIN = {"jit": False, "precision": "float32", "steps_per_execution": 1}
CHECK = {
    "gate": "fidelity",
    "artifact": "tflite",
    "rule": "gate.max_drop",
    "slice": None,
    "verdict": "passed",
    "reason": "drop of 1.00% (1 photos of 100 lost, 0 gained) within 2.00%",
}
SUMMARY = {
    "blessed": True,
    "run": "2026-01-01",
    "images": {
        "read": 9,
        "used": 8,
        "quarantined": 1,
        "splits": {"train": {"cat": 3, "dog": 3}, "test": {"cat": 1, "dog": 1}},
        "quarantine": [{"path": "cat/<b>.jpg", "reason": "broken"}],
        "warnings": [],
    },
    "model": {
        "architecture": "lean",
        "params": 52_426,
        "accuracy": 0.9,
        "epochs": 1,
        "train_seconds": 3.0,
        "history": {"loss": [0.5], "accuracy": [0.8], "val_accuracy": [0.9]},
    },
    "acceleration": {"chosen": PLAIN, "mode": "auto", "device": "CPU, 2 cores"},
    "variants": [],
    "dropped_variants": [],
    "shipped": {
        "name": "int8",
        "bytes": 70_000,
        "deflated_bytes": 60_000,
        "accuracy": 0.89,
        "latency_ms": 0.2,
        "class_accuracy": {"cat": 0.8, "dog": 1.0},
        "saved_model_accuracy": 0.9,
    },
    "gates": {
        "refused_by": [],
        "settings": {"min_accuracy": 0.2, "max_drop": 0.02, "max_regression": 0.02},
        "baseline_accuracy": None,
        "checks": [CHECK],
        "evaluations": [
            {
                "gate": "fidelity",
                "artifact": "tflite",
                "slices": {
                    "brightness": {
                        "below 0.25": {"photos": 7, "accuracy": 0.5, "baseline_accuracy": 0.75, "agreement": 0.625}
                    }
                },
                "metrics": {
                    "candidate": {
                        "accuracy": 0.89,
                        "balanced_accuracy": 0.88,
                        "top_3_accuracy": 1.0,
                        "auc": None,
                        "expected_calibration_error": 0.05,
                    },
                    "baseline": {"accuracy": 0.9},
                },
            }
        ],
    },
    "pushed": [],
    "components": [{"name": "Trainer", "seconds": 3.0, "cached": False}],
}
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


@pytest.fixture
def workspace(tmp_path):
    workspace = Workspace(tmp_path / "out")
    workspace.prepare()
    workspace.summary_file.write_text(json.dumps(SUMMARY))
    return workspace


def test_the_report_says_which_rule_decided_and_why(workspace):
    refusal = {**CHECK, "rule": "gate.max_class_drop", "slice": "<cat>", "verdict": "refused", "reason": "no chance"}
    gates = {**SUMMARY["gates"], "checks": [CHECK, refusal], "refused_by": ["fidelity"]}
    workspace.summary_file.write_text(json.dumps({**SUMMARY, "blessed": False, "gates": gates}))
    write_report(workspace)
    page = workspace.report.read_text()
    assert "Not pushed: refused by the fidelity gate." in page
    assert "gate.max_class_drop</code>, class &lt;cat&gt;" in page
    assert "no chance" in page
    assert CHECK["reason"] in page


def test_the_report_shows_the_slices(workspace):
    write_report(workspace)
    row = workspace.report.read_text().split("brightness below 0.25")[1].split("</tr>")[0]
    assert re.findall(r">([^<]+)</td>", row) == ["7", "50.00 %", "75.00 %", "62.50 %"]


def test_a_run_of_which_nothing_could_be_evaluated_has_a_report(workspace):
    shipped = {**SUMMARY["shipped"], "accuracy": None, "class_accuracy": {}, "saved_model_accuracy": None}
    refusal = {**CHECK, "rule": "computed", "verdict": "refused", "reason": "the candidate cannot be loaded"}
    gates = {**SUMMARY["gates"], "checks": [refusal], "evaluations": [], "refused_by": ["fidelity"]}
    model = {**SUMMARY["model"], "accuracy": None}
    content = {**SUMMARY, "blessed": False, "gates": gates, "shipped": shipped, "model": model}
    workspace.summary_file.write_text(json.dumps(content))
    write_report(workspace)
    assert "the candidate cannot be loaded" in workspace.report.read_text()


def _write_ladder(workspace):
    settings = {"trainer": {"epochs": 10}, "data": {"path": "photos", "image_size": 32}}
    ladder = {"rungs": RUNGS, "lesson": LESSON, "device": {"name": "CPU, 2 cores"}, "settings": settings}
    workspace.ladder_file.write_text(json.dumps(ladder))
    draw(RUNGS, workspace.ladder_picture)


def test_the_report_tells_the_run_and_escapes_what_users_named(workspace):
    write_report(workspace)
    page = workspace.report.read_text()
    assert "Blessed and pushed: int8, 89.00 % of the test photos right, 70.0 kB." in page
    assert "cat/&lt;b&gt;.jpg" in page
    assert "Ladder" not in page


def test_the_report_shows_the_ladder_beside_the_lessons(workspace):
    _write_ladder(workspace)
    write_report(workspace)
    page = workspace.report.read_text()
    table = page[page.index("<h2>Ladder</h2>") :]
    naive, gained = (
        re.findall(r"<td[^>]*>([^<]*)</td>", row)
        for row in re.findall(r"<tr[^>]*><th scope=\"row\">(?:naive|auto against).*", table)
    )
    assert naive == ["5,680,362", "7,476,742", "90.0%", "82.0%", "2.50", "171.00", "20.00", "52.00"]
    assert gained == ["-99 %", "-91 %", "+3.0 points", "-3.0 points", "-80 %", "-61 %", "-95 %", "-58 %"]


def test_the_report_holds_the_ladders_picture_itself(workspace):
    _write_ladder(workspace)
    write_report(workspace)
    (source,) = re.findall(r'src="([^"]*)"', workspace.report.read_text())
    kind, content = source.split(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(content) == workspace.ladder_picture.read_bytes()
