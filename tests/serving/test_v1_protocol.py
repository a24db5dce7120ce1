"""The V1 protocol as TensorFlow Serving speaks it: https://www.tensorflow.org/tfx/serving/api_rest."""

from typing import Any

import httpx
import numpy as np
import pytest
from edge_bundles import IMAGE_SIZE, LABELS
from edge_requests import b64, probabilities_of
from edge_servers import MODEL_NAME, PREDICT

from serving.predictor import Predictor

MODEL = f"/v1/models/{MODEL_NAME}"
# The version of the session's bundle.
VERSION = "3"


# A request may begin with pixels, and have files behind them.
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [2, 0, 3, 1]])
def test_rows_take_all_forms_of_an_image(
    http: httpx.Client, predictor: Predictor, files: list[bytes], order: list[int]
) -> None:
    pixels = predictor.prepare(files[0]).tolist()
    instances = [{"b64": b64(files[0])}, {"image_bytes": {"b64": b64(files[1])}}, pixels, {"images": pixels}]
    response = http.post(PREDICT, json={"instances": [instances[index] for index in order]})
    expected = predictor.predict_images([files[0], files[1], files[0], files[0]])[order]
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    rows = response.json()["predictions"]
    assert [set(row) for row in rows] == [{"label", "probabilities"}] * 4
    np.testing.assert_array_equal(probabilities_of(response.json()), expected)
    assert [row["label"] for row in rows] == [LABELS[index] for index in expected.argmax(axis=1)]


@pytest.mark.parametrize("named", [True, False])
def test_columns_are_answered_by_columns(
    http: httpx.Client, predictor: Predictor, files: list[bytes], named: bool
) -> None:
    column = [{"b64": b64(data)} for data in files]
    response = http.post(PREDICT, json={"inputs": {"image_bytes": column} if named else column})
    expected = predictor.predict_images(files)
    outputs = response.json()["outputs"]
    assert set(response.json()) == {"outputs"}
    assert outputs["label"] == [LABELS[index] for index in expected.argmax(axis=1)]
    np.testing.assert_array_equal(np.array(outputs["probabilities"], np.float32), expected)


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
@pytest.mark.parametrize("signature", [{}, {"signature_name": "serving_images"}, {"signature_name": ""}])
def test_pixels_alone_are_read_from_any_json(
    http: httpx.Client, predictor: Predictor, files: list[bytes], signature: dict[str, str], separators: tuple[str, str]
) -> None:
    import json

    pixels = np.stack([predictor.prepare(data) for data in files])
    expected = predictor.predict(pixels)
    for key, answer in (("instances", "predictions"), ("inputs", "outputs")):
        body = json.dumps({**signature, key: pixels.tolist()}, separators=separators)
        response = http.post(PREDICT, content=body, headers={"content-type": "text/plain"})
        assert response.status_code == 200, response.text
        if answer == "predictions":
            np.testing.assert_array_equal(probabilities_of(response.json()), expected)
        else:
            np.testing.assert_array_equal(np.array(response.json()["outputs"]["probabilities"], np.float32), expected)


@pytest.mark.parametrize("of", ["", f"/versions/{VERSION}", "/labels/stable"])
def test_versions_and_labels_are_addressed(http: httpx.Client, files: list[bytes], of: str) -> None:
    body = {"instances": [{"b64": b64(files[0])}]}
    assert http.post(f"{MODEL}{of}:predict", json=body).json() == http.post(PREDICT, json=body).json()
    assert http.get(f"{MODEL}{of}").json() == {
        "model_version_status": [
            {"version": VERSION, "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        ]
    }
    metadata = http.get(f"{MODEL}{of}/metadata").json()
    assert metadata["model_spec"] == {"name": MODEL_NAME, "signature_name": "", "version": VERSION}


def test_metadata_describe_the_signatures_of_the_saved_model(http: httpx.Client) -> None:
    signatures = http.get(f"{MODEL}/metadata").json()["metadata"]["signature_def"]["signature_def"]
    assert set(signatures) == {"serving_default", "serving_images"}
    (image,) = signatures["serving_images"]["inputs"].values()
    assert image["dtype"] == "DT_UINT8"
    assert [int(dim["size"]) for dim in image["tensor_shape"]["dim"]] == [-1, IMAGE_SIZE, IMAGE_SIZE, 3]
    assert signatures["serving_default"]["inputs"]["image_bytes"]["dtype"] == "DT_STRING"
    outputs = signatures["serving_default"]["outputs"]
    assert {name: output["dtype"] for name, output in outputs.items()} == {
        "label": "DT_STRING",
        "probabilities": "DT_FLOAT",
    }


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/models/other:predict", 404),
        (f"{MODEL}/versions/4:predict", 404),
        (f"{MODEL}/versions/03:predict", 404),
        (f"{MODEL}/labels/canary:predict", 400),
        (f"{MODEL}:explain", 404),
        (f"{MODEL}:classify", 404),
    ],
)
def test_what_is_not_served_is_refused(http: httpx.Client, files: list[bytes], path: str, status: int) -> None:
    response = http.post(path, json={"instances": [{"b64": b64(files[0])}]})
    assert response.status_code == status
    assert set(response.json()) == {"error"}


def test_status_of_unknown_versions(http: httpx.Client) -> None:
    assert http.get(f"{MODEL}/versions/4").status_code == 404
    assert http.get(f"{MODEL}/versions/4/metadata").status_code == 404
    assert http.get(f"{MODEL}/labels/none").status_code == 400
    assert http.get(PREDICT).status_code == 405


@pytest.mark.parametrize(
    ("instance", "words"),
    [
        ({"b64": b64(b"no image")}, "not an image"),
        ({"b64": "???"}, "not base64"),
        ({"b64": 5}, "base64"),
        ({"image_bytes": {}}, "base64"),
        ({}, "base64"),
        ("text", "expected"),
        (None, "expected"),
        ([[1, 2], [3]], "whole numbers"),
        ([[[256] * 3] * IMAGE_SIZE] * IMAGE_SIZE, "whole numbers"),
        ([[[-1] * 3] * IMAGE_SIZE] * IMAGE_SIZE, "whole numbers"),
        ([[[0.5] * 3] * IMAGE_SIZE] * IMAGE_SIZE, "whole numbers"),
        ([[["a"] * 3] * IMAGE_SIZE] * IMAGE_SIZE, "whole numbers"),
        ([[[10**400] * 3] * IMAGE_SIZE] * IMAGE_SIZE, "not JSON|whole numbers"),
        ([], "whole numbers"),
    ],
)
def test_a_bad_instance_is_refused_by_its_index(
    http: httpx.Client, files: list[bytes], instance: object, words: str
) -> None:
    response = http.post(PREDICT, json={"instances": [{"b64": b64(files[0])}, instance]})
    assert response.status_code == 400
    error = response.json()["error"]
    assert any(word in error for word in words.split("|"))
    assert error.startswith("instance 1: ") or "JSON" in error


@pytest.mark.parametrize("pixel", [256, -1, 0.5, "7", None, 1000, [1]])
def test_bad_pixels_alone_are_refused(http: httpx.Client, pixel: object) -> None:
    image: list[Any] = np.zeros((IMAGE_SIZE, IMAGE_SIZE, 3), int).tolist()
    image[5][7][1] = pixel
    response = http.post(PREDICT, json={"instances": [image]})
    assert response.status_code == 400
    assert "instance 0: expected whole numbers 0 to 255" in response.json()["error"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"junk",
        b"null",
        b"[]",
        b"{}",
        b'{"instances": 3}',
        b'{"instances": []}',
        b'{"inputs": {}}',
        b'{"inputs": {"other": []}}',
        b'{"inputs": [], "instances": []}',
        b'{"instances": [{"b64": "AA=="}], "signature_name": "serving_examples"}',
        b'{"instances": [{"b64": "AA=="}], "signature_name": ["serving_default"]}',
        b"\xff",
    ],
)
@pytest.mark.parametrize("content_type", ["application/json", "image/jpeg"])
def test_a_body_that_is_no_request_is_refused(http: httpx.Client, body: bytes, content_type: str) -> None:
    response = http.post(PREDICT, content=body, headers={"content-type": content_type})
    assert response.status_code == 400
    assert set(response.json()) == {"error"}
