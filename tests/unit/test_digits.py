"""The data set that needs no download."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from pipeline.digits import write_digits
from trainer_module.errors import UserError


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits"))


def test_the_images_are_those_of_scikit_learn(digits: Path) -> None:
    assert sorted(path.name for path in digits.iterdir()) == list("0123456789")
    source = load_digits()
    assert len(list(digits.glob("*/*.png"))) == len(source.images) == 1797
    for number in (0, 100, 1796):
        image = Image.open(digits / str(source.target[number]) / f"{number:04d}.png")
        assert image.mode == "L"
        np.testing.assert_allclose(np.asarray(image), source.images[number] / 16 * 255, atol=0.5)


def test_a_complete_tree_is_left_alone(digits: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in digits.rglob("*")}
    assert write_digits(digits) == digits
    assert {path: path.stat().st_mtime_ns for path in digits.rglob("*")} == before
    assert not [path for path in digits.parent.iterdir() if path.name.startswith(f".{digits.name}")]


def test_folders_above_are_created(tmp_path: Path, digits: Path) -> None:
    assert len(list(write_digits(tmp_path / "new" / "folder").glob("*/*.png"))) == 1797


def test_other_content_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(UserError, match="holds something other than the 1797 digits"):
        write_digits(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_a_file_in_the_way_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(UserError, match="name another folder"):
        write_digits(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"mine"
