"""What the workers of one server know of each other, in memory that they share."""

import multiprocessing
import time
from dataclasses import dataclass
from typing import Final

# Of a worker that does not run, so that none waits for it to take its share.
_NOT_RUNNING: Final = 2**31 - 1
_NEVER: Final = -1.0


class WorkerStates:
    """The states of all workers, made before those are forked; each writes its own alone."""

    def __init__(self, workers: int) -> None:
        """Makes the states.

        Args:
            workers: How many workers there are; they have numbers from 0 on.
        """
        self._connections = multiprocessing.RawArray("l", [_NOT_RUNNING] * workers)
        # On Linux all processes have the same monotonic clock.
        self._able_at = multiprocessing.RawArray("d", [_NEVER] * workers)

    def forget(self, worker: int) -> None:
        """Takes note that a worker does not run."""
        self._connections[worker] = _NOT_RUNNING
        self._able_at[worker] = _NEVER

    def write_connections(self, worker: int, count: int) -> None:
        """Writes how many connections a worker has."""
        self._connections[worker] = count

    def has_most_connections(self, worker: int) -> bool:
        """Tells whether a worker has more connections than another one that runs."""
        return self._connections[worker] > min(self._connections)

    def note_able(self, worker: int) -> None:
        """Takes note that a worker's model can answer now."""
        self._able_at[worker] = time.monotonic()

    def unable_for(self, worker: int) -> float:
        """Returns for how many seconds a worker's model has not been able to answer; 0 until it first was."""
        able_at = self._able_at[worker]
        return 0.0 if able_at == _NEVER else time.monotonic() - able_at


@dataclass(frozen=True)
class OneOfSeveral:
    """A worker's place among several.

    Attributes:
        states: Those of all workers.
        number: Number of this one.
    """

    states: WorkerStates
    number: int
