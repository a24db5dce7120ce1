"""Compiles the pipeline for Kubeflow Pipelines; no cluster is needed."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from components.release_gate.spec import BLESSED, VERDICT_KEY
from pipeline.beam import beam_arguments
from pipeline.kubeflow.compiler import CompiledPipeline, Condition, compile_pipeline
from pipeline.kubeflow.outcome import PUSHERS
from pipeline.kubeflow.platform import SCRATCH
from trainer_module.consistency import require_consistent
from trainer_module.errors import UserError

if TYPE_CHECKING:
    from pipeline.config import PipelineSettings

# What they find changes without their inputs.
_UNCACHED = ("DataFingerprint", "PushedBaseline")
# A refusal shows as skipped pushes.
_BLESSED = Condition("ReleaseGate", VERDICT_KEY, BLESSED)


def compile_settings(settings: PipelineSettings) -> CompiledPipeline:
    """Compiles the pipeline as the settings describe it.

    Args:
        settings: The whole tree.

    Raises:
        UserError: Naming the setting that is missing, or that pods could not follow.
    """
    kubeflow = settings.kubeflow
    image = _required("kubeflow.image", kubeflow.image, "the image that pods run, made from kubeflow/Dockerfile")
    root = _required(
        "kubeflow.pipeline_root", kubeflow.pipeline_root, "an object store, for example s3://bucket/trimline"
    )
    if settings.data.image_size == "auto":
        raise UserError(
            "data.image_size is auto, but the photos are not here to be looked at; set it, for example to 96"
        )
    require_consistent(settings.model, settings.trainer, settings.data.image_size, settings.data.max_side)
    places = {
        "data": _on_volume("data.path", str(settings.data.path or ""), settings),
        "saved_model": _shared("push.saved_model_dir", settings.push.saved_model_dir, settings),
        "tflite": _shared("push.tflite_dir", settings.push.tflite_dir, settings),
        "checkpoints": _checkpoints(settings),
    }
    # Only now: TFX, which is loaded by then, stands in for a module that TFDV misses.
    from pipeline.create_pipeline import Abilities, Locations, create_pipeline

    pipeline = create_pipeline(
        settings,
        Locations(pipeline_root=root, **places),
        beam_arguments(settings.beam),
        abilities=Abilities(drivers=False, resolvers=False),
    )
    return compile_pipeline(pipeline, kubeflow, image, _UNCACHED, dict.fromkeys(PUSHERS, _BLESSED))


def _required(key: str, value: str | None, what: str) -> str:
    if not value:
        raise UserError(f"{key} is not set; it must be {what}")
    return value


def _checkpoints(settings: PipelineSettings) -> str:
    directory = settings.kubeflow.checkpoints_dir
    if directory is None:
        return posixpath.join(SCRATCH, "checkpoints")
    return _shared("kubeflow.checkpoints_dir", directory, settings)


def _shared(key: str, value: str | None, settings: PipelineSettings) -> str:
    """Requires a place that outlives a pod."""
    if value and value.startswith("gs://"):
        return value.rstrip("/")
    return _on_volume(key, value, settings, " or a gs:// URI")


def _on_volume(key: str, value: str | None, settings: PipelineSettings, otherwise: str = "") -> str:
    mounts = [volume.mount_path.rstrip("/") for volume in settings.kubeflow.volumes]
    below = ", ".join(mounts) or "none; name some in kubeflow.volumes"
    if not value:
        raise UserError(f"{key} is not set; pods need a folder on a volume{otherwise} (volumes: {below})")
    path = posixpath.normpath(value)
    if not any(path == mount or path.startswith(f"{mount}/") for mount in mounts):
        raise UserError(f"{key} = {value}: must be a folder on a volume of the pods{otherwise} (volumes: {below})")
    return path
