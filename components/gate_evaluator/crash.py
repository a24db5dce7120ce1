"""Tries a .tflite in a process of its own: LiteRT crashes on some broken models, for example with scales of 0.

python -m components.gate_evaluator.crash MODEL
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from components.gate_evaluator.probes import TRIES, run_probe

_SECONDS = 60.0
_REFUSED = 3


def crash_reason(model: Path) -> str:
    """Runs a .tflite once.

    Args:
        model: The file.

    Returns:
        How the process died or hung, one line; "" if it came to an end, be it that LiteRT refused the model.

    Raises:
        RuntimeError, UserError: The model could not be tried, for no fault of its own.
    """
    command = [sys.executable, "-m", "components.gate_evaluator.crash", str(model)]
    finished = run_probe(command, _SECONDS)
    if finished is None:
        return f"the interpreter did not answer within {_SECONDS:.0f} s, {TRIES} times"
    if finished.returncode < 0:
        return f"the interpreter dies of it with {signal.Signals(-finished.returncode).name}"
    if finished.returncode not in (0, _REFUSED):
        raise RuntimeError(f"{model}: could not be tried: {finished.stderr.strip()}")
    return ""


def _run(model: Path) -> int:
    try:
        interpreter = Interpreter(model_path=str(model))
        interpreter.allocate_tensors()
        for details in interpreter.get_input_details():
            interpreter.set_tensor(details["index"], np.zeros(details["shape"], details["dtype"]))
        interpreter.invoke()
    except (RuntimeError, ValueError):
        return _REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(_run(Path(sys.argv[1])))
