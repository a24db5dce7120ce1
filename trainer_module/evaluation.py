"""How TFX's Evaluator runs our models: TFMA extractors over the bytes that ship.

TFMA's own extractors cannot compare a .tflite with a SavedModel, and its TFLite extractor feeds -1 for a missing input
and casts to integers without rounding. These take the raw examples and call both kinds the way their users do.
"""

from __future__ import annotations

import copy
import hashlib
from typing import TYPE_CHECKING, Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma

from trainer_module import features
from trainer_module.classifiers import CheckedClassifier
from trainer_module.errors import GateError
from trainer_module.gate_metrics import IMAGE_DIGEST

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Features by which the metrics are sliced, beside the class; their values are the names of the buckets.
SIZE_BUCKET = "image/size_bucket"
BRIGHTNESS_BUCKET = "image/brightness_bucket"
# Upper bounds, excluded. Of the shorter side in pixels: from thumbnails to photos straight from a camera.
_SIZE_BOUNDS = (32, 64, 128, 256, 512, 1024)
# Of the mean luma in [0, 1].
_BRIGHTNESS_BOUNDS = (0.25, 0.5, 0.75)


def custom_eval_shared_model(
    eval_saved_model_path: str, model_name: str, eval_config: tfma.EvalConfig, **_: Any
) -> tfma.EvalSharedModel:
    """Evaluator hook: says how a model is loaded.

    Args:
        eval_saved_model_path: Directory of the exported model.
        model_name: Name of its model spec.
        eval_config: What is evaluated.

    Returns:
        The shared model; each Beam worker loads it once.
    """
    # TFMA names a model only where there are several.
    name = model_name or "candidate"
    return tfma.EvalSharedModel(
        model_path=eval_saved_model_path,
        model_name=model_name,
        model_type=tfma.TF_GENERIC,
        model_loader=tfma.ModelLoader(construct_fn=lambda: CheckedClassifier(name, eval_saved_model_path)),
        is_baseline=any(spec.is_baseline for spec in eval_config.model_specs if spec.name == model_name),
    )


def custom_extractors(
    eval_shared_model: tfma.EvalSharedModel | list[tfma.EvalSharedModel],
    eval_config: tfma.EvalConfig,
    tensor_adapter_config: Any,
) -> list[tfma.extractors.Extractor]:
    """Evaluator hook: the steps from raw examples to labels, predictions and slices."""
    models = eval_shared_model if isinstance(eval_shared_model, list) else [eval_shared_model]
    return [
        tfma.extractors.FeaturesExtractor(eval_config, tensor_adapter_config.tensor_representations),
        tfma.extractors.Extractor("ExtractLabelsAndPredictions", _Classify(models)),
        tfma.extractors.UnbatchExtractor(),
        tfma.extractors.SliceKeyExtractor(eval_config=eval_config, materialize=False),
    ]


class _Classify(beam.PTransform):
    def __init__(self, models: list[tfma.EvalSharedModel]) -> None:
        super().__init__()
        self._models = models

    def expand(self, extracts: beam.PCollection) -> beam.PCollection:
        return extracts | "Classify" >> beam.ParDo(_ClassifyFn(self._models))


class _ClassifyFn(beam.DoFn):
    """Adds labels and the predictions of every model, with the candidate's order of the classes."""

    def __init__(self, models: list[tfma.EvalSharedModel]) -> None:
        super().__init__()
        self._models = models
        self._classifiers: dict[str, CheckedClassifier] = {}
        self._class_names: list[str] = []

    def setup(self) -> None:
        self._classifiers = {model.model_name: model.model_loader.load() for model in self._models}
        candidate = next(model for model in self._models if not model.is_baseline)
        self._class_names = self._classifiers[candidate.model_name].class_names

    def process(self, extracts: dict[str, Any]) -> list[dict[str, Any]]:
        result = copy.copy(extracts)
        batch = dict(extracts[tfma.FEATURES_KEY])
        # The images have served their purpose; keeping them would multiply the memory of all later steps.
        encoded = [bytes(value) for value in np.ravel(_feature(batch, features.IMAGE_ENCODED))]
        del batch[features.IMAGE_ENCODED]
        names = [value.decode() for value in np.ravel(_feature(batch, features.CLASS_TEXT))]
        predictions = {
            name: _reordered(classifier.predict(encoded), classifier.class_names, self._class_names)
            for name, classifier in self._classifiers.items()
        }
        result.pop(tfma.INPUT_KEY, None)
        result[tfma.FEATURES_KEY] = batch | _buckets(batch) | {IMAGE_DIGEST: _digests(encoded)}
        result[tfma.LABELS_KEY] = _label_indices(names, self._class_names)
        result[tfma.PREDICTIONS_KEY] = predictions if len(predictions) > 1 else next(iter(predictions.values()))
        return [result]


def bucket_name(value: float, bounds: Sequence[float]) -> str:
    """Names the bucket of a value, for example "64 to 128"; the upper bound is not part of it."""
    above = next((bound for bound in bounds if value < bound), None)
    below = max((bound for bound in bounds if bound <= value), default=None)
    if above is None:
        return f"{bounds[-1]:g} or more"
    return f"below {above:g}" if below is None else f"{below:g} to {above:g}"


def digest(encoded: bytes) -> str:
    """Returns the name by which a photo is found again: the hex SHA-256 of its encoded bytes."""
    return hashlib.sha256(encoded).hexdigest()


def _feature(batch: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in batch:
        raise GateError(f"the test split has no feature {name}")
    return batch[name]


def _buckets(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    sides = np.minimum(
        np.ravel(_feature(batch, features.IMAGE_HEIGHT)), np.ravel(_feature(batch, features.IMAGE_WIDTH))
    )
    brightness = np.ravel(_feature(batch, features.IMAGE_BRIGHTNESS))
    return {
        SIZE_BUCKET: np.array([bucket_name(side, _SIZE_BOUNDS) for side in sides]),
        BRIGHTNESS_BUCKET: np.array([bucket_name(mean, _BRIGHTNESS_BOUNDS) for mean in brightness]),
    }


def _digests(encoded: Sequence[bytes]) -> np.ndarray:
    return np.array([digest(image) for image in encoded])


def _reordered(probabilities: np.ndarray, own: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """Puts columns named `own` into the order `wanted`; a class that the model does not know gets probability 0."""
    column = {name: index for index, name in enumerate(own)}
    ordered = np.zeros((len(probabilities), len(wanted)), np.float32)
    for index, name in enumerate(wanted):
        if name in column:
            ordered[:, index] = probabilities[:, column[name]]
    return ordered


def _label_indices(names: Sequence[str], class_names: Sequence[str]) -> np.ndarray:
    index = {name: position for position, name in enumerate(class_names)}
    unknown = sorted(set(names) - set(class_names))
    if unknown:
        raise GateError(
            f"the test split has photos of class {unknown[0]!r}, which the model was never trained on;"
            " add such photos to the training data or remove the class"
        )
    return np.array([index[name] for name in names], np.int64)
