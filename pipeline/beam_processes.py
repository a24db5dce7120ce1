"""Beam's runner on several processes of this machine.

Beam's own `direct_running_mode=multi_processing` starts workers that cannot import TFDV and TFMA: those need a module
that tfx-bsl no longer has. TFX stands in for it, but nothing makes such workers import TFX. And for every component,
they import TensorFlow anew, which takes seconds. These are forked from a process that has done so once.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from typing import TYPE_CHECKING, Any

from apache_beam.portability.api import endpoints_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.fn_api_runner.worker_handlers import GrpcWorkerHandler, WorkerHandler
from apache_beam.runners.worker import sdk_worker_main
from apache_beam.transforms.environments import Environment
from google.protobuf import json_format, text_format

if TYPE_CHECKING:
    from collections.abc import Iterable

_URN = "trimline:environment:forked_process:v1"
# What workers need in any case, of which TFX must come first. Importing starts no work that a fork could interrupt.
_IMPORTED_ONCE = ["tfx", "components.image_example_gen.executor", "tensorflow_transform", "tensorflow_model_analysis"]


class MultiProcessRunner(FnApiRunner):
    """Runs a pipeline in this process, and its functions in as many others as `direct_num_workers` says."""

    def __init__(self) -> None:
        super().__init__(default_environment=_ForkedProcess())


@Environment.register_urn(_URN, bytes)
class _ForkedProcess(Environment):
    """A worker that is another process of this machine."""

    def to_runner_api_parameter(self, context: Any) -> tuple[str, bytes]:  # noqa: ARG002 - Beam's interface
        return _URN, b""

    @staticmethod
    def from_runner_api_parameter(
        payload: bytes,  # noqa: ARG004 - Beam's interface, as is the context
        capabilities: Iterable[str],
        artifacts: Iterable[Any],
        resource_hints: dict[str, bytes],
        context: Any,  # noqa: ARG004
    ) -> _ForkedProcess:
        return _ForkedProcess(capabilities, artifacts, resource_hints)


@WorkerHandler.register_environment(_URN, bytes)
class _ForkedWorkerHandler(GrpcWorkerHandler):
    """Starts such a worker, and waits for its end."""

    def __init__(self, payload: bytes, *runner: Any) -> None:  # noqa: ARG002 - Beam's interface
        super().__init__(*runner)

    def start_worker(self) -> None:
        processes = multiprocessing.get_context("forkserver")
        processes.set_forkserver_preload(_IMPORTED_ONCE)
        environment = {
            "CONTROL_API_SERVICE_DESCRIPTOR": _text(self.control_api_service_descriptor()),
            "LOGGING_API_SERVICE_DESCRIPTOR": _text(self.logging_api_service_descriptor()),
            "PIPELINE_OPTIONS": json_format.MessageToJson(self.provision_info.provision_info.pipeline_options),
            "WORKER_ID": self.worker_id,
        }
        self._process = processes.Process(target=_work, args=(environment,), daemon=True)
        self._process.start()

    def stop_worker(self) -> None:
        self._process.join()


def _text(descriptor: endpoints_pb2.ApiServiceDescriptor) -> str:
    return text_format.MessageToString(descriptor)


def _work(environment: dict[str, str]) -> None:
    os.environ.update(environment)
    sdk_worker_main.main(sys.argv)
