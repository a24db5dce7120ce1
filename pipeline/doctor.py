"""What of this machine matters to Trimline: whether it works here, and what will be slow."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import psutil

from trainer_module.cache_room import free_memory
from trainer_module.cgroups import ControlGroup
from trainer_module.processors import available_cores

if TYPE_CHECKING:
    from collections.abc import Iterator

Verdict = Literal["ok", "slow", "fault"]

_GB = 1e9
_PYTHON = (3, 11)
# A run of the embedded digits took 3.1 GB in its two processes together, nearly all of it for the libraries.
_MEMORY_NEEDED, _MEMORY_WANTED = 3.2 * _GB, 6 * _GB
_DISK_NEEDED, _DISK_WANTED = 0.5 * _GB, 5 * _GB
_BUSY_SHARE = 0.5
_CPU_INFO = Path("/proc/cpuinfo")
_LOCK_FILE = Path(__file__).resolve().parents[1] / "requirements.lock"
_LOCKED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s\\;]+)", re.MULTILINE)
_MOST_NAMED = 5
# Compute capability of the first GPUs that multiply float16 matrices in hardware.
_TENSOR_CORES = 7.0
# An extra of TensorFlow's would not add them: pyproject.toml overrides its requirements.
_CUDA_LIBRARIES = (
    "in the repository, .venv/bin/uv pip install --no-deps --require-hashes "
    "--requirement kubeflow/requirements-gpu.lock"
)
_SECONDS_FOR_TENSORFLOW = 120
_ASK_TENSORFLOW = """
import tensorflow as tf
for device in tf.config.list_physical_devices("GPU"):
    details = tf.config.experimental.get_device_details(device)
    capability = ".".join(map(str, details.get("compute_capability", (0, 0))))
    print("GPU", details.get("device_name", "unknown"), capability, sep="\\t")
"""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: What it is.
        verdict: "ok", "slow" (it works, but not at its best), or "fault" (it will not work).
        found: What is there.
        advice: What that means, and what to do; "" if all is well.
    """

    what: str
    verdict: Verdict
    found: str
    advice: str = ""


def examine(output: Path) -> Iterator[Finding]:
    """Looks at everything; takes some seconds, because it asks TensorFlow for its GPUs.

    Args:
        output: Where runs will write; it need not exist.

    Yields:
        What was found, one thing after the other.
    """
    yield check_python()
    yield from check_packages()
    container = ControlGroup()
    yield check_memory(container)
    yield check_disk("Disk for the output", output)
    yield check_disk("Disk for temporary files", Path(tempfile.gettempdir()))
    yield check_cores(container)
    yield check_load()
    yield check_instructions()
    yield check_gpu()


def check_python() -> Finding:
    """Looks at the interpreter and the operating system."""
    found = (
        f"{platform.python_implementation()} {platform.python_version()} on {platform.system()} {platform.machine()}"
    )
    if sys.version_info[:2] != _PYTHON:
        return Finding("Python", "fault", found, "TFX needs Python 3.11; make .venv anew: make setup PYTHON=python3.11")
    if platform.system() != "Linux":
        return Finding("Python", "fault", found, "TFX's wheels exist for Linux only; use a container")
    return Finding("Python", "ok", found)


def check_packages(lock_file: Path = _LOCK_FILE) -> Iterator[Finding]:
    """Compares what is installed with the lock file."""
    if not lock_file.exists():
        advice = f"{lock_file} is not there: compare pip freeze with that of the release"
        yield Finding("Packages", "slow", "not checked", advice)
        return
    locked = dict(_LOCKED.findall(lock_file.read_text(encoding="utf-8")))
    wrong = [text for name, version in locked.items() if (text := _difference(name, version))]
    if wrong:
        named = "; ".join(wrong[:_MOST_NAMED]) + ("; ..." if len(wrong) > _MOST_NAMED else "")
        yield Finding("Packages", "fault", f"{len(wrong)} of {len(locked)} differ: {named}", "repeat make setup")
    else:
        yield Finding("Packages", "ok", f"all {len(locked)} are those of {lock_file.name}")
    if not _tfx_is_compiled():
        yield Finding(
            "Bytecode", "slow", "TFX is not compiled", f"every start takes 15 s more: python -m compileall {sys.prefix}"
        )


def _tfx_is_compiled() -> bool:
    try:
        compiled = importlib.metadata.distribution("tfx").locate_file("tfx/__pycache__")
    except importlib.metadata.PackageNotFoundError:
        # That it is missing has been said.
        return True
    return any(Path(str(compiled)).glob("*.pyc"))


def _difference(name: str, version: str) -> str | None:
    try:
        installed = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return f"{name} {version} is missing"
    return None if installed == version else f"{name} is {installed}, not {version}"


def check_memory(container: ControlGroup) -> Finding:
    """Looks at what is free, of the machine or of its container."""
    free, total, limit = free_memory(container), psutil.virtual_memory().total, container.memory_limit()
    note = ""
    if limit is not None and limit < total:
        total, note = limit, " (the container's limit)"
    found = f"{free / _GB:.1f} GB free of {total / _GB:.1f} GB{note}"
    if free < _MEMORY_NEEDED:
        return Finding("Memory", "fault", found, f"a run needs {_MEMORY_NEEDED / _GB:g} GB; end other programs")
    if free < _MEMORY_WANTED:
        return Finding("Memory", "slow", found, "photos that do not fit are kept on disk, or read again in every epoch")
    return Finding("Memory", "ok", found)


def check_disk(what: str, directory: Path) -> Finding:
    """Looks at the disk of a directory, or of that in which it would be made."""
    existing = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    found = f"{free / _GB:.1f} GB free at {existing}"
    if not os.access(existing, os.W_OK):
        return Finding(what, "fault", f"{existing} cannot be written", "choose another, or change its owner")
    if free < _DISK_NEEDED:
        return Finding(what, "fault", found, "make room: a run writes what it reads once more, and every variant")
    if free < _DISK_WANTED:
        return Finding(what, "slow", found, "enough for small sets; photos that do not fit are read again every epoch")
    return Finding(what, "ok", found)


def check_cores(container: ControlGroup) -> Finding:
    """Counts the cores that this process may use."""
    cores = available_cores()
    allowed = container.cores()
    found = f"{cores} cores"
    if allowed is not None and allowed < cores:
        advice = "TensorFlow starts a thread for every core it sees, which then wait: taskset this many cores"
        return Finding("CPU cores", "slow", f"{found}, of which the container may use {allowed:g}", advice)
    if cores == 1:
        return Finding("CPU cores", "slow", "1 core", "reading and training take turns")
    return Finding("CPU cores", "ok", found)


def check_load() -> Finding:
    """Looks at what else runs, which falsifies timings."""
    cores, load = available_cores(), os.getloadavg()[0]
    found = f"{load:.1f} in the last minute on {cores} cores"
    if load > _BUSY_SHARE * cores:
        advice = "other programs run: latencies and what acceleration.mode=auto measures will be off"
        return Finding("Load", "slow", found, advice)
    return Finding("Load", "ok", found)


def check_instructions(cpu_info: Path = _CPU_INFO) -> Finding:
    """Says what the CPU can do that makes a difference to oneDNN and XNNPACK."""
    if platform.machine() not in ("x86_64", "AMD64") or not cpu_info.exists():
        return Finding("CPU instructions", "ok", platform.machine())
    match = re.search(r"^flags\s*:(.*)$", cpu_info.read_text(), re.MULTILINE)
    flags = set(match.group(1).split()) if match else set()
    if "avx" not in flags:
        return Finding("CPU instructions", "fault", "no AVX", "TensorFlow's wheels need it; use another machine")
    known = ("avx", "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
    found = ", ".join(flag for flag in known if flag in flags)
    if "avx512_bf16" not in flags and "amx_bf16" not in flags:
        advice = "no bfloat16 arithmetic: training stays in float32, about half as fast as on a CPU that has it"
        return Finding("CPU instructions", "slow", found, advice)
    return Finding("CPU instructions", "ok", found)


def check_gpu() -> Finding:
    """Asks TensorFlow for GPUs that it can use, and the driver for those that it cannot."""
    # A folder called tensorflow where the user happens to be must not take its place.
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-c", _ASK_TENSORFLOW]
    try:
        asked = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=_SECONDS_FOR_TENSORFLOW, check=False
        )
    except subprocess.TimeoutExpired:
        return Finding("TensorFlow", "fault", f"did not start in {_SECONDS_FOR_TENSORFLOW} s", "repeat when it is idle")
    if asked.returncode:
        last = (asked.stderr.strip().splitlines() or [f"exit status {asked.returncode}"])[-1]
        return Finding("TensorFlow", "fault", f"cannot be loaded: {last}", "repeat make setup")
    usable = [line.split("\t")[1:] for line in asked.stdout.splitlines() if line.startswith("GPU\t")]
    if usable:
        found = ", ".join(f"{name} (compute capability {capability})" for name, capability in usable)
        if any(float(capability) < _TENSOR_CORES for _, capability in usable):
            return Finding("GPU", "slow", found, "no tensor cores: float16 saves memory, but little time")
        return Finding("GPU", "ok", found)
    present = _nvidia_gpus()
    if present:
        return Finding("GPU", "slow", present, f"TensorFlow cannot use it, so all runs on the CPU: {_CUDA_LIBRARIES}")
    return Finding("GPU", "ok", "none; the default networks are made to train on CPUs")


def _nvidia_gpus() -> str:
    """Names what the driver knows, which is more than TensorFlow can use where CUDA's libraries are missing."""
    if not shutil.which("nvidia-smi"):
        return ""
    asked = subprocess.run(
        ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=False,
    )
    return "; ".join(asked.stdout.strip().splitlines()) if asked.returncode == 0 else ""
