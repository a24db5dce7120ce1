"""Runs the pipeline on this machine: BeamDagRunner with SQLite metadata. A process of its own, started by the CLI."""

from __future__ import annotations

import json
import logging
import posixpath
import sys
import traceback
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from tfx.dsl.components.common.resolver import Resolver
from tfx.dsl.io import fileio

from components.atomic_pusher import destination, properties
from pipeline.beam import IN_PROCESS_RUNNER, beam_arguments, prepare_workers
from pipeline.child import describe_failure, report_outcome
from pipeline.destinations import push_directories, require_reachable
from pipeline.metadata import Metadata
from pipeline.workspace import Workspace
from trainer_module.acceleration import require_one_host
from trainer_module.errors import UserError
from trainer_module.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tfx import v1 as tfx
    from tfx.dsl.components.base.base_node import BaseNode

    from pipeline.config import PipelineSettings
    from pipeline.create_pipeline import Locations
    from pipeline.metadata import OutputArtifact


def run(workspace: Workspace) -> None:
    """Runs the whole pipeline of a prepared workspace and writes summary and report; the report also if it fails.

    Args:
        workspace: Its settings file says what to run.
    """
    from pipeline.summary import publish_failure, write_summary

    settings = workspace.read_settings()
    # Transform computes in this process first, and each host would compress and push what its own measuring selects.
    require_one_host(settings.acceleration)
    require_reachable(push_directories(settings, workspace).values())
    forget_lost_pushes(workspace)
    known = Metadata(workspace.metadata_file).runs() if workspace.metadata_file.exists() else []
    try:
        run_pipeline(settings, workspace)
    except Exception:
        publish_failure(settings, workspace, known, describe_failure(traceback.format_exc(), workspace)[0])
        raise
    write_summary(settings, workspace)


def forget_lost_pushes(workspace: Workspace) -> None:
    """Makes the Pushers push again where the latest push has vanished, was changed, or is of other models.

    TFX takes a push from the cache as long as the Pusher's archive copy exists, whatever the pushed version came to,
    and whatever was pushed after it. What trimline push and rollback put somewhere has no archive copy. A rollback
    stays, and one that was changed is left to trimline verify: a run would put the release before it in its place.

    Args:
        workspace: Output directory.
    """
    if not workspace.metadata_file.exists():
        return
    by_directory = defaultdict(list)
    for push in sorted(Metadata(workspace.metadata_file).pushed_models(), key=lambda push: push.id):
        if properties.DESTINATION in push.properties:
            by_directory[posixpath.dirname(push.properties[properties.DESTINATION])].append(push)
    for directory in push_directories(workspace.read_settings(), workspace).values():
        for push in _lost(by_directory[directory]):
            if _is_archived(push) and fileio.exists(push.uri):
                fileio.rmtree(push.uri)


def _lost(pushes: Sequence[OutputArtifact]) -> Sequence[OutputArtifact]:
    """Returns the pushes to one directory, oldest first, whose archive copies say what is no longer so."""
    if not pushes or _is_lost(pushes[-1]):
        return pushes
    return pushes[:-1] if _is_archived(pushes[-1]) else ()


def _is_lost(push: OutputArtifact) -> bool:
    path, digest = push.properties[properties.DESTINATION], push.properties.get(properties.SHA256)
    if not fileio.exists(path):
        return True
    base, version = posixpath.split(path)
    is_live = next(destination.latest_whole_versions(base), 0) <= int(version)
    return is_live and _is_archived(push) and digest is not None and destination.tree_digest(path) != digest


def _is_archived(push: OutputArtifact) -> bool:
    return push.uri != push.properties[properties.DESTINATION]


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

    prepare_workers(settings.beam)
    # The orchestrator itself must run in this process. Beam's default runner would first try to download another one.
    StandardOptions.DEFAULT_RUNNER = IN_PROCESS_RUNNER
    pipeline = create_pipeline(
        settings,
        _locations(settings, workspace),
        beam_pipeline_args=beam_arguments(settings.beam),
        metadata_connection_config=sqlite_metadata_connection_config(str(workspace.metadata_file)),
    )
    write_whole(workspace.graph_file, json.dumps(_graph(pipeline)))
    BeamDagRunner().run(pipeline, run_options=RunOptions(to_nodes=[last_component]) if last_component else None)


def _graph(pipeline: tfx.dsl.Pipeline) -> dict[str, list[str]]:
    """Returns the names of what each component waits for; resolvers do no work and are seen through."""
    return {node.id: sorted(_awaited(node)) for node in pipeline.components if not isinstance(node, Resolver)}


def _awaited(node: BaseNode) -> set[str]:
    names: set[str] = set()
    for upstream in node.upstream_nodes:
        names |= _awaited(upstream) if isinstance(upstream, Resolver) else {upstream.id}
    return names


def _locations(settings: PipelineSettings, workspace: Workspace) -> Locations:
    from pipeline.create_pipeline import Locations

    if settings.data.path is None:
        raise UserError("data.path is not set in the settings of the run; start it with trimline run")
    directories = push_directories(settings, workspace)
    return Locations(data=settings.data.path, pipeline_root=workspace.pipeline_root, **directories)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    target = Workspace(Path(sys.argv[1]))
    sys.exit(report_outcome(target, lambda: run(target)))
