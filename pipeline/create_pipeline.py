"""The pipeline: which components run, and what flows between them. Knows no platform."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from typing import TYPE_CHECKING

import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx import v1 as tfx
from tfx.dsl.components.common.resolver import Resolver

from components.atomic_pusher.component import AtomicPusher
from components.atomic_pusher.executor import KEEP_VERSIONS
from components.baseline_resolver.strategy import LatestReleasedStrategy
from components.compression.component import Compression
from components.data_fingerprint.component import DataFingerprint
from components.example_validator.component import StrictExampleValidator
from components.gate_evaluator.component import GateEvaluator
from components.image_example_gen.component import ImageExampleGen
from components.pushed_baseline.component import BaselineModels, PushedBaseline
from components.release_gate.component import ReleaseGate
from components.release_gate.engine import GATES, Limits
from components.serving_validator.component import ServingValidator
from pipeline import gates
from trainer_module import features

if TYPE_CHECKING:
    from pathlib import Path

    from ml_metadata.proto import metadata_store_pb2
    from tfx.dsl.components.base.base_node import BaseNode

    from pipeline.config import PipelineSettings

PIPELINE_NAME = "trimline"


@dataclasses.dataclass(frozen=True)
class Locations:
    """Where the pipeline reads and writes; each may be a local path or a URI of TensorFlow's filesystem layer.

    Attributes:
        data: Class-per-folder tree of photos.
        pipeline_root: Artifacts of all components.
        saved_model: Base directory of pushed SavedModels.
        tflite: Base directory of pushed .tflite bundles.
        checkpoints: Where a training that was killed goes on from; None: below the pipeline root.
    """

    data: Path | str
    pipeline_root: Path | str
    saved_model: Path | str
    tflite: Path | str
    checkpoints: Path | str | None = None


@dataclasses.dataclass(frozen=True)
class Abilities:
    """What a platform does besides running executors.

    Attributes:
        drivers: Runs a component's driver before it looks into its cache. Without it, the fingerprint of the photos
            is a step of its own.
        resolvers: Runs resolvers over the metadata store. Without it, the release before is looked up where releases
            are pushed to.
    """

    drivers: bool = True
    resolvers: bool = True


_ALL_ABILITIES = Abilities()


def create_pipeline(
    settings: PipelineSettings,
    locations: Locations,
    beam_pipeline_args: list[str],
    metadata_connection_config: metadata_store_pb2.ConnectionConfig | None = None,
    abilities: Abilities = _ALL_ABILITIES,
) -> tfx.dsl.Pipeline:
    """Wires the components.

    Args:
        settings: The whole tree; `data.image_size` must be a number by then.
        locations: Where to read and write.
        beam_pipeline_args: Options of the components that run on Beam.
        metadata_connection_config: The metadata store, on platforms that do not bring their own.
        abilities: What the platform can do.

    Returns:
        A pipeline of fresh component instances, because runners alter those that they are given.
    """
    # TFX's cache looks at inputs and parameters, not at code: the version keeps results of older code from being used.
    version = importlib.metadata.version("trimline")
    fingerprints = [] if abilities.drivers else [DataFingerprint(input_base=str(locations.data))]
    example_gen = ImageExampleGen(
        input_base=str(locations.data),
        version=version,
        settings=settings.data.ingest(),
        fingerprint=fingerprints[0].outputs["fingerprint"].future()[0].value if fingerprints else None,
    )
    examples = example_gen.outputs["examples"]
    statistics_gen = tfx.components.StatisticsGen(examples=examples, stats_options=_statistics_options())
    schema_gen = tfx.components.SchemaGen(
        statistics=statistics_gen.outputs["statistics"],
        infer_feature_shape=True,
        exclude_splits=[features.VALIDATION_SPLIT, features.TEST_SPLIT],
    )
    schema = schema_gen.outputs["schema"]
    example_validator = StrictExampleValidator(statistics=statistics_gen.outputs["statistics"], schema=schema)
    transform = _transform(settings, examples, schema, version)
    # Its anomalies stop the run only if nothing goes on without it.
    transform.add_upstream_node(example_validator)
    # Outside of the outputs, of which every execution gets new ones: a run that was killed goes on from there.
    checkpoints = str(locations.checkpoints or f"{locations.pipeline_root}/checkpoints")
    trainer = _trainer(settings, transform, checkpoints, version)
    compression = Compression(
        model=trainer.outputs["model"],
        transformed_examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        settings=settings.compression,
        training=settings.training(),
        checkpoints=checkpoints,
        version=version,
    )
    baseline = _baseline(locations, compression, abilities)
    release = _release(settings, locations, examples, schema, trainer, compression, baseline[-1], version)
    return tfx.dsl.Pipeline(
        pipeline_name=PIPELINE_NAME,
        pipeline_root=str(locations.pipeline_root),
        components=[
            *fingerprints,
            example_gen,
            statistics_gen,
            schema_gen,
            example_validator,
            transform,
            trainer,
            compression,
            *baseline,
            *release,
        ],
        enable_cache=True,
        metadata_connection_config=metadata_connection_config,
        beam_pipeline_args=beam_pipeline_args,
    )


def _statistics_options() -> tfdv.StatsOptions:
    """Limits the statistics to what says something about photos, and keeps image bytes out of string statistics."""
    image_bytes = schema_pb2.Feature(
        name=features.IMAGE_ENCODED, type=schema_pb2.BYTES, image_domain=schema_pb2.ImageDomain()
    )
    return tfdv.StatsOptions(
        schema=schema_pb2.Schema(feature=[image_bytes]),
        feature_allowlist=[
            features.IMAGE_ENCODED,
            features.IMAGE_HEIGHT,
            features.IMAGE_WIDTH,
            features.IMAGE_BRIGHTNESS,
            features.CLASS_TEXT,
        ],
    )


def _transform(
    settings: PipelineSettings, examples: tfx.types.BaseChannel, schema: tfx.types.BaseChannel, version: str
) -> tfx.components.Transform:
    return tfx.components.Transform(
        examples=examples,
        schema=schema,
        # An import path: a module file would be packed into a wheel with pip on every run.
        preprocessing_fn="trainer_module.preprocessing.preprocessing_fn",
        splits_config=tfx.proto.SplitsConfig(analyze=[features.TRAIN_SPLIT], transform=list(features.SPLITS)),
        custom_config={"image_size": settings.data.image_size, "version": version},
        # Statistics of packed pixels say nothing, and would be computed twice.
        disable_statistics=True,
    )


def _trainer(
    settings: PipelineSettings, transform: tfx.components.Transform, checkpoints: str, version: str
) -> tfx.components.Trainer:
    return tfx.components.Trainer(
        run_fn="trainer_module.run.run_fn",
        examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        train_args=tfx.proto.TrainArgs(splits=[features.TRAIN_SPLIT]),
        eval_args=tfx.proto.EvalArgs(splits=[features.VALIDATION_SPLIT]),
        custom_config={
            "training": settings.training().model_dump_json(),
            "checkpoints": checkpoints,
            "version": version,
        },
    )


def _baseline(locations: Locations, compression: BaseNode, abilities: Abilities) -> list[BaseNode]:
    """Wires what finds the release before; the last node outputs its `model` and `tflite_model`."""
    saved_model, tflite_model = compression.outputs["saved_model"], compression.outputs["tflite_model"]
    if abilities.resolvers:
        resolver = Resolver(
            strategy_class=LatestReleasedStrategy,
            candidate=saved_model,
            model=tfx.dsl.Channel(type=tfx.types.standard_artifacts.Model),
            tflite_model=tfx.dsl.Channel(type=tfx.types.standard_artifacts.Model),
            blessing=tfx.dsl.Channel(type=tfx.types.standard_artifacts.ModelBlessing),
        )
        return [resolver.with_id("LatestReleasedResolver")]
    pushed = PushedBaseline(
        saved_model=saved_model,
        tflite_model=tflite_model,
        saved_model_directory=str(locations.saved_model),
        tflite_directory=str(locations.tflite),
    )
    models = BaselineModels(
        saved_model_version=pushed.outputs["saved_model_version"].future()[0].value,
        tflite_version=pushed.outputs["tflite_version"].future()[0].value,
    )
    return [pushed, models]


def _release(
    settings: PipelineSettings,
    locations: Locations,
    examples: tfx.types.BaseChannel,
    schema: tfx.types.BaseChannel,
    trainer: BaseNode,
    compression: BaseNode,
    baseline: BaseNode,
    version: str,
) -> list[BaseNode]:
    """Wires what judges and pushes: the gates of both artifacts, their verdict, both pushes."""
    models = {"saved_model": compression.outputs["saved_model"], "tflite": compression.outputs["tflite_model"]}
    released = {"saved_model": baseline.outputs["model"], "tflite": baseline.outputs["tflite_model"]}
    references = {
        (gate, name): trainer.outputs["model"] if gate == "fidelity" else released[name]
        for name in gates.ARTIFACTS
        for gate in GATES
    }
    evaluators = {
        (gate, name): GateEvaluator(
            version=version,
            examples=examples,
            schema=schema,
            model=models[name],
            baseline_model=reference,
            eval_config=gates.eval_config(settings.gate),
            example_splits=[features.TEST_SPLIT],
            module_path="trainer_module.evaluation",
        ).with_id(gates.evaluator_id(gate, name))
        for (gate, name), reference in references.items()
    }
    serving_validator = ServingValidator(
        examples=examples,
        saved_model=models["saved_model"],
        tflite_model=models["tflite"],
        saved_model_evaluation=evaluators["fidelity", "saved_model"].outputs["evaluation"],
        tflite_evaluation=evaluators["fidelity", "tflite"].outputs["evaluation"],
        split=features.TEST_SPLIT,
        version=version,
    )
    gate = ReleaseGate(
        evaluators=evaluators,
        serving_blessing=serving_validator.outputs["blessing"],
        saved_model=models["saved_model"],
        tflite_model=models["tflite"],
        released_model=released["saved_model"],
        limits=Limits(**settings.gate.model_dump()),
        version=version,
    )
    directories = {"saved_model": locations.saved_model, "tflite": locations.tflite}
    pushers = [
        _pusher(
            models[name], gate.outputs["blessing"], directories[name], settings.push.keep_versions, version
        ).with_id(f"Pusher{artifact}")
        for name, artifact in gates.ARTIFACTS.items()
    ]
    return [*evaluators.values(), serving_validator, gate, *pushers]


def _pusher(
    model: tfx.types.BaseChannel,
    blessing: tfx.types.BaseChannel,
    directory: Path | str,
    keep_versions: int | None,
    version: str,
) -> AtomicPusher:
    filesystem = tfx.proto.PushDestination.Filesystem(base_directory=str(directory))
    return AtomicPusher(
        model=model,
        model_blessing=blessing,
        push_destination=tfx.proto.PushDestination(filesystem=filesystem),
        custom_config={KEEP_VERSIONS: keep_versions, "version": version},
    )
