"""Finding images, classes and splits."""

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from components.image_example_gen.engine.listing import list_images
from tests.image_files import closed_tree, jpeg, picture, without_privileges, write, write_tree
from trainer_module.errors import UserError


def test_a_class_per_folder_tree_leaves_the_split_to_the_hash(tmp_path: Path) -> None:
    write_tree(tmp_path, {"dog": 2, "cat": 1, "cat/deeper/still": 1})
    listing = list_images(tmp_path)
    assert [(file.path, file.class_name, file.split) for file in listing.files] == [
        ("cat/000.jpg", "cat", None),
        ("cat/deeper/still/000.jpg", "cat", None),
        ("dog/000.jpg", "dog", None),
        ("dog/001.jpg", "dog", None),
    ]
    assert not listing.quarantined
    assert not listing.ignored


@pytest.mark.parametrize("validation", ["validation", "val", "valid", "VAL"])
def test_split_folders_are_respected(tmp_path: Path, validation: str) -> None:
    write_tree(tmp_path, {"train/a": 2, "train/b": 1, f"{validation}/a": 1, "test/b": 1})
    splits = {(file.path.split("/")[0], file.split, file.class_name) for file in list_images(tmp_path).files}
    assert splits == {
        ("train", "train", "a"),
        ("train", "train", "b"),
        (validation, "validation", "a"),
        ("test", "test", "b"),
    }


def test_folders_named_like_splits_are_classes_unless_all_are_and_train_is_there(tmp_path: Path) -> None:
    write_tree(tmp_path / "vehicles", {"train": 1, "bus": 1})
    write_tree(tmp_path / "marks", {"test": 1, "val": 1})
    assert {file.class_name for file in list_images(tmp_path / "vehicles").files} == {"train", "bus"}
    assert {file.class_name for file in list_images(tmp_path / "marks").files} == {"test", "val"}


def test_a_folder_without_images_beside_the_splits_changes_nothing(tmp_path: Path) -> None:
    write_tree(tmp_path, {"train/a": 1, "train/b": 1})
    write(tmp_path / "annotations" / "labels.csv", b"a,b")
    assert {file.split for file in list_images(tmp_path).files} == {"train"}


def test_what_is_no_image_is_counted(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a": 1, "b": 1})
    for name in [
        "a/.hidden.jpg",
        ".git/x.jpg",
        "a/Thumbs.db",
        "b/desktop.ini",
        "__MACOSX/a/x.jpg",
        "a/README.txt",
        "l.csv",
    ]:
        write(tmp_path / name, b"x")
    listing = list_images(tmp_path)
    assert len(listing.files) == 2
    assert listing.ignored == {
        "hidden file or folder": 2,
        "system file or folder": 3,
        "name without an image extension": 2,
    }
    assert not listing.quarantined


def test_an_image_in_no_class_folder_is_quarantined(tmp_path: Path) -> None:
    write_tree(tmp_path, {"train/a": 1, "train/b": 1})
    write(tmp_path / "cover.JPG", b"x")
    write(tmp_path / "train" / "stray.heic", b"x")
    assert [(item.path, item.reason) for item in list_images(tmp_path).quarantined] == [
        ("cover.JPG", "lies in no class folder"),
        ("train/stray.heic", "lies in no class folder"),
    ]


def test_links_that_lead_astray_are_quarantined_and_the_others_followed(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside" / "x.jpg", b"x")
    root = write_tree(tmp_path / "data", {"a": 1, "b": 1})
    (root / "a" / "inside.jpg").symlink_to(root / "b" / "000.jpg")
    (root / "a" / "leaves.jpg").symlink_to(outside)
    (root / "a" / "broken.jpg").symlink_to(root / "nothing.jpg")
    (root / "a" / "self.jpg").symlink_to(root / "a" / "self.jpg")
    (root / "a" / "loop").symlink_to(root)
    (root / "c").symlink_to(outside.parent)
    listing = list_images(root)
    assert [file.path for file in listing.files] == ["a/000.jpg", "a/inside.jpg", "b/000.jpg"]
    assert {item.path: item.reason for item in listing.quarantined} == {
        "a/broken.jpg": "broken symbolic link",
        "a/leaves.jpg": "symbolic link that leaves the data folder",
        "a/loop": "symbolic link to a folder, not followed",
        "a/self.jpg": "broken symbolic link",
        "c": "symbolic link to a folder, not followed",
    }


def test_links_into_a_folder_that_may_not_be_entered_stop_nothing() -> None:
    with TemporaryDirectory() as name:
        root = write_tree(Path(name) / "data", {"a": 1, "b": 1})
        private = write_tree(Path(name) / "private", {"c": 1})
        (root / "a" / "more").symlink_to(private / "c")
        (root / "a" / "one.jpg").symlink_to(private / "c" / "000.jpg")
        Path(name).chmod(0o755)
        private.chmod(0o000)
        with without_privileges():
            listing = list_images(root)
    assert [file.path for file in listing.files] == ["a/000.jpg", "b/000.jpg"]
    assert {item.path: item.reason for item in listing.quarantined} == {
        "a/more": "symbolic link that cannot be followed (Permission denied)",
        "a/one.jpg": "symbolic link that cannot be followed (Permission denied)",
    }


def test_files_that_may_not_be_read_have_their_place_and_change_the_fingerprint_when_they_may() -> None:
    with closed_tree({"train/a": 2, "train/b": 1, "test/a": 1, "test/b": 1}, "test/*/*") as root:
        with without_privileges():
            closed = list_images(root)
        for path in root.glob("test/*/*"):
            path.chmod(0o644)
        with without_privileges():
            opened = list_images(root)
    assert [(file.path, file.split, file.readable) for file in closed.files if file.split == "test"] == [
        ("test/a/000.jpg", "test", False),
        ("test/b/000.jpg", "test", False),
    ]
    assert not closed.quarantined
    assert [replace(file, readable=True) for file in closed.files] == list(opened.files)
    assert opened.fingerprint != closed.fingerprint


def test_what_systems_put_beside_the_photos_is_ignored() -> None:
    with TemporaryDirectory() as name:
        root = write_tree(
            Path(name), {"train/a": 1, "train/b": 1, "$RECYCLE.BIN/S-1": 1, "#recycle": 1, "lost+found": 1}
        )
        root.chmod(0o755)
        (root / "lost+found").chmod(0o700)
        with without_privileges():
            listing = list_images(root)
    assert listing.classes == ("a", "b")
    assert listing.ignored == {"system file or folder": 3}


def test_a_file_that_vanishes_while_its_folder_is_listed_is_quarantined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_tree(tmp_path, {"a": 2, "b": 1})
    scandir = os.scandir

    @contextmanager
    def and_remove(folder: Path) -> Iterator[list[os.DirEntry[str]]]:
        with scandir(folder) as entries:
            found = list(entries)
        if folder.name == "a":
            (folder / "001.jpg").unlink()
        yield found

    monkeypatch.setattr(os, "scandir", and_remove)
    listing = list_images(root)
    assert [file.path for file in listing.files] == ["a/000.jpg", "b/000.jpg"]
    ((path, reason),) = [(item.path, item.reason) for item in listing.quarantined]
    assert path == "a/001.jpg"
    assert reason.startswith("vanished while the data folder was read")


def test_a_pipe_named_like_an_image_does_not_block(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a": 1, "b": 1})
    os.mkfifo(tmp_path / "a" / "pipe.jpg")
    (item,) = list_images(tmp_path).quarantined
    assert item.path == "a/pipe.jpg"
    assert "not a regular file" in item.reason


def test_odd_file_names_survive(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a": 1, "b": 1})
    names = [b"two words.jpg", "\N{CAT FACE}.jpg".encode(), b"line\nbreak.jpg", b"latin-\xe9.jpg"]
    for name in names:
        write(tmp_path / "a" / os.fsdecode(name), b"x")
    found = {os.fsencode(file.path) for file in list_images(tmp_path).files}
    assert found == {b"a/000.jpg", b"b/000.jpg", *(b"a/" + name for name in names)}


def test_a_class_name_is_the_same_however_the_system_spells_it(tmp_path: Path) -> None:
    write_tree(tmp_path, {"cafe\N{COMBINING ACUTE ACCENT}": 1, "caf\N{LATIN SMALL LETTER E WITH ACUTE}": 1, "bar": 1})
    classes = Counter(file.class_name for file in list_images(tmp_path).files)
    assert classes == {"caf\N{LATIN SMALL LETTER E WITH ACUTE}": 2, "bar": 1}


def test_empty_class_folders_are_named(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a": 1, "b": 1})
    (tmp_path / "New folder").mkdir()
    assert list_images(tmp_path).empty_classes == ("New folder",)


def test_folders_that_look_like_the_real_classes_are_named(tmp_path: Path) -> None:
    write_tree(tmp_path / "suspect", {"seg_train/sea": 1, "seg_train/hill": 1, "seg_test/sea": 1})
    assert list_images(tmp_path / "suspect").shared_folders == ("sea",)
    (tmp_path / "suspect" / "notes" / "old").mkdir(parents=True)
    assert list_images(tmp_path / "suspect").shared_folders == ("sea",)
    write_tree(tmp_path / "fine", {"sea/2023": 1, "hill": 1})
    assert list_images(tmp_path / "fine").shared_folders == ()


@pytest.mark.parametrize(
    ("folders", "suspect"),
    [
        (("training_set/training_set/cats", "test_set/test_set/cats"), ("test_set", "training_set")),
        (("train/cat", "test/dog", "charts"), ("test", "train")),
        (("seg_train", "seg_test", "seg_pred"), ("seg_test", "seg_train")),
        (("train2017", "val2017", "test2017"), ("test2017", "train2017", "val2017")),
        (("train1", "testdata", "other"), ("testdata", "train1")),
        (("Train Data 2", "Hold-Out", "evaluation"), ("Hold-Out", "Train Data 2", "evaluation")),
        (("train", "bus"), ()),
        (("latest", "retrain"), ()),
        (("steam train", "bullet train", "crash test"), ()),
        (("trainer", "testament", "value", "deviled eggs"), ()),
    ],
)
def test_classes_that_look_like_splits_are_named(
    tmp_path: Path, folders: tuple[str, ...], suspect: tuple[str, ...]
) -> None:
    write_tree(tmp_path, dict.fromkeys(folders, 1))
    assert list_images(tmp_path).splits_as_classes == suspect


@pytest.mark.parametrize("stray", ["samples/cat", "charts"])
def test_a_folder_beside_what_look_like_splits_is_refused(tmp_path: Path, stray: str) -> None:
    write_tree(tmp_path, {"Train/cat": 1, "Train/dog": 1, "val/dog": 1, stray: 1})
    with pytest.raises(UserError) as caught:
        list_images(tmp_path)
    name = stray.partition("/")[0]
    assert str(caught.value) == (
        f"{tmp_path}: Train, val look like splits, since they hold folders of the same names (dog), but images lie in "
        f"{name} too; move that out of the data folder, or, if Train, val are classes, rename them"
    )
    shutil.rmtree(tmp_path / name)
    assert list_images(tmp_path).classes == ("cat", "dog")


@pytest.mark.parametrize(
    "folders", [("train/front", "bus/front", "car/front"), ("train/2023", "test/2024", "bus/2023")]
)
def test_a_class_called_train_may_hold_folders(tmp_path: Path, folders: tuple[str, ...]) -> None:
    write_tree(tmp_path, dict.fromkeys(folders, 1))
    assert set(list_images(tmp_path).classes) == {folder.partition("/")[0] for folder in folders}


@pytest.mark.parametrize("above", ["", "train/"])
def test_hidden_folders_that_may_be_classes_are_named(tmp_path: Path, above: str) -> None:
    write_tree(tmp_path, {f"{above}9mm": 1, f"{above}.45acp": 1, f"{above}9mm/.more": 1, f"{above}.22lr": 2})
    usual = [".git", ".cache", ".thumbnails", ".ipynb_checkpoints", ".Trash-1000", "@eaDir", "$RECYCLE.BIN"]
    write_tree(tmp_path, dict.fromkeys((above + name for name in usual), 1))
    write(tmp_path / above / ".notes" / "read.me", b"x")
    with pytest.raises(
        UserError, match=rf"only one class .*; hidden folders do not count: {above}\.22lr, {above}\.45acp"
    ):
        list_images(tmp_path)
    write_tree(tmp_path, {f"{above}.308win": 1, f"{above}.223rem": 1, f"{above}7.62": 1})
    assert list_images(tmp_path).hidden_classes == tuple(
        f"{above}{name}" for name in (".223rem", ".22lr", ".308win", ".45acp")
    )


@pytest.mark.parametrize("name", ["a\nb", os.fsdecode(b"latin-\xe9"), " a", " "])
def test_a_folder_name_that_cannot_be_a_label_is_refused(tmp_path: Path, name: str) -> None:
    write_tree(tmp_path, {name: 1, "c": 1})
    with pytest.raises(UserError, match="rename it") as caught:
        list_images(tmp_path)
    assert "\n" not in str(caught.value)
    str(caught.value).encode()


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: no such folder; set data\.path"):
        list_images(tmp_path / "nowhere")


def test_a_file_instead_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"photos\.zip: is a file, not a folder"):
        list_images(write(tmp_path / "photos.zip", b"PK"))


def test_no_images_says_what_was_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "a" / "notes.txt", b"x")
    with pytest.raises(UserError, match=r"no images found .*1 x name without an image extension"):
        list_images(tmp_path)


def test_images_without_class_folders(tmp_path: Path) -> None:
    write(tmp_path / "x.jpg", jpeg(picture()))
    with pytest.raises(UserError, match="images lie directly in it, in no class folder"):
        list_images(tmp_path)


def test_one_class_is_too_few_and_a_level_too_high_is_recognised(tmp_path: Path) -> None:
    write_tree(tmp_path, {"PetImages/cat": 1, "PetImages/dog": 1})
    with pytest.raises(UserError, match=r"only one class .*\('PetImages'\).*2 folders.*set data\.path to .*PetImages"):
        list_images(tmp_path)


def test_an_unreadable_class_folder_stops_the_run() -> None:
    # The folders that pytest hands out cannot be entered by another user.
    with TemporaryDirectory() as name:
        root = write_tree(Path(name), {"a": 1, "b": 1})
        root.chmod(0o755)
        (root / "b").chmod(0o000)
        with without_privileges(), pytest.raises(UserError, match=r"/b: cannot be read \(Permission denied\)"):
            list_images(root)


def test_an_unreadable_data_folder_stops_the_run() -> None:
    with TemporaryDirectory() as name:
        write_tree(Path(name), {"a": 1, "b": 1}).chmod(0o000)
        with without_privileges(), pytest.raises(UserError, match="Permission denied"):
            list_images(name)


def test_the_fingerprint_changes_with_any_file_and_stays_otherwise(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a": 2, "b": 1})
    seen = [list_images(tmp_path).fingerprint]
    assert list_images(tmp_path).fingerprint == seen[0]

    os.utime(tmp_path / "a" / "000.jpg", ns=(1, 1))
    seen.append(list_images(tmp_path).fingerprint)
    status = (tmp_path / "a" / "000.jpg").stat()
    write(tmp_path / "a" / "000.jpg", b"longer" * 1000)
    os.utime(tmp_path / "a" / "000.jpg", ns=(status.st_atime_ns, status.st_mtime_ns))
    seen.append(list_images(tmp_path).fingerprint)
    (tmp_path / "a" / "001.jpg").rename(tmp_path / "b" / "001.jpg")
    seen.append(list_images(tmp_path).fingerprint)
    (tmp_path / "b" / "001.jpg").unlink()
    seen.append(list_images(tmp_path).fingerprint)
    assert len(set(seen)) == len(seen)
