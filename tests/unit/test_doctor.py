"""`trimline doctor`, on this machine and on limits that other machines have."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from pipeline import doctor
from trainer_module.cgroups import ControlGroup

TRIMLINE = Path(sys.executable).with_name("trimline")


def _write(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return ControlGroup(root)


@pytest.mark.parametrize(
    ("files", "memory", "used", "cores"),
    [
        ({}, None, 0, None),
        ({"memory.max": "max\n", "memory.current": "5\n", "cpu.max": "max 100000\n"}, None, 5, None),
        (
            {
                "memory.max": "4000\n",
                "memory.current": "1000\n",
                "memory.stat": "anon 700\ninactive_file 300\n",
                "cpu.max": "150000 100000\n",
            },
            4000,
            700,
            1.5,
        ),
        (
            {
                "memory/memory.limit_in_bytes": "4000\n",
                "memory/memory.usage_in_bytes": "9\n",
                "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 2\n",
                "cpu/cpu.cfs_quota_us": "50000\n",
                "cpu/cpu.cfs_period_us": "100000\n",
            },
            4000,
            7,
            0.5,
        ),
        (
            {
                "memory/memory.limit_in_bytes": "9223372036854771712\n",
                "cpu/cpu.cfs_quota_us": "-1\n",
                "cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
            0,
            None,
        ),
    ],
)
def test_limits_of_both_versions_of_control_groups(tmp_path, files, memory, used, cores):
    group = _write(tmp_path, files)
    assert (group.memory_limit(), group.memory_used(), group.cores()) == (memory, used, cores)


def test_a_containers_memory_counts_not_the_machines(tmp_path):
    small = _write(tmp_path, {"memory.max": "2000000000", "memory.current": "500000000"})
    finding = doctor.check_memory(small)
    assert finding.verdict == "fault"
    assert "1.5 GB free of 2.0 GB (the container's limit)" in finding.found
    total = psutil.virtual_memory().total / 1e9
    assert f"of {total:.1f} GB" in doctor.check_memory(ControlGroup(tmp_path / "none")).found


def test_fewer_cores_than_are_seen_will_be_slow(tmp_path):
    finding = doctor.check_cores(_write(tmp_path, {"cpu.max": "50000 100000"}))
    assert (finding.verdict, "may use 0.5" in finding.found) == ("slow", True)


def test_packages_are_compared_with_the_lock(tmp_path):
    lock = tmp_path / "requirements.lock"
    lock.write_text(
        "# comment\npsutil==0.0.1 \\\n    --hash=sha256:00\nnot-there-at-all==3.0 \\\n    --hash=sha256:00\n"
    )
    (finding,) = [finding for finding in doctor.check_packages(lock) if finding.what == "Packages"]
    assert finding.verdict == "fault"
    assert f"2 of 2 differ: psutil is {psutil.__version__}, not 0.0.1; not-there-at-all 3.0 is missing" in finding.found


def test_that_tfx_is_missing_is_said(tmp_path, monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    lock = tmp_path / "requirements.lock"
    lock.write_text("tfx==1.2.3\n")
    (finding,) = doctor.check_packages(lock)
    assert (finding.verdict, "tfx 1.2.3 is missing" in finding.found) == ("fault", True)


@pytest.mark.parametrize(
    ("flags", "verdict", "part"),
    [
        ("sse avx avx2 avx512f avx512_bf16 amx_bf16", "ok", "avx512_bf16, amx_bf16"),
        ("sse avx avx2", "slow", "avx, avx2"),
        ("sse", "fault", "no AVX"),
    ],
)
def test_what_the_cpu_can_do(tmp_path, flags, verdict, part):
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor\t: 0\nflags\t\t: fpu {flags}\n")
    finding = doctor.check_instructions(file)
    assert (finding.verdict, part in finding.found) == (verdict, True)


def test_a_folder_that_cannot_be_written_is_a_fault():
    assert doctor.check_disk("Disk", Path("/proc/1/none/of/this")).verdict == "fault"


@pytest.mark.component  # Loads TensorFlow.
def test_the_command_finds_no_fault_but_want_of_memory_where_the_tests_run(tmp_path):
    command = [TRIMLINE, "doctor", "--json", "--output", tmp_path / "not" / "yet"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.stdout, result.stderr
    findings = {finding["what"]: finding for finding in json.loads(result.stdout)}
    assert {"Python", "Packages", "Memory", "CPU cores", "CPU instructions", "GPU"} <= set(findings)
    faults = {what for what, finding in findings.items() if finding["verdict"] == "fault"}
    # Other programs may have the memory that a run needs.
    assert faults <= {"Memory"}, result.stderr
    assert result.returncode == (2 if faults else 0), result.stderr
    assert findings["Packages"]["found"].startswith("all ")
    assert not (tmp_path / "not").exists()
