"""Pictures that look the same, and what of them is reported."""

import base64
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from components.image_example_gen.engine import duplicates, likeness
from components.image_example_gen.engine.duplicates import Leak, Signatures, find_repetitions
from components.image_example_gen.engine.listing import list_images
from components.image_example_gen.engine.settings import IngestSettings
from components.image_example_gen.engine.shard_summary import Record
from components.image_example_gen.engine.shards import plan_chunks, read_chunk
from components.image_example_gen.engine.statistics import Outcome, summarise
from tests.image_files import encoded, jpeg, write, write_tree


def photo(seed: int, side: int = 96) -> Image.Image:
    """Returns a picture with coarse and fine structure, unlike any of another seed."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8)).resize((side, side)), float)
        for cells in (4, 9, 20)
    ]
    return Image.fromarray(np.clip(np.average(layers, axis=0, weights=(4, 2, 1)), 0, 255).astype(np.uint8))


def reencoded(image: Image.Image, quality: int) -> Image.Image:
    return Image.open(io.BytesIO(jpeg(image, quality=quality))).convert("RGB")


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "re-encoded": lambda image: reencoded(image, 60),
    "halved": lambda image: image.resize((48, 48), Image.Resampling.LANCZOS),
    "enlarged": lambda image: image.resize((150, 150), Image.Resampling.BICUBIC),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "of another format": lambda image: Image.open(io.BytesIO(encoded(image, "WEBP", quality=80))).convert("RGB"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_are_alike(change: str) -> None:
    found = sum(
        likeness.alike(
            likeness.describe(photo(seed).convert("L")), likeness.describe(CHANGES[change](photo(seed)).convert("L"))
        )
        for seed in range(40)
    )
    assert found >= 38


def test_other_pictures_are_not_alike() -> None:
    described = [likeness.describe(photo(seed).convert("L")) for seed in range(100)]
    assert not any(likeness.alike(a, b) for at, a in enumerate(described) for b in described[:at])


def test_an_even_surface_is_like_nothing() -> None:
    noise = np.random.default_rng(0).integers(99, 102, (60, 60), np.uint8)
    assert likeness.describe(Image.fromarray(noise)) == ""


def test_close_hashes_are_found_as_by_comparing_all() -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2**64, 300, np.uint64)
    flipped = [value ^ np.uint64(1 << int(bit)) for value in base for bit in rng.integers(0, 64, 3)]
    twice = [
        value ^ np.uint64((1 << int(bit)) | 1) for value, bit in zip(flipped, rng.integers(0, 64, 900), strict=True)
    ]
    unique = np.unique(np.concatenate([base, flipped, twice]).astype(np.uint64))
    expected = {
        (at, at + 1 + int(other))
        for at in range(len(unique))
        for other in np.flatnonzero([int(x).bit_count() <= 4 for x in unique[at + 1 :] ^ unique[at]])
    }
    everywhere = np.full(len(unique), 3, np.uint8)
    found = likeness.close_pairs(unique, everywhere, len(expected))
    assert found is not None
    assert {tuple(pair) for pair in found.tolist()} == expected
    assert len(expected) > 1000
    assert likeness.close_pairs(unique, everywhere, len(expected) - 1) is None


def test_close_hashes_of_one_group_do_not_count() -> None:
    unique = np.array([0, 1, 3, 7], np.uint64)
    assert likeness.close_pairs(unique, np.array([1, 1, 1, 1], np.uint8), 0) is not None
    found = likeness.close_pairs(unique, np.array([1, 1, 2, 1], np.uint8), 3)
    assert found is not None
    assert found.tolist() == [[0, 2], [1, 2], [2, 3]]


def test_of_very_many_that_look_alike_only_copies_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tree(tmp_path, {"train/a": 1, "train/b": 1})
    noise = np.random.default_rng(0)
    for index in range(6):
        frame = np.asarray(photo(1)).astype(int) + noise.integers(-8, 9, np.asarray(photo(1)).shape)
        write(
            tmp_path / ("train" if index % 2 else "test") / f"a/{index}.png",
            encoded(Image.fromarray(frame.clip(0, 255).astype(np.uint8))),
        )
    write(tmp_path / "test/b/copy.png", (tmp_path / "test/a/0.png").read_bytes())
    monkeypatch.setattr(duplicates, "_MOST_PAIRS", 0)
    statistics = summarised(tmp_path).statistics
    assert statistics.duplicates.near_in_several_splits is None
    assert statistics.duplicates.copies == 1
    assert any("too many that look alike" in warning for warning in statistics.warnings)


def summarised(root: Path) -> Outcome:
    listing = list_images(root)
    summaries = [read_chunk(chunk) for chunk in plan_chunks(listing, IngestSettings(), {})]
    return summarise(listing.overview(), lambda: iter(summaries))


def test_leaks_between_splits_are_reported(tmp_path: Path) -> None:
    write_tree(tmp_path, {"train/a": 3, "train/b": 3, "test/a": 3, "test/b": 3, "validation/a": 1, "validation/b": 1})
    write(tmp_path / "train/a/photo.png", encoded(photo(1)))
    write(tmp_path / "test/b/photo.jpg", jpeg(photo(1), quality=70))
    write(tmp_path / "train/b/exact.png", encoded(photo(2)))
    write(tmp_path / "test/b/exact.png", encoded(photo(2)))
    # Alike, but of one split.
    write(tmp_path / "train/a/burst1.png", encoded(photo(3)))
    write(tmp_path / "train/a/burst2.jpg", jpeg(photo(3)))
    outcome = summarised(tmp_path)
    assert outcome.leaks == [
        Leak(kind="exact", paths=("test/b/exact.png", "train/b/exact.png"), splits=("test", "train")),
        Leak(kind="near", paths=("test/b/photo.jpg", "train/a/photo.png"), splits=("test", "train")),
    ]
    assert outcome.statistics.duplicates.near_in_several_splits == 1
    assert any("1 held-out images look like one in another split" in line for line in outcome.statistics.warnings)


def test_more_looks_than_memory_takes_at_once_are_all_compared() -> None:
    rng = np.random.default_rng(0)
    looks = [rng.bytes(8).hex() + base64.b64encode(rng.bytes(64)).decode() for _ in range(20_500)]
    records = [
        Record(
            path=f"{split}/{n}", class_name="a", split=split, sha256=f"{n:062x}{len(split):02x}"[::-1], likeness=look
        )
        for split in ("test", "train")
        for n, look in enumerate(looks)
    ]
    signatures = Signatures()
    signatures.add(records)
    found = find_repetitions(signatures, lambda: iter(records))
    assert found.alike is not None
    assert {leak.paths for leak in found.alike} == {(f"test/{n}", f"train/{n}") for n in range(len(looks))}


def records_of(*looks: tuple[str, str]) -> list[Record]:
    """Makes records, all of different content, from paths that begin with the split, and what they look like."""
    return [
        Record(path=path, class_name="a", split=path.partition("/")[0], sha256=f"{n:016x}" * 4, likeness=look)
        for n, (path, look) in enumerate(looks)
    ]


def test_a_held_out_picture_that_is_like_many_is_told_once() -> None:
    look = likeness.describe(photo(5).convert("L"))
    # Of four hashes, of which any two are close.
    close = [f"{likeness.perceptual_hash(look) ^ bit:016x}{look[16:]}" for bit in (0, 1, 2, 3)]
    records = records_of(
        *((f"train/{n}", each) for n, each in enumerate(close)),
        ("test/0", look),
        ("test/1", close[3]),
        ("validation/0", close[1]),
    )
    expected = [Leak("near", (path, "train/0"), (path.partition("/")[0], "train")) for path in ("test/0", "test/1")]
    expected.append(Leak("near", ("train/0", "validation/0"), ("train", "validation")))
    for order in (records, records[::-1]):
        signatures = Signatures()
        signatures.add(order)
        assert find_repetitions(signatures, lambda order=order: iter(order)).alike == expected


def test_of_two_held_out_pictures_that_are_alike_both_count(tmp_path: Path) -> None:
    write_tree(tmp_path, {"train/a": 3, "train/b": 3, "test/b": 1, "validation/b": 1})
    write(tmp_path / "test/a/photo.png", encoded(photo(1)))
    write(tmp_path / "validation/a/photo.jpg", jpeg(photo(1), quality=70))
    outcome = summarised(tmp_path)
    assert outcome.leaks == [Leak("near", ("test/a/photo.png", "validation/a/photo.jpg"), ("test", "validation"))]
    assert outcome.statistics.duplicates.near_in_several_splits == 2


def test_many_pictures_of_one_look_are_compared_within_bounds() -> None:
    look = likeness.describe(photo(5).convert("L"))
    records = [
        Record(path=f"{split}/{n:05d}", class_name="a", split=split, sha256=f"{split[1]}{n:063x}"[::-1], likeness=look)
        for split in ("test", "train")
        for n in range(2_000)
    ]
    signatures = Signatures()
    signatures.add(records)
    found = find_repetitions(signatures, lambda: iter(records))
    assert found.copies == []
    assert found.alike is not None
    assert len(found.alike) == 20
