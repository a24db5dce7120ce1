"""Compression from end to end: make the variants, check and measure each on its bytes, choose one."""

from __future__ import annotations

import dataclasses
import logging
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from components.compression import checks, conversion
from components.compression.data import LabelledImages, choose_representative
from components.compression.errors import VariantError
from components.compression.measurement import Measurement, measure, top1_accuracy
from components.compression.selection import Budget, excesses, select
from trainer_module.errors import UserError
from trainer_module.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    import tf_keras as keras

_logger = logging.getLogger(__name__)

# Every stage with the variants that it adds to the plain float32 conversion.
STAGES = {"quantize": tuple(name for name in conversion.VARIANTS if name != "float32")}
_PREDICTION_BATCH = 64


@dataclasses.dataclass(frozen=True)
class Parent:
    """The float model that the variants are made from and compared with.

    Attributes:
        model: float32 pixels [N, S, S, 3] in [0, 255] -> probabilities [N, C].
        probabilities: Its predictions for the validation images, [N, C].
        accuracy: Its top-1 validation accuracy.
    """

    model: keras.Model
    probabilities: np.ndarray
    accuracy: float


@dataclasses.dataclass(frozen=True)
class Variant:
    """A candidate that passed its checks.

    Attributes:
        name: Name of the variant.
        path: Its .tflite file.
        checks: Names of the checks that it passed.
        measurement: Its figures.
    """

    name: str
    path: Path
    checks: tuple[str, ...]
    measurement: Measurement


@dataclasses.dataclass(frozen=True)
class Result:
    """What compression found.

    Attributes:
        model: The float model behind the selected variant.
        selected: The variant that ships.
        report: All variants with their figures, as JSON-ready values.
    """

    model: keras.Model
    selected: Variant
    report: dict[str, Any]


def compress(
    model: keras.Model,
    *,
    train: LabelledImages,
    validation: LabelledImages,
    stages: Sequence[str],
    budget: Budget,
    directory: Path,
    seed: int = 0,
) -> Result:
    """Makes, checks and measures the variants of a model and selects the smallest inside the budget.

    Args:
        model: float32 pixels [N, S, S, 3] in [0, 255] -> probabilities [N, C].
        train: Images to calibrate with.
        validation: Images to measure the accuracy with.
        stages: Keys of `STAGES`; with none there is only the float32 variant.
        budget: What the shipped model may cost.
        directory: Existing directory where every variant that converts is kept as `<name>.tflite`.
        seed: Makes the choice of the calibration images repeatable.

    Returns:
        The selected variant and the report.

    Raises:
        UserError: A stage is unknown, a split is empty, the model's predictions are not finite, or no variant passes
            its checks or fits the budget.
    """
    start = time.perf_counter()
    names = _variant_names(stages)
    representative = choose_representative(train, seed)
    parent = _measure_parent(model, validation)
    variants, dropped = _make_variants(names, parent, representative, validation, directory)
    if not variants:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in dropped.items())
        raise UserError(f"compression: no variant passed its checks ({reasons}); choose another model.architecture")
    measurements = {variant.name: variant.measurement for variant in variants}
    selected = select(measurements, parent.accuracy, budget)
    report = {
        "stages": list(stages),
        "budget": dataclasses.asdict(budget),
        "parent": _parent_row(parent),
        "calibration_images": len(representative),
        "variants": [_row(variant, parent, budget) for variant in variants],
        "dropped": [{"name": name, "reason": reason} for name, reason in dropped.items()],
        "selected": selected,
        "seconds": time.perf_counter() - start,
    }
    return Result(model, next(variant for variant in variants if variant.name == selected), report)


def _variant_names(stages: Sequence[str]) -> list[str]:
    for stage in stages:
        if stage not in STAGES:
            raise UserError(f"compression.stages: there is no stage {stage!r}; choose from {', '.join(STAGES)}")
    return ["float32", *(name for stage in STAGES if stage in stages for name in STAGES[stage])]


def _measure_parent(model: keras.Model, validation: LabelledImages) -> Parent:
    if not len(validation.images):
        raise UserError("compression: the validation split is empty, so no variant can be measured; add images to it")
    batches = tf.data.Dataset.from_tensor_slices(validation.images).batch(_PREDICTION_BATCH)
    probabilities = model.predict(batches.map(lambda images: tf.cast(images, tf.float32)), verbose=0)
    if not np.isfinite(probabilities).all():
        raise UserError(
            "compression: the trained model's predictions are not finite; train it again with a lower "
            "trainer.learning_rate"
        )
    return Parent(model, probabilities, top1_accuracy(probabilities, validation.labels))


def _make_variants(
    names: Sequence[str], parent: Parent, representative: np.ndarray, validation: LabelledImages, directory: Path
) -> tuple[list[Variant], dict[str, str]]:
    variants, dropped = [], {}
    with tempfile.TemporaryDirectory() as scratch:
        converter = conversion.Converter(parent.model, representative, Path(scratch))
        for name in names:
            path = directory / f"{name}.tflite"
            try:
                write_whole(path, converter.convert(name))
                variants.append(_examine(name, path, parent, validation))
            except VariantError as error:
                dropped[name] = str(error)
                _logger.warning("Compression variant %s is dropped: %s", name, error)
    return variants, dropped


def _examine(name: str, path: Path, parent: Parent, validation: LabelledImages) -> Variant:
    classifier = checks.load(path)
    checks.check_covers_pixels(classifier)
    passed = ["loads", "covers_pixels"]
    if name in conversion.INTEGER_VARIANTS:
        checks.check_integer_only(path)
        passed.append("integer_only")
    probabilities = checks.predict(classifier, validation.images)
    passed.append("finite")
    figures = measure(path, probabilities, validation.labels, parent.probabilities, validation.images[0])
    _logger.info("Compression variant %s: %s", name, figures)
    return Variant(name, path, tuple(passed), figures)


def _parent_row(parent: Parent) -> dict[str, Any]:
    return {
        "params": parent.model.count_params(),
        "validation_accuracy": parent.accuracy,
        "validation_images": len(parent.probabilities),
    }


def _row(variant: Variant, parent: Parent, budget: Budget) -> dict[str, Any]:
    over = excesses(variant.measurement, parent.accuracy, budget)
    return {
        "name": variant.name,
        **dataclasses.asdict(variant.measurement),
        "checks": list(variant.checks),
        "within_budget": not over,
        "reason": "; ".join(excess.reason for excess in over) or None,
    }
