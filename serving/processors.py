"""How many processors this process may use."""

import os
from pathlib import Path
from typing import Final

# Where a container sees its own control group.
CONTROL_GROUP: Final = Path("/sys/fs/cgroup")
_VERSION_1 = ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")


def available_processors(control_group: Path = CONTROL_GROUP) -> int:
    """Returns the number of processors whose whole time this process may take, at least 1.

    Args:
        control_group: Where the control group is mounted whose limit counts, of either version.
    """
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(processors, _limit(control_group) or processors))


def _limit(control_group: Path) -> int | None:
    """Returns the limit in whole processors; None without one."""
    words = _text(control_group / "cpu.max").split() or [_text(control_group / name) for name in _VERSION_1]
    # "max" in version 2 and -1 in version 1 mean that there is none.
    quota, period = (int(word) if word.isdigit() else 0 for word in words)
    return max(1, quota // period) if quota and period else None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError:
        return ""
