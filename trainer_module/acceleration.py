"""How the training steps are executed, chosen by measurement on the device at hand."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trainer_module.settings import AccelerationSettings

_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
_PROBE_STEPS = 8
_PROBE_REPEATS = 3
# What XLA takes to compile a training step, in units of what a probe without XLA takes from start to end. About 5 was
# seen for the lean network on 2 CPU cores; the margin is for deeper ones, because a compilation cannot be cut short.
_XLA_COST = 10.0
# More than this share of the training time spent on choosing would cost more than most choices save.
_PROBE_SHARE = 0.1
# Reduced precision moves the loss of the first steps by a few percent; more means that the numerics do not hold.
_LOSS_TOLERANCE = 0.1
FUSED_STEPS = 8


@dataclasses.dataclass(frozen=True)
class Acceleration:
    """One way to execute training steps.

    Attributes:
        jit: Whether XLA compiles the step.
        precision: "float32", "bfloat16" or "float16" (with loss scaling).
        steps_per_execution: Steps fused into one call.
    """

    jit: bool = False
    precision: str = "float32"
    steps_per_execution: int = 1


@dataclasses.dataclass(frozen=True)
class Probe:
    """What was found out about one candidate.

    Attributes:
        candidate: What was tried.
        seconds_per_step: Mean over the fastest series of steps; None if it was not timed.
        loss: Mean training loss of the first steps; None if it was not timed.
        outcome: "measured", or why the candidate was not.
    """

    candidate: Acceleration
    seconds_per_step: float | None
    loss: float | None
    outcome: str


@dataclasses.dataclass(frozen=True)
class Choice:
    """The chosen acceleration, and all that was measured on the way.

    Attributes:
        chosen: What the training uses.
        mode: "auto" or "manual".
        strategy: Name of the tf.distribute strategy.
        device: What the steps run on.
        probes: Every candidate; empty in manual mode.
        seconds: Time that the choice took.
    """

    chosen: Acceleration
    mode: str
    strategy: str
    device: str
    probes: tuple[Probe, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Returns the choice as plain JSON values."""
        return {
            **dataclasses.asdict(self),
            "chosen": dataclasses.asdict(self.chosen),
            "probes": [dataclasses.asdict(probe) for probe in self.probes],
        }


def distribution_strategy(settings: AccelerationSettings) -> tf.distribute.Strategy:
    """Picks the tf.distribute strategy: several hosts by TF_CONFIG, several GPUs of one host, or the default."""
    wanted = settings.strategy
    if wanted == "auto":
        workers = json.loads(os.environ.get("TF_CONFIG", "{}")).get("cluster", {}).get("worker", [])
        gpus = tf.config.list_physical_devices("GPU")
        wanted = "multi_worker" if len(workers) > 1 else "mirrored" if len(gpus) > 1 else "none"
    if wanted == "multi_worker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    return tf.distribute.MirroredStrategy() if wanted == "mirrored" else tf.distribute.get_strategy()


def choose(
    settings: AccelerationSettings,
    build: Callable[[Acceleration], keras.Model],
    batch: tuple[np.ndarray, np.ndarray],
    total_steps: int,
    strategy: tf.distribute.Strategy,
) -> Choice:
    """Chooses how to execute the training.

    Args:
        settings: Mode and switches.
        build: Makes a compiled model that is executed in the given way.
        batch: One training batch: float32 images [N, S, S, 3] and int64 labels [N].
        total_steps: Steps of the whole training, from which the time budget of the choice follows.
        strategy: Strategy under which the model is built.

    Returns:
        The fastest candidate whose loss stays finite and close to that of the plain float32 step.
    """
    started = time.perf_counter()
    manual = Acceleration(settings.jit, settings.precision, settings.steps_per_execution)
    # Workers that time alone would choose differently and then wait for each other for ever.
    probing = settings.mode == "auto" and strategy.num_replicas_in_sync == 1
    probes = tuple(_probe_candidates(build, batch, total_steps)) if probing else ()
    measured = [probe for probe in probes if probe.seconds_per_step is not None and probe.outcome == "measured"]
    chosen = min(measured, key=lambda probe: probe.seconds_per_step or math.inf).candidate if measured else manual
    return Choice(chosen, settings.mode, type(strategy).__name__, device_name(), probes, time.perf_counter() - started)


def device_name() -> str:
    """Describes the device that computes: the GPU's name, or the CPU with its number of cores."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        return f"{len(gpus)} x {tf.config.experimental.get_device_details(gpus[0]).get('device_name', 'GPU')}"
    return f"CPU, {os.cpu_count()} cores"


def reduced_precision() -> str:
    """Returns the faster precision of the device: GPUs have float16 units, CPUs know only bfloat16."""
    return "float16" if tf.config.list_physical_devices("GPU") else "bfloat16"


def apply_precision(precision: str) -> None:
    """Sets the Keras policy that the next built model gets."""
    keras.mixed_precision.set_global_policy(_POLICIES[precision])


def _probe_candidates(
    build: Callable[[Acceleration], keras.Model], batch: tuple[np.ndarray, np.ndarray], total_steps: int
) -> Iterator[Probe]:
    """Changes one switch at a time, going on from the best so far, until the time budget is spent."""
    reference = build(Acceleration())
    # All candidates start from the same weights, or their losses could not be compared.
    weights = reference.get_weights()
    best, reference_seconds = _timed_probe(Acceleration(), lambda _: reference, weights, batch, reference_loss=None)
    yield best
    if best.seconds_per_step is None:
        return
    reference_loss = best.loss
    budget = _PROBE_SHARE * total_steps * best.seconds_per_step
    spent = 0.0
    for change in _changes():
        candidate = dataclasses.replace(best.candidate, **change)
        expected = reference_seconds * (_XLA_COST if candidate.jit else 1.0)
        if spent + expected > budget:
            yield Probe(candidate, None, None, "not measured: it would take longer than a tenth of the training")
            continue
        probe, seconds = _timed_probe(candidate, build, weights, batch, reference_loss)
        spent += seconds
        yield probe
        if probe.outcome == "measured" and (probe.seconds_per_step or math.inf) < (best.seconds_per_step or math.inf):
            best = probe


def _changes() -> list[dict[str, Any]]:
    return [{"precision": reduced_precision()}, {"jit": True}, {"steps_per_execution": FUSED_STEPS}]


def _timed_probe(
    candidate: Acceleration,
    build: Callable[[Acceleration], keras.Model],
    weights: list[np.ndarray],
    batch: tuple[np.ndarray, np.ndarray],
    reference_loss: float | None,
) -> tuple[Probe, float]:
    started = time.perf_counter()
    try:
        model = build(candidate)
        model.set_weights(weights)
        seconds_per_step, loss = _time_steps(model, batch)
    except tf.errors.OpError as error:
        reason = str(error).splitlines()[0]
        return Probe(candidate, None, None, f"refused by the device: {reason}"), time.perf_counter() - started
    outcome = "measured"
    if not math.isfinite(loss):
        outcome = "rejected: the loss is not finite"
    elif reference_loss is not None and abs(loss - reference_loss) > _LOSS_TOLERANCE * max(1.0, abs(reference_loss)):
        outcome = f"rejected: loss {loss:.3f}, but {reference_loss:.3f} in float32"
    return Probe(candidate, seconds_per_step, loss, outcome), time.perf_counter() - started


def _time_steps(model: keras.Model, batch: tuple[np.ndarray, np.ndarray]) -> tuple[float, float]:
    dataset = tf.data.Dataset.from_tensors(batch).repeat()
    # The first call traces and compiles.
    history = model.fit(dataset, steps_per_epoch=_PROBE_STEPS, verbose=0)
    # The fastest of several: whatever else the machine does only ever makes it slower.
    seconds = min(_seconds_of_fit(model, dataset) for _ in range(_PROBE_REPEATS))
    return seconds / _PROBE_STEPS, float(history.history["loss"][-1])


def _seconds_of_fit(model: keras.Model, dataset: tf.data.Dataset) -> float:
    started = time.perf_counter()
    model.fit(dataset, steps_per_epoch=_PROBE_STEPS, verbose=0)
    return time.perf_counter() - started
