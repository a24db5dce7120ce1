"""The pushed SavedModel goes to TensorFlow Serving, whose server is a program of its own."""

import os
import shutil
from pathlib import Path
from typing import Final, NoReturn

from serving.errors import ServingError
from serving.options import ServerOptions

PROGRAM: Final = "tensorflow_model_server"
PUSHED_FOLDER: Final = Path("pushed") / "saved_model"


def serve_saved_model(out: Path, options: ServerOptions) -> NoReturn:
    """Becomes TensorFlow Serving, which answers V1 REST on the port, for the pushed SavedModel.

    Args:
        out: A run's output folder, or its `pushed/saved_model` folder.
        options: Has the name and the port. TensorFlow Serving listens on all addresses and knows no key and no TLS for
            REST, so that anything but all addresses is refused.

    Raises:
        ServingError: There is no SavedModel, no TensorFlow Serving, or the options ask for what it cannot do.
    """
    pushed = out / PUSHED_FOLDER
    base = (pushed if pushed.is_dir() else out).resolve()
    if not any((version / "saved_model.pb").is_file() for version in base.glob("[0-9]*")):
        raise ServingError(f"{base}: no pushed SavedModel in it: run the pipeline until it ends blessed")
    program = shutil.which(PROGRAM)
    command = [
        PROGRAM,
        f"--rest_api_port={options.port}",
        "--port=0",
        f"--model_name={options.name}",
        f"--model_base_path={base}",
    ]
    if program is None:
        image = f"docker run -p {options.host}:{options.port}:8501 -v {base}:/models/{options.name} "
        image += f"-e MODEL_NAME={options.name} tensorflow/serving"
        raise ServingError(f"{PROGRAM} is not on the PATH: install TensorFlow Serving, or run its image: {image}")
    if options.host not in ("0.0.0.0", "::"):  # noqa: S104 - it is what the user has to ask for
        raise ServingError(
            f"TensorFlow Serving cannot listen on {options.host} alone: say --host 0.0.0.0 to open it to the network"
        )
    os.execv(program, command)  # noqa: S606
