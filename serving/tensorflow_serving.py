"""The pushed SavedModel goes to TensorFlow Serving, whose server is a program of its own."""

import math
import os
import shutil
from pathlib import Path
from typing import Final, NoReturn

from serving.errors import ServingError
from serving.options import ServerOptions
from serving.server import API_KEY_VARIABLE, read_api_key

PROGRAM: Final = "tensorflow_model_server"
PUSHED_FOLDER: Final = Path("pushed") / "saved_model"

_PASSED_ON = frozenset(("host", "port", "name", "timeout_s", "reload_s"))


def serve_saved_model(out: Path, options: ServerOptions) -> NoReturn:
    """Becomes TensorFlow Serving, which answers V1 REST on the port, for the pushed SavedModel.

    Args:
        out: A run's output folder, or its `pushed/saved_model` folder.
        options: Has the name, the port and the times. TensorFlow Serving listens on all addresses, knows no key, no TLS
            for REST and no limits, and whatever else differs from the defaults is refused, rather than forgotten.

    Raises:
        ServingError: There is no SavedModel, no TensorFlow Serving, the options ask for what it cannot do, or the
            key in the environment is empty.
    """
    pushed = out / PUSHED_FOLDER
    base = (pushed if pushed.is_dir() else out).resolve()
    if not any((version / "saved_model.pb").is_file() for version in base.glob("[0-9]*")):
        raise ServingError(f"{base}: no pushed SavedModel in it: run the pipeline until it ends blessed")
    _refuse_what_it_cannot_do(options)
    program = shutil.which(PROGRAM)
    times = [
        f"--rest_api_timeout_in_ms={math.ceil(options.timeout_s * 1000)}",
        # Whole seconds, of which 0 would end the watch.
        f"--file_system_poll_wait_seconds={math.ceil(options.reload_s)}",
    ]
    if program is None:
        image = f"docker run -p {options.address}:8501 -v {base}:/models/{options.name} "
        image += f"-e MODEL_NAME={options.name} tensorflow/serving {' '.join(times)}"
        raise ServingError(f"{PROGRAM} is not on the PATH: install TensorFlow Serving, or run its image: {image}")
    if options.host not in ("0.0.0.0", "::"):  # noqa: S104 - it is what the user has to ask for
        raise ServingError(
            f"TensorFlow Serving cannot listen on {options.host} alone: say --host 0.0.0.0 to open it to the network"
        )
    command = [
        PROGRAM,
        f"--rest_api_port={options.port}",
        "--port=0",
        f"--model_name={options.name}",
        f"--model_base_path={base}",
        *times,
    ]
    os.execv(program, command)  # noqa: S606


def _refuse_what_it_cannot_do(options: ServerOptions) -> None:
    defaults = ServerOptions()
    asked = [
        f"serving.{name}"
        for name in ServerOptions.model_fields
        if name not in _PASSED_ON and getattr(options, name) != getattr(defaults, name)
    ]
    if read_api_key(None) is not None:
        asked.append(f"${API_KEY_VARIABLE}")
    if asked:
        raise ServingError(
            f"TensorFlow Serving cannot do what is asked by {', '.join(asked)}: leave that out, or serve the .tflite, "
            "without --saved-model"
        )
