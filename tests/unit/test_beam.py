"""Flags for Beam, by runner."""

import os
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from tfx.utils import dependency_utils

from pipeline.beam import beam_arguments
from pipeline.config import BeamSettings, load_settings
from trainer_module.errors import UserError

IN_PROCESS = "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"


def test_the_default_runs_in_this_process_and_needs_no_network() -> None:
    assert beam_arguments(BeamSettings()) == [IN_PROCESS, "--sdk_container_image=none"]


def test_several_processes_of_this_machine() -> None:
    assert beam_arguments(BeamSettings(workers=4)) == [
        "--runner=pipeline.beam_processes.MultiProcessRunner",
        "--direct_num_workers=4",
        "--sdk_container_image=none",
    ]


def test_processes_share_the_processors(tmp_path: Path) -> None:
    # One worker would be this process.
    workers = max(2, len(os.sched_getaffinity(0)))
    flags = beam_arguments(BeamSettings(workers=workers))
    with beam.Pipeline(options=PipelineOptions(flags)) as pipeline:
        threads = pipeline | beam.Create(range(8)) | beam.Map(lambda _: os.environ["TF_NUM_INTRAOP_THREADS"])
        threads | beam.io.WriteToText(f"{tmp_path}/threads", append_trailing_newlines=True)
    written = [line for path in tmp_path.glob("threads*") for line in path.read_text().splitlines()]
    assert written == ["1"] * 8
    assert "TF_NUM_INTRAOP_THREADS" not in os.environ


@pytest.mark.parametrize("workers", [1, 2])
def test_tfx_packs_no_copy_of_itself_for_workers_of_this_machine(workers: int) -> None:
    flags = beam_arguments(BeamSettings(workers=workers))
    assert dependency_utils.make_beam_dependency_flags(flags) == flags


@pytest.mark.parametrize(
    ("runner", "options", "workers"),
    [
        ("FlinkRunner", ("--flink_master=flink:8081", "--environment_type=DOCKER"), "--parallelism=8"),
        ("SparkRunner", ("--spark_master_url=spark://spark:7077",), None),
        ("DataflowRunner", ("--project=p", "--region=r", "--temp_location=gs://b/t"), "--max_num_workers=8"),
    ],
)
def test_clusters(runner: str, options: tuple[str, ...], workers: str | None) -> None:
    settings = load_settings(assignments=(f"beam.runner={runner}", "beam.workers=8", f"beam.options={list(options)}"))
    flags = beam_arguments(settings.beam)
    assert flags[0] == f"--runner={runner}"
    assert set(options) < set(flags)
    assert (workers in flags) == (workers is not None)
    assert not any(flag.startswith("--direct") for flag in flags)


@pytest.mark.parametrize(
    ("runner", "options", "missing"),
    [
        ("FlinkRunner", (), "needs --flink_master in beam.options"),
        ("DataflowRunner", ("--project=p",), "needs --region and --temp_location in beam.options"),
        ("DaskRunner", ("--dask_client_address=tcp://d:8786",), r"dask\[distributed\]"),
    ],
)
def test_what_a_cluster_needs_is_said_before_anything_starts(
    runner: str, options: tuple[str, ...], missing: str
) -> None:
    with pytest.raises(UserError, match=missing):
        beam_arguments(BeamSettings(runner=runner, options=options))


def test_an_unknown_runner_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"beam\.runner = 'PrismRunner'"):
        load_settings(assignments=("beam.runner=PrismRunner",))
