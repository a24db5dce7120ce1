"""A settings file that explains itself."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING

from pipeline.settings_tree import groups

if TYPE_CHECKING:
    from pipeline.settings_tree import Group, Setting

_HEADER = (
    "Settings of Trimline, for trimline run --config. Every line with a single # is a default: uncomment it, and "
    "change what you need."
)
_WIDTH = 100


def commented_settings() -> str:
    """Returns YAML with every setting, commented out, its default, its meaning and what is valid."""
    lines = _comment(_HEADER, "")
    for group in groups():
        lines += _lines(group)
    return "\n".join(lines) + "\n"


def _lines(group: Group) -> list[str]:
    parts = group.key.split(".") if group.key else []
    indent = "  " * len(parts)
    outer = indent[2:]
    heading = ["", *_comment(group.description, outer), f"{outer}{parts[-1]}:"] if parts else [""]
    return [*heading, *(line for setting in group.settings for line in _setting_lines(setting, indent))]


def _setting_lines(setting: Setting, indent: str) -> list[str]:
    name = setting.key.rpartition(".")[2]
    text = f"{setting.field.description} ({setting.valid.replace('`', '')})"
    return [*_comment(text, indent), f"{indent}# {name}: {json.dumps(setting.default)}"]


def _comment(text: str, indent: str) -> list[str]:
    mark = f"{indent}## "
    return textwrap.wrap(text, _WIDTH, initial_indent=mark, subsequent_indent=mark)
