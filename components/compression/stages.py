"""The stages: which models they make of the parent, and which variants come of each."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from components.compression import channel_pruning, clustering, conversion, pruning, sensitivity
from components.compression.errors import VariantError
from components.compression.job import Candidate, Job, Staged
from components.compression.kernels import choose, copy_of, has_kernel, is_depthwise, sparsity, weight_count
from components.compression.narrow_kernels import WIDE_BITS
from components.compression.quantization_aware import bits_in_file, fake_quantized, float_weights
from components.compression.search import Level, furthest
from components.compression.selection import loses_too_much
from trainer_module.folding import fold_batch_norm, functional
from trainer_module.progress import COMPRESSION, report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import tf_keras as keras

_Made = TypeVar("_Made")

_SPARSITIES = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9)
_CLUSTERS = (64, 32, 16, 8, 4)
# Mean bits of a weight.
_BITS = (6.0, 5.0, 4.0, 3.5, 3.0, 2.5)
_SENSITIVITY_IMAGES = 512


def candidates(job: Job) -> Iterator[Candidate]:
    """Yields the variants, the plain ones first; a stage that fails is noted in the job, and the others go on."""
    yield from _plain(job)
    if job.folded is None or job.tuner is None:
        return
    if job.wants("qat"):
        yield from _quantization_aware(job, job.folded)
    chain, prefix = job.folded, ""
    if job.wants("prune"):
        pruned = _staged(job, "prune", "pruned", lambda: _pruned(job, chain))
        if pruned is not None:
            chain, prefix = pruned.model, "pruned_"
            yield from _pruned_variants(job, pruned)
    if job.wants("cluster"):
        name = f"{prefix}clustered"
        clustered = _staged(job, "cluster", name, lambda: _clustered(job, chain, name))
        if clustered is not None:
            yield from _clustered_variants(job, clustered, name)
    if job.wants("prune_channels"):
        narrow = _staged(job, "prune_channels", "channel_pruned", lambda: _channel_pruned(job))
        if narrow is not None:
            yield from _channel_pruned_variants(job, narrow)


def _staged(job: Job, stage: str, name: str, work: Callable[[], Staged]) -> Staged | None:
    report(COMPRESSION, f"preparing {name}")
    made = _attempt(job, name, work)
    if made is not None:
        job.notes[stage] = made.note
    return made


def _attempt(job: Job, name: str, work: Callable[[], _Made]) -> _Made | None:
    try:
        return work()
    except VariantError as error:
        job.drop(name, error)
        return None


def _plain(job: Job) -> Iterator[Candidate]:
    converter = _converter(job, job.model, "plain")
    for name in conversion.VARIANTS if job.wants("quantize") else ("float32",):
        yield Candidate(name, job.model, _conversion(converter, name), integer=name in conversion.INTEGER_VARIANTS)


def _pruned_variants(job: Job, staged: Staged) -> Iterator[Candidate]:
    pruned, zeros = staged.model, _zeros(staged.model)
    converter = _converter(job, pruned, "pruned")
    yield Candidate("pruned_float32", pruned, _conversion(converter, "float32"), sparsity=zeros, larger="float32")
    if job.wants("quantize"):
        yield Candidate(
            "pruned_int8",
            pruned,
            lambda: converter.convert(job.quantizer()),
            integer=True,
            sparsity=zeros,
            larger="int8",
        )
    if job.wants("qat"):
        yield from _narrowest(job, pruned, "pruned_")


def _clustered_variants(job: Job, staged: Staged, name: str) -> Iterator[Candidate]:
    model = staged.model
    converter = _converter(job, model, name)
    made = Candidate(
        f"{name}_float32",
        model,
        _conversion(converter, "float32"),
        sparsity=_zeros(model),
        clusters=(staged.clusters, len(staged.clustered)),
        larger="float32",
    )
    yield made
    # The converter alone would give every channel a step of its own, and a kernel many values again.
    integer = fake_quantized(model, WIDE_BITS, job.representative, staged.clustered)
    made = dataclasses.replace(made, integer=True, larger="int8")
    if job.wants("quantize"):
        integer_converter = _converter(job, integer, f"{name}_int8")
        yield dataclasses.replace(made, name=f"{name}_int8", convert=_conversion(integer_converter, "int8"))
    if job.wants("qat"):
        tuned = _attempt(job, f"{name}_qat", lambda: _tuned(job, integer, f"{name}_qat"))
        if tuned is not None:
            convert = _conversion(_converter(job, tuned, f"{name}_qat"), "int8")
            yield dataclasses.replace(made, name=f"{name}_qat", model=float_weights(tuned, model), convert=convert)


def _channel_pruned_variants(job: Job, staged: Staged) -> Iterator[Candidate]:
    narrow = staged.model
    converter = _converter(job, narrow, "channel_pruned")
    yield Candidate("channel_pruned_float32", narrow, _conversion(converter, "float32"), larger="float32")
    if job.wants("quantize"):
        yield Candidate(
            "channel_pruned_int8", narrow, lambda: converter.convert(job.quantizer()), integer=True, larger="int8"
        )
    if job.wants("qat"):
        yield from _narrowest(job, narrow, "channel_pruned_")


def _quantization_aware(job: Job, model: keras.Model) -> Iterator[Candidate]:
    if job.settings.bits == "auto":
        yield from _mixed_bits(job, model, "")
        return
    for bits in job.settings.bits:
        yield from _equal_bits(job, model, "", bits)


def _narrowest(job: Job, model: keras.Model, prefix: str) -> Iterator[Candidate]:
    bits = job.settings.bits
    yield from _mixed_bits(job, model, prefix) if bits == "auto" else _equal_bits(job, model, prefix, min(bits))


def _equal_bits(job: Job, model: keras.Model, prefix: str, bits: int) -> Iterator[Candidate]:
    kind = f"qat_int{bits}"
    name = f"{prefix}{kind}"
    tuned = _attempt(job, name, lambda: _tuned(job, fake_quantized(model, bits, job.representative), name))
    if tuned is None:
        return
    converter = _converter(job, tuned, name)
    made = _integer_candidate(name, tuned, model, converter)
    yield from [made] if bits == WIDE_BITS else _stored_both_ways(made, converter, kind if prefix else None)


def _mixed_bits(job: Job, model: keras.Model, prefix: str) -> Iterator[Candidate]:
    kind = "qat_mixed"
    name = f"{prefix}{kind}"
    report(COMPRESSION, f"preparing {name}")
    found = _attempt(job, name, lambda: _shared_bits(job, model, name))
    if found is None:
        return
    job.notes[name] = found.note
    converter = _converter(job, found.model, name)
    made = _integer_candidate(name, found.model, model, converter)
    yield from _stored_both_ways(made, converter, kind if prefix else None)


def _integer_candidate(name: str, tuned: keras.Model, model: keras.Model, converter: conversion.Converter) -> Candidate:
    return Candidate(
        name, float_weights(tuned, model), _conversion(converter, "int8"), integer=True, sparsity=_zeros(model)
    )


def _stored_both_ways(made: Candidate, converter: conversion.Converter, larger: str | None) -> Iterator[Candidate]:
    yield dataclasses.replace(made, convert=lambda: converter.convert("int8", narrow=True), larger=larger)
    # The same weights as they are stored in 8 bits: larger until it is deflated, but XNNPACK runs it.
    yield dataclasses.replace(made, name=f"{made.name}_in_int8", larger=larger and f"{larger}_in_int8")


def _shared_bits(job: Job, model: keras.Model, name: str) -> Staged:
    layers = [layer for layer in model.layers if has_kernel(layer) and not is_depthwise(layer)]
    sizes = {layer.name: weight_count(layer) for layer in layers}
    probe = sensitivity.Probe(copy_of(model), job.calibration.images[:_SENSITIVITY_IMAGES])
    harm = probe.rounding_harm({layer.name: _widths(job, layer) for layer in layers})

    def attempt(mean: float) -> Staged:
        bits = sensitivity.least_harmful_bits(harm, sizes, mean)
        made = fake_quantized(model, bits, job.representative)
        return Staged(_tuned(job, made, f"{name}_{mean:g}"), {"mean_bits": mean, "bits": bits})

    def estimate(mean: float) -> float:
        bits = sensitivity.least_harmful_bits(harm, sizes, mean)
        return _calibration_accuracy(
            job, probe.answers({layer: probe.with_few_bits(layer, few) for layer, few in bits.items()})
        )

    if job.settings.mean_bits is None:
        return _searched(job, _BITS, estimate, attempt, probe)
    return attempt(job.settings.mean_bits)


def _widths(job: Job, layer: keras.layers.Layer) -> list[int]:
    """Returns the bits of a weight that make the layer smaller in the size that counts, falling."""
    budget = job.settings.budget
    if budget.max_bytes is None or budget.size == "deflated":
        return list(sensitivity.WIDTHS)
    return [bits for bits in sensitivity.WIDTHS if bits_in_file(layer, bits) == bits]


def _tuned(job: Job, model: keras.Model, name: str) -> keras.Model:
    tuner = _require(job.tuner)
    tuner.once(name, model, lambda: tuner.fit(model))
    return model


def _pruned(job: Job, model: keras.Model) -> Staged:
    tuner = _require(job.tuner)
    layers = _worth_it(job, "prune", model)
    sizes = {layer.name: weight_count(layer) for layer in layers}
    # A copy, whose weights come and go.
    probe = sensitivity.Probe(copy_of(model), job.calibration.images[:_SENSITIVITY_IMAGES])
    harm = probe.pruning_harm(list(sizes))

    def attempt(target: float) -> Staged:
        shares = sensitivity.equal_harm(harm, sizes, target)
        made = pruning.prune(model, shares, tuner, f"pruned_{target:g}")
        return Staged(made, {"sparsity": target, "layers": shares})

    def estimate(target: float) -> float:
        shares = sensitivity.equal_harm(harm, sizes, target)
        changed = {name: sensitivity.without_smallest(probe.kernels[name], share) for name, share in shares.items()}
        return _calibration_accuracy(job, probe.answers(changed))

    if job.settings.sparsity == "auto":
        return _searched(job, _SPARSITIES, estimate, attempt, probe)
    return attempt(job.settings.sparsity)


def _clustered(job: Job, model: keras.Model, name: str) -> Staged:
    tuner = _require(job.tuner)
    worked_on = _worth_it(job, "cluster", model)
    probe = sensitivity.Probe(copy_of(model), job.calibration.images[:_SENSITIVITY_IMAGES])

    def attempt(clusters: int) -> Staged:
        layers, few = clustering.clusterable(worked_on, clusters)
        names = tuple(layer.name for layer in layers)
        made = clustering.cluster(model, names, clusters, tuner, f"{name}_{clusters}")
        return Staged(made, {"clusters": clusters, "layers": list(names)}, names, clusters, tuple(few))

    def estimate(clusters: int) -> float:
        layers, _ = clustering.clusterable(worked_on, clusters)
        changed = {layer.name: sensitivity.with_few_values(probe.kernels[layer.name], clusters) for layer in layers}
        return _calibration_accuracy(job, probe.answers(changed))

    if job.settings.clusters == "auto":
        found = _searched(job, _CLUSTERS, estimate, attempt, probe)
    else:
        found = attempt(job.settings.clusters)
    job.skipped["cluster"] += found.skipped
    return found


def _worth_it(job: Job, stage: str, model: keras.Model) -> list[keras.layers.Layer]:
    """Chooses the layers that a stage works on, and notes those that it leaves out."""
    layers, job.skipped[stage] = choose(model)
    if not layers:
        left_out = "; ".join(f"{skip.layer}: {skip.reason}" for skip in job.skipped[stage])
        raise VariantError(f"every layer is left out ({left_out})")
    return layers


def _searched(
    job: Job,
    levels: Sequence[Level],
    estimate: Callable[[Level], float],
    attempt: Callable[[Level], Staged],
    probe: sensitivity.Probe,
) -> Staged:
    intact = _calibration_accuracy(job, probe.answers({}))
    return furthest(levels, estimate, intact, attempt, lambda made: _fits(job, made.model))


def _channel_pruned(job: Job) -> Staged:
    # With its batch normalisation, without which so much that is lost is not learned anew.
    whole = functional(job.model)
    images, labels = job.calibration.images[:_SENSITIVITY_IMAGES], job.calibration.labels[:_SENSITIVITY_IMAGES]
    narrow, changed = channel_pruning.remove_channels(whole, job.settings.channel_sparsity, images, labels)
    before, after = map(channel_pruning.multiply_accumulates, (whole, narrow))
    _require(job.tuner).fit_channels("channel_pruned", narrow)
    return Staged(fold_batch_norm(narrow), {"multiply_accumulates": [before, after], "channels": changed})


def _fits(job: Job, model: keras.Model) -> bool:
    probabilities = sensitivity.Probe(model, job.validation.images).answers({})
    accuracy = job.accuracy(probabilities, job.validation.labels)
    return not loses_too_much(accuracy, job.parent_accuracy, job.settings.budget.max_accuracy_drop)


def _calibration_accuracy(job: Job, probabilities: np.ndarray) -> float:
    return job.accuracy(probabilities, job.calibration.labels[:_SENSITIVITY_IMAGES])


def _zeros(model: keras.Model) -> float:
    """Returns the share of zeros among the weights that a .tflite file's kernels hold."""
    values = [weights for weights in model.get_weights() if weights.ndim > 1]
    return sparsity(np.concatenate([weights.ravel() for weights in values]))


def _converter(job: Job, model: keras.Model, name: str) -> conversion.Converter:
    return conversion.Converter(
        model,
        job.representative,
        job.scratch / name,
        float_ends=job.settings.input_type == "float32",
        labels=job.labels,
    )


def _conversion(converter: conversion.Converter, variant: str) -> Callable[[], bytes]:
    return lambda: converter.convert(variant)


def _require(value: _Made | None) -> _Made:
    if value is None:
        raise ValueError("a stage that fine-tunes needs the training data")
    return value
