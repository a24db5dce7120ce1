"""Every setting, by its key."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pipeline.config import PipelineSettings, field_range
from trainer_module.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo


_SCALARS = {
    type(None): "`null`",
    bool: "true or false",
    float: "number",
    int: "whole number",
    str: "text",
    Path: "path",
}


@dataclasses.dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        key: For example "trainer.epochs".
        default: Its value where nobody sets it.
        field: Its type, limits and description.
    """

    key: str
    default: Any
    field: FieldInfo

    @property
    def valid(self) -> str:
        """What may be set: kinds of values, and limits."""
        limits = field_range(self.field)
        return ", ".join(_kinds(self.field.annotation)) + (f": {limits}" if limits else "")


@dataclasses.dataclass(frozen=True)
class Group:
    """Settings that belong together.

    Attributes:
        key: For example "trainer"; "" for the whole tree.
        description: What they are about.
        settings: In the order of the tree; groups inside it are groups of their own.
    """

    key: str
    description: str
    settings: tuple[Setting, ...]


def groups(tree: Settings | None = None, key: str = "") -> Iterator[Group]:
    """Yields every group, outer ones first.

    Args:
        tree: Where to begin; None for all settings with their defaults.
        key: Its key.
    """
    tree = PipelineSettings() if tree is None else tree
    values = {name: getattr(tree, name) for name in type(tree).model_fields}
    own = tuple(
        Setting(f"{key}.{name}".strip("."), value, type(tree).model_fields[name])
        for name, value in values.items()
        if not isinstance(value, Settings)
    )
    yield Group(key, (type(tree).__doc__ or "").strip(), own)
    for name, value in values.items():
        if isinstance(value, Settings):
            yield from groups(value, f"{key}.{name}".strip("."))


def _kinds(annotation: Any) -> Iterator[str]:
    """Yields names of what a type allows, as they are written in YAML."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        yield from (f"`{value}`" for value in arguments)
    elif origin is Annotated:
        yield from _kinds(arguments[0])
    elif origin in (list, tuple):
        yield f"list of {', '.join(_kinds(arguments[0]))}"
    elif origin is dict:
        yield " to ".join(["mapping of text", *_kinds(arguments[1])])
    elif arguments:
        for argument in arguments:
            yield from _kinds(argument)
    elif issubclass(annotation, Settings):
        yield "groups"
    else:
        yield _SCALARS[annotation]
