"""Loads a model in a process of its own, asks it, and compares its answers with those that blessed it."""

from __future__ import annotations

import base64
import errno
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

PROBE = "components.serving_validator.probe"
# The SavedModel's graph is the one that the Evaluator ran.
SAVED_MODEL_TOLERANCE = 1e-3
# The server resizes with Pillow, whose pixels differ by one grey level here and there; see the parity test of serving.
TFLITE_TOLERANCE = 0.1
_SECONDS = 180.0
_MODULE = re.compile(r"^(\w+\.)+(?=\w+: )")
_ENVIRONMENT = {"TF_USE_LEGACY_KERAS": "1", "PYTHONSAFEPATH": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}


def validate(
    directory: Path, images: Mapping[str, bytes], expected: Mapping[str, list[float]], tolerance: float
) -> str:
    """Asks a model in a fresh process.

    Args:
        directory: Holds the exported model.
        images: Image files, by digest.
        expected: The probabilities [C] that the Evaluator saw, by digest.
        tolerance: Largest difference of a probability.

    Returns:
        Why the model must not ship, one line; "" if nothing speaks against it.

    Raises:
        OSError: The disk is full.
    """
    digests = sorted(expected)
    missing = [digest for digest in digests if digest not in images]
    if not digests or missing:
        return f"the Evaluator's sample of {len(digests)} predictions has no photos to ask for; nothing was compared"
    answers, failure = _ask(directory, [images[digest] for digest in digests])
    if failure:
        return failure
    wanted = np.array([expected[digest] for digest in digests])
    if answers.shape != wanted.shape:
        return f"it answers {list(answers.shape)} where the Evaluator saw {list(wanted.shape)}"
    difference = float(np.abs(answers - wanted).max())
    # So that NaN, which compares as false, is a difference too.
    if not difference <= tolerance:
        return f"its probabilities are up to {difference:.3f} off those that the Evaluator saw; {tolerance} is allowed"
    return ""


def _ask(directory: Path, images: list[bytes]) -> tuple[np.ndarray, str]:
    """Returns probabilities [N, C], or why there are none."""
    with tempfile.TemporaryDirectory() as scratch:
        requests, answers = Path(scratch) / "requests.json", Path(scratch) / "answers.json"
        requests.write_text(json.dumps([base64.b64encode(image).decode() for image in images]))
        command = [sys.executable, "-m", PROBE, str(directory), str(requests), str(answers)]
        try:
            finished = subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_SECONDS,
                env=os.environ | _ENVIRONMENT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return np.empty(0), f"it did not answer {len(images)} requests within {_SECONDS:.0f} s"
        if finished.returncode:
            if os.strerror(errno.ENOSPC) in finished.stderr:
                # Not the model's fault, and TFX's cache would keep the verdict.
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), scratch)
            reason = _reason(finished).replace(f"{directory}/", "")
            return np.empty(0), f"a fresh process could not answer with it: {reason}"
        return np.array(json.loads(answers.read_text())), ""


def _reason(finished: subprocess.CompletedProcess[str]) -> str:
    if finished.returncode < 0:
        return f"it was killed by {signal.Signals(-finished.returncode).name}"
    lines = [line for line in finished.stderr.splitlines() if line.strip()]
    # A traceback ends with the exception's class, its module before it.
    return _MODULE.sub("", lines[-1].strip()) if lines else f"exit status {finished.returncode}"
