from pathlib import Path

import pytest

from trainer_module.files import write_whole


@pytest.mark.parametrize("content", ["text: ü", "text: ü".encode()])
def test_a_file_is_written_and_what_lies_beside_it_is_left_alone(tmp_path, content):
    for name in ("page.html", "page.tmp", "page.html.tmp"):
        (tmp_path / name).write_text("mine")
    write_whole(tmp_path / "page.html", content)
    assert {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == {
        "page.html": "text: ü",
        "page.tmp": "mine",
        "page.html.tmp": "mine",
    }


@pytest.mark.parametrize("name", [".", "folder"])
def test_a_directory_is_no_file_and_nothing_is_left_beside_it(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_whole(Path(name), "content")
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]
