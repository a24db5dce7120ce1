"""The report of a real run in a real browser, and what other tools see of the run."""

import json
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2

from tests.e2e.commands import TRIMLINE, trimline

axe = pytest.importorskip("axe_playwright_python.sync_playwright")

pytestmark = pytest.mark.e2e

SECTIONS = ["Photos", "Training", "Acceleration", "Compression", "Layers", "Test photos", "Mistakes", "Gates"]
SECTIONS += ["Lineage", "Components", "Settings"]
WIDTHS = {"desktop": 1200, "phone": 390}


@pytest.fixture
def open_page(browser):
    """Opens a page from its file; whatever the browser complains of, or fetches, fails the test."""
    contexts, complaints = [], []

    def open_file(file, width=1200, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else complaints.append(r.url))
        page.goto(file.as_uri())
        page.wait_for_selector("html[data-ready]")
        return page

    yield open_file
    for context in contexts:
        context.close()
    assert complaints == []


def _brightness(page):
    """Returns the luma, 0 to 255, of the page and of the labels of its first chart."""
    return page.evaluate(
        """() => {
            const luma = colour => {
                const [r, g, b] = colour.match(/[0-9.]+/g).map(Number);
                return 0.299 * r + 0.587 * g + 0.114 * b;
            };
            const label = document.querySelector(".chart text");
            return [luma(getComputedStyle(document.body).backgroundColor), luma(getComputedStyle(label).fill)];
        }"""
    )


def test_the_first_screen_tells_the_verdict_and_its_figures(digits, open_page):
    out, _, summary, _ = digits
    page = open_page(out / "report" / "index.html")
    shipped = summary["shipped"]
    assert page.locator("h1").inner_text().endswith(f"Shipped: {shipped['name']}")
    accuracy, size = f"{100 * shipped['accuracy']:.2f} %", f"{shipped['bytes'] / 1000:.1f} kB"
    for text in (accuracy, size, f"{shipped['latency_ms']:.3f} ms"):
        tile = page.locator(".tiles strong", has_text=text).first
        assert tile.bounding_box()["y"] < 900
    assert page.locator("h2").all_inner_texts() == SECTIONS
    assert page.get_by_text("could not be").count() == 0


@pytest.mark.parametrize("name", WIDTHS)
def test_every_chart_is_drawn_and_nothing_juts_out(digits, open_page, tmp_path, name):
    out, _, _, _ = digits
    page = open_page(out / "report" / "index.html", width=WIDTHS[name])
    charts = page.locator(".chart")
    assert charts.count() >= 8
    for chart in charts.all():
        assert chart.locator("svg").bounding_box()["height"] > 30
    assert page.evaluate("document.documentElement.scrollWidth") == WIDTHS[name]
    assert all(page.locator(".photos img").evaluate_all("images => images.map(image => image.naturalWidth > 0)"))
    page.screenshot(path=tmp_path / f"{name}.png", full_page=True)


def test_hovering_over_a_variant_tells_its_figures(digits, open_page):
    out, _, summary, _ = digits
    page = open_page(out / "report" / "index.html")
    points = page.locator("#chart-pareto .mark-symbol.role-mark path")
    assert points.count() == len(summary["variants"])
    points.last.hover(force=True)
    tooltip = page.locator("#vg-tooltip-element.visible")
    tooltip.wait_for()
    names = {variant["name"] for variant in summary["variants"]}
    assert names & set(tooltip.locator("td.value").all_inner_texts())
    assert page.locator("#chart-pareto text", has_text="budget: at least").count() == 1


def test_the_mistakes_are_those_that_the_gate_counted(digits, open_page):
    out, _, summary, _ = digits
    page = open_page(out / "report" / "index.html")
    (measured,) = (e for e in summary["gates"]["evaluations"] if (e["gate"], e["artifact"]) == ("fidelity", "tflite"))
    matrix = measured["confusion_matrix"]["candidate"]
    wrong = sum(map(sum, matrix)) - sum(row[index] for index, row in enumerate(matrix))
    lost = sum(each["only_baseline_right"] for each in measured["slices"]["class"].values())
    lists = page.locator("#mistakes .photos").all()
    assert [each.locator("li").count() for each in lists] == [min(count, 24) for count in (wrong, lost) if count]
    for text in page.locator("#mistakes li").all_inner_texts():
        true, answer = text.splitlines()[0].split(", not ")
        assert matrix[measured["confusion_matrix"]["labels"].index(true)][
            measured["confusion_matrix"]["labels"].index(answer)
        ]


def test_light_dark_and_print_can_all_be_read(digits, open_page, tmp_path):
    out, _, _, _ = digits
    paper, ink = _brightness(open_page(out / "report" / "index.html"))
    assert paper > 200 > 100 > ink
    page = open_page(out / "report" / "index.html", scheme="dark")
    paper, ink = _brightness(page)
    assert paper < 60 < 180 < ink
    page.emulate_media(media="print")
    paper, ink = _brightness(page)
    assert paper > 200 > 100 > ink
    page.emulate_media(media="screen")
    assert page.locator("details[open]").count() == 0
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    assert len(page.pdf(path=tmp_path / "report.pdf")) > 50_000


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(digits, open_page, scheme):
    out, _, _, _ = digits
    page = open_page(out / "report" / "index.html", scheme=scheme)
    violations = axe.Axe().run(page).response["violations"]
    assert [(v["id"], v["nodes"][0]["html"][:200]) for v in violations if v["impact"] in ("serious", "critical")] == []


def test_the_report_is_rebuilt_from_the_metadata(digits, open_page):
    out, _, summary, _ = digits
    file = out / "report" / "index.html"
    file.unlink()
    answer = trimline("report", out, "--no-open")
    assert (answer.returncode, answer.stdout.strip(), answer.stderr) == (0, str(file), "")
    assert open_page(file).locator("h1").inner_text().endswith(summary["shipped"]["name"])
    card = json.loads((out / "report" / "model_card.json").read_text())
    assert card["model_details"]["bytes"] == summary["shipped"]["bytes"]


def test_two_runs_are_compared(digits, open_page, tmp_path):
    out, _, _, _ = digits
    first, second = sorted(path.stem for path in (out / "report" / "runs").iterdir())[:2]
    answer = trimline("compare", first, second, "--output", out, "--html", tmp_path / "comparison.html")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert first in answer.stdout
    page = open_page(tmp_path / "comparison.html")
    assert page.locator("h1").inner_text() == f"{first} and {second}"
    assert page.locator(".chart svg").count() == 2
    assert trimline("compare", first, "never", "--output", out).returncode == 2


def test_tensorboard_shows_the_scalars(digits):
    out, _, summary, _ = digits
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/data/plugin/scalars"
    process = subprocess.Popen(
        [TRIMLINE, "tensorboard", str(out), "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        tags = _scalars(url, process)
        (run,) = (run for run in tags if run.endswith("/validation"))
        assert {"epoch_accuracy", "epoch_loss"} <= tags[run].keys()
        points = httpx.get(f"{url}/scalars", params={"run": run, "tag": "epoch_accuracy"}, timeout=30).json()
        assert [value for _, _, value in points] == pytest.approx(summary["model"]["history"]["val_accuracy"])
    finally:
        process.terminate()
        process.wait(20)
    assert trimline("tensorboard", out / "report").returncode == 2


def _scalars(url, process):
    """Asks TensorBoard for its tags until it has read the logs."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        try:
            tags = httpx.get(f"{url}/tags", timeout=30).json()
        except httpx.TransportError:
            tags = {}
        if tags:
            return tags
        time.sleep(0.5)
    raise AssertionError("TensorBoard shows nothing")


def test_the_metadata_store_opens_in_a_plain_client(digits):
    out, _, summary, _ = digits
    config = metadata_store_pb2.ConnectionConfig()
    config.sqlite.filename_uri = str(out / "metadata.db")
    store = MetadataStore(config)
    assert summary["run"] in {context.name for context in store.get_contexts_by_type("pipeline_run")}
    models = store.get_artifacts_by_type("Model")
    assert models
    assert all(Path(model.uri).is_dir() for model in models)
