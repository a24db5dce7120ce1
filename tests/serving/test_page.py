"""The web page in a real browser."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from edge_images import encode, photo
from edge_servers import MODEL_NAME, RunningServer, run_server

from serving.predictor import Predictor

playwright = pytest.importorskip("playwright.sync_api")

pytestmark = pytest.mark.component


@pytest.fixture
def page(browser: "playwright.Browser", server: RunningServer) -> Iterator["playwright.Page"]:
    """The page of the server; whatever the browser complains of, or fetches from elsewhere, fails the test."""
    context = browser.new_context(viewport={"width": 800, "height": 900})
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on(
        "request", lambda r: None if r.url.startswith((server.url, "blob:")) else complaints.append(f"asked {r.url}")
    )
    opened.goto(server.url)
    yield opened
    context.close()
    assert [complaint for complaint in complaints if "400 (Bad Request)" not in complaint] == []


def _photo_file(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(encode(photo(np.random.default_rng(2), 200, 300), "JPEG"))
    return path


def _assert_shows_answer(page: "playwright.Page", path: Path, predictor: Predictor) -> None:
    page.wait_for_selector(".class")
    (expected,) = predictor.top(predictor.predict_images([path.read_bytes()]), 5)
    assert page.locator(".label").all_inner_texts() == [scored.label for scored in expected]
    shares = [f"{100 * scored.probability:.1f} %" for scored in expected]
    assert page.locator(".share").all_inner_texts() == shares
    widths = [bar.bounding_box()["width"] for bar in page.locator(".bar").all()]
    track = page.locator(".track").first.bounding_box()["width"]
    np.testing.assert_allclose(widths, [scored.probability * track for scored in expected], atol=1)
    assert page.locator("#photo").evaluate("photo => photo.complete && photo.naturalWidth") == 300
    assert page.locator("#model").inner_text() == f"{MODEL_NAME}, version 3"


def test_a_chosen_photo_is_classified(page: "playwright.Page", tmp_path: Path, predictor: Predictor) -> None:
    path = _photo_file(tmp_path)
    page.set_input_files("#file", path)
    _assert_shows_answer(page, path, predictor)
    page.screenshot(path=tmp_path / "page.png")


def test_a_dropped_photo_is_classified(page: "playwright.Page", tmp_path: Path, predictor: Predictor) -> None:
    path = _photo_file(tmp_path)
    transfer = page.evaluate_handle(
        """bytes => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], "photo.jpg", { type: "image/jpeg" }));
            return transfer;
        }""",
        list(path.read_bytes()),
    )
    page.dispatch_event("#drop", "dragover", {"dataTransfer": transfer})
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})
    _assert_shows_answer(page, path, predictor)


def test_what_is_no_photo_is_explained(page: "playwright.Page", tmp_path: Path, predictor: Predictor) -> None:
    (tmp_path / "text.jpg").write_text("no photo")
    page.set_input_files("#file", tmp_path / "text.jpg")
    page.wait_for_selector(".error")
    assert re.search("not an image of a known format", page.locator("#answer").inner_text())
    assert not page.locator("#photo").is_visible()
    path = _photo_file(tmp_path)
    page.set_input_files("#file", path)
    _assert_shows_answer(page, path, predictor)


def test_the_page_asks_for_the_key(
    browser: "playwright.Browser", uint8_bundle: Path, tmp_path: Path, predictor: Predictor
) -> None:
    path = _photo_file(tmp_path)
    environment = {"TRIMLINE_API_KEY": "secret"}
    with run_server(uint8_bundle, tmp_path / "log.txt", environment=environment) as running:
        page = browser.new_page()
        page.goto(running.url)
        assert not page.locator("#key").is_visible()
        page.set_input_files("#file", path)
        page.wait_for_selector("#key")
        page.fill("#key", "secret")
        page.press("#key", "Tab")
        _assert_shows_answer(page, path, predictor)
        page.close()
