"""Compression from end to end: make the variants, check and measure each on its bytes, choose one."""

from __future__ import annotations

import dataclasses
import logging
import math
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from components.compression import checks, conversion, stages
from components.compression.bundle import label_lines
from components.compression.data import LabelledImages, Splits, choose_representative
from components.compression.errors import VariantError
from components.compression.fine_tuning import FineTuner
from components.compression.flatbuffer import Kernel, ModelFile
from components.compression.job import Candidate, Job
from components.compression.kernels import require_known_layers, require_single_calls
from components.compression.measurement import Measurement, balanced_accuracy, measure, top1_accuracy
from components.compression.selection import Budget, excesses, select
from components.compression.store import Store
from trainer_module import progress
from trainer_module.errors import UserError
from trainer_module.files import write_whole
from trainer_module.folding import fold_batch_norm, functional
from trainer_module.models import build_model
from trainer_module.probabilities import are_probabilities
from trainer_module.settings import ModelSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    import tf_keras as keras

    from components.compression.settings import BudgetSettings, CompressionSettings
    from trainer_module.acceleration import Acceleration
    from trainer_module.settings import TrainingSettings

_logger = logging.getLogger(__name__)

_PREDICTION_BATCH = 64
_FLOAT_BYTES = 4


@dataclasses.dataclass(frozen=True)
class FineTuning:
    """How the Trainer trained, which the stages that fine-tune follow.

    Attributes:
        training: Its settings.
        how: How its steps were executed; None if that is not known.
        checkpoints: Directory where finished fine-tunings are kept, for these inputs and settings alone; None keeps
            none.
    """

    training: TrainingSettings
    how: Acceleration | None = None
    checkpoints: str | None = None


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
        model: The float model behind it.
        checks: Names of the checks that it passed.
        measurement: Its figures.
    """

    name: str
    path: Path
    model: keras.Model
    checks: tuple[str, ...]
    measurement: Measurement


@dataclasses.dataclass(frozen=True)
class Result:
    """What compression found.

    Attributes:
        model: The float model behind the selected variant.
        selected: The variant that ships.
        report: All variants with their figures, as JSON-ready values.
        kept: Finished fine-tunings that are of no use once the result is written, for the caller to clear then. Those
            that a run with more time could go on from are not among them.
    """

    model: keras.Model
    selected: Variant
    report: dict[str, Any]
    kept: Store


def compress(
    model: keras.Model,
    splits: Splits,
    settings: CompressionSettings,
    directory: Path,
    *,
    fine_tuning: FineTuning | None = None,
    class_names: Sequence[str] = (),
    seed: int = 0,
) -> Result:
    """Makes, checks and measures the variants of a model and selects the smallest inside the budget.

    Args:
        model: float32 pixels [N, S, S, 3] in [0, 255] -> probabilities [N, C].
        splits: The images.
        settings: Stages, how far they go, and the budget.
        directory: Existing directory where every variant that converts is kept as `<name>.tflite`.
        fine_tuning: Needed by every stage but quantize.
        class_names: Names of the C classes in the order of the outputs, which every file then holds as labels.txt.
        seed: Makes the choice of the calibration images repeatable.

    Returns:
        The selected variant and the report.

    Raises:
        UserError: A split is empty, the model has layers that a stage cannot work on, its predictions are not finite,
            or no variant passes its checks or fits the budget. What was fine-tuned by then is kept.
        ValueError: A stage fine-tunes, but `fine_tuning` or the train split is missing.
    """
    start = time.perf_counter()
    representative = choose_representative(splits.calibration, seed)
    folded = fold_for(model, settings.stages)
    parent = _measure_parent(model, splits.validation)
    budget = _budget(settings.budget, fine_tuning)
    accuracy = balanced_accuracy if budget.balanced else top1_accuracy
    parent_accuracy = accuracy(parent.probabilities, splits.validation.labels)
    store = Store(None if fine_tuning is None else fine_tuning.checkpoints)
    with tempfile.TemporaryDirectory() as scratch:
        variants: list[Variant] = []
        job = Job(
            model,
            folded,
            settings,
            representative,
            splits.calibration,
            splits.validation,
            accuracy,
            parent_accuracy,
            Path(scratch),
            lambda: _better_quantizer(variants, budget),
            _tuner(folded, splits, settings, fine_tuning, store),
            label_lines(class_names),
        )
        _make_variants(job, parent, directory, variants)
    if not variants:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in job.dropped.items())
        raise UserError(
            f"compression: no variant passed its checks ({reasons}); try other compression.stages, or another network"
        )
    chosen = select({variant.name: variant.measurement for variant in variants}, parent_accuracy, budget)
    selected = next(variant for variant in variants if variant.name == chosen)
    naive = _naive_row(model)
    report = {
        "settings": settings.model_dump(mode="json"),
        "stages": list(settings.stages),
        "budget": dataclasses.asdict(budget),
        "parent": _parent_row(parent),
        "naive": naive,
        "calibration_images": len(representative),
        "variants": [_row(variant, parent_accuracy, variants, naive["bytes"], budget) for variant in variants],
        "dropped": [{"name": name, "reason": reason} for name, reason in job.dropped.items()],
        "done": job.notes,
        "skipped": {stage: [dataclasses.asdict(skip) for skip in skips] for stage, skips in job.skipped.items()},
        "selected": chosen,
        "seconds": time.perf_counter() - start,
    }
    goes_on = job.tuner is not None and job.tuner.is_short_of_time
    return Result(selected.model, selected, report, Store(None) if goes_on else store)


def fold_for(model: keras.Model, stages: Sequence[str]) -> keras.Model | None:
    """Folds a model for the stages that fine-tune.

    Args:
        model: See `compress`.
        stages: Those that are wanted.

    Returns:
        It without batch normalisation; None if no stage fine-tunes.

    Raises:
        UserError: The model has a layer that a stage cannot work on.
    """
    fine = [stage for stage in stages if stage != "quantize"]
    if not fine:
        return None
    folded = fold_batch_norm(model)
    require_known_layers(folded, fine)
    if "prune_channels" in fine:
        # It takes the network as it came, with the dropout that folding leaves out.
        require_single_calls(functional(model), ["prune_channels"])
    return folded


def _tuner(
    folded: keras.Model | None,
    splits: Splits,
    settings: CompressionSettings,
    fine_tuning: FineTuning | None,
    store: Store,
) -> FineTuner | None:
    if folded is None:
        return None
    if fine_tuning is None or splits.train is None:
        raise ValueError(f"the stages {settings.stages} need the training split and how it was trained on")
    if not splits.train.count:
        raise UserError("compression: the train split is empty, so nothing can be fine-tuned; add images to it")
    deadline = math.inf if settings.time_budget_s is None else time.monotonic() + settings.time_budget_s
    return FineTuner(settings, fine_tuning.training, splits.train, folded, fine_tuning.how, store, deadline)


def _budget(settings: BudgetSettings, fine_tuning: FineTuning | None) -> Budget:
    # Who lets every class count the same in the training would lose a rare one here without a trace.
    balanced = fine_tuning is not None and fine_tuning.training.trainer.class_weights == "balanced"
    return Budget(settings.max_accuracy_drop, settings.max_bytes, settings.max_latency_ms, settings.size, balanced)


def _better_quantizer(variants: list[Variant], budget: Budget) -> str:
    """Names the post-training quantiser that did the parent the least harm: TensorFlow's converter, or LiteRT's."""
    tried = [variant for variant in variants if variant.name in conversion.INTEGER_VARIANTS]
    best = max(tried, key=lambda v: (budget.accuracy(v.measurement), v.measurement.agreement), default=None)
    return "int8" if best is None else best.name


def float_answers(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Returns the probabilities [N, C] that a model answers to uint8 images [N, S, S, 3]."""
    answer = tf.function(lambda some: model(tf.cast(some, tf.float32), training=False))
    # Not by tf.data, which would copy all images first.
    starts = range(0, len(images), _PREDICTION_BATCH)
    return np.concatenate([answer(images[start : start + _PREDICTION_BATCH]).numpy() for start in starts])


def _measure_parent(model: keras.Model, validation: LabelledImages) -> Parent:
    if not len(validation.images):
        raise UserError("compression: the validation split is empty, so no variant can be measured; add images to it")
    probabilities = float_answers(model, validation.images)
    if not np.isfinite(probabilities).all():
        raise UserError(
            "compression: the trained model's predictions are not finite; train it again with a lower "
            "trainer.learning_rate"
        )
    if not are_probabilities(probabilities):
        raise UserError(
            "compression: the model answers no probabilities: they are negative or do not sum to 1; give one that ends "
            "with softmax"
        )
    return Parent(model, probabilities, top1_accuracy(probabilities, validation.labels))


def _make_variants(job: Job, parent: Parent, directory: Path, variants: list[Variant]) -> None:
    """Makes every candidate; those that pass their checks are appended to `variants`, the others noted in the job."""
    reference: list[Kernel] = []
    for candidate in stages.candidates(job):
        path = directory / f"{candidate.name}.tflite"
        progress.report(progress.COMPRESSION, f"making and measuring {candidate.name}")
        try:
            write_whole(path, candidate.convert())
            reference = reference or ModelFile(path).kernels
            variants.append(_examine(candidate, path, parent, job.validation, reference))
        except VariantError as error:
            job.drop(candidate.name, error)


def _examine(
    candidate: Candidate, path: Path, parent: Parent, validation: LabelledImages, reference: list[Kernel]
) -> Variant:
    classifier = checks.load(path)
    checks.check_covers_pixels(classifier)
    passed = ["loads", "covers_pixels"]
    if candidate.integer:
        checks.check_integer_only(path, float_ends=classifier.input.scale is None)
        checks.check_biases(path)
        passed += ["integer_only", "biases_fit"]
    if candidate.sparsity:
        checks.check_sparsity(path, candidate.sparsity)
        passed.append("sparsity")
    if candidate.clusters:
        checks.check_clusters(path, *candidate.clusters)
        passed.append("clusters")
    larger = path.with_name(f"{candidate.larger}.tflite")
    if candidate.larger and larger.exists():
        checks.check_shrunk(path, larger)
        passed.append("shrunk")
    probabilities = checks.predict(classifier, validation.images)
    passed.append("finite")
    checks.check_kernels(path, reference)
    passed.append("kernels_alive")
    figures = measure(path, probabilities, validation.labels, parent.probabilities, validation.images[0])
    _logger.info("Compression variant %s: %s", candidate.name, figures)
    return Variant(candidate.name, path, candidate.model, tuple(passed), figures)


def _parent_row(parent: Parent) -> dict[str, Any]:
    return {
        "params": parent.model.count_params(),
        "validation_accuracy": parent.accuracy,
        "validation_images": len(parent.probabilities),
    }


def _naive_row(model: keras.Model) -> dict[str, Any]:
    """Says how large the lesson's naive network would be for the same images and classes."""
    naive = build_model(ModelSettings(architecture="naive"), max(model.input_shape[1], 16), model.output_shape[-1])
    return {"params": naive.count_params(), "bytes": _FLOAT_BYTES * naive.count_params()}


def _row(
    variant: Variant, parent_accuracy: float, variants: list[Variant], naive_bytes: int, budget: Budget
) -> dict[str, Any]:
    over = excesses(variant.measurement, parent_accuracy, budget)
    size = variant.measurement.deflated_bytes
    lean = next((v.measurement.bytes for v in variants if v.name == "float32"), None)
    return {
        "name": variant.name,
        **dataclasses.asdict(variant.measurement),
        "times_smaller_than_naive": naive_bytes / size,
        "times_smaller_than_float32": None if lean is None else lean / size,
        "layers": [kernel.to_json() for kernel in ModelFile(variant.path).kernels],
        "checks": list(variant.checks),
        "within_budget": not over,
        "reason": "; ".join(excess.reason for excess in over) or None,
    }
