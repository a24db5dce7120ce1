"""TFX's Pusher, with an executor that makes a version appear whole."""

from __future__ import annotations

from tfx.components import Pusher
from tfx.dsl.components.base import executor_spec

from components.atomic_pusher.executor import Executor


class AtomicPusher(Pusher):
    """Pushes as TFX's Pusher does, but a server that watches the directory never sees a version half copied.

    `custom_config` may hold `keep_versions`, the number of newest versions that stay.
    """

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)
