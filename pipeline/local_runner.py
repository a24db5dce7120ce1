"""Runs the pipeline on this machine: BeamDagRunner with SQLite metadata. A process of its own, started by the CLI."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.workspace import Workspace
from trainer_module.errors import UserError

if TYPE_CHECKING:
    from pipeline.config import PipelineSettings
    from pipeline.create_pipeline import Locations

# Beam workers carry exceptions as text, so the line meant for the user is found by the name of its class.
_USER_ERROR_LINE = re.compile(rf"\b{UserError.__name__}: (.+?)(?: \[while running .*)?$", re.MULTILINE)
_IN_PROCESS_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


def main(arguments: list[str]) -> int:
    """Runs the pipeline on a prepared workspace and writes the outcome to its outcome file.

    Args:
        arguments: The output directory, whose settings file says what to run.

    Returns:
        0 if the pipeline ran to its end (blessed or not), 2 for a user's mistake, 1 for anything else.
    """
    workspace = Workspace(Path(arguments[0]))
    try:
        _run(workspace)
    except Exception:
        text = traceback.format_exc()
        logging.getLogger(__name__).exception("the run failed")
        lines = _USER_ERROR_LINE.findall(text)
        message = lines[-1] if lines else text.strip().splitlines()[-1]
        workspace.outcome_file.write_text(json.dumps({"user_error": bool(lines), "message": message}))
        return 2 if lines else 1
    return 0


def _run(workspace: Workspace) -> None:
    # TFX and TFMA decide at import which Keras they use.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    logging.basicConfig(level=logging.INFO)
    settings = workspace.read_settings()
    run_pipeline(settings, workspace)
    from pipeline.summary import write_summary

    write_summary(settings, workspace)


def run_pipeline(settings: PipelineSettings, workspace: Workspace, last_component: str | None = None) -> None:
    """Runs every component that has no cached result.

    Args:
        settings: The whole tree, with `data.path` and `data.image_size` decided.
        workspace: Output directory.
        last_component: Stops after this component; None runs all.
    """
    from apache_beam.options.pipeline_options import StandardOptions
    from tfx.orchestration.beam.beam_dag_runner import BeamDagRunner
    from tfx.orchestration.metadata import sqlite_metadata_connection_config
    from tfx.orchestration.pipeline import RunOptions

    from pipeline.create_pipeline import create_pipeline

    # The orchestrator itself must run in this process. Beam's default runner would first try to download another one.
    StandardOptions.DEFAULT_RUNNER = _IN_PROCESS_RUNNER
    pipeline = create_pipeline(
        settings,
        _locations(settings, workspace),
        beam_pipeline_args=beam_arguments(settings),
        metadata_connection_config=sqlite_metadata_connection_config(str(workspace.metadata_file)),
    )
    BeamDagRunner().run(pipeline, run_options=RunOptions(to_nodes=[last_component]) if last_component else None)


def _locations(settings: PipelineSettings, workspace: Workspace) -> Locations:
    from pipeline.create_pipeline import Locations

    if settings.data.path is None:
        raise UserError("data.path is not set in the settings of the run; start it with trimline run")
    return Locations(
        data=settings.data.path,
        pipeline_root=workspace.pipeline_root,
        saved_model=settings.push.saved_model_dir or workspace.pushed_saved_model,
        tflite=settings.push.tflite_dir or workspace.pushed_tflite,
    )


def beam_arguments(settings: PipelineSettings) -> list[str]:
    """Returns the Beam options of the components.

    Small data runs in this process, because worker processes take longer to start than they save.
    """
    if settings.beam.runner != "DirectRunner":
        return [f"--runner={settings.beam.runner}"]
    workers = settings.beam.workers or 1
    mode = "in_memory" if workers == 1 else "multi_processing"
    return [
        f"--runner={_IN_PROCESS_RUNNER}",
        f"--direct_running_mode={mode}",
        f"--direct_num_workers={workers}",
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
