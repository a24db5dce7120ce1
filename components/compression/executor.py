"""Executor of the Compression component: artifacts in, engine, artifacts out."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tensorflow_transform as tft
import tf_keras as keras
from tfx.dsl.components.base import base_executor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.utils import io_utils, path_utils

from components.compression.bundle import BundleContent, write_bundle
from components.compression.data import load_splits
from components.compression.engine import FineTuning, Result, compress
from components.compression.settings import CompressionSettings
from components.compression.spec import (
    EXAMPLES_KEY,
    MODEL_KEY,
    REPORT_KEY,
    SAVED_MODEL_KEY,
    TFLITE_MODEL_KEY,
    TRANSFORM_GRAPH_KEY,
)
from trainer_module import features
from trainer_module.acceleration import Acceleration
from trainer_module.checkpoints import fingerprint
from trainer_module.export import KERAS_MODEL_FILE, save_serving_model
from trainer_module.preprocessing import class_names
from trainer_module.progress import COMPRESSION, report
from trainer_module.repeatability import make_repeatable
from trainer_module.run import TRAINING_FILE
from trainer_module.settings import TrainingSettings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tfx.types.artifact import Artifact

    from components.compression.data import Splits

REPORT_FILE = "report.json"
VARIANTS_DIRECTORY = "variants"


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
        settings = CompressionSettings.model_validate_json(exec_properties["settings"])
        training = TrainingSettings.model_validate_json(exec_properties["training"])
        make_repeatable(training.seed)
        # Local, because neither Keras nor the interpreter reads an object store; what is done is copied out.
        with tempfile.TemporaryDirectory() as scratch:
            work = Path(scratch)
            variants = work / REPORT_KEY / VARIANTS_DIRECTORY
            variants.mkdir(parents=True)
            splits = load_splits(
                _patterns(input_dict, features.TRAIN_SPLIT),
                _patterns(input_dict, features.VALIDATION_SPLIT),
                training.image_size,
                training.seed or 0,
            )
            names = class_names(tft.TFTransformOutput(_uri(input_dict, TRANSFORM_GRAPH_KEY)))
            result = compress(
                _load_model(input_dict, work),
                splits,
                settings,
                variants,
                fine_tuning=_fine_tuning(input_dict, settings, training, exec_properties),
                class_names=names,
                seed=training.seed or 0,
            )
            _write_outputs(result, splits, names, training, work, input_dict, output_dict)
        # Last, so that a disk that is full by then costs no fine-tuning.
        result.kept.clear()


def _write_outputs(
    result: Result,
    splits: Splits,
    names: Sequence[str],
    training: TrainingSettings,
    work: Path,
    inputs: Mapping[str, list[Artifact]],
    outputs: Mapping[str, list[Artifact]],
) -> None:
    report(COMPRESSION, f"exporting {result.selected.name}")
    content = BundleContent(
        name=result.selected.name,
        model=result.selected.path,
        class_names=names,
        measurement=result.selected.measurement,
        lineage=_lineage(inputs),
    )
    write_bundle(content, work / TFLITE_MODEL_KEY)
    (work / REPORT_KEY / REPORT_FILE).write_text(json.dumps(result.report, indent=2), encoding="utf-8")
    io_utils.copy_dir(str(work / REPORT_KEY), _uri(outputs, REPORT_KEY))
    io_utils.copy_dir(str(work / TFLITE_MODEL_KEY), _serving_directory(outputs, TFLITE_MODEL_KEY))
    save_serving_model(
        result.model,
        _serving_directory(outputs, SAVED_MODEL_KEY),
        names,
        training.image_size,
        fold=training.acceleration.fold_batch_norm,
        images=splits.validation.images,
    )


def _patterns(inputs: Mapping[str, list[Artifact]], split: str) -> list[str]:
    return [io_utils.all_files_pattern(uri) for uri in artifact_utils.get_split_uris(inputs[EXAMPLES_KEY], split)]


def _fine_tuning(
    inputs: Mapping[str, list[Artifact]],
    settings: CompressionSettings,
    training: TrainingSettings,
    exec_properties: Mapping[str, Any],
) -> FineTuning:
    own = fingerprint(
        settings.causes(),
        {name: exec_properties[name] for name in ("training", "version")},
        [artifact.uri for artifacts in inputs.values() for artifact in artifacts],
    )
    return FineTuning(training, _trainers_acceleration(inputs), f"{exec_properties['checkpoints']}/compression-{own}")


def _trainers_acceleration(inputs: Mapping[str, list[Artifact]]) -> Acceleration | None:
    """Reads how the Trainer executed its steps; None if the model comes from elsewhere."""
    path = f"{_uri(inputs, MODEL_KEY)}/{TRAINING_FILE}"
    if not fileio.exists(path):
        return None
    with fileio.open(path) as file:
        return Acceleration(**json.loads(file.read())["acceleration"]["chosen"])


def _uri(artifacts: Mapping[str, list[Artifact]], key: str) -> str:
    return artifact_utils.get_single_uri(artifacts[key])


def _serving_directory(artifacts: Mapping[str, list[Artifact]], key: str) -> str:
    return path_utils.serving_model_dir(_uri(artifacts, key))


def _load_model(inputs: Mapping[str, list[Artifact]], directory: Path) -> keras.Model:
    local = directory / KERAS_MODEL_FILE
    io_utils.copy_file(f"{_uri(inputs, MODEL_KEY)}/{KERAS_MODEL_FILE}", str(local))
    return keras.models.load_model(local, compile=False)


def _lineage(inputs: Mapping[str, list[Artifact]]) -> dict[str, int]:
    return {key: artifact_utils.get_single_instance(inputs[key]).id for key in inputs}
