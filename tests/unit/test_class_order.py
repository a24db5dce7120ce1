"""In which order a classifier that is to be compressed answers the classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import tf_keras as keras

from components.compression.data import LabelledImages, Splits
from pipeline.class_order import ClassOrder, find_order, read_labels, require_knowledge, require_same_classes
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


PHOTOS = photos_of(["dog", "dog", "dog", "cat", "cat", "ant"] * 2)


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
    with pytest.raises(UserError, match=r"model: .*[Ii]n which order .* cannot be told: .* give --labels"):
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
    with pytest.raises(UserError, match=r"does it take its pixels in 0 to 255\? .* cannot be told"):
        find_order(model, PHOTOS, NAMES, tmp_path)


def test_photos_of_an_unknown_class_say_nothing(tmp_path: Path) -> None:
    some = LabelledImages(PHOTOS.images, np.where(PHOTOS.labels == NAMES.index("cat"), -1, PHOTOS.labels))
    assert find_order(classifier(["ant", "cat", "dog"]), some, NAMES, tmp_path).source == "alphabetical"


LETTERS = list("abcdefghijklmnopqrst")


def reader(classes: int) -> keras.Model:
    """Answers the class that a photo's brightness says: twelve for each."""
    image = keras.Input([8, 8, 3])
    dense = keras.layers.Dense(classes, activation="softmax")
    model = keras.Model(image, dense(keras.layers.GlobalAveragePooling2D()(image)))
    centres = 12 * np.arange(classes, dtype=np.float32)
    dense.set_weights([np.stack([2 * centres, 0 * centres, 0 * centres]), -(centres**2)])
    return model


def photos_answered(table: np.ndarray) -> LabelledImages:
    """Photos that the reader answers so: as many of each label and answer as the table [C, C] says."""
    labels, answers = (side.repeat(table.ravel()) for side in np.indices(table.shape).reshape(2, -1))
    images = np.broadcast_to(12 * answers[:, None, None, None], (len(answers), 8, 8, 3)).astype(np.uint8)
    return LabelledImages(images, labels)


@pytest.mark.parametrize(("classes", "each"), [(3, 6), (5, 4), (10, 3), (20, 2)])
def test_two_exchanged_classes_of_many_are_refused(classes: int, each: int, tmp_path: Path) -> None:
    table = each * np.eye(classes, dtype=int)
    names = LETTERS[:classes]
    assert find_order(reader(classes), photos_answered(table), names, tmp_path).names == names
    table[[0, 2]] = table[[2, 0]]
    with pytest.raises(
        UserError, match="takes 'a' and 'c' for each other more often than for themselves; give --labels"
    ):
        find_order(reader(classes), photos_answered(table), names, tmp_path)


def test_three_classes_that_have_each_others_names_are_refused(tmp_path: Path) -> None:
    table = 5 * np.eye(10, dtype=int)
    table[[0, 1, 2]] = table[[1, 2, 0]]
    with pytest.raises(UserError, match="for each other"):
        find_order(reader(10), photos_answered(table), LETTERS[:10], tmp_path)


def test_exchanged_classes_of_a_model_that_is_often_wrong_are_refused(tmp_path: Path) -> None:
    table = 4 * np.ones((10, 10), int) + 26 * np.eye(10, dtype=int)
    assert find_order(reader(10), photos_answered(table), LETTERS[:10], tmp_path).names == LETTERS[:10]
    table[[0, 2]] = table[[2, 0]]
    with pytest.raises(UserError, match="'a' and 'c'"):
        find_order(reader(10), photos_answered(table), LETTERS[:10], tmp_path)


@pytest.mark.parametrize("seed", range(3))
def test_a_model_that_is_weak_but_right_is_taken(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    likely = np.full((20, 20), 0.03) + 0.12 * np.eye(20)
    # Some classes are mostly taken for one, and rare ones for a frequent one.
    likely[3:6, 7] += 0.6
    likely[15:, 0] += 2.0
    photos = np.array([200] + 14 * [30] + 5 * [4])
    table = np.stack([rng.multinomial(count, row / row.sum()) for count, row in zip(photos, likely, strict=True)])
    assert np.trace(table) < 0.8 * table.max(axis=1).sum()
    assert find_order(reader(20), photos_answered(table), LETTERS, tmp_path).names == LETTERS


def test_orders_that_suit_equally_are_not_chosen_between(tmp_path: Path) -> None:
    # Right of two classes that both orders have in the same places, and of the others nothing is known.
    table = np.diag([9, 9, 0, 0])
    with pytest.raises(
        UserError, match=r"cannot be told: it is right for 100.0% .*, for 100.0% with the most frequent"
    ):
        find_order(reader(4), photos_answered(table), ["a", "b", "d", "c"], tmp_path)


@pytest.mark.parametrize("source", ["labels", "model"])
def test_a_known_order_is_taken_from_a_model_that_knows_the_photos_alone(source: str, tmp_path: Path) -> None:
    order = ClassOrder(["cat", "dog", "ant"], source)
    require_knowledge(classifier(order.names), PHOTOS, order, NAMES, tmp_path)
    # It wants pixels of 0 to 1, so the brightest class wins always.
    blind = classifier(order.names)
    blind.layers[-1].set_weights([np.zeros((3, 3), np.float32), np.array([0, 1, 0], np.float32)])
    with pytest.raises(UserError, match=r"in 0 to 255\? It is right for 50.0% .*, no more often than by guessing"):
        require_knowledge(blind, PHOTOS, order, NAMES, tmp_path)


def test_answers_that_are_no_probabilities_are_refused_as_such(tmp_path: Path) -> None:
    order = ClassOrder(NAMES, "labels")
    model = classifier(NAMES)
    model.layers[-1].activation = keras.activations.linear
    for call in (
        lambda: find_order(model, PHOTOS, NAMES, tmp_path),
        lambda: require_knowledge(model, PHOTOS, order, NAMES, tmp_path),
    ):
        with pytest.raises(UserError, match="answers no probabilities"):
            call()
    model.layers[-1].set_weights([np.full((3, 3), np.nan, np.float32), np.zeros(3, np.float32)])
    with pytest.raises(UserError, match="its answers are not finite"):
        find_order(model, PHOTOS, NAMES, tmp_path)


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
