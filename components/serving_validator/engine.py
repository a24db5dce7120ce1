"""Loads a model in a process of its own, asks it, and compares its answers with those that blessed it."""

from __future__ import annotations

import base64
import json
import re
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from components.gate_evaluator.probes import TRIES, run_probe
from trainer_module.machine_faults import machine_fault

if TYPE_CHECKING:
    import subprocess
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
        OSError, RuntimeError, UserError: It could not be asked, for no fault of its own.
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
        finished = run_probe(command, _SECONDS, _ENVIRONMENT)
        if finished is None:
            return np.empty(0), f"it did not answer {len(images)} requests within {_SECONDS:.0f} s, {TRIES} times"
        if finished.returncode:
            if fault := machine_fault(finished.stderr):
                # TFX's cache would keep a verdict.
                raise RuntimeError(f"{directory.name} could not be asked by a fresh process: {fault}")
            reason = _reason(finished).replace(f"{directory}/", "")
            return np.empty(0), f"a fresh process could not answer with it: {reason}"
        return np.array(json.loads(answers.read_text())), ""


def _reason(finished: subprocess.CompletedProcess[str]) -> str:
    if finished.returncode < 0:
        return f"it was killed by {signal.Signals(-finished.returncode).name}"
    lines = [line for line in finished.stderr.splitlines() if line.strip()]
    # A traceback ends with the exception's class, its module before it.
    return _MODULE.sub("", lines[-1].strip()) if lines else f"exit status {finished.returncode}"
