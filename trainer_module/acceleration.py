"""How the training steps are executed, chosen by measurement on the device at hand."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from trainer_module.epoch_clock import EpochClock
from trainer_module.errors import UserError
from trainer_module.model_state import unchanged
from trainer_module.processors import available_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trainer_module.settings import AccelerationSettings

_logger = logging.getLogger(__name__)

_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
_PROBE_STEPS = 8
_PROBE_REPEATS = 3
# What it takes to probe a candidate, in units of what the first one took. On 2 CPU cores 1.5 was seen without XLA and 5
# with it; the margin is for deeper networks, because a compilation cannot be cut short.
_COST, _XLA_COST = 1.5, 10.0
# More than this share of the training time spent on choosing would cost more than most choices save.
_PROBE_SHARE = 0.1
# Reduced precision moves the loss of the first steps by a few percent; more means that the numerics do not hold.
_LOSS_TOLERANCE = 0.1
FUSED_STEPS = 8
_MEASURED = "measured"
_TOO_LONG = "not measured: it would take longer than a tenth of the training"
_SEVERAL_HOSTS = "not measured: several hosts could each find another way the fastest"
_SEVERAL_REPLICAS = "not measured: XLA is not tried on several devices at once"
_WHERE_NOT_WHAT = ("Graph execution error", "Detected at node", "<stack traces", "File ", " ")


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
        probes = [
            # JSON knows no NaN, which the loss of a candidate that was rejected may be.
            {**dataclasses.asdict(probe), "loss": probe.loss if math.isfinite(probe.loss or 0.0) else None}
            for probe in self.probes
        ]
        return {**dataclasses.asdict(self), "probes": probes}


def distribution_strategy(settings: AccelerationSettings) -> tf.distribute.Strategy:
    """Makes the tf.distribute strategy: several hosts by TF_CONFIG, several GPUs of one host, or the default.

    Several hosts must make it before TensorFlow computes anything.

    Args:
        settings: Says which; "auto" takes what fits this host.

    Returns:
        The strategy.

    Raises:
        UserError: If the strategy needs GPUs or hosts that there are not.
    """
    if _asks_for_hosts(settings):
        return _multi_worker_strategy()
    gpus = len(tf.config.list_physical_devices("GPU"))
    if settings.strategy == "none" or (settings.strategy == "auto" and gpus < 2):
        return tf.distribute.get_strategy()
    if not gpus:
        raise UserError("acceleration.strategy=mirrored: TensorFlow finds no GPU on this machine; use auto or none")
    return tf.distribute.MirroredStrategy()


def require_one_host(settings: AccelerationSettings) -> None:
    """Refuses several hosts, for processes in which TensorFlow computes something before it trains.

    Args:
        settings: Of the training.

    Raises:
        UserError: Says what asks for several hosts, and what to do.
    """
    if _asks_for_hosts(settings):
        given = settings.strategy == "multi_worker"
        what = "acceleration.strategy=multi_worker" if given else "the environment variable TF_CONFIG"
        raise UserError(
            f"{what} asks for several hosts, but this command trains on one; unset it, or set"
            " acceleration.strategy=none (docs/training.md says how several hosts train)"
        )


def _asks_for_hosts(settings: AccelerationSettings) -> bool:
    return settings.strategy == "multi_worker" or (settings.strategy == "auto" and _hosts() > 1)


def _multi_worker_strategy() -> tf.distribute.Strategy:
    if not _hosts():
        raise UserError(
            "acceleration.strategy=multi_worker: the environment variable TF_CONFIG names no workers;"
            " set it on every host, or use auto or none"
        )
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except ValueError as error:
        raise UserError(f"the environment variable TF_CONFIG does not say which host this is: {error}") from error
    except RuntimeError as error:
        raise UserError(
            f"several hosts must find each other before TensorFlow computes anything in their processes: {error}; run"
            " the Trainer in a process of its own, or use acceleration.strategy=none"
        ) from error


def spans_hosts(strategy: tf.distribute.Strategy) -> bool:
    """Tells whether several hosts train together."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) and _hosts() > 1


def _hosts() -> int:
    """Counts the hosts in TF_CONFIG that train."""
    try:
        cluster = tf.distribute.cluster_resolver.TFConfigClusterResolver().cluster_spec().as_dict()
    except (ValueError, TypeError) as error:
        raise UserError(
            f"the environment variable TF_CONFIG describes no cluster: {error}; mend or unset it"
        ) from error
    return sum(len(cluster.get(job, ())) for job in ("chief", "worker"))


def choose(
    settings: AccelerationSettings,
    build: Callable[[Acceleration], keras.Model],
    batch: tuple[np.ndarray, ...],
    total_steps: int,
    strategy: tf.distribute.Strategy,
) -> tuple[Choice, keras.Model]:
    """Chooses how to execute the training.

    Args:
        settings: Mode and switches.
        build: Makes a compiled model that is executed in the given way.
        batch: One training batch: float32 images [N, S, S, 3], int64 labels [N], and maybe float32 weights [N].
        total_steps: Steps of the whole training, from which the time budget of the choice follows.
        strategy: Strategy under which the model is built.

    Returns:
        The fastest candidate whose loss stays finite and close to that of the plain float32 step, on several hosts what
        the switches say; and a model that is executed so and is as it was built. If it was tried, it need not be traced
        and compiled again.

    Raises:
        UserError: If the settings leave no choice, and this device cannot train as they say.
    """
    started = time.perf_counter()
    manual = Acceleration(settings.jit, settings.precision, settings.steps_per_execution)
    probes: list[Probe] = []
    best = None
    if settings.mode == "auto" and not spans_hosts(strategy):
        probes, best = _probe_candidates(build, batch, total_steps, strategy)
    else:
        _require_trainable(manual, build, batch)
        if settings.mode == "auto":
            # Hosts that time alone would choose differently and then wait for each other for ever.
            probes = [Probe(manual, None, None, _SEVERAL_HOSTS)]
    chosen, model = (manual, build(manual)) if best is None else best
    seconds = time.perf_counter() - started
    return Choice(
        chosen,
        settings.mode,
        type(strategy).__name__,
        device_name(strategy.num_replicas_in_sync),
        tuple(probes),
        seconds,
    ), model


def device_name(devices: int = 1) -> str:
    """Describes what computes: the GPUs by number and name, or the CPU with the number of cores that it may use."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        return f"{devices} x {tf.config.experimental.get_device_details(gpus[0]).get('device_name', 'GPU')}"
    return f"CPU, {available_cores()} cores"


def reduced_precision() -> str:
    """Returns the faster precision of the device: GPUs have float16 units, CPUs know only bfloat16."""
    return "float16" if tf.config.list_physical_devices("GPU") else "bfloat16"


@contextlib.contextmanager
def computing(precision: str) -> Iterator[None]:
    """Gives models that are built and compiled inside the Keras policy of a precision, and others float32's."""
    keras.mixed_precision.set_global_policy(policy(precision))
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(policy("float32"))


def policy(precision: str) -> str:
    """Names the Keras policy of a precision."""
    return _POLICIES[precision]


def _require_trainable(
    how: Acceleration, build: Callable[[Acceleration], keras.Model], batch: tuple[np.ndarray, ...]
) -> None:
    """Tries one step, so that what this device cannot do is refused before the training and by the setting's name."""
    switches = {"precision": how.precision} if how.precision != "float32" else {}
    switches |= {"jit": "true"} if how.jit else {}
    if not switches:
        return
    named = ", ".join(f"acceleration.{key}={value}" for key, value in switches.items())
    remedy = "use acceleration.mode=auto, which measures what this device can do"
    try:
        loss, _ = _fit(build(dataclasses.replace(how, steps_per_execution=1)), batch, steps=1)
    except tf.errors.OpError as error:
        raise UserError(f"{named}: {device_name()} cannot train so: {_reason(error)}; {remedy}") from error
    if not math.isfinite(loss) and math.isfinite(_fit(build(Acceleration()), batch, steps=1)[0]):
        raise UserError(f"{named}: the loss is not a number, though it is one in plain float32; {remedy}")
    if how.precision == "float16" and reduced_precision() != "float16":
        # Three times the time of float32 was seen.
        _logger.warning("%s: CPUs have no float16 arithmetic and emulate it slowly; bfloat16 or auto is faster", named)


def _reason(error: tf.errors.OpError) -> str:
    """Finds the line that says what is wrong, after those with which Keras says where."""
    lines = str(error).splitlines()
    return next((line for line in lines if line.strip() and not line.startswith(_WHERE_NOT_WHAT)), lines[0])


def _probe_candidates(
    build: Callable[[Acceleration], keras.Model],
    batch: tuple[np.ndarray, ...],
    total_steps: int,
    strategy: tf.distribute.Strategy,
) -> tuple[list[Probe], tuple[Acceleration, keras.Model] | None]:
    """Changes one switch at a time, going on from the best so far, until the time budget is spent.

    Returns:
        All probes, and the best candidate with its model; None in its place if not even the plain float32 step works.
    """
    started = time.perf_counter()
    model = build(Acceleration())
    # All candidates start from the same weights, or their losses could not be compared.
    weights = model.get_weights()
    best = _probe(Acceleration(), model, weights, batch)
    probes = [best]
    if best.seconds_per_step is None or best.outcome != _MEASURED:
        return probes, None
    reference_loss, reference_seconds = best.loss, time.perf_counter() - started
    deadline = started + _PROBE_SHARE * total_steps * best.seconds_per_step
    for change in _changes():
        candidate = dataclasses.replace(best.candidate, **change)
        if candidate.jit and strategy.num_replicas_in_sync > 1:
            # Tested on no GPUs; and replicas that wait for each other for ever in compiled code could not be given up.
            probes.append(Probe(candidate, None, None, _SEVERAL_REPLICAS))
            continue
        expected = reference_seconds * (_XLA_COST if candidate.jit else _COST)
        if time.perf_counter() + expected > deadline:
            probes.append(Probe(candidate, None, None, _TOO_LONG))
            continue
        tried = build(candidate)
        probe = _probe(candidate, tried, weights, batch, reference_loss, deadline)
        probes.append(probe)
        if probe.outcome == _MEASURED and (probe.seconds_per_step or math.inf) < (best.seconds_per_step or math.inf):
            best, model = probe, tried
    return probes, (best.candidate, model)


def _changes() -> list[dict[str, Any]]:
    # The costly one last: what is left of the budget may not be enough for it.
    return [{"precision": reduced_precision()}, {"steps_per_execution": FUSED_STEPS}, {"jit": True}]


def _probe(
    candidate: Acceleration,
    model: keras.Model,
    weights: list[np.ndarray],
    batch: tuple[np.ndarray, ...],
    reference_loss: float | None = None,
    deadline: float = math.inf,
) -> Probe:
    try:
        with unchanged(model):
            model.set_weights(weights)
            seconds_per_step, loss = _time_steps(model, batch, deadline)
    except tf.errors.OpError as error:
        return Probe(candidate, None, None, f"refused by the device: {_reason(error)}")
    except _TooSlowError:
        return Probe(candidate, None, None, _TOO_LONG)
    outcome = _MEASURED
    if not math.isfinite(loss):
        outcome = "rejected: the loss is not finite"
    elif reference_loss is not None and abs(loss - reference_loss) > _LOSS_TOLERANCE * max(1.0, abs(reference_loss)):
        outcome = f"rejected: loss {loss:.3f}, but {reference_loss:.3f} in float32"
    return Probe(candidate, seconds_per_step, loss, outcome)


class _TooSlowError(Exception):
    pass


class _Deadline(keras.callbacks.Callback):
    """Gives up a candidate that turns out to be much slower than was expected, as emulated arithmetic is."""

    def __init__(self, deadline: float) -> None:
        super().__init__()
        self._deadline = deadline

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        del batch, logs
        if time.perf_counter() > self._deadline:
            raise _TooSlowError


def _time_steps(model: keras.Model, batch: tuple[np.ndarray, ...], deadline: float) -> tuple[float, float]:
    # The first call traces and compiles.
    loss, _ = _fit(model, batch, _PROBE_STEPS, deadline)
    # The fastest of several: whatever else the machine does only ever makes it slower.
    fastest = min(_fit(model, batch, _PROBE_STEPS, deadline)[1] for _ in range(_PROBE_REPEATS))
    return fastest / _PROBE_STEPS, loss


def _fit(
    model: keras.Model, batch: tuple[np.ndarray, ...], steps: int, deadline: float = math.inf
) -> tuple[float, float]:
    """Trains with the same batch again and again; returns the mean loss, and the seconds that it took."""
    # Endless, because several workers share out what there is.
    dataset = tf.data.Dataset.from_tensors(batch).repeat()
    clock = EpochClock()
    history = model.fit(dataset, steps_per_epoch=steps, callbacks=[clock, _Deadline(deadline)], verbose=0).history
    return float(history["loss"][0]), clock.seconds[0]
