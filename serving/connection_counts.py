"""How many connections each worker has, in memory that they share."""

import multiprocessing
import socket
from dataclasses import dataclass
from typing import Final

# Of a worker that does not run, so that none waits for it to take its share.
_NOT_RUNNING: Final = 2**31 - 1


class ConnectionCounts:
    """The counts of all workers, made before those are forked; each writes its own alone."""

    def __init__(self, workers: int) -> None:
        """Makes the counts.

        Args:
            workers: How many workers there are; they have numbers from 0 on.
        """
        self._counts = multiprocessing.RawArray("l", [_NOT_RUNNING] * workers)

    def write(self, worker: int, count: int) -> None:
        """Writes how many connections a worker has."""
        self._counts[worker] = count

    def forget(self, worker: int) -> None:
        """Takes note that a worker does not run."""
        self._counts[worker] = _NOT_RUNNING

    def has_most(self, worker: int) -> bool:
        """Tells whether a worker has more connections than another one that runs."""
        return self._counts[worker] > min(self._counts)


@dataclass(frozen=True)
class SharedListener:
    """What several workers take their connections from.

    Attributes:
        listener: The bound socket, which all workers have.
        counts: The connections of all workers.
        worker: Number of this one.
    """

    listener: socket.socket
    counts: ConnectionCounts
    worker: int
