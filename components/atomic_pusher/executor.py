"""Executor of AtomicPusher."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from tfx.components.pusher import executor
from tfx.dsl.io import fileio
from tfx.proto import pusher_pb2
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import proto_utils

if TYPE_CHECKING:
    from tfx import types

# TFX's name.
_PUSHED_PROPERTY = "pushed"
# Model servers look only at directories whose name is a number.
_STAGING_PREFIX = ".staging-"


class Executor(executor.Executor):
    """Lets TFX's executor push beside the versions, then renames."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Pushes a blessed model.

        The rename is atomic on local and network file systems. Object stores have no rename: there TFX's order of
        copying, saved_model.pb last, is what protects TensorFlow Serving.
        """
        destination = pusher_pb2.PushDestination()
        proto_utils.json_to_proto(exec_properties[standard_component_specs.PUSH_DESTINATION_KEY], destination)
        base = destination.filesystem.base_directory
        pushed_model = artifact_utils.get_single_instance(output_dict[standard_component_specs.PUSHED_MODEL_KEY])
        staging = os.path.join(base, f"{_STAGING_PREFIX}{pushed_model.id}")  # noqa: PTH118 (may be remote)
        destination.filesystem.base_directory = staging
        staged_destination = {standard_component_specs.PUSH_DESTINATION_KEY: proto_utils.proto_to_json(destination)}
        try:
            super().Do(input_dict, output_dict, exec_properties | staged_destination)
            if pushed_model.get_int_custom_property(_PUSHED_PROPERTY):
                self._publish(staging, base, pushed_model)
        finally:
            if fileio.exists(staging):
                fileio.rmtree(staging)

    def _publish(self, staging: str, base: str, pushed_model: types.Artifact) -> None:
        (staged_version,) = fileio.listdir(staging)
        staged = os.path.join(staging, staged_version)  # noqa: PTH118 (may be remote)
        if not fileio.listdir(staged):
            # TFX reports success all the same.
            raise RuntimeError("the model's artifact holds no files; nothing was pushed")
        version = str(max(int(staged_version), _latest_version(base) + 1))
        target = os.path.join(base, version)  # noqa: PTH118 (may be remote)
        fileio.rename(staged, target)
        self._MarkPushed(pushed_model, pushed_destination=target, pushed_version=version)


def _latest_version(base: str) -> int:
    """Returns the highest version there is, because a clock may go backwards but versions must not."""
    names = (name.rstrip("/") for name in fileio.listdir(base))
    return max((int(name) for name in names if name.isdecimal()), default=0)
