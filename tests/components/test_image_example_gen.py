"""ImageExampleGen in a real pipeline: runs, caches, fails in one clear line, and works without its driver."""

import json
import os
from pathlib import Path

import pytest
import tensorflow as tf
from apache_beam.options.pipeline_options import StandardOptions
from ml_metadata.proto import metadata_store_pb2
from tfx import v1 as tfx
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.orchestration.beam.beam_dag_runner import BeamDagRunner
from tfx.orchestration.metadata import Metadata
from tfx.types import standard_artifacts

from components.image_example_gen import spec
from components.image_example_gen.component import ImageExampleGen
from components.image_example_gen.engine import report
from components.image_example_gen.engine.settings import IngestSettings
from components.image_example_gen.executor import Executor
from pipeline.beam import beam_arguments
from pipeline.config import BeamSettings
from tests.image_files import jpeg, picture, write, write_tree
from trainer_module import features
from trainer_module.errors import UserError

pytestmark = pytest.mark.component


COMPLETE = metadata_store_pb2.Execution.COMPLETE
CACHED = metadata_store_pb2.Execution.CACHED
FAILED = metadata_store_pb2.Execution.FAILED


@pytest.fixture(autouse=True)
def _runner_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beam's default runner would look for a program on the network first."""
    monkeypatch.setattr(StandardOptions, "DEFAULT_RUNNER", "apache_beam.runners.portability.fn_api_runner.FnApiRunner")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = write_tree(tmp_path / "data", {"a": 12, "b": 12})
    write(root / "a" / os.fsdecode(b"latin-\xe9\n.jpg"), jpeg(picture(seed=1000)))
    write(root / "b" / "broken.jpg", b"")
    return root


def run(data: Path, home: Path, version: str = "1", beam_args: tuple[str, ...] = (), **settings: int) -> list[int]:
    """Runs a pipeline of ImageExampleGen alone and returns the state of each execution so far, the last one last."""
    connection = tfx.orchestration.metadata.sqlite_metadata_connection_config(str(home / "metadata.db"))
    pipeline = tfx.dsl.Pipeline(
        pipeline_name="ingest",
        pipeline_root=str(home / "root"),
        components=[ImageExampleGen(str(data), version, IngestSettings(**settings))],
        enable_cache=True,
        metadata_connection_config=connection,
        beam_pipeline_args=list(beam_args),
    )
    try:
        BeamDagRunner().run(pipeline)
    finally:
        with Metadata(connection) as metadata:
            executions = sorted(metadata.store.get_executions(), key=lambda execution: execution.id)
    return [execution.last_known_state for execution in executions]


def filenames(examples_uri: Path) -> dict[str, list[bytes]]:
    """Reads the names of the files in each split."""
    names: dict[str, list[bytes]] = {}
    for split in features.SPLITS:
        paths = sorted(str(path) for path in (examples_uri / f"Split-{split}").iterdir())
        records = [tf.train.Example.FromString(r.numpy()) for r in tf.data.TFRecordDataset(paths, "GZIP")]
        names[split] = [r.features.feature[features.IMAGE_FILENAME].bytes_list.value[0] for r in records]
    return names


def test_a_run_is_cached_until_a_file_or_a_setting_changes(data: Path, tmp_path: Path) -> None:
    states = run(data, tmp_path)
    assert states == [COMPLETE]
    statistics = report.read_statistics(str(tmp_path / "root" / "ImageExampleGen" / "report" / "1"))
    assert statistics.images.model_dump() == {"read": 26, "used": 25, "quarantined": 1, "ignored": 0}
    names = filenames(tmp_path / "root" / "ImageExampleGen" / "examples" / "1")
    assert any(b"a/latin-\\xe9\\n.jpg" in found for found in names.values())
    assert {split: len(found) for split, found in names.items()} == {
        split: sum(counts.values()) for split, counts in statistics.splits.items()
    }

    assert run(data, tmp_path) == [COMPLETE, CACHED]
    write(data / "a" / "new.jpg", jpeg(picture(seed=500)))
    assert run(data, tmp_path) == [COMPLETE, CACHED, COMPLETE]
    os.utime(data / "a" / "000.jpg", ns=(1, 1))
    assert run(data, tmp_path)[-1] == COMPLETE
    assert run(data, tmp_path, version="2")[-1] == COMPLETE
    assert run(data, tmp_path, version="2", max_side=10)[-1] == COMPLETE
    assert run(data, tmp_path, version="2", max_side=10)[-1] == CACHED


def test_the_artifacts_tell_the_components_after_it_what_they_hold(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path)
    with Metadata(
        tfx.orchestration.metadata.sqlite_metadata_connection_config(str(tmp_path / "metadata.db"))
    ) as metadata:
        (examples,) = metadata.store.get_artifacts_by_type("Examples")
        (ingest_report,) = metadata.store.get_artifacts_by_type(spec.IngestReport.TYPE_NAME)
    assert examples.properties["split_names"].string_value == '["train", "validation", "test"]'
    assert examples.custom_properties["payload_format"].string_value == "FORMAT_TF_EXAMPLE"
    assert examples.custom_properties["file_format"].string_value == "tfrecords_gzip"
    statistics = report.read_statistics(ingest_report.uri)
    assert examples.custom_properties["input_fingerprint"].string_value == statistics.fingerprint


def test_several_processes_write_what_one_writes(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "one", shards=3)
    run(data, tmp_path / "two", shards=3, beam_args=tuple(beam_arguments(BeamSettings(workers=2))))
    written = [
        {path.relative_to(home): path.read_bytes() for path in home.rglob("*.gz")}
        for home in (tmp_path / "one", tmp_path / "two")
    ]
    assert len(written[0]) == 9
    assert written[0] == written[1]


def test_unusable_data_fails_the_run_in_one_clear_line(data: Path, tmp_path: Path) -> None:
    for number in range(10):
        write(data / "b" / f"bad{number}.jpg", b"")
    with pytest.raises(UserError) as caught:
        run(data, tmp_path)
    assert f"{data}: 11 of 36 images cannot be used (30.6%, the limit is 10.0%); first: b/bad0.jpg: empty file" in str(
        caught.value
    )
    assert not list((tmp_path / "root").rglob("*.gz"))


def test_a_missing_folder_is_recorded_as_a_failed_execution(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: no such folder"):
        run(tmp_path / "nowhere", tmp_path)
    write_tree(tmp_path / "nowhere", {"a": 3, "b": 3})
    assert run(tmp_path / "nowhere", tmp_path) == [FAILED, COMPLETE]


def test_the_component_compiles_for_kubeflow(data: Path, tmp_path: Path) -> None:
    kubeflow = tfx.orchestration.experimental
    runner = kubeflow.KubeflowV2DagRunner(
        config=kubeflow.KubeflowV2DagRunnerConfig(default_image="trimline"),
        output_filename=str(tmp_path / "ingest.json"),
    )
    components = [ImageExampleGen(str(data), "1")]
    runner.run(tfx.dsl.Pipeline(pipeline_name="ingest", pipeline_root=str(tmp_path), components=components))
    compiled = json.loads((tmp_path / "ingest.json").read_text())["pipelineSpec"]
    component = compiled["components"]["ImageExampleGen"]
    assert (
        "title: components.IngestReport"
        in component["outputDefinitions"]["artifacts"]["report"]["artifactType"]["instanceSchema"]
    )
    given = compiled["root"]["dag"]["tasks"]["ImageExampleGen"]["inputs"]["parameters"]
    assert component["inputDefinitions"]["parameters"].keys() == given.keys()


def outputs(home: Path) -> dict[str, list[object]]:
    examples, ingest_report = standard_artifacts.Examples(), spec.IngestReport()
    examples.uri, ingest_report.uri = str(home / "examples"), str(home / "report")
    (home / "report").mkdir(parents=True)
    return {spec.EXAMPLES: [examples], spec.REPORT: [ingest_report]}


def parameters(data: Path, **more: object) -> dict[str, object]:
    return {**ImageExampleGen(str(data), "1").exec_properties, **more}


def test_the_executor_works_where_no_driver_has_run(data: Path, tmp_path: Path) -> None:
    artifacts = outputs(tmp_path)
    Executor(BaseBeamExecutor.Context()).Do({}, artifacts, parameters(data))
    assert report.read_statistics(str(tmp_path / "report")).images.used == 25
    assert len(report.read_quarantined(str(tmp_path / "report"))) == 1
    (summary,) = report.read_summaries(str(tmp_path / "report"))
    assert len(list(summary.records)) == 25
    kinds = {path.name.partition(".")[0].partition("-")[0] for path in (tmp_path / "report").iterdir()}
    assert kinds == {"ingest", "quarantine", "leaks", "shards"}


def test_data_that_changes_after_the_driver_looked_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="files changed while the run was starting"):
        Executor(BaseBeamExecutor.Context()).Do({}, outputs(tmp_path), parameters(data, fingerprint="of other data"))
