"""In which order a classifier that is to be compressed answers the classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import tf_keras as keras

from components.compression.data import LabelledImages, Splits
from pipeline.class_order import ClassOrder, find_order, read_labels, require_same_classes
from trainer_module.errors import UserError
from trainer_module.input_pipeline import from_arrays

if TYPE_CHECKING:
    from pathlib import Path

# As Trimline's trainings order them: "dog" is the most frequent one.
NAMES = ["dog", "ant", "cat"]
COLOURS = {"ant": 0, "cat": 1, "dog": 2}


def photos_of(names: list[str]) -> LabelledImages:
    """Photos, one of each name, in the colour of its class."""
    images = np.zeros((len(names), 8, 8, 3), np.uint8)
    for image, name in zip(images, names, strict=True):
        image[..., COLOURS[name]] = 255
    return LabelledImages(images, np.array([NAMES.index(name) for name in names]))


PHOTOS = photos_of(["dog", "dog", "dog", "cat", "cat", "ant"])


def classifier(order: list[str]) -> keras.Model:
    """Tells the colours apart and answers the classes in an order."""
    image = keras.Input([8, 8, 3])
    dense = keras.layers.Dense(3, activation="softmax")
    model = keras.Model(image, dense(keras.layers.GlobalAveragePooling2D()(image)))
    kernel = np.zeros((3, 3), np.float32)
    for column, name in enumerate(order):
        kernel[COLOURS[name], column] = 0.1
    dense.set_weights([kernel, np.zeros(3, np.float32)])
    return model


@pytest.mark.parametrize(("order", "source"), [(["ant", "cat", "dog"], "alphabetical"), (NAMES, "frequency")])
def test_the_order_in_which_it_is_right_is_found(order: list[str], source: str, tmp_path: Path) -> None:
    assert find_order(classifier(order), PHOTOS, NAMES, tmp_path) == ClassOrder(order, source)


@pytest.mark.parametrize("order", [["cat", "dog", "ant"], ["cat", "ant", "dog"]], ids=["no class", "one class"])
def test_a_model_of_another_order_is_refused(order: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model: in which order .* cannot be told: .*; give --labels"):
        find_order(classifier(order), PHOTOS, NAMES, tmp_path / "model")


def test_a_model_of_another_order_is_refused_where_both_orders_are_the_same(tmp_path: Path) -> None:
    names = sorted(NAMES)
    some = LabelledImages(PHOTOS.images, np.array([names.index(NAMES[label]) for label in PHOTOS.labels]))
    assert find_order(classifier(names), some, names, tmp_path).names == names
    with pytest.raises(UserError, match="cannot be told"):
        find_order(classifier(["dog", "cat", "ant"]), some, names, tmp_path)


def test_a_model_that_always_answers_the_same_is_refused(tmp_path: Path) -> None:
    model = classifier(NAMES)
    model.layers[-1].bias.assign([1e3, 0, 0])
    with pytest.raises(UserError, match="cannot be told"):
        find_order(model, PHOTOS, NAMES, tmp_path)


def test_photos_of_an_unknown_class_say_nothing(tmp_path: Path) -> None:
    some = LabelledImages(PHOTOS.images, np.where(PHOTOS.labels == NAMES.index("cat"), -1, PHOTOS.labels))
    assert find_order(classifier(["ant", "cat", "dog"]), some, NAMES, tmp_path).source == "alphabetical"


def test_labels_are_given_the_models_order_in_all_splits() -> None:
    classes = ClassOrder(["ant", "cat", "dog"], "labels").of_labels(NAMES)
    labels = np.array([0, 1, 2, -1])
    images = np.zeros((4, 8, 8, 3), np.uint8)
    splits = Splits(LabelledImages(images, labels), LabelledImages(images, labels[::-1]), from_arrays(images, labels))
    changed = splits.relabelled(classes)
    assert changed.calibration.labels.tolist() == [2, 0, 1, -1]
    assert changed.validation.labels.tolist() == [-1, 1, 0, 2]
    assert changed.train is not None
    assert changed.train.labels.tolist() == [2, 0, 1, -1]


def test_the_labels_of_a_pushed_model_are_read(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("dog\nant\ncaf\N{LATIN SMALL LETTER E WITH ACUTE}\n", encoding="utf-8")
    assert read_labels(tmp_path / "labels.txt") == ["dog", "ant", "caf\N{LATIN SMALL LETTER E WITH ACUTE}"]


def test_labels_as_other_systems_write_them_are_read(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("dog\r\ncafe\N{COMBINING ACUTE ACCENT}\r\n", encoding="utf-8-sig")
    assert read_labels(tmp_path / "labels.txt") == ["dog", "caf\N{LATIN SMALL LETTER E WITH ACUTE}"]


@pytest.mark.parametrize(
    ("content", "message"), [(b"dog\nant\ndog\n", "names the class 'dog' twice"), (b"\xff\xfe", "it is no UTF-8")]
)
def test_labels_that_are_none_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_labels(tmp_path / "labels.txt")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_labels(tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("known", "message"),
    [(["dog", "ant"], "names 2 classes, but the photos have 3"), (["dog", "ant", "cow"], "class 'cow' where .* 'cat'")],
)
def test_other_classes_are_refused(known: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        require_same_classes(known, NAMES, tmp_path)
    require_same_classes(sorted(NAMES), NAMES, tmp_path)
