"""Samples of what the server is sent, kept for retraining; off unless asked for."""

import hashlib
import json
import logging
import os
import random
import threading
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from serving.errors import ServingError
from serving.options import ServerOptions
from serving.versions import ServedVersion

logger = logging.getLogger(__name__)


class Sampler:
    """Keeps a share of the image files that requests bring, each beside a JSON file with the answer it was given.

    The files are named by the SHA-256 of the image, so that an image is kept once however often it is sent.
    """

    def __init__(self, directory: Path, share: float, most: int, sharers: int) -> None:
        """Makes the directory.

        Args:
            directory: Where the samples go.
            share: Probability that an image is kept.
            most: Most images in the directory; none is added to more.
            sharers: Processes that add to it, each as much as the others.

        Raises:
            ServingError: The directory cannot be made.
        """
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._left = max(0, most - sum(1 for _ in directory.glob("*.json"))) // sharers
        except OSError as error:
            raise ServingError(f"{directory}: cannot keep samples there: {error.strerror}") from error
        self._directory = directory
        self._share = share
        self._lock = threading.Lock()

    @classmethod
    def of(cls, options: ServerOptions) -> Self | None:
        """Returns the sampler that the options ask for; None where they ask for none."""
        if not options.sample_share or options.sample_dir is None:
            return None
        return cls(options.sample_dir, options.sample_share, options.sample_max, options.workers)

    def offer(self, data: bytes, label: str, probabilities: NDArray[np.float32], version: ServedVersion) -> None:
        """Keeps an image, or not. A full disk is logged and harms no request.

        Args:
            data: The image file.
            label: The class it was given.
            probabilities: float32 [number of labels].
            version: The version that classified it.
        """
        # Not for security: it only picks samples.
        if random.random() >= self._share or self._left <= 0:  # noqa: S311
            return
        name = hashlib.sha256(data).hexdigest()
        answer = {"label": label, "probabilities": probabilities.tolist(), "version": version.number}
        try:
            if (self._directory / f"{name}.json").exists():
                return
            _write_whole(self._directory / f"{name}.image", data)
            _write_whole(self._directory / f"{name}.json", json.dumps(answer).encode())
        except OSError as error:
            logger.warning("%s: a sample cannot be written: %s", self._directory, error.strerror)
            return
        with self._lock:
            self._left -= 1


def _write_whole(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    partial.write_bytes(content)
    partial.replace(path)
