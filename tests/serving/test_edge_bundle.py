"""The pushed bundle: what is accepted, what is refused, and with which words."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edge_bundles import IMAGE_SIZE, LABELS, change_manifest

from serving.bundle import find_bundle, latest_version, load_bundle
from serving.errors import ServingError


def _replace(path: Path, content: bytes) -> None:
    """Changes a file together with its digest in model.json."""
    path.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    change_manifest(path.parent, lambda manifest: manifest["sha256"].update({path.name: digest}))


def _version(base: Path, name: str, *, complete: bool = True) -> Path:
    version = base / name
    version.mkdir(parents=True)
    if complete:
        (version / "model.json").write_text("{}")
    return version


def test_load_reads_the_whole_contract(uint8_bundle: Path) -> None:
    bundle = load_bundle(uint8_bundle)
    assert bundle.labels == tuple(LABELS)
    assert bundle.image_size == IMAGE_SIZE
    assert bundle.model == (uint8_bundle / "model.tflite").read_bytes()
    assert bundle.manifest.input.dtype == bundle.manifest.output.dtype == "uint8"
    assert bundle.manifest.lineage["model"] == 7


@pytest.mark.parametrize("name", ["model.tflite", "labels.txt", "model.json"])
def test_a_missing_file_is_named(make_bundle: Callable[[str], Path], name: str) -> None:
    directory = make_bundle("uint8")
    (directory / name).unlink()
    with pytest.raises(ServingError, match=rf"{name}: missing"):
        load_bundle(find_bundle(directory))


@pytest.mark.parametrize("name", ["model.tflite", "labels.txt"])
def test_a_changed_byte_is_found(make_bundle: Callable[[str], Path], name: str) -> None:
    path = make_bundle("uint8") / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ServingError, match=rf"{name}: its sha256"):
        load_bundle(path.parent)


def test_a_truncated_model_is_found_by_its_digest(make_bundle: Callable[[str], Path]) -> None:
    path = make_bundle("uint8") / "model.tflite"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ServingError, match=r"model\.tflite: its sha256"):
        load_bundle(path.parent)


@pytest.mark.parametrize(
    "content",
    [
        b"dog\ncat\nllama\n",
        b"cat\ndog\n",
        b"cat\ndog\nllama\nemu\n",
        b"cat\ndog\nllama\n\n",
        b"cat\r\ndog\r\nllama\r\n",
    ],
    ids=["swapped", "short", "long", "blank", "crlf"],
)
def test_labels_must_equal_those_of_the_manifest(make_bundle: Callable[[str], Path], content: bytes) -> None:
    directory = make_bundle("uint8")
    _replace(directory / "labels.txt", content)
    with pytest.raises(ServingError, match=r"labels\.txt: its labels or their order differ"):
        load_bundle(directory)


def test_labels_must_be_utf8(make_bundle: Callable[[str], Path]) -> None:
    directory = make_bundle("uint8")
    _replace(directory / "labels.txt", b"cat\nd\xf6g\nllama\n")
    with pytest.raises(ServingError, match=r"labels\.txt: not UTF-8"):
        load_bundle(directory)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.update(format_version=2), "format_version"),
        (lambda m: m.pop("output"), "output: Field required"),
        (lambda m: m["input"].update(dtype="int16"), "input.dtype"),
        (lambda m: m["input"].update(scale=None), "scale and zero_point"),
        (lambda m: m["input"].update(image_size=32), "image_size"),
        (lambda m: m["labels"].append("emu"), "4 labels"),
        (lambda m: m["sha256"].pop("model.tflite"), "model.tflite: its sha256"),
    ],
)
def test_a_manifest_that_breaks_the_format_is_explained(
    make_bundle: Callable[[str], Path], change: Callable[[dict[str, Any]], None], words: str
) -> None:
    directory = make_bundle("uint8")
    change_manifest(directory, change)
    with pytest.raises(ServingError) as caught:
        load_bundle(directory)
    assert words in str(caught.value)
    assert str(directory) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]"])
def test_a_manifest_that_is_not_an_object_is_explained(make_bundle: Callable[[str], Path], content: bytes) -> None:
    path = make_bundle("uint8") / "model.json"
    path.write_bytes(content)
    with pytest.raises(ServingError, match=r"model\.json: not"):
        load_bundle(path.parent)


def test_latest_version_is_the_highest_number(tmp_path: Path) -> None:
    for name in ("9", "10", "2"):
        _version(tmp_path, name)
    _version(tmp_path, "11", complete=False)
    for name in (".staging-12", "13-old", "v14", "٣٣"):
        _version(tmp_path, name)
    (tmp_path / "15").write_text("a file")
    assert latest_version(tmp_path) == tmp_path / "10"


def test_no_version_and_no_folder_are_explained(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="no pushed model"):
        latest_version(tmp_path)
    with pytest.raises(ServingError, match="no such folder"):
        latest_version(tmp_path / "nowhere")


def test_a_bundle_is_found_from_all_three_places(tmp_path: Path) -> None:
    base = tmp_path / "pushed" / "tflite"
    _version(base, "1")
    newest = _version(base, "2")
    assert find_bundle(tmp_path) == find_bundle(base) == find_bundle(newest) == newest


def test_the_manifest_is_plain_json(uint8_bundle: Path) -> None:
    assert json.loads((uint8_bundle / "model.json").read_text())["format_version"] == 1
