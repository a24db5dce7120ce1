"""YAML for settings: what is ambiguous is an error that names its line, where PyYAML would guess or drop something."""

from __future__ import annotations

from typing import Any

import yaml

_TEXT, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"


class AmbiguousYAMLError(yaml.YAMLError):
    """Valid YAML that cannot be meant as it stands.

    Attributes:
        line: Where, counted from 1.
    """

    def __init__(self, message: str, node: yaml.Node) -> None:
        """Creates the exception.

        Args:
            message: For the user.
            node: What is wrong.
        """
        super().__init__(message)
        self.line = node.start_mark.line + 1


def read_yaml(text: str) -> Any:
    """Reads a document.

    Args:
        text: In YAML syntax.

    Returns:
        Its content.

    Raises:
        AmbiguousYAMLError: A key is there twice or is no text, or a value is none, such as the 30th of February.
        YAMLError: It is no YAML.
    """
    return yaml.load(text, _Loader)  # noqa: S506 (a safe loader)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader without its leniency."""

    # Not where mappings are constructed: by then merge keys (<<) have put what they bring beside what replaces it.
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        mapping = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in mapping.value:
            # PyYAML itself refuses keys that are lists or mappings.
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.tag not in (_TEXT, _MERGE):
                kind = key.tag.rpartition(":")[2]
                raise AmbiguousYAMLError(f"YAML reads the key {key.value!r} as {kind}, not as text; quote it", key)
            if key.value in seen:
                raise AmbiguousYAMLError(f"{key.value} is given a second time; keep one of the two", key)
            seen.add(key.value)
        return mapping

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except ValueError as error:
            raise AmbiguousYAMLError(f"{node.value!r} cannot be read: {error}; quote it if it is text", node) from None
