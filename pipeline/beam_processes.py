"""Beam's runner on several processes of this machine.

Beam's own `direct_running_mode=multi_processing` starts workers that cannot import TFDV and TFMA: those need a module
that tfx-bsl no longer has. TFX stands in for it, but nothing makes such workers import TFX.
"""

from __future__ import annotations

import shlex
import sys

from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.worker import sdk_worker_main
from apache_beam.transforms.environments import SubprocessSDKEnvironment


class MultiProcessRunner(FnApiRunner):
    """Runs a pipeline in this process, and its functions in as many others as `direct_num_workers` says."""

    def __init__(self) -> None:
        command = f"{shlex.quote(sys.executable)} -m {__name__}"
        super().__init__(default_environment=SubprocessSDKEnvironment.from_command_string(command))


def _work() -> None:
    import tfx

    del tfx
    sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    _work()
