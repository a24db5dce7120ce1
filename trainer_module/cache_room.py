"""How much of the memory and of the disk a split of decoded images may take."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import psutil

# The model, its activations and the rest of the machine need room too.
_SHARE_OF_WHAT_IS_FREE = 0.4
_CGROUP = Path("/sys/fs/cgroup")


def free_memory() -> int:
    """Returns the bytes of memory that this process can still take, as the machine and its container allow."""
    free = psutil.virtual_memory().available
    limit = _CGROUP / "memory.max"
    # The machine may have more than the container that this runs in is allowed to use.
    if not limit.exists() or (allowed := limit.read_text().strip()) == "max":
        return free
    statistics = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
    # Cached files count as used, but give way.
    used = int((_CGROUP / "memory.current").read_text()) - int(statistics["inactive_file"])
    return max(0, min(free, int(allowed) - used))


def memory_room() -> int:
    """Returns the bytes of memory that a split may take."""
    return int(free_memory() * _SHARE_OF_WHAT_IS_FREE)


def disk_room() -> int:
    """Returns the bytes that a split may take in the folder of temporary files."""
    return int(shutil.disk_usage(tempfile.gettempdir()).free * _SHARE_OF_WHAT_IS_FREE)
