"""Commands in a process of their own."""

import subprocess
import sys
from pathlib import Path


def trimline_without_tensorflow(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end where TensorFlow cannot be imported."""
    words = ["trimline", *map(str, arguments)]
    code = f"import sys; sys.argv = {words!r}; sys.modules['tensorflow'] = None; from pipeline.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
