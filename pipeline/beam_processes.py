"""Beam's runner on several processes of this machine.

Beam's own `direct_running_mode=multi_processing` starts workers that cannot import TFDV and TFMA: those need a module
that tfx-bsl no longer has. TFX stands in for it, but nothing makes such workers import TFX. And for every component,
they import TensorFlow anew, which takes seconds. These are forked from a process that has done so once.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import os
import sys
from typing import TYPE_CHECKING, Any

from apache_beam.options.pipeline_options import DirectOptions
from apache_beam.portability.api import endpoints_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.fn_api_runner.worker_handlers import GrpcWorkerHandler, WorkerHandler
from apache_beam.runners.runner import PipelineRunner
from apache_beam.runners.worker import sdk_worker_main
from apache_beam.transforms.environments import Environment
from google.protobuf import json_format, text_format

from trainer_module.processors import available_cores

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apache_beam import Pipeline
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.runner import PipelineResult

_URN = "trimline:environment:forked_process:v1"
# What workers need in any case, of which TFX must come first. Importing starts no work that a fork could interrupt.
_IMPORTED_ONCE = ["tfx", "components.image_example_gen.executor", "tensorflow_transform", "tensorflow_model_analysis"]


def prepare() -> None:
    """Starts the process that workers are forked from; what it imports need not be waited for before there are any."""
    multiprocessing.forkserver.set_forkserver_preload(_IMPORTED_ONCE)
    multiprocessing.forkserver.ensure_running()


class MultiProcessRunner(PipelineRunner):
    """Runs a pipeline in this process, and its functions in as many others as `direct_num_workers` says."""

    def run_pipeline(self, pipeline: Pipeline, options: PipelineOptions) -> PipelineResult:
        """Returns when the pipeline is done, with what became of it."""
        workers = options.view_as(DirectOptions).direct_num_workers
        # With all processors each, they would be slower than with their share of them.
        environment = _ForkedProcess(max(1, available_cores() // workers))
        return FnApiRunner(default_environment=environment).run_pipeline(pipeline, options)


@Environment.register_urn(_URN, bytes)
class _ForkedProcess(Environment):
    """A worker that is another process of this machine, whose TensorFlow has some threads."""

    def __init__(self, threads: int, *described: Any) -> None:
        super().__init__(*described)
        self._threads = threads

    def to_runner_api_parameter(self, context: Any) -> tuple[str, bytes]:  # noqa: ARG002 - Beam's interface
        return _URN, b"%d" % self._threads

    @staticmethod
    def from_runner_api_parameter(
        payload: bytes,
        capabilities: Iterable[str],
        artifacts: Iterable[Any],
        resource_hints: dict[str, bytes],
        context: Any,  # noqa: ARG004 - Beam's interface
    ) -> _ForkedProcess:
        return _ForkedProcess(int(payload), capabilities, artifacts, resource_hints)


@WorkerHandler.register_environment(_URN, bytes)
class _ForkedWorkerHandler(GrpcWorkerHandler):
    """Starts such a worker, and waits for its end."""

    def __init__(self, payload: bytes, *runner: Any) -> None:
        super().__init__(*runner)
        self._threads = payload.decode()

    def start_worker(self) -> None:
        prepare()
        environment = {
            "TF_NUM_INTRAOP_THREADS": self._threads,
            "TF_NUM_INTEROP_THREADS": self._threads,
            "CONTROL_API_SERVICE_DESCRIPTOR": _text(self.control_api_service_descriptor()),
            "LOGGING_API_SERVICE_DESCRIPTOR": _text(self.logging_api_service_descriptor()),
            "PIPELINE_OPTIONS": json_format.MessageToJson(self.provision_info.provision_info.pipeline_options),
            "WORKER_ID": self.worker_id,
        }
        processes = multiprocessing.get_context("forkserver")
        self._process = processes.Process(target=_work, args=(environment,), daemon=True)
        self._process.start()

    def stop_worker(self) -> None:
        self._process.join()


def _text(descriptor: endpoints_pb2.ApiServiceDescriptor) -> str:
    return text_format.MessageToString(descriptor)


def _work(environment: dict[str, str]) -> None:
    os.environ.update(environment)
    sdk_worker_main.main(sys.argv)
