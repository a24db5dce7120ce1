"""What was released, what was pushed where and by whom: queries and entries of ML Metadata."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from ml_metadata.proto import metadata_store_pb2

from components.atomic_pusher import properties as push_properties
from components.release_gate import properties as release_properties
from pipeline.metadata import open_store

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ml_metadata.proto.metadata_store_pb2 import Artifact, Event, Execution

Kind = Literal["run", "push", "rollback"]

# Types of the entries that are made outside of a pipeline.
_EXECUTION_TYPES: dict[Kind, str] = {"push": "trimline.Push", "rollback": "trimline.Rollback"}
# TFX's names of artifact types.
_MODEL, _MODEL_BLESSING, _PUSHED_MODEL = "Model", "ModelBlessing", "PushedModel"


@dataclasses.dataclass(frozen=True)
class Release:
    """A pair of models that every gate blessed.

    Attributes:
        id: Id of the blessing in the metadata store; later releases have higher ones.
        models: Ids of the models, by "saved_model" and "tflite".
        uris: Where their artifacts are, by the same names.
    """

    id: int
    models: Mapping[str, int]
    uris: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Push:
    """One version that was put somewhere.

    Attributes:
        artifact: "saved_model" or "tflite".
        release: What was pushed; None if its blessing is not in the store.
        path: Directory of the version.
        version: Its number.
        by: Who did it, as user@host; "" where that was not recorded.
        at: Seconds since the epoch.
        kind: A run of the pipeline, trimline push, or trimline rollback.
        sha256: Digest of all its files; "" where that was not recorded.
    """

    artifact: str
    release: Release | None
    path: str
    version: int
    by: str
    at: float
    kind: Kind
    sha256: str


class Ledger:
    """The releases and pushes of one output directory."""

    def __init__(self, metadata_file: Path, *, writable: bool = False) -> None:
        """Opens the store.

        Args:
            metadata_file: The SQLite database; must exist.
            writable: Whether pushes will be recorded.
        """
        self._store = open_store(metadata_file, writable=writable)

    def releases(self) -> list[Release]:
        """Returns all releases, oldest first."""
        blessings = self._store.get_artifacts_by_type(_MODEL_BLESSING)
        uris = {a.id: a.uri for a in self._store.get_artifacts_by_type(_MODEL)}
        found: dict[tuple[int, int], Release] = {}
        for blessing in sorted(blessings, key=lambda b: b.id):
            properties = blessing.custom_properties
            if properties[release_properties.RELEASED].int_value == 1:
                saved_model = properties[release_properties.SAVED_MODEL_ID].int_value
                tflite = properties[release_properties.TFLITE_MODEL_ID].int_value
                models = {"saved_model": saved_model, "tflite": tflite}
                release = Release(blessing.id, models, {name: uris[number] for name, number in models.items()})
                # Judged again, for example with other settings, it is the same release.
                found.setdefault((saved_model, tflite), release)
        return list(found.values())

    def pushes(self) -> list[Push]:
        """Returns all pushes, oldest first."""
        by_model = {model: (name, r) for r in self.releases() for name, model in r.models.items()}
        artifacts = [a for a in self._pushed_artifacts() if a.custom_properties[push_properties.PUSHED].int_value]
        events = self._store.get_events_by_artifact_ids([a.id for a in artifacts]) if artifacts else []
        producers = {
            e.artifact_id: e.execution_id for e in reversed(events) if e.type == metadata_store_pb2.Event.OUTPUT
        }
        executions = {e.id: e for e in self._store.get_executions_by_id(list(set(producers.values())))}
        pushes = []
        for artifact in sorted(artifacts, key=lambda a: a.id):
            execution = executions[producers[artifact.id]]
            name, release = by_model.get(self._model_of(execution), ("", None))
            pushes.append(_push(artifact, execution, name, release))
        return pushes

    def record(self, release: Release, pushed: Mapping[str, Push]) -> None:
        """Notes a push or a rollback.

        Args:
            release: What was pushed.
            pushed: What became of each of its artifacts, by name.
        """
        artifact_type = self._store.get_artifact_type(_PUSHED_MODEL).id
        for name, push in pushed.items():
            execution_type = metadata_store_pb2.ExecutionType(name=_EXECUTION_TYPES[push.kind])
            execution = metadata_store_pb2.Execution(
                type_id=self._store.put_execution_type(execution_type),
                last_known_state=metadata_store_pb2.Execution.COMPLETE,
            )
            artifact = metadata_store_pb2.Artifact(
                type_id=artifact_type, uri=push.path, state=metadata_store_pb2.Artifact.LIVE
            )
            properties = artifact.custom_properties
            properties[push_properties.PUSHED].int_value = 1
            properties[push_properties.DESTINATION].string_value = push.path
            properties[push_properties.VERSION].string_value = str(push.version)
            properties[push_properties.PUSHED_BY].string_value = push.by
            properties[push_properties.SHA256].string_value = push.sha256
            (model,) = self._store.get_artifacts_by_id([release.models[name]])
            self._store.put_execution(
                execution,
                [
                    (model, _event(metadata_store_pb2.Event.INPUT, "model")),
                    (artifact, _event(metadata_store_pb2.Event.OUTPUT, "pushed_model")),
                ],
                contexts=[],
            )

    def _pushed_artifacts(self) -> list[Artifact]:
        return list(self._store.get_artifacts_by_type(_PUSHED_MODEL))

    def _model_of(self, execution: Execution) -> int:
        events = self._store.get_events_by_execution_ids([execution.id])
        return next(
            (
                event.artifact_id
                for event in events
                if event.type == metadata_store_pb2.Event.INPUT
                and event.path.steps
                and event.path.steps[0].key == "model"
            ),
            0,
        )


def _push(artifact: Artifact, execution: Execution, name: str, release: Release | None) -> Push:
    properties = artifact.custom_properties
    kinds = {type_name: kind for kind, type_name in _EXECUTION_TYPES.items()}
    return Push(
        artifact=name,
        release=release,
        path=properties[push_properties.DESTINATION].string_value,
        version=int(properties[push_properties.VERSION].string_value),
        by=properties[push_properties.PUSHED_BY].string_value,
        at=artifact.create_time_since_epoch / 1000,
        kind=kinds.get(execution.type, "run"),
        sha256=properties[push_properties.SHA256].string_value,
    )


def _event(kind: Event.Type, key: str) -> Event:
    event = metadata_store_pb2.Event(type=kind)
    event.path.steps.add().key = key
    event.path.steps.add().index = 0
    return event
