"""Processes that try a model: what becomes of them counts against the model, unless something else ended them."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

from trainer_module.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# What a program that crashes sends itself. All others come from outside: SIGKILL mostly from a system short of memory.
_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS)
# A machine may be busy for a minute; a model that hangs does so again.
TRIES = 2


def run_probe(
    command: Sequence[str], seconds: float, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str] | None:
    """Runs a process that tries a model.

    Args:
        command: Its command line.
        seconds: How long it may take.
        environment: Variables beside this process' own.

    Returns:
        The process once it has ended; None if it took too long at each try.

    Raises:
        UserError: Something else than the model ended it.
    """
    for _ in range(TRIES):
        try:
            finished = subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=seconds,
                env=os.environ | (environment or {}),
                check=False,
            )
        except subprocess.TimeoutExpired:
            continue
        if finished.returncode < 0 and -finished.returncode not in _CRASHES:
            raise UserError(
                f"the process that tried a model was ended by {signal.Signals(-finished.returncode).name}, as the "
                "system does when memory runs short; free some, then run the same command again"
            )
        return finished
    return None
