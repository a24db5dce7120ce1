"""Where Apache Beam runs the components that touch data."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from trainer_module.errors import UserError

if TYPE_CHECKING:
    from pipeline.config import BeamSettings

# Beam's name "DirectRunner" may first try to download another runner, which it then hands the work to.
IN_PROCESS_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
_MULTI_PROCESS_RUNNER = "pipeline.beam_processes.MultiProcessRunner"

# See pipeline/beam_processes.py; workers of a cluster are told what to import.
_WORKERS_IMPORT = "--beam_plugins=tfx"

# For the workers of each component, TFX packs a copy of itself: seconds of work, and 50 MB that stay in the temporary
# folder. Here nobody needs it. TFX leaves it where an image for the workers is named, which these runners never use.
_NO_PACKAGE = "--sdk_container_image=none"

# Without these, a runner would start a cluster of its own, or download one.
_NEEDED = {
    "FlinkRunner": ("--flink_master",),
    "SparkRunner": ("--spark_master_url",),
    "DataflowRunner": ("--project", "--region", "--temp_location"),
    "DaskRunner": ("--dask_client_address",),
}
_WORKERS_FLAG = {"FlinkRunner": "--parallelism", "DataflowRunner": "--max_num_workers"}


def beam_arguments(settings: BeamSettings) -> list[str]:
    """Returns the Beam flags of all components.

    Args:
        settings: Runner, workers and further flags.

    Raises:
        UserError: The runner needs a flag that is not there, or a package that is not installed.
    """
    if settings.runner == "DirectRunner":
        return [*_on_this_machine(settings.workers), *settings.options]
    given = {option.partition("=")[0] for option in settings.options}
    missing = [flag for flag in _NEEDED[settings.runner] if flag not in given]
    if missing:
        raise UserError(f"beam.runner = {settings.runner} needs {' and '.join(missing)} in beam.options")
    if settings.runner == "DaskRunner" and importlib.util.find_spec("dask") is None:
        raise UserError("beam.runner = DaskRunner needs the package dask[distributed]; install it beside Trimline")
    workers = _WORKERS_FLAG.get(settings.runner)
    return [
        f"--runner={settings.runner}",
        *([f"{workers}={settings.workers}"] if workers else []),
        _WORKERS_IMPORT,
        *settings.options,
    ]


def prepare_workers(settings: BeamSettings) -> None:
    """Has what workers of this machine need imported meanwhile, if there will be any."""
    if settings.runner == "DirectRunner" and settings.workers > 1:
        from pipeline import beam_processes

        beam_processes.prepare()


def _on_this_machine(workers: int) -> list[str]:
    if workers == 1:
        return [f"--runner={IN_PROCESS_RUNNER}", _NO_PACKAGE]
    return [f"--runner={_MULTI_PROCESS_RUNNER}", f"--direct_num_workers={workers}", _NO_PACKAGE]
