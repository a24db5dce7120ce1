"""Executor of ServingValidator."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tensorflow as tf
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import io_utils, path_utils

from components.release_gate.results import read_sample
from components.serving_validator.engine import SAVED_MODEL_TOLERANCE, TFLITE_TOLERANCE, validate
from trainer_module import features
from trainer_module.evaluation import digest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tfx import types

REASON_SUFFIX = "_reason"
_TOLERANCES = {"saved_model": SAVED_MODEL_TOLERANCE, "tflite": TFLITE_TOLERANCE}
_MODEL_KEYS = {"saved_model": "saved_model", "tflite": "tflite_model"}
# TFX's names, by which its Pusher knows an InfraBlessing.
_BLESSED_PROPERTY = "blessed"
_FILE_NAMES = {True: "INFRA_BLESSED", False: "INFRA_NOT_BLESSED"}


class Executor(base_executor.BaseExecutor):
    """Asks each artifact in a fresh process."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Blesses both artifacts, or notes what speaks against each."""
        self._log_startup(input_dict, output_dict, exec_properties)
        expected = {
            name: read_sample(artifact_utils.get_single_uri(input_dict[f"{name}_evaluation"])) for name in _TOLERANCES
        }
        wanted = {key for sample in expected.values() for key in sample}
        images = _find_images(input_dict["examples"], exec_properties["split"], wanted)
        reasons = {}
        for name, tolerance in _TOLERANCES.items():
            model = artifact_utils.get_single_instance(input_dict[_MODEL_KEYS[name]])
            with tempfile.TemporaryDirectory() as scratch:
                # Local, because the interpreter reads no object store.
                directory = Path(scratch) / name
                io_utils.copy_dir(path_utils.serving_model_path(model.uri), str(directory))
                reasons[name] = validate(directory, images, expected[name], tolerance)
        _bless(artifact_utils.get_single_instance(output_dict["blessing"]), reasons)


def _find_images(examples: list[types.Artifact], split: str, wanted: Iterable[str]) -> dict[str, bytes]:
    """Returns the encoded images of the digests, as far as there are such."""
    missing, found = set(wanted), {}
    patterns = [io_utils.all_files_pattern(uri) for uri in artifact_utils.get_split_uris(examples, split)]
    spec = {features.IMAGE_ENCODED: tf.io.FixedLenFeature([], tf.string)}
    for record in tf.data.TFRecordDataset(tf.io.gfile.glob(patterns), "GZIP"):
        if not missing:
            break
        encoded = tf.io.parse_single_example(record, spec)[features.IMAGE_ENCODED].numpy()
        name = digest(encoded)
        if name in missing:
            missing.remove(name)
            found[name] = encoded
    return found


def _bless(blessing: types.Artifact, reasons: dict[str, str]) -> None:
    blessed = not any(reasons.values())
    blessing.set_int_custom_property(_BLESSED_PROPERTY, int(blessed))
    for name, reason in reasons.items():
        blessing.set_string_custom_property(f"{name}{REASON_SUFFIX}", reason)
    io_utils.write_string_file(os.path.join(blessing.uri, _FILE_NAMES[blessed]), "")  # noqa: PTH118 (may be remote)
