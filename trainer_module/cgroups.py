"""What the container around this process allows it: Linux control groups, both versions."""

from __future__ import annotations

import dataclasses
from pathlib import Path

# The kernel's way to say "no limit" in version 1 is a number close to the largest there is.
_UNLIMITED = 2**60


@dataclasses.dataclass(frozen=True)
class ControlGroup:
    """The limits of one mounted hierarchy.

    Attributes:
        root: Where it is mounted.
    """

    root: Path = Path("/sys/fs/cgroup")

    def memory_limit(self) -> int | None:
        """Returns the bytes of memory that all processes in the container may take together; None without a limit."""
        return self._limit("memory.max") or self._limit("memory/memory.limit_in_bytes")

    def memory_used(self) -> int:
        """Returns the bytes that are taken of the limit, without cached files, which give way."""
        used = self._limit("memory.current") or self._limit("memory/memory.usage_in_bytes") or 0
        statistics = self._text("memory.stat") or self._text("memory/memory.stat")
        cached = dict(line.split() for line in statistics.splitlines())
        return used - int(cached.get("total_inactive_file", cached.get("inactive_file", 0)))

    def cores(self) -> float | None:
        """Returns how many cores' time the container may take; None without a limit."""
        both = self._text("cpu.max").split() or [
            self._text("cpu/cpu.cfs_quota_us"),
            self._text("cpu/cpu.cfs_period_us"),
        ]
        quota, period = (int(text) if text.isdigit() else 0 for text in both)
        return quota / period if quota and period else None

    def _limit(self, name: str) -> int | None:
        text = self._text(name)
        return int(text) if text.isdigit() and int(text) < _UNLIMITED else None

    def _text(self, name: str) -> str:
        file = self.root / name
        return file.read_text().strip() if file.exists() else ""
