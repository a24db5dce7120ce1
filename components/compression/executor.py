"""Executor of the Compression component: artifacts in, engine, artifacts out."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tensorflow_transform as tft
import tf_keras as keras
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import io_utils, path_utils

from components.compression.bundle import BundleContent, write_bundle
from components.compression.data import REPRESENTATIVE_IMAGES, LabelledImages
from components.compression.engine import compress
from components.compression.selection import Budget
from components.compression.spec import (
    EXAMPLES_KEY,
    MODEL_KEY,
    REPORT_KEY,
    SAVED_MODEL_KEY,
    TFLITE_MODEL_KEY,
    TRANSFORM_GRAPH_KEY,
)
from trainer_module import features
from trainer_module.export import KERAS_MODEL_FILE, save_serving_model
from trainer_module.input_pipeline import load_arrays
from trainer_module.preprocessing import class_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tfx.types.artifact import Artifact

REPORT_FILE = "report.json"
VARIANTS_DIRECTORY = "variants"
# Enough to find as many calibration images of a rare class as of the others, and little enough for the memory.
_CALIBRATION_POOL = 16 * REPRESENTATIVE_IMAGES


class Executor(base_executor.BaseExecutor):
    """Compresses the Trainer's model."""

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Runs the engine on the inputs and publishes what it found.

        Args:
            input_dict: `model`, `transformed_examples` and `transform_graph`.
            output_dict: `saved_model`, `tflite_model` and `report`.
            exec_properties: Those of `CompressionSpec.PARAMETERS`.

        Raises:
            UserError: See `engine.compress` and `bundle.write_bundle`.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        seed = exec_properties.get("seed") or 0
        # Local, because neither Keras nor the interpreter reads an object store; what is done is copied out.
        with tempfile.TemporaryDirectory() as scratch:
            work = Path(scratch)
            model = _load_model(input_dict, work)
            image_size = model.input_shape[1]
            variants = work / REPORT_KEY / VARIANTS_DIRECTORY
            variants.mkdir(parents=True)
            validation = _load_split(input_dict, features.VALIDATION_SPLIT, image_size)
            result = compress(
                model,
                train=_load_split(input_dict, features.TRAIN_SPLIT, image_size, limit=_CALIBRATION_POOL, seed=seed),
                validation=validation,
                stages=json.loads(exec_properties["stages"]),
                budget=_budget(exec_properties),
                directory=variants,
                seed=seed,
            )
            names = class_names(tft.TFTransformOutput(_uri(input_dict, TRANSFORM_GRAPH_KEY)))
            content = BundleContent(
                name=result.selected.name,
                model=result.selected.path,
                class_names=names,
                measurement=result.selected.measurement,
                lineage=_lineage(input_dict),
            )
            write_bundle(content, work / TFLITE_MODEL_KEY)
            (work / REPORT_KEY / REPORT_FILE).write_text(json.dumps(result.report, indent=2), encoding="utf-8")
            io_utils.copy_dir(str(work / REPORT_KEY), _uri(output_dict, REPORT_KEY))
            io_utils.copy_dir(str(work / TFLITE_MODEL_KEY), _serving_directory(output_dict, TFLITE_MODEL_KEY))
            save_serving_model(
                result.model,
                _serving_directory(output_dict, SAVED_MODEL_KEY),
                names,
                image_size,
                fold=bool(exec_properties.get("fold_batch_norm", 1)),
                images=validation.images,
            )


def _uri(artifacts: Mapping[str, list[Artifact]], key: str) -> str:
    return artifact_utils.get_single_uri(artifacts[key])


def _serving_directory(artifacts: Mapping[str, list[Artifact]], key: str) -> str:
    return path_utils.serving_model_dir(_uri(artifacts, key))


def _load_model(inputs: Mapping[str, list[Artifact]], directory: Path) -> keras.Model:
    local = directory / KERAS_MODEL_FILE
    io_utils.copy_file(f"{_uri(inputs, MODEL_KEY)}/{KERAS_MODEL_FILE}", str(local))
    return keras.models.load_model(local, compile=False)


def _load_split(
    inputs: Mapping[str, list[Artifact]], split: str, image_size: int, limit: int | None = None, seed: int | None = None
) -> LabelledImages:
    uris = artifact_utils.get_split_uris(inputs[EXAMPLES_KEY], split)
    patterns = [io_utils.all_files_pattern(uri) for uri in uris]
    return LabelledImages(*load_arrays(patterns, image_size, limit=limit, seed=seed))


def _budget(exec_properties: Mapping[str, Any]) -> Budget:
    return Budget(
        max_accuracy_drop=exec_properties["max_accuracy_drop"],
        max_bytes=exec_properties.get("max_bytes"),
        max_latency_ms=exec_properties.get("max_latency_ms"),
    )


def _lineage(inputs: Mapping[str, list[Artifact]]) -> dict[str, int]:
    return {key: artifact_utils.get_single_instance(inputs[key]).id for key in inputs}
