"""`POST /predict`: an image file, as a browser or curl sends it."""

import httpx
import numpy as np
import pytest
from edge_bundles import LABELS
from edge_servers import MODEL_NAME

from serving.predictor import Predictor


def test_the_body_is_the_image(http: httpx.Client, predictor: Predictor, files: list[bytes]) -> None:
    for content_type in ("image/jpeg", "application/octet-stream", "application/x-www-form-urlencoded"):
        answer = http.post("/predict", content=files[0], headers={"content-type": content_type})
        (expected,) = predictor.top(predictor.predict_images(files[:1]), 5)
        assert answer.status_code == 200
        assert answer.json() == {
            "label": expected[0].label,
            "probability": expected[0].probability,
            "classes": [{"label": label, "probability": probability} for label, probability in expected],
            "model": {"name": MODEL_NAME, "version": "3"},
        }


@pytest.mark.parametrize("field", ["image", "file", "anything"])
def test_a_form_brings_the_image(http: httpx.Client, files: list[bytes], field: str) -> None:
    form = http.post("/predict", files={field: ("photo.png", files[1], "image/png")}, data={"other": "field"})
    assert form.status_code == 200, form.text
    assert form.json() == http.post("/predict", content=files[1]).json()


def test_large_forms_are_read_whole(http: httpx.Client) -> None:
    # Larger than what a form's parser keeps in memory.
    import io

    from PIL import Image

    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    assert len(file.getvalue()) > 2_000_000
    form = http.post("/predict", files={"image": file.getvalue()})
    assert form.json() == http.post("/predict", content=file.getvalue()).json()


@pytest.mark.parametrize(("top", "count"), [("1", 1), ("2", 2), ("1000", len(LABELS))])
def test_as_many_classes_as_asked_for(http: httpx.Client, files: list[bytes], top: str, count: int) -> None:
    assert len(http.post(f"/predict?top={top}", content=files[0]).json()["classes"]) == count


@pytest.mark.parametrize("top", ["0", "-1", "1001", "x", "", "1e3"])
def test_other_numbers_of_classes_are_refused(http: httpx.Client, files: list[bytes], top: str) -> None:
    refused = http.post(f"/predict?top={top}", content=files[0])
    assert refused.status_code == 400
    assert refused.json() == {"error": "top must be a number from 1 to 1000"}


def test_a_form_without_a_file_is_refused(http: httpx.Client) -> None:
    multipart = {"content-type": "multipart/form-data; boundary=x"}
    content = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--x--\r\n'
    refused = http.post("/predict", content=content, headers=multipart)
    assert (refused.status_code, refused.json()) == (400, {"error": "the form has no file in it"})
