"""Runs the ingest engine on Beam."""

import logging
import operator
from typing import Any

import apache_beam as beam
import tensorflow as tf
from tfx.components.example_gen import utils
from tfx.components.util import examples_utils
from tfx.dsl.components.base import base_beam_executor
from tfx.proto import example_gen_pb2
from tfx.types import Artifact, artifact_utils

from components.image_example_gen import spec
from components.image_example_gen.engine import report, verdict
from components.image_example_gen.engine.chunk_files import load_chunk, store_chunks
from components.image_example_gen.engine.listing import Overview, list_images
from components.image_example_gen.engine.settings import IngestSettings
from components.image_example_gen.engine.shards import plan_chunks, write_shard
from components.image_example_gen.engine.statistics import summarise
from trainer_module import progress
from trainer_module.errors import UserError
from trainer_module.features import SPLITS

_FILE_FORMAT = "tfrecords_gzip"
# In the report while the shards are written.
_PLAN_FOLDER = "plan"


class Executor(base_beam_executor.BaseBeamExecutor):
    """Lists the images, writes the shards on Beam workers, and judges the outcome."""

    def Do(  # noqa: N802 - TFX's name
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Fills the artifacts `examples` and `report`.

        Args:
            input_dict: empty.
            output_dict: one artifact each.
            exec_properties: the parameters of ImageExampleGenSpec, and the driver's `fingerprint` if there was one.

        Raises:
            UserError: the data folder is not usable. Raised here rather than on a Beam worker, whose errors arrive
                wrapped in others.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        examples = artifact_utils.get_single_instance(output_dict[spec.EXAMPLES])
        report_uri = artifact_utils.get_single_instance(output_dict[spec.REPORT]).uri
        settings = _settings(exec_properties)
        plan = tf.io.gfile.join(report_uri, _PLAN_FOLDER)

        seen, chunks = _plan(exec_properties, settings, examples, plan)
        self._write_shards(chunks, report_uri)
        tf.io.gfile.rmtree(plan)

        outcome = summarise(seen, lambda: report.read_summaries(report_uri))
        for item in outcome.quarantined:
            logging.warning("Quarantined %s: %s", item.path, item.reason)
        for warning in outcome.statistics.warnings:
            logging.warning("%s: %s", outcome.statistics.data, warning)
        progress.report(progress.INGEST, "writing its report", warnings=outcome.statistics.warnings)
        verdict.check(outcome.statistics, outcome.quarantined, settings.max_quarantined)
        report.write_report(report_uri, outcome)

    def _write_shards(self, chunks: list[str], report_uri: str) -> None:
        with self._make_beam_pipeline() as pipeline:
            (
                pipeline
                | "Chunks" >> beam.Create(chunks, reshuffle=False)
                | "Spread" >> beam.Reshuffle()
                | "LoadChunk" >> beam.Map(load_chunk)
                | "WriteShard" >> beam.Map(write_shard)
                | "AsJson" >> beam.Map(operator.methodcaller("model_dump_json"))
                # Into as many files as it likes: one would have to be gathered in memory.
                | "Collect" >> beam.io.WriteToText(f"{report_uri}/{report.SHARDS_PREFIX}", report.SHARDS_SUFFIX)
            )


def _settings(exec_properties: dict[str, Any]) -> IngestSettings:
    return IngestSettings(
        max_side=exec_properties[spec.MAX_SIDE],
        max_pixels=exec_properties[spec.MAX_PIXELS],
        validation_fraction=exec_properties[spec.VALIDATION_FRACTION],
        test_fraction=exec_properties[spec.TEST_FRACTION],
        max_quarantined=exec_properties[spec.MAX_QUARANTINED],
        shards=exec_properties.get(spec.SHARDS),
    )


def _plan(
    exec_properties: dict[str, Any], settings: IngestSettings, examples: Artifact, folder: str
) -> tuple[Overview, list[str]]:
    """Returns what was seen, and the files that say what is to be written; millions of names stay on disk, in those."""
    listing = list_images(exec_properties[spec.INPUT_BASE])
    _check_unchanged(listing, exec_properties.get(spec.FINGERPRINT))
    _describe(examples, listing.fingerprint)
    split_uris = {split: artifact_utils.get_split_uri([examples], split) for split in SPLITS}
    return listing.overview(), store_chunks(plan_chunks(listing, settings, split_uris), folder)


def _check_unchanged(seen: Overview, expected: str | None) -> None:
    """The cache will answer for the data that the driver saw, so it must be the data that is written."""
    if expected and expected != seen.fingerprint:
        raise UserError(f"{seen.root}: files changed while the run was starting; run again when they are at rest")


def _describe(examples: Artifact, data_fingerprint: str) -> None:
    """Says about the examples what TFX's own ExampleGen says, so that the components after it find their way."""
    examples.split_names = artifact_utils.encode_split_names(list(SPLITS))
    examples_utils.set_payload_format(examples, example_gen_pb2.FORMAT_TF_EXAMPLE)
    examples_utils.set_file_format(examples, _FILE_FORMAT)
    examples.set_string_custom_property(utils.FINGERPRINT_PROPERTY_NAME, data_fingerprint)
