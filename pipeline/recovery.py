"""Makes an output directory whole again after a run that was killed there."""

from __future__ import annotations

import logging
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from ml_metadata.proto import metadata_store_pb2

from pipeline.metadata import OlderStoreError, UnreadableStoreError, node_name, open_store
from trainer_module.errors import UserError

if TYPE_CHECKING:
    from ml_metadata import MetadataStore

    from pipeline.workspace import Workspace

_UNFINISHED = (metadata_store_pb2.Execution.NEW, metadata_store_pb2.Execution.RUNNING)


def settle(workspace: Workspace) -> None:
    """Closes what killed runs have left open; the caller must hold the workspace's lock, so that none is under way.

    The metadata store is opened for writing, which rolls back a transaction that was cut off, and brought up to this
    version of ML Metadata, of the older one a copy is kept. Executions that never ended are marked as failed, and what
    they had written is removed: nothing refers to it.

    Args:
        workspace: Output directory; may be empty.

    Raises:
        UserError: The metadata store cannot be read.
    """
    if not workspace.metadata_file.exists():
        return
    if not _has_tables(workspace):
        # Killed before anything was recorded.
        workspace.metadata_file.unlink()
        return
    store = _open(workspace)
    unfinished = [e for e in store.get_executions() if e.last_known_state in _UNFINISHED]
    for execution in unfinished:
        node = node_name(store, execution)
        for pattern in (f"{node}/*/{execution.id}", f"{node}/.system/*/{execution.id}"):
            for directory in workspace.pipeline_root.glob(pattern):
                shutil.rmtree(directory)
        execution.last_known_state = metadata_store_pb2.Execution.FAILED
        logging.getLogger(__name__).info("%s: was killed at its execution %d", node, execution.id)
    if unfinished:
        store.put_executions(unfinished)


def _has_tables(workspace: Workspace) -> bool:
    try:
        with closing(sqlite3.connect(workspace.metadata_file)) as connection:
            return bool(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
    except sqlite3.Error as error:
        raise UserError(
            f"{workspace.metadata_file}: cannot be read as the metadata store ({error}); choose another --output"
        ) from None


def _open(workspace: Workspace) -> MetadataStore:
    file = workspace.metadata_file
    try:
        return open_store(file, writable=True)
    except OlderStoreError:
        copy = file.with_suffix(".older.db")
        shutil.copy2(file, copy)
        try:
            store = open_store(file, writable=True, upgrade=True)
        except UnreadableStoreError as error:
            raise UserError(
                f"{file}: cannot be brought up to this version of ML Metadata ({error}); it is unchanged in {copy}; "
                "choose another --output"
            ) from None
        logging.getLogger(__name__).warning("%s: brought up to this version of ML Metadata; before: %s", file, copy)
        return store
    except UnreadableStoreError as error:
        raise UserError(f"{file}: cannot be read as the metadata store ({error}); choose another --output") from None
