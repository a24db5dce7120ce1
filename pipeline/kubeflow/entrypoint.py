"""What every pod of the pipeline runs: TFX's own entrypoint, given what the open-source backend leaves out.

The backend hands input artifacts over without their types, and by URIs of an object store, whose files its launcher has
laid out in the pod's own file system. TFX's entrypoint expects types, and paths that it can open.
"""

from __future__ import annotations

import argparse
import logging
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf import json_format, struct_pb2
from kfp.pipeline_spec import pipeline_spec_pb2
from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_run_executor

from components.pushed_baseline import properties
from pipeline.child import user_error_line
from pipeline.kubeflow import launcher_paths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

USER_ERROR, BUG = 2, 1


def main(arguments: Sequence[str]) -> int:
    """Runs one component.

    Args:
        arguments: Those of TFX's entrypoint.

    Returns:
        Exit status: 0 if the component ran, 2 for a user's mistake, 1 for anything else.
    """
    given, beam_arguments = _parser().parse_known_args(arguments)
    executor_input = json_format.Parse(
        given.json_serialized_invocation_args, pipeline_spec_pb2.ExecutorInput(), ignore_unknown_fields=True
    )
    inputs_spec = json_format.Parse(
        given.json_serialized_inputs_spec_args, pipeline_spec_pb2.ComponentInputsSpec(), ignore_unknown_fields=True
    )
    prepared = prepare(executor_input, inputs_spec)
    given.json_serialized_invocation_args = json_format.MessageToJson(prepared)
    try:
        _make_directories(prepared.outputs)
        kubeflow_v2_run_executor.main((given, beam_arguments))
        publish(Path(executor_input.outputs.output_file))
    except Exception:
        logging.getLogger(__name__).exception("the component failed")
        message = user_error_line(traceback.format_exc())
        if message is None:
            return BUG
        sys.stderr.write(f"trimline: {message}\n")
        return USER_ERROR
    return 0


def prepare(
    executor_input: pipeline_spec_pb2.ExecutorInput, inputs_spec: pipeline_spec_pb2.ComponentInputsSpec
) -> pipeline_spec_pb2.ExecutorInput:
    """Returns the invocation as TFX's entrypoint expects it.

    Input artifacts get the types that the component declares, every URI becomes the path where the launcher put the
    files, and an artifact that stands for nothing goes away.
    """
    prepared = pipeline_spec_pb2.ExecutorInput()
    prepared.CopyFrom(executor_input)
    for name, artifacts in prepared.inputs.artifacts.items():
        present = [artifact for artifact in artifacts.artifacts if not _is_absent(artifact)]
        for artifact in present:
            artifact.type.CopyFrom(inputs_spec.artifacts[name].artifact_type)
        kept = pipeline_spec_pb2.ArtifactList(artifacts=present)
        artifacts.CopyFrom(kept)
    _map_artifacts((prepared.inputs.artifacts, prepared.outputs.artifacts), launcher_paths.local_path)
    return prepared


def publish(output_file: Path) -> None:
    """Makes URIs of the paths in what the component says of its outputs: other pods have other file systems."""
    output = json_format.Parse(output_file.read_text(encoding="utf-8"), pipeline_spec_pb2.ExecutorOutput())
    _map_artifacts((output.artifacts,), launcher_paths.uri)
    output_file.write_text(json_format.MessageToJson(output), encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--executor_class_path", required=True)
    parser.add_argument("--json_serialized_invocation_args", required=True)
    parser.add_argument("--json_serialized_inputs_spec_args", required=True)
    return parser


def _make_directories(outputs: pipeline_spec_pb2.ExecutorInput.Outputs) -> None:
    """Makes the folders of output artifacts, as TFX's other launchers do; a value that is passed on is a file."""
    for name, artifacts in outputs.artifacts.items():
        for artifact in artifacts.artifacts:
            path = Path(artifact.uri)
            (path.parent if name in outputs.parameters else path).mkdir(parents=True, exist_ok=True)


def _is_absent(artifact: pipeline_spec_pb2.RuntimeArtifact) -> bool:
    fields = artifact.metadata.fields
    return properties.ABSENT in fields and bool(fields[properties.ABSENT].number_value)


def _map_artifacts(
    groups: Iterable[Mapping[str, pipeline_spec_pb2.ArtifactList]], change: Callable[[str], str]
) -> None:
    for group in groups:
        for artifacts in group.values():
            for artifact in artifacts.artifacts:
                artifact.uri = change(artifact.uri)
                for value in artifact.metadata.fields.values():
                    _map_value(value, change)


def _map_value(value: struct_pb2.Value, change: Callable[[str], str]) -> None:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        value.string_value = change(value.string_value)
    elif kind == "struct_value":
        for each in value.struct_value.fields.values():
            _map_value(each, change)
    elif kind == "list_value":
        for each in value.list_value.values:
            _map_value(each, change)


if __name__ == "__main__":
    # By force: TFX has set up logging of its own by now.
    logging.basicConfig(level=logging.INFO, force=True)
    sys.exit(main(sys.argv[1:]))
