"""Which split an image goes to."""

import hashlib
from pathlib import Path

import pytest

from components.image_example_gen.engine.listing import ImageFile, list_images
from components.image_example_gen.engine.settings import IngestSettings
from components.image_example_gen.engine.splits import SplitRule, plan_splits
from tests.image_files import jpeg, picture, write, write_tree
from trainer_module.errors import UserError
from trainer_module.features import SPLITS

DIGESTS = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(20_000)]
HASHED = ImageFile("a/x.jpg", "a", None, 1, 1)


def splits_by_class(root: Path, settings: IngestSettings) -> dict[str, list[str]]:
    """Returns the splits of the images of each class, in order of their names."""
    listing = list_images(root)
    rule = plan_splits(listing, settings)
    splits: dict[str, list[str]] = {}
    for file in listing.files:
        sha256 = hashlib.sha256((root / file.path).read_bytes()).hexdigest()
        splits.setdefault(file.class_name, []).append(rule.split_of(file, sha256))
    return splits


def test_the_fractions_come_out_right() -> None:
    rule = SplitRule(validation_fraction=0.1, test_fraction=0.2)
    splits = [rule.split_of(HASHED, sha256) for sha256 in DIGESTS]
    assert splits.count("validation") / len(splits) == pytest.approx(0.1, abs=0.01)
    assert splits.count("test") / len(splits) == pytest.approx(0.2, abs=0.01)


def test_a_larger_held_out_fraction_only_takes_from_train() -> None:
    small, large = SplitRule(0.1, 0.1), SplitRule(0.1, 0.3)
    for sha256 in DIGESTS[:2000]:
        before, after = small.by_hash(sha256), large.by_hash(sha256)
        assert before == after or (before, after) == ("train", "test")


@pytest.mark.parametrize("digest", ["0" * 64, "f" * 64])
def test_the_ends_of_the_range_belong_to_a_split(digest: str) -> None:
    assert SplitRule(0.1, 0.1).by_hash(digest) == ("test" if digest[0] == "0" else "validation")
    assert SplitRule(0, 0).by_hash(digest) == "train"


@pytest.mark.parametrize("first", range(0, 100, 10))
@pytest.mark.parametrize("count", [3, 4, 7])
def test_three_images_of_a_class_are_enough_for_three_splits(tmp_path: Path, first: int, count: int) -> None:
    write_tree(tmp_path, {"a": count, "b": 3}, 8, 8, first)
    splits = splits_by_class(tmp_path, IngestSettings())
    assert {name: set(found) for name, found in splits.items()} == {"a": set(SPLITS), "b": set(SPLITS)}
    assert splits == splits_by_class(tmp_path, IngestSettings())


@pytest.mark.parametrize("first", range(0, 100, 10))
def test_with_fewer_images_train_comes_first_and_then_test(tmp_path: Path, first: int) -> None:
    write_tree(tmp_path, {"one": 1, "two": 2}, 8, 8, first)
    splits = splits_by_class(tmp_path, IngestSettings())
    assert splits["one"] == ["train"]
    assert set(splits["two"]) == {"train", "test"}


@pytest.mark.parametrize("first", range(0, 100, 10))
def test_a_split_that_the_user_has_made_leaves_the_second_image_to_the_other(tmp_path: Path, first: int) -> None:
    write_tree(tmp_path, {"train/a": 2, "train/b": 2, "test/a": 1, "test/b": 1}, 8, 8, first)
    for splits in splits_by_class(tmp_path, IngestSettings()).values():
        assert sorted(splits[1:]) == ["train", "validation"]


def test_a_class_that_fills_every_split_gives_what_it_always_gave(tmp_path: Path) -> None:
    found = []
    for first in range(0, 80, 4):
        root = write_tree(tmp_path / str(first), {"a": 4, "b": 3}, 8, 8, first)
        splits = splits_by_class(root, IngestSettings(validation_fraction=0.3, test_fraction=0.1))
        found.append("".join(split[1] for split in splits["a"]))
    # The second letters of tRain, vAlidation and tEst, of 20 classes.
    assert " ".join(found) == (
        "arer aare arre erra arer arer aare erar raer rera reaa erar aerr raae earr rear raer rare erar arer"
    )


def test_unreadable_files_do_not_count(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a": 3, "b": 3}, 8, 8)
    for number in range(40):
        write(tmp_path / "a" / f"bad{number}.jpg", b"bad %d" % number)
    assert set(splits_by_class(tmp_path, IngestSettings())["a"][:3]) == set(SPLITS)


def test_copies_stay_together_also_across_classes(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a": 6, "b": 6}, 8, 8)
    for number in range(6):
        content = (tmp_path / "a" / f"{number:03d}.jpg").read_bytes()
        write(tmp_path / "a" / f"copy{number}.jpg", content)
        write(tmp_path / "b" / f"copy{number}.jpg", content)
    splits = splits_by_class(tmp_path, IngestSettings(validation_fraction=0.3, test_fraction=0.3))
    assert splits["a"][:6] == splits["a"][6:] == splits["b"][6:]


@pytest.mark.parametrize("first", range(0, 200, 10))
def test_an_image_in_two_classes_is_not_taken_from_either(tmp_path: Path, first: int) -> None:
    write_tree(tmp_path, {"a": 3, "b": 3}, 8, 8, first)
    write(tmp_path / "b" / "000.jpg", (tmp_path / "a" / "000.jpg").read_bytes())
    splits = splits_by_class(tmp_path, IngestSettings())
    assert {name: set(found) for name, found in splits.items()} == {"a": set(SPLITS), "b": set(SPLITS)}
    assert splits["a"][0] == splits["b"][0]


def test_copies_of_one_image_are_one_image(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a": 3, "b": 1}, 8, 8)
    for number in range(5):
        write(tmp_path / "b" / f"copy{number}.jpg", (tmp_path / "b" / "000.jpg").read_bytes())
    assert splits_by_class(tmp_path, IngestSettings())["b"] == ["train"] * 6


def test_splits_without_a_folder_are_carved_from_train(tmp_path: Path) -> None:
    write_tree(tmp_path, {"train/a": 20, "train/b": 20, "test/a": 2, "test/b": 2}, 8, 8)
    for name, splits in splits_by_class(tmp_path, IngestSettings(validation_fraction=0.3)).items():
        assert splits[:2] == ["test", "test"], name
        assert set(splits[2:]) == {"train", "validation"}


def test_only_train_folders_leave_both_to_be_carved(tmp_path: Path) -> None:
    write_tree(tmp_path, {"train/a": 3, "train/b": 3}, 8, 8)
    assert {name: set(found) for name, found in splits_by_class(tmp_path, IngestSettings()).items()} == {
        "a": set(SPLITS),
        "b": set(SPLITS),
    }


def test_all_three_folders_leave_nothing_to_the_hash(tmp_path: Path) -> None:
    write_tree(tmp_path, {"train/a": 30, "train/b": 1, "val/a": 1, "val/b": 1, "test/a": 1, "test/b": 1}, 8, 8)
    splits = splits_by_class(tmp_path, IngestSettings(validation_fraction=0.4, test_fraction=0.4))
    assert splits == {"a": ["test", *["train"] * 30, "validation"], "b": ["test", "train", "validation"]}


def test_large_classes_are_left_to_the_hash_unread(tmp_path: Path) -> None:
    rule = SplitRule(0.1, 0.1)
    assert 0.9 ** rule.largest_small_class() == pytest.approx(1e-9, rel=0.2)
    content = jpeg(picture(8, 8))
    for number in range(rule.largest_small_class() + 1):
        write(tmp_path / "a" / f"{number}.jpg", content)
    write_tree(tmp_path, {"b": 3}, 8, 8, first=1)
    splits = splits_by_class(tmp_path, IngestSettings())
    assert set(splits["a"]) == {rule.by_hash(hashlib.sha256(content).hexdigest())}
    assert set(splits["b"]) == set(SPLITS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_side": 0}, r"data\.max_side is 0"),
        ({"max_pixels": 10**9}, r"data\.max_pixels is 1000000000"),
        ({"validation_fraction": 0.0}, r"data\.validation_fraction is 0\.0"),
        ({"test_fraction": 1.0}, r"data\.test_fraction is 1\.0"),
        ({"test_fraction": 0.5, "validation_fraction": 0.5}, r"validation_fraction \+ data\.test_fraction is 1\.0"),
        ({"max_quarantined": 1.5}, r"data\.max_quarantined is 1\.5"),
        ({"shards": 0}, "ImageExampleGen's parameter shards is 0"),
        ({"validation_fraction": float("nan")}, r"data\.validation_fraction is nan"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        IngestSettings(**settings)
