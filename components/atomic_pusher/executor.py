"""Executor of AtomicPusher."""

from __future__ import annotations

import posixpath
import tempfile
from typing import TYPE_CHECKING, Any

from tfx.components.pusher import executor
from tfx.proto import pusher_pb2
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import json_utils, proto_utils

from components.atomic_pusher import destination, properties

if TYPE_CHECKING:
    from tfx import types

# Key of the component's custom_config.
KEEP_VERSIONS = "keep_versions"


class Executor(executor.Executor):
    """Lets TFX's executor decide and archive, then publishes the version."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Pushes a blessed model, notes by whom and with which content, and removes versions beyond the retention."""
        push_destination = pusher_pb2.PushDestination()
        proto_utils.json_to_proto(exec_properties[standard_component_specs.PUSH_DESTINATION_KEY], push_destination)
        base = push_destination.filesystem.base_directory
        pushed_model = artifact_utils.get_single_instance(output_dict[standard_component_specs.PUSHED_MODEL_KEY])
        with tempfile.TemporaryDirectory() as scratch:
            push_destination.filesystem.base_directory = scratch
            local = {standard_component_specs.PUSH_DESTINATION_KEY: proto_utils.proto_to_json(push_destination)}
            super().Do(input_dict, output_dict, exec_properties | local)
        if pushed_model.get_int_custom_property(properties.PUSHED):
            self._publish(self.GetModelPath(input_dict), base, pushed_model)
            destination.prune(base, _keep_versions(exec_properties))

    def _publish(self, source: str, base: str, pushed_model: types.Artifact) -> None:
        digest = destination.tree_digest(source)
        target = destination.newest(base, digest)
        if target is None:
            target = destination.publish(source, base, destination.next_version(base))
        version = posixpath.basename(target)
        self._MarkPushed(pushed_model, pushed_destination=target, pushed_version=version)
        pushed_model.set_string_custom_property(properties.PUSHED_BY, destination.who())
        pushed_model.set_string_custom_property(properties.SHA256, digest)


def _keep_versions(exec_properties: dict[str, Any]) -> int | None:
    custom_config = json_utils.loads(exec_properties.get(standard_component_specs.CUSTOM_CONFIG_KEY) or "null")
    return (custom_config or {}).get(KEEP_VERSIONS)
