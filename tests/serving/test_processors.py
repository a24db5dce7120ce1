"""How many requests a server computes at the same time."""

import os
from pathlib import Path

import pytest
from edge_servers import run_server

from pipeline.config import load_settings
from serving.processors import available_processors
from trainer_module.errors import UserError

AFFINITY = len(os.sched_getaffinity(0))


@pytest.fixture
def many_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))


@pytest.mark.usefixtures("many_processors")
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 64),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "350000 100000\n"}, 3),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "9900000 100000\n"}, 64),
        ({"cpu.max": "max 100000\n"}, 64),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
    ],
)
def test_the_limit_of_the_container_counts(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert available_processors(tmp_path) == expected


def test_without_a_limit_all_that_the_process_may_run_on_count(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert available_processors(tmp_path) == AFFINITY


@pytest.mark.component  # Starts servers.
@pytest.mark.parametrize(("options", "expected"), [({"workers": 2}, 3), ({"threads": 5}, 5)])
def test_a_server_has_its_share_of_the_processors_or_what_it_is_told(
    uint8_bundle: Path, tmp_path: Path, options: dict[str, int], expected: int
) -> None:
    six = "import serving.processors; serving.processors.available_processors = lambda: 6"
    with run_server(uint8_bundle, tmp_path / "log.txt", fault=six, **options) as running:
        log = running.log.read_text()
    assert f"/, threads: {expected}" in log


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many", "1025"])
def test_a_number_of_threads_that_cannot_be_is_refused_by_name(value: str) -> None:
    with pytest.raises(UserError, match=rf"serving\.threads = '?{value}'?.*1 to 1024"):
        load_settings(None, (f"serving.threads={value}",))
