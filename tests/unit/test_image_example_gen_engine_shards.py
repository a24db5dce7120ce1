"""Writing shards, counting them and judging the outcome."""

import hashlib
import json
import os
from pathlib import Path

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
from apache_beam.testing.util import assert_that, equal_to

from components.image_example_gen.engine import report, verdict
from components.image_example_gen.engine.check import check
from components.image_example_gen.engine.chunk_files import load_chunk, store_chunks
from components.image_example_gen.engine.listing import list_images
from components.image_example_gen.engine.quarantine import Quarantined
from components.image_example_gen.engine.settings import IngestSettings
from components.image_example_gen.engine.shards import plan_chunks, write_shard
from components.image_example_gen.engine.statistics import IngestStatistics, Outcome, summarise
from tests.image_files import closed_tree, encoded, jpeg, picture, without_privileges, write, write_tree
from trainer_module import features
from trainer_module.errors import UserError
from trainer_module.features import SPLITS


def ingest_all(root: Path, out: Path, **settings: float) -> Outcome:
    """Runs the whole engine in this process."""
    listing = list_images(root)
    uris = {split: str(out / f"Split-{split}") for split in SPLITS}
    summaries = [write_shard(chunk) for chunk in plan_chunks(listing, IngestSettings(**settings), uris)]
    return summarise(listing.overview(), lambda: iter(summaries))


def ingest(root: Path, out: Path, **settings: float) -> tuple[IngestStatistics, list[Quarantined]]:
    outcome = ingest_all(root, out, **settings)
    return outcome.statistics, outcome.quarantined


def few(statistics: IngestStatistics) -> str:
    """Returns the warning that most of these trees give rise to."""
    classes = {name for counts in statistics.splits.values() for name in counts}
    images = sum(statistics.splits["train"].values())
    return (
        f"only {images} training images for {len(classes)} classes: the network learns from nothing but them; some "
        "hundred a class is where it begins to be useful"
    )


def examples(out: Path, split: str) -> list[dict[str, object]]:
    """Reads the records of a split, in order of shards, as plain values."""
    values = []
    for path in sorted((out / f"Split-{split}").iterdir()):
        for record in tf.data.TFRecordDataset(str(path), "GZIP"):
            feature = tf.train.Example.FromString(record.numpy()).features.feature
            values.append({name: getattr(f, f.WhichOneof("kind")).value[0] for name, f in feature.items()})
    return values


def test_records_hold_the_picture_and_all_that_is_known_of_it(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data", {"a": 5, "b": 5})
    content = encoded(picture(30, 20, seed=99), "BMP")
    write(root / "a" / "\N{CAT FACE} x.bmp", content)
    ingest(root, tmp_path / "out")
    records = [record for split in SPLITS for record in examples(tmp_path / "out", split)]
    assert len(records) == 11
    (record,) = [r for r in records if r[features.IMAGE_FILENAME] == "a/\N{CAT FACE} x.bmp".encode()]
    pixels = tf.io.decode_image(record.pop(features.IMAGE_ENCODED), channels=3, expand_animations=False)
    np.testing.assert_array_equal(pixels, picture(30, 20, seed=99))
    luma = picture(30, 20, seed=99) @ [0.299, 0.587, 0.114]
    assert record == {
        features.IMAGE_FORMAT: b"png",
        features.IMAGE_FILENAME: "a/\N{CAT FACE} x.bmp".encode(),
        features.IMAGE_SHA256: hashlib.sha256(content).hexdigest().encode(),
        features.IMAGE_HEIGHT: 20,
        features.IMAGE_WIDTH: 30,
        features.IMAGE_BRIGHTNESS: pytest.approx(luma.mean() / 255, abs=0.005),
        features.CLASS_TEXT: b"a",
    }


def test_an_original_jpeg_is_stored_byte_for_byte(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data", {"a": 3, "b": 3})
    ingest(root, tmp_path / "out")
    for split in SPLITS:
        for record in examples(tmp_path / "out", split):
            path = root / os.fsdecode(record[features.IMAGE_FILENAME])
            assert record[features.IMAGE_ENCODED] == path.read_bytes()
            assert record[features.IMAGE_FORMAT] == b"jpeg"


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data", {"a": 8, "b": 8})
    for name in ("one", "two"):
        ingest(root, tmp_path / name, shards=3)
    contents = [
        {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in (tmp_path / name).rglob("*.gz")}
        for name in ("one", "two")
    ]
    assert contents[0] == contents[1]
    assert sorted(contents[0]) == [
        f"Split-{split}/data_tfrecord-{number:05d}-of-00003.gz" for split in sorted(SPLITS) for number in range(3)
    ]


def test_every_image_is_in_one_shard_and_classes_are_mixed(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data", {"a": 40, "b": 40}, 8, 8)
    listing = list_images(root)
    chunks = plan_chunks(listing, IngestSettings(shards=4), dict.fromkeys(SPLITS, ""))
    assert sorted(file.path for chunk in chunks for file in chunk.files) == [file.path for file in listing.files]
    for chunk in chunks:
        names = [file.class_name for file in chunk.files]
        assert len(names) == 20
        assert names not in (sorted(names), sorted(names, reverse=True))


def test_the_number_of_shards_follows_the_amount_of_data(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data", {"a": 3, "b": 3}, 8, 8)
    assert len(plan_chunks(list_images(root), IngestSettings(), {})) == 1
    with (root / "a" / "large.jpg").open("wb") as file:
        file.truncate(200 * 2**20)
    assert len(plan_chunks(list_images(root), IngestSettings(), {})) == 4
    for number in range(2500):
        write(root / "b" / f"{number}.png", b"")
    (root / "a" / "large.jpg").unlink()
    assert len(plan_chunks(list_images(root), IngestSettings(), {})) == 2
    assert len(plan_chunks(list_images(root), IngestSettings(shards=9), {})) == 9


def test_there_are_never_more_shards_than_images(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data", {"a": 2, "b": 1}, 8, 8)
    assert [len(chunk.files) for chunk in plan_chunks(list_images(root), IngestSettings(shards=9), {})] == [1, 1, 1]


def test_a_chunk_is_the_same_after_a_file(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data", {"a": 3, "train/b": 3})
    write(root / os.fsdecode(b"a/latin-\xe9\n.jpg"), jpeg(picture(seed=500)))
    chunks = plan_chunks(list_images(root), IngestSettings(shards=2), {split: split for split in SPLITS})
    assert chunks[0].rule.moves
    paths = store_chunks(chunks, str(tmp_path / "plan"))
    assert [load_chunk(path) for path in paths] == chunks


def test_beam_and_tensorflow_read_shards_without_records(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data", {"a": 3, "b": 3})
    ingest(root, tmp_path / "out", shards=6)
    files = list((tmp_path / "out" / "Split-test").iterdir())
    assert len(files) == 6
    assert len(examples(tmp_path / "out", "test")) == 2
    with beam.Pipeline(runner="apache_beam.runners.portability.fn_api_runner.FnApiRunner") as pipeline:
        records = pipeline | beam.io.ReadFromTFRecord(str(tmp_path / "out" / "Split-test" / "*"))
        assert_that(records | beam.combiners.Count.Globally(), equal_to([2]))


def test_a_failed_shard_leaves_nothing_behind(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data", {"a": 3, "b": 3})
    (chunk,) = plan_chunks(list_images(root), IngestSettings(), {"train": str(tmp_path / "out")})
    with pytest.raises(KeyError):
        write_shard(chunk)
    assert list((tmp_path / "out").iterdir()) == []


def test_the_figures(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data", {"a": 4, "b": 4}, 24, 16)
    write(root / "a" / "large.png", encoded(picture(60, 40)))
    write(root / "a" / "small.png", encoded(picture(2, 3)))
    write(root / "b" / "odd\n\udce9.gif", b"no gif")
    write(root / "b" / "notes.txt", b"x")
    write(root / "c" / "broken.jpg", b"")
    (root / "d").mkdir()
    statistics, quarantined = ingest(root, tmp_path / "out", max_side=50)
    assert statistics.images.model_dump() == {"read": 12, "used": 10, "quarantined": 2, "ignored": 1}
    assert statistics.ignored == {"name without an image extension": 1}
    assert [(item.path, item.reason) for item in quarantined] == [
        ("b/odd\\n\\xe9.gif", "text, not an image"),
        ("c/broken.jpg", "empty file (0 bytes)"),
    ]
    assert statistics.width is not None
    assert statistics.width.model_dump() == {"min": 2, "median": 24, "max": 60}
    assert statistics.height is not None
    assert statistics.height.model_dump() == {"min": 3, "median": 16, "max": 40}
    assert statistics.stored == {"original": 9, "png": 1}
    assert 0.2 < statistics.brightness < 0.8
    for split in SPLITS:
        found = examples(tmp_path / "out", split)
        for name, count in statistics.splits[split].items():
            assert sum(record[features.CLASS_TEXT] == name.encode() for record in found) == count > 0
    assert statistics.warnings == [
        "class folders without images, left out: d",
        "classes without a readable image, left out: c",
        few(statistics),
    ]


def test_copies_are_counted_and_those_that_mislead_are_named(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data", {"train/a": 4, "train/b": 4, "test/a": 2, "test/b": 2})
    write(root / "train" / "a" / "again.jpg", (root / "train" / "a" / "000.jpg").read_bytes())
    write(root / "test" / "a" / "leak.jpg", (root / "train" / "a" / "001.jpg").read_bytes())
    write(root / "test" / "a" / "torn.jpg", (root / "test" / "b" / "000.jpg").read_bytes())
    statistics, _ = ingest(root, tmp_path / "out")
    assert statistics.duplicates.model_dump() == {
        "copies": 3,
        "in_several_splits": 1,
        "in_several_classes": 1,
        "near_in_several_splits": 0,
    }
    assert statistics.warnings == [
        few(statistics),
        "1 images lie in more than one split folder, so figures on held-out images come out too good; "
        "first: test/a/leak.jpg, train/a/001.jpg",
        "1 images lie in more than one class folder; first: test/a/torn.jpg, test/b/000.jpg",
    ]


def test_suspicious_layouts_are_pointed_out(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data", {"seg_train/sea": 3, "seg_train/hill": 3, "seg_test/sea": 3})
    statistics, _ = ingest(root, tmp_path / "out")
    warning, another = statistics.warnings
    assert "folders of the same names (sea)" in warning
    assert another == few(statistics)


def test_hidden_folders_that_may_be_classes_are_pointed_out(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data", {"9mm": 3, "7.62": 3, ".22lr": 3})
    warnings = ingest(root, tmp_path / "out")[0].warnings
    assert warnings[0] == "hidden folders with images, left out: .22lr; rename those that are classes"


def test_few_images_to_train_on_are_pointed_out(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data", {"train/a": 80, "train/b": 19, "test/a": 1, "test/b": 1}, 8, 8)
    write_tree(root, {"validation/a": 1, "validation/b": 1}, 8, 8, first=200)
    (warning,) = ingest(root, tmp_path / "out")[0].warnings
    assert warning.startswith("only 99 training images for 2 classes: the network learns from nothing but them")
    write(root / "train" / "b" / "more.jpg", jpeg(picture(8, 8, seed=300)))
    assert ingest(root, tmp_path / "out")[0].warnings == []


def test_the_report_comes_back_as_it_was_written(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data", {"a": 3, "b": 3})
    write(root / "a" / "line\nbreak.jpg", b"")
    outcome = ingest_all(root, tmp_path / "out")
    report.write_report(str(tmp_path), outcome)
    assert report.read_statistics(str(tmp_path)) == outcome.statistics
    assert report.read_quarantined(str(tmp_path)) == outcome.quarantined
    assert report.read_leaks(str(tmp_path)) == outcome.leaks
    assert json.loads((tmp_path / "ingest.json").read_text())["images"]["quarantined"] == 1
    assert len((tmp_path / "quarantine.jsonl").read_text().splitlines()) == 1
    assert list(tmp_path.glob("*.tmp")) == []


def judge(root: Path, out: Path, **settings: float) -> None:
    statistics, quarantined = ingest(root, out, **settings)
    verdict.check(statistics, quarantined, IngestSettings(**settings).max_quarantined)


def test_too_many_quarantined_files_stop_the_run(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data", {"a": 4, "b": 4})
    write(root / "a" / "bad.jpg", b"")
    write(root / "stray.jpg", b"")
    judge(root, tmp_path / "out", max_quarantined=0.2)
    with pytest.raises(UserError) as caught:
        judge(root, tmp_path / "out", max_quarantined=0.19)
    message = str(caught.value)
    assert message.startswith(f"{root}: 2 of 10 images cannot be used (20.0%, the limit is 19.0%)")
    assert "a/bad.jpg: empty file (0 bytes); stray.jpg: lies in no class folder" in message
    assert "data.max_quarantined" in message
    assert "\n" not in message


def test_fewer_than_two_surviving_classes_stop_the_run(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data", {"a": 30})
    write(root / "b" / "bad.jpg", b"")
    with pytest.raises(UserError, match=r"usable images of 1 class\(es\) are left"):
        judge(root, tmp_path / "out")


def test_images_without_permission_leave_the_splits_as_they_are() -> None:
    photos = {"train/a": 20, "train/b": 20, "test/a": 1, "test/b": 1}
    with closed_tree(photos, "test/*/*") as root, without_privileges():
        refusal = check(list_images(root), IngestSettings(), lambda *_: None).refusal
    assert refusal is not None
    assert "no image is left for the test split" in refusal
    assert "; 2 images cannot be used, first: test/a/000.jpg: cannot be read (Permission denied); test/b" in refusal


def test_a_class_without_permission_is_named_with_the_reason() -> None:
    with closed_tree({"cat": 5, "dog": 2, "owl": 5}, "dog/*") as root, without_privileges():
        outcome = check(list_images(root), IngestSettings(), lambda *_: None).outcome
    assert "classes without a readable image, left out: dog" in outcome.statistics.warnings
    assert [(item.path, item.reason) for item in outcome.quarantined] == [
        ("dog/000.jpg", "cannot be read (Permission denied)"),
        ("dog/001.jpg", "cannot be read (Permission denied)"),
    ]


def test_a_class_without_images_to_train_on_stops_the_run(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data", {"train/a": 9, "train/b": 9, "test/a": 1, "test/c": 1})
    with pytest.raises(UserError, match="the class 'c' has no usable image in the train folder"):
        judge(root, tmp_path / "out")


def test_too_few_images_for_three_splits_stop_the_run(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data", {"a": 2, "b": 1})
    with pytest.raises(
        UserError, match="no image is left for the validation split; at least one class needs three or more"
    ):
        judge(root, tmp_path / "out")


def test_a_class_that_is_not_measured_everywhere_is_a_warning(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data", {"a": 5, "b": 2, "c": 1})
    statistics, _ = ingest(root, tmp_path / "out")
    assert statistics.warnings == [
        "classes without an image in the validation split, not measured there: b, c",
        "classes without an image in the test split, so that the gates will refuse every release: c; add images of "
        "these classes, or remove them",
        few(statistics),
    ]
    judge(root, tmp_path / "out")


def test_names_that_are_patterns_elsewhere_are_names_here(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "photos [2024]*?", {"a[b]": 5, "c*?": 5, "c\\d": 5})
    write(root / "c*?" / "x[1]*.jpg", jpeg(picture(seed=77)))
    statistics, quarantined = ingest(root, tmp_path / "out")
    assert not quarantined
    counts = {name: sum(split.get(name, 0) for split in statistics.splits.values()) for name in ("a[b]", "c*?", "c\\d")}
    assert counts == {"a[b]": 5, "c*?": 6, "c\\d": 5}


def test_files_that_vanish_or_change_while_reading_are_quarantined(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data", {"a": 3, "b": 3})
    listing = list_images(root)
    (chunk,) = plan_chunks(listing, IngestSettings(), {split: str(tmp_path / split) for split in SPLITS})
    write(root / "a" / "000.jpg", jpeg(picture(seed=50)))
    (root / "b" / "000.jpg").unlink()
    summary = write_shard(chunk)
    assert {item.path: item.reason for item in summary.quarantined} == {
        "a/000.jpg": "changed while the data folder was read; run again when its files are at rest",
        "b/000.jpg": "cannot be read (No such file or directory)",
    }
    assert len(list(summary.records)) == 4
