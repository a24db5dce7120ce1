"""Whether what is live is what was blessed, whole, and traceable back to the data: trimline verify."""

from __future__ import annotations

import dataclasses
import functools
import posixpath
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import tensorflow as tf

from components.atomic_pusher import destination
from pipeline.destinations import push_directories
from pipeline.ledger import Ledger
from pipeline.metadata import Metadata
from serving.bundle import Bundle, load_bundle
from serving.errors import ServingError
from serving.predictor import Predictor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pipeline.ledger import Push
    from pipeline.workspace import Workspace

# What model.json must say of how good the model is.
_METRICS = ("validation_accuracy", "bytes", "deflated_bytes", "latency_ms")
_EXAMPLES = "Examples"
_SIGNATURES = {"serving_default": "image_bytes", "serving_images": "images", "serving_examples": "inputs"}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: What it is.
        fault: What is wrong with it; "" if nothing is.
        detail: What was found, where nothing is wrong.
    """

    what: str
    fault: str
    detail: str = ""


def verify(workspace: Workspace) -> list[Finding]:
    """Checks the live versions of an output directory. A check that cannot run has failed.

    Args:
        workspace: Its metadata store must exist.

    Returns:
        All findings, good and bad.
    """
    directories = push_directories(workspace.read_settings(), workspace)
    pushes = Ledger(workspace.metadata_file).pushes()
    findings = []
    for name, directory in directories.items():
        live = _guarded(f"{name}: a live version", lambda d=directory: _live_version(d, pushes))  # type: ignore[misc]
        if live.fault:
            findings.append(live)
            continue
        path = live.detail
        findings.append(_guarded(f"{name}: files as pushed", lambda p=path: _check_content(p, pushes)))  # type: ignore[misc]
        checks = _saved_model_checks(path) if name == "saved_model" else _bundle_checks(path, workspace)
        findings += [_guarded(f"{name}: {what}", check) for what, check in checks.items()]
    return findings


class _FaultError(Exception):
    """What is wrong, for a finding."""


def _guarded(what: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(what, "", check())
    except (_FaultError, ServingError) as fault:
        return Finding(what, str(fault))
    except Exception as error:
        # Any: what cannot be checked has failed, whatever the reader of a damaged file raises.
        return Finding(what, f"cannot be checked: {type(error).__name__}: {error}")


def _live_version(directory: str, pushes: Sequence[Push]) -> str:
    """Finds the highest version that is whole, or was when it was recorded and has been changed since."""
    whole, recorded = next(destination.latest_whole_versions(directory), None), {push.path for push in pushes}
    for version in reversed(destination.versions(directory)):
        path = posixpath.join(directory, str(version))
        if version == whole or path in recorded:
            return path
    raise _FaultError(f"{directory}: no version is there")


def _check_content(path: str, pushes: Sequence[Push]) -> str:
    push = next((push for push in reversed(pushes) if push.path == path), None)
    if push is None:
        raise _FaultError(f"{path}: the metadata store knows of no such push")
    if push.release is None:
        raise _FaultError(f"{path}: the metadata store has no blessing for it")
    if destination.tree_digest(path) != push.sha256:
        raise _FaultError(f"{path}: its files are not those that were pushed")
    return f"version {push.version}, release {push.release.id}, pushed by {push.by}"


def _saved_model_checks(path: str) -> dict[str, Callable[[], str]]:
    def signatures() -> str:
        found = tf.saved_model.load(path).signatures
        for name, input_name in _SIGNATURES.items():
            if name not in found or list(found[name].structured_input_signature[1]) != [input_name]:
                raise _FaultError(f"{path}: no signature {name} with the input {input_name}")
        return ", ".join(_SIGNATURES)

    return {"signatures": signatures}


def _bundle_checks(path: str, workspace: Workspace) -> dict[str, Callable[[], str]]:
    load = functools.cache(lambda: _load(path))

    def digests() -> str:
        return f"sha256 {load().manifest.sha256['model.tflite'][:12]}..., {len(load().labels)} labels"

    def tensors() -> str:
        bundle = load()
        Predictor(bundle)
        return f"{bundle.manifest.input.dtype} {list(bundle.manifest.input.shape)}"

    def metrics() -> str:
        stated = load().manifest.metrics
        missing = [name for name in _METRICS if not isinstance(stated.get(name), int | float)]
        if missing:
            raise _FaultError(f"{path}/model.json: no number for {', '.join(missing)}")
        return f"validation accuracy {stated['validation_accuracy']:.2%}"

    def lineage() -> str:
        return _check_lineage(path, load().manifest.lineage, Metadata(workspace.metadata_file))

    return {
        "sha256 and labels": digests,
        "input and output": tensors,
        "metrics": metrics,
        "lineage": lineage,
    }


def _load(path: str) -> Bundle:
    """Loads a bundle, wherever it lies."""
    with tempfile.TemporaryDirectory() as scratch:
        local = Path(scratch)
        destination.copy_files(path, scratch)
        try:
            return load_bundle(local)
        except ServingError as error:
            raise ServingError(str(error).replace(str(local), path)) from None


def _check_lineage(path: str, lineage: Mapping[str, object], metadata: Metadata) -> str:
    """Follows every id of model.json back to the photos."""
    if not lineage:
        raise _FaultError(f"{path}/model.json: no lineage")
    origins: set[str] = set()
    for name, number in lineage.items():
        if not isinstance(number, int):
            raise _FaultError(f"{path}/model.json: lineage {name} = {number!r} is no id")
        ancestors = metadata.ancestors(number)
        examples = [artifact.uri for artifact in ancestors if artifact.type == _EXAMPLES]
        if not examples:
            raise _FaultError(f"{path}/model.json: lineage {name} = {number} leads to no photos in the metadata store")
        origins.update(metadata.data_folders(ancestors))
    if not origins:
        raise _FaultError(f"{path}/model.json: the metadata store does not say which folder the photos came from")
    return f"made from {', '.join(sorted(origins))}"
