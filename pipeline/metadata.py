"""Reading what ML Metadata recorded of the runs."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2

from trainer_module.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

# Names that TFX gives to the contexts and properties that it records.
_RUN_CONTEXT = "pipeline_run"
_NODE_CONTEXT = "node"
_PUSHED_MODEL_TYPE = "PushedModel"
_RESOLVER_TYPE = "tfx.dsl.components.common.resolver.Resolver"

_INPUT_EVENTS = (metadata_store_pb2.Event.INPUT, metadata_store_pb2.Event.DECLARED_INPUT)
_OUTPUT_EVENTS = (metadata_store_pb2.Event.OUTPUT, metadata_store_pb2.Event.DECLARED_OUTPUT)
# A parameter of ImageExampleGen.
_INPUT_BASE = "input_base"

# What ML Metadata says of a database that another version wrote.
_OLDER, _NEWER = "is older than library version", "is greater than library version"

State = Literal["running", "done", "cached", "failed"]
_STATES: dict[int, State] = {
    metadata_store_pb2.Execution.RUNNING: "running",
    metadata_store_pb2.Execution.COMPLETE: "done",
    metadata_store_pb2.Execution.CACHED: "cached",
}


@dataclasses.dataclass(frozen=True)
class ComponentRun:
    """One component in one run.

    Attributes:
        name: Node id, for example "Trainer".
        state: What has become of it.
        started: Seconds since the epoch.
        updated: Seconds since the epoch; the end, once it is no longer running.
        execution_id: Id in the metadata store.
    """

    name: str
    state: State
    started: float
    updated: float
    execution_id: int

    @property
    def seconds(self) -> float:
        """Time from start to end."""
        return self.updated - self.started


@dataclasses.dataclass(frozen=True)
class OutputArtifact:
    """One output of a component.

    Attributes:
        id: Id in the metadata store.
        uri: Where its files are.
        properties: Custom properties, by name.
        type: Name of its type, for example "Model".
    """

    id: int
    uri: str
    properties: dict[str, Any]
    type: str = ""


@dataclasses.dataclass(frozen=True)
class Flow:
    """What went into a component and what came out.

    Attributes:
        component: The component in its run.
        inputs: Artifacts that it read.
        outputs: Artifacts that it made, or found in the cache.
    """

    component: ComponentRun
    inputs: tuple[OutputArtifact, ...]
    outputs: tuple[OutputArtifact, ...]


class OlderStoreError(UserError):
    """A metadata store of an older version of ML Metadata, which must be brought up to date first."""


class UnreadableStoreError(UserError):
    """What is there is no metadata store, or is only just being made."""


def open_store(path: Path, *, writable: bool = False, upgrade: bool = False) -> MetadataStore:
    """Opens the SQLite metadata store of an output directory.

    Args:
        path: The database file; must exist.
        writable: Whether anything will be written.
        upgrade: Whether a database of an older version of ML Metadata is brought up to this one.

    Raises:
        OlderStoreError: It was written by an older version of ML Metadata, and `upgrade` is not set.
        UnreadableStoreError: It is no metadata store.
        UserError: It was written by a newer one.
    """
    modes = metadata_store_pb2.SqliteMetadataSourceConfig
    config = metadata_store_pb2.ConnectionConfig()
    config.sqlite.filename_uri = str(path)
    config.sqlite.connection_mode = modes.READWRITE if writable else modes.READONLY
    try:
        return MetadataStore(config, enable_upgrade_migration=upgrade)
    except RuntimeError as error:
        if _OLDER in str(error):
            raise OlderStoreError(
                f"{path}: was written by an older version of ML Metadata; trimline run with this --output brings it up "
                "to date"
            ) from None
        if _NEWER in str(error):
            raise UserError(
                f"{path}: was written by a newer version of ML Metadata; use a newer Trimline, or another --output"
            ) from None
        raise UnreadableStoreError(
            f"{path}: cannot be read as a metadata store ({' '.join(str(error).split())}); is a run just beginning "
            "there, or was one killed? trimline run with this --output mends what can be mended"
        ) from None


def node_name(store: MetadataStore, execution: metadata_store_pb2.Execution) -> str:
    """Returns the id of the component that an execution is of, for example "Trainer"."""
    contexts = store.get_contexts_by_execution(execution.id)
    node = next((context.name for context in contexts if context.type == _NODE_CONTEXT), execution.type)
    # TFX names the context PIPELINE.NODE.
    return node.rpartition(".")[2]


class Metadata:
    """Queries on the SQLite metadata store of one output directory."""

    def __init__(self, path: Path) -> None:
        """Opens the store for reading.

        Args:
            path: The database file; must exist.
        """
        self._store = open_store(path)

    def runs(self) -> list[str]:
        """Returns the ids of all runs, oldest first: by number, as clocks may go backwards."""
        contexts = self._store.get_contexts_by_type(_RUN_CONTEXT)
        return [context.name for context in sorted(contexts, key=lambda c: c.id)]

    def components(self, run: str) -> list[ComponentRun]:
        """Returns the components of a run in the order in which they started; resolvers do no work and are left out."""
        executions = [e for e in self._executions(run) if e.type != _RESOLVER_TYPE]
        return sorted((self._component_run(e) for e in executions), key=lambda c: c.execution_id)

    def output(self, component: ComponentRun, key: str) -> OutputArtifact | None:
        """Returns a component's output, or None if it has none under that key."""
        events = self._store.get_events_by_execution_ids([component.execution_id])
        ids = [
            event.artifact_id
            for event in events
            if event.type in _OUTPUT_EVENTS and event.path.steps and event.path.steps[0].key == key
        ]
        artifacts = self._store.get_artifacts_by_id(ids)
        return _output_artifact(artifacts[0]) if artifacts else None

    def flows(self, run: str) -> list[Flow]:
        """Returns what each component of a run read and made, in the order in which they started."""
        return [
            Flow(
                component,
                self._events_artifacts(component, _INPUT_EVENTS),
                self._events_artifacts(component, _OUTPUT_EVENTS),
            )
            for component in self.components(run)
        ]

    def pushed_models(self) -> list[OutputArtifact]:
        """Returns every push of every run."""
        return [_output_artifact(artifact) for artifact in self._store.get_artifacts_by_type(_PUSHED_MODEL_TYPE)]

    def ancestors(self, artifact_id: int) -> list[OutputArtifact]:
        """Returns an artifact and all that it was made from; nothing if the store does not know it."""
        found: dict[int, metadata_store_pb2.Artifact] = {}
        wanted = {artifact_id}
        while wanted:
            found |= {artifact.id: artifact for artifact in self._store.get_artifacts_by_id(list(wanted))}
            wanted = self._artifacts_of(self._producers(wanted), _INPUT_EVENTS) - found.keys()
        return [_output_artifact(artifact) for artifact in found.values()]

    def data_folders(self, artifacts: list[OutputArtifact]) -> set[str]:
        """Returns the folders of photos that ingest read to make some of the artifacts."""
        producers = self._producers({artifact.id for artifact in artifacts})
        executions = self._store.get_executions_by_id(list(producers)) if producers else []
        folders = (execution.custom_properties[_INPUT_BASE].string_value for execution in executions)
        return {folder for folder in folders if folder}

    def _producers(self, artifact_ids: set[int]) -> set[int]:
        """Returns the ids of the executions that made the artifacts."""
        events = self._store.get_events_by_artifact_ids(list(artifact_ids)) if artifact_ids else []
        return {event.execution_id for event in events if event.type in _OUTPUT_EVENTS}

    def _artifacts_of(self, execution_ids: set[int], kinds: tuple[int, ...]) -> set[int]:
        events = self._store.get_events_by_execution_ids(list(execution_ids)) if execution_ids else []
        return {event.artifact_id for event in events if event.type in kinds}

    def _events_artifacts(self, component: ComponentRun, kinds: tuple[int, ...]) -> tuple[OutputArtifact, ...]:
        ids = self._artifacts_of({component.execution_id}, kinds)
        return tuple(_output_artifact(artifact) for artifact in self._store.get_artifacts_by_id(sorted(ids)))

    def _executions(self, run: str) -> list[metadata_store_pb2.Execution]:
        context = self._store.get_context_by_type_and_name(_RUN_CONTEXT, run)
        return list(self._store.get_executions_by_context(context.id)) if context else []

    def _component_run(self, execution: metadata_store_pb2.Execution) -> ComponentRun:
        return ComponentRun(
            name=node_name(self._store, execution),
            state=_STATES.get(execution.last_known_state, "failed"),
            started=execution.create_time_since_epoch / 1000,
            updated=execution.last_update_time_since_epoch / 1000,
            execution_id=execution.id,
        )


class Outputs:
    """The artifacts of one run, by component and key.

    Attributes:
        components: The run's components by name.
    """

    def __init__(self, metadata: Metadata, run: str) -> None:
        """Looks up the components.

        Args:
            metadata: The store that recorded the run.
            run: Id of the run.
        """
        self._metadata = metadata
        self.components = {component.name: component for component in metadata.components(run)}

    def find(self, component: str, key: str) -> OutputArtifact | None:
        """Returns an artifact; None if the component did not run, or did not get so far as to make it."""
        known = self.components.get(component)
        return self._metadata.output(known, key) if known else None

    def get(self, component: str, key: str) -> OutputArtifact:
        """Returns an artifact; raises LookupError if the component has none under that key."""
        artifact = self.find(component, key)
        if artifact is None:
            raise LookupError(f"the metadata store has no output {key} of {component}")
        return artifact

    def uri(self, component: str, key: str) -> str:
        """Returns where an artifact lies; raises LookupError like `get`."""
        return self.get(component, key).uri


def _output_artifact(artifact: metadata_store_pb2.Artifact) -> OutputArtifact:
    properties = {name: _plain(value) for name, value in artifact.custom_properties.items()}
    return OutputArtifact(artifact.id, artifact.uri, properties, artifact.type)


def _plain(value: metadata_store_pb2.Value) -> Any:
    return getattr(value, value.WhichOneof("value") or "string_value")
