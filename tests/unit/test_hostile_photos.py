"""Every kind of hostile photo is used rightly or refused with a reason, within bounds of memory and time."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import tensorflow as tf

from components.image_example_gen.engine.check import check as check_folder
from components.image_example_gen.engine.decoding import LoadedImage, Rejected, load_image
from components.image_example_gen.engine.listing import list_images
from components.image_example_gen.engine.quarantine import printable
from components.image_example_gen.engine.settings import IngestSettings
from serving.jpeg_scans import has_more_scans
from tests.hostile_photos import BASE, MAX_PIXELS, MAX_SIDE, Kind, kinds, scan_bomb, write_kinds
from tests.image_files import MOST_BYTES_PER_PIXEL, deep_jpeg2000, encoded, jpeg, picture, write, write_tree

TRIMLINE = Path(sys.executable).with_name("trimline")
KINDS = kinds()


def check_pixels(encoded: bytes, kind: Kind) -> None:
    decoded = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE").numpy()
    assert kind.pixels is not None
    assert decoded.shape == kind.pixels.shape
    assert np.abs(decoded.astype(int) - kind.pixels).max() <= kind.tolerance


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: printable(os.fsdecode(kind.name))[:40])
def test_each_kind_is_used_rightly_or_refused_with_a_reason(kind: Kind) -> None:
    started = time.perf_counter()
    outcome = load_image(kind.content, MAX_SIDE, MAX_PIXELS)
    assert time.perf_counter() - started < 10
    if kind.pixels is not None:
        assert isinstance(outcome, LoadedImage), outcome
        check_pixels(outcome.encoded, kind)
    else:
        assert isinstance(outcome, Rejected)
        assert outcome.reason.isprintable()
        assert re.search(kind.reason, outcome.reason), outcome.reason


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All kinds of files, and of what a folder can hold besides."""
    root = tmp_path_factory.mktemp("corpus") / "photos"
    write_kinds(root / "odd", KINDS)
    write_tree(root, {"plain": 12, "single": 1, "plain/x.jpg": 2, "Plain": 3, "empty": 0}, first=500)
    (root / "empty").mkdir()
    write(root / "single" / "copy-of-plain.jpg", (root / "plain" / "000.jpg").read_bytes())
    for name in (
        "odd/.hidden.jpg",
        "odd/Thumbs.db",
        "odd/desktop.ini",
        "__MACOSX/x.jpg",
        "odd/notes.txt",
        "odd/film.mov",
    ):
        write(root / name, b"x")
    outside = write(root.parent / "outside" / "x.jpg", jpeg(BASE))
    (root / "odd" / "link-inside.jpg").symlink_to(root / "plain" / "001.jpg")
    (root / "odd" / "link-outside.jpg").symlink_to(outside)
    (root / "odd" / "link-broken.jpg").symlink_to("nowhere.jpg")
    (root / "odd" / "link-to-itself.jpg").symlink_to("link-to-itself.jpg")
    (root / "odd" / "loop").symlink_to(root)
    os.mkfifo(root / "odd" / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as unix:
        # Such addresses are short.
        here = Path.cwd()
        os.chdir(root / "odd")
        try:
            unix.bind("socket.jpg")
        finally:
            os.chdir(here)
    write(root / "stray.jpg", jpeg(BASE))
    return root


REFUSED_BY_LISTING = {
    "odd/link-outside.jpg": "symbolic link that leaves the data folder",
    "odd/link-broken.jpg": "broken symbolic link",
    "odd/link-to-itself.jpg": "broken symbolic link",
    "odd/loop": "symbolic link to a folder, not followed",
    "odd/pipe.jpg": "a device, pipe or socket, not a regular file",
    "odd/socket.jpg": "a device, pipe or socket, not a regular file",
    "stray.jpg": "lies in no class folder",
}


def check(folder: Path, *options: str) -> tuple[int, dict]:
    command = [TRIMLINE, "data", "check", folder, "--json", *options]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert result.stderr.count("\n") == (result.returncode == 2), result.stderr
    return result.returncode, json.loads(result.stdout)


@pytest.mark.component  # A process that loads TensorFlow, over 200 files.
def test_data_check_names_every_file_that_would_be_quarantined(corpus: Path) -> None:
    status, found = check(corpus, "--set", f"data.max_pixels={MAX_PIXELS}", "--set", "data.max_quarantined=0.9")
    assert status == 0
    assert found["accepted"]
    reasons = {item["path"]: item["reason"] for item in found["quarantine"]}
    expected = {f"odd/{printable(os.fsdecode(kind.name))}": kind.reason for kind in KINDS if kind.pixels is None}
    assert reasons.keys() == expected.keys() | REFUSED_BY_LISTING.keys()
    for path, reason in (expected | REFUSED_BY_LISTING).items():
        assert re.search(reason, reasons[path]), path
    counts = found["images"]
    used = sum(kind.pixels is not None for kind in KINDS)
    # 12 + 1 + 2 + 3 plain ones, a copy and a link.
    assert counts == {"read": used + 20 + len(reasons), "used": used + 20, "quarantined": len(reasons), "ignored": 6}
    warnings = "\n".join(found["warnings"])
    assert "class folders without images, left out: empty" in warnings
    assert "differ in nothing but upper and lower case: Plain, plain" in warnings
    assert "1 images lie in more than one class folder; first: odd/link-inside.jpg, plain/001.jpg" not in warnings
    assert "2 images lie in more than one class folder" in warnings

    status, found = check(corpus)
    assert status == 2
    assert "the limit is 10.0%" in found["refusal"]


@pytest.mark.component  # Two processes that load TensorFlow.
def test_data_check_of_a_folder_that_is_none(tmp_path: Path) -> None:
    status, found = check(tmp_path / "nowhere")
    assert status == 2
    assert "no such folder" in found["refusal"]
    plain = subprocess.run([TRIMLINE, "data", "check", tmp_path], capture_output=True, text=True, timeout=300)
    assert (plain.returncode, plain.stdout, plain.stderr.count("\n")) == (2, "", 1)


def test_files_without_permission_are_quarantined() -> None:
    # The folders that pytest hands out cannot be entered by another user.
    with TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        path = write(Path(name) / "secret.jpg", jpeg(BASE))
        path.chmod(0)
        user = os.geteuid()
        os.seteuid(65_534 if user == 0 else user)
        try:
            outcome = load_image(path, MAX_SIDE, MAX_PIXELS)
        finally:
            os.seteuid(user)
    assert outcome == Rejected("cannot be read (Permission denied)")


_MEASURE = """
import re, sys
from pathlib import Path
from components.image_example_gen.engine.decoding import load_image
folder, limit = Path(sys.argv[1]), int(sys.argv[2])
files = sorted(folder.iterdir(), key=lambda path: path.stat().st_size)
load_image(files[0], 1024, limit)
def peak():
    # Not ru_maxrss, in which Linux counts the peak of whoever started this process.
    return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
before = peak()
for path in files:
    load_image(path, 1024, limit)
print(peak() - before)
"""


def growth(folder: Path, max_pixels: int) -> int:
    """Returns by how many bytes the memory of a process grows that reads all files of a folder."""
    command = [sys.executable, "-W", "ignore", "-c", _MEASURE, folder, str(max_pixels)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    return int(result.stdout)


@pytest.mark.component  # Two processes that load TensorFlow.
def test_memory_is_bounded_by_the_pixels_that_are_allowed(tmp_path: Path) -> None:
    write_kinds(tmp_path / "kinds", [kind for kind in KINDS if kind.name != b"nothing.jpg"])
    # The largest file of the corpus has a hundred megapixels, of which each takes three bytes.
    assert growth(tmp_path / "kinds", MAX_PIXELS) < 150 * 2**20
    side = 3000
    rgba = np.dstack([picture(side, side), np.full((side, side), 200, np.uint8)])
    deep = np.broadcast_to(np.arange(side, dtype=np.uint16)[:, None], (side, side))
    large = (encoded(rgba, compress_level=1), encoded(deep), jpeg(rgba[..., :3]), deep_jpeg2000(side, side))
    for number, content in enumerate(large):
        write(tmp_path / "large" / f"{number}.png", content)
    assert growth(tmp_path / "large", side * side) < MOST_BYTES_PER_PIXEL * side * side


def test_scans_are_counted_up_to_the_end_of_the_picture() -> None:
    assert has_more_scans(scan_bomb(300), 200)
    assert not has_more_scans(jpeg(BASE, progressive=True), 200)
    assert not has_more_scans(jpeg(BASE) + b"\xff\xda\0\2" * 300, 200)
    assert not has_more_scans(b"\xff\xda\0\2" * 300, 200)


@pytest.mark.component  # Five thousand files.
def test_five_thousand_classes(tmp_path: Path) -> None:
    write_tree(tmp_path, {f"class {number:04d}": 1 for number in range(4_999)}, 8, 8)
    write_tree(tmp_path, {"class 4999": 3}, 8, 8, first=5_000)
    finding = check_folder(list_images(tmp_path), IngestSettings(), lambda *_: None)
    assert finding.refusal is None
    assert len(finding.outcome.statistics.splits["train"]) == 5_000
    assert sum(map(len, finding.outcome.statistics.splits.values())) == 5_002
