"""How much of the memory and of the disk a split of decoded images may take."""

from __future__ import annotations

import shutil
import tempfile

import psutil

from trainer_module.cgroups import ControlGroup

# The model, its activations and the rest of the machine need room too.
_SHARE_OF_WHAT_IS_FREE = 0.4
_OWN_CONTAINER = ControlGroup()


def free_memory(container: ControlGroup = _OWN_CONTAINER) -> int:
    """Returns the bytes of memory that this process can still take, as the machine and its container allow."""
    free = psutil.virtual_memory().available
    limit = container.memory_limit()
    # The machine may have more than the container that this runs in is allowed to use.
    return free if limit is None else max(0, min(free, limit - container.memory_used()))


def memory_room() -> int:
    """Returns the bytes of memory that a split may take."""
    return int(free_memory() * _SHARE_OF_WHAT_IS_FREE)


def disk_room() -> int:
    """Returns the bytes that a split may take in the folder of temporary files."""
    return int(shutil.disk_usage(tempfile.gettempdir()).free * _SHARE_OF_WHAT_IS_FREE)
