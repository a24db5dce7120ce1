"""Random photos and folders: nothing makes ingest raise, hang, or lose a file."""

import os
import subprocess
import sys
import unicodedata
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from components.image_example_gen.engine.decoding import LoadedImage, Rejected, load_image
from components.image_example_gen.engine.listing import list_images
from components.image_example_gen.engine.settings import IngestSettings
from components.image_example_gen.engine.shards import plan_chunks, read_chunk
from components.image_example_gen.engine.statistics import summarise
from tests.image_files import encoded, jpeg, picture
from trainer_module.errors import UserError

ROOT = Path(__file__).parents[2]
# The same examples in every run, so that a run that passes today passes tomorrow.
BOUNDED = settings(
    max_examples=150, deadline=10_000, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
BASE = picture(20, 12)
SEEDS = (
    jpeg(BASE),
    jpeg(BASE, progressive=True),
    encoded(BASE),
    encoded(BASE, "GIF"),
    encoded(BASE, "WEBP"),
    encoded(BASE, "TIFF"),
    encoded(BASE, "BMP"),
    encoded(BASE, "AVIF"),
    encoded(BASE, "JPEG2000"),
)


@st.composite
def damaged_files(draw: st.DrawFn) -> bytes:
    """Draws a real file in which some spots are overwritten, cut out or doubled."""
    content = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(content)))
        length = draw(st.integers(0, 40))
        match draw(st.sampled_from(("overwrite", "cut", "double", "end"))):
            case "overwrite":
                content[at : at + length] = draw(st.binary(max_size=length))
            case "cut":
                del content[at : at + length]
            case "double":
                content[at:at] = content[at : at + length]
            case "end":
                del content[at:]
    return bytes(content)


def check(content: bytes) -> None:
    outcome = load_image(content, 64, 10_000)
    if isinstance(outcome, Rejected):
        assert outcome.reason
        assert outcome.reason.isprintable()
    else:
        # What is stored is read again to the very size that is recorded, by the reader that training uses.
        again = load_image(outcome.encoded, 64, 10_000)
        assert isinstance(again, LoadedImage)
        assert (again.width, again.height) == (outcome.width, outcome.height)
        assert max(outcome.width, outcome.height) <= 64
        assert outcome.source_width * outcome.source_height <= 10_000


@BOUNDED
@given(st.binary(max_size=300))
def test_any_bytes(content: bytes) -> None:
    check(content)


@BOUNDED
@given(damaged_files())
def test_any_damage(content: bytes) -> None:
    check(content)


# Whatever a file system allows but "/", and what means something to ingest more often than by chance.
NAMES = st.one_of(
    st.binary(min_size=1, max_size=12).filter(lambda name: b"\0" not in name and b"/" not in name),
    st.sampled_from((b"train", b"test", b"val", b"a", b"A", b"Thumbs.db", b".x", b"x.jpg", b"two words.png")),
).filter(lambda name: name not in (b".", b".."))
ENDINGS = st.sampled_from((b".jpg", b".PNG", b".txt", b"", b".heic"))
TREES = st.lists(
    st.tuples(st.lists(NAMES, max_size=3), NAMES, ENDINGS, st.sampled_from((*SEEDS[:3], b"", b"<html>"))), max_size=12
)


@BOUNDED
@given(TREES)
def test_any_folder(tree: list[tuple[list[bytes], bytes, bytes, bytes]]) -> None:
    with TemporaryDirectory() as name:
        written = sum(_write(bytes(Path(name)), *file) for file in tree)
        try:
            listing = list_images(name)
        except UserError as error:
            event("refused as a whole")
            # One line for a terminal. Private and joining characters are rare, but names may have them.
            assert "Cc" not in map(unicodedata.category, str(error))  # noqa: PT017 (one of two good ends)
            return
        chunks = plan_chunks(listing, IngestSettings(), {})
        summaries = [read_chunk(chunk) for chunk in chunks]
        outcome = summarise(listing.overview(), lambda: iter(summaries))
    images = outcome.statistics.images
    assert images.read == images.used + images.quarantined
    hidden = sum(any(part.startswith(b".") or part == b"Thumbs.db" for part in folders) for folders, *_ in tree)
    # Files in ignored folders are not counted one by one.
    assert written - hidden <= images.read + images.ignored <= written + len(tree) * 3
    paths = Counter([record.path for summary in summaries for record in summary.records])
    paths.update(item.path for item in outcome.quarantined)
    assert set(paths.values()) <= {1}


def _write(root: bytes, folders: list[bytes], stem: bytes, ending: bytes, content: bytes) -> bool:
    """Writes a file if nothing is in its way; tells whether there is one more now."""
    path = Path(*map(os.fsdecode, (root, *folders, stem + ending)))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.write(content)
    except OSError:
        return False
    return True


@pytest.mark.component  # A process that loads TensorFlow, then ten seconds of fuzzing.
def test_coverage_guided_fuzzing_finds_nothing(tmp_path: Path) -> None:
    for number, seed in enumerate(SEEDS):
        (tmp_path / str(number)).write_bytes(seed)
    command = [sys.executable, "-m", "tests.fuzz_ingest", "-max_total_time=10", "-max_len=4096", "-seed=1", tmp_path]
    # A shell between: Linux counts the peak memory of whoever started a process as that process's own, and libFuzzer
    # would take the tests' for a fault of what it tries.
    command = ["sh", "-c", '"$@"; exit $?', "sh", *command]
    result = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=600, cwd=ROOT)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "INITED" in result.stderr
    # Inputs that reached something new were added to the corpus, so it was guided indeed.
    assert len(list(tmp_path.iterdir())) > len(SEEDS)
