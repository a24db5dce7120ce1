import shutil
import tempfile

import psutil
import pytest

from trainer_module import cache_room
from trainer_module.cgroups import ControlGroup


@pytest.fixture
def container(tmp_path):
    (tmp_path / "memory.current").write_text("700000\n")
    (tmp_path / "memory.stat").write_text("anon 400000\ninactive_file 300000\n")
    return tmp_path


def test_room_is_a_part_of_what_is_free():
    assert 0 < cache_room.memory_room() < psutil.virtual_memory().total / 2
    assert 0 < cache_room.disk_room() < shutil.disk_usage(tempfile.gettempdir()).free


def test_a_container_has_no_more_memory_than_its_limit_leaves(container):
    (container / "memory.max").write_text("1000000\n")
    assert cache_room.free_memory(ControlGroup(container)) == 600_000
    (container / "memory.max").write_text("300000\n")
    assert cache_room.free_memory(ControlGroup(container)) == 0


def test_a_container_without_a_limit_has_the_machine_s_memory(container):
    (container / "memory.max").write_text("max\n")
    assert cache_room.free_memory(ControlGroup(container)) > 1_000_000
