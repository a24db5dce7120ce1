"""trimline compare: two summaries side by side."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.report.comparison import compare, read_run
from pipeline.workspace import Workspace
from tests.run_summaries import failed, summary
from trainer_module.errors import UserError

TRIMLINE = Path(sys.executable).with_name("trimline")


@pytest.fixture
def output(tmp_path):
    """An output directory in which two runs have finished."""
    workspace = Workspace(tmp_path / "out")
    workspace.prepare()
    for run, content in (("run-1", summary()), ("run-2", _better())):
        text = json.dumps(content | {"run": run})
        (workspace.run_summaries / f"{run}.json").write_text(text)
        workspace.summary_file.write_text(text)
    return workspace.root


def _better():
    content = summary()
    shipped = content["shipped"] | {"accuracy": 0.95, "bytes": 35_000, "class_accuracy": {"cat": 0.9, "dog": 1.0}}
    settings = content["settings"] | {"trainer": {"epochs": 9}}
    return content | {"shipped": shipped, "settings": settings}


def test_figures_settings_and_classes_are_set_side_by_side():
    comparison = compare(summary(), _better())
    figures = {row.name: (*row.values, row.difference) for row in comparison.figures}
    assert figures["Test accuracy"] == ("90.00 %", "95.00 %", "+5.00 points")
    assert figures["Bytes"] == ("70,000", "35,000", "-50.0 %")
    assert figures["Parameters"] == ("52,426", "52,426", "same")
    assert [(row.name, row.values) for row in comparison.settings] == [("trainer.epochs", ("7", "9"))]
    assert [(row.name, row.difference) for row in comparison.classes] == [("dog", "+10.00 points"), ("cat", "same")]


def test_a_run_that_failed_has_dashes():
    figures = {row.name: row for row in compare(summary(), failed()).figures}
    assert figures["Bytes"].values == ("70,000", "–")  # noqa: RUF001 (a dash for no value)
    assert figures["Bytes"].difference == ""


def test_a_run_is_found_by_its_directory_and_by_its_id(output):
    assert read_run(str(output), output)["run"] == "run-2"
    assert read_run("run-1", output)["run"] == "run-1"


@pytest.mark.parametrize("name", ["run-3", "../summary", ""])
def test_what_is_no_run_is_refused_with_the_runs_that_there_are(output, name):
    with pytest.raises(UserError, match=r"neither an output directory nor a run; runs of .*: run-1, run-2"):
        read_run(name, output)


def test_a_directory_without_a_finished_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="no run has finished there"):
        read_run(str(tmp_path), tmp_path)


def test_a_broken_summary_is_refused_by_name(output):
    (output / "report" / "runs" / "run-1.json").write_text("{")
    with pytest.raises(UserError, match=r"run-1\.json: cannot be read"):
        read_run("run-1", output)


def test_the_command_prints_tables_and_writes_the_page(output):
    answer = CliRunner().invoke(app, ["compare", "run-1", "run-2", "--output", str(output)])
    assert answer.exit_code == 0, answer.output
    assert "+5.00 points" in answer.stdout
    page = (output / "report" / "comparison.html").read_text()
    assert "+5.00 points" in page
    assert '<script type="application/json" data-chart="chart-variants">' in page


def test_names_of_classes_are_printed_as_they_are(output):
    names = ["[/x]", "a [b]", ":cat:"]
    for run, accuracy in (("run-3", 0.5), ("run-4", 0.75)):
        content = summary(names) | {"run": run}
        shipped = content["shipped"] | {"class_accuracy": dict.fromkeys(names, accuracy)}
        (output / "report" / "runs" / f"{run}.json").write_text(json.dumps(content | {"shipped": shipped}))
    answer = CliRunner().invoke(app, ["compare", "run-3", "run-4", "--output", str(output)])
    assert answer.exit_code == 0, answer.output
    lines = answer.stdout.splitlines()
    for name in names:
        assert any(line.startswith(f"{name} ") and "+25.00 points" in line for line in lines), answer.stdout


def test_a_page_that_is_a_directory_is_refused_by_name(output):
    command = [TRIMLINE, "compare", "run-1", "run-2", "--output", output, "--html", "."]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=output)
    assert result.returncode == 2, result.stderr
    assert result.stderr == "trimline: .: cannot be written: Is a directory; choose another --html\n"
