"""A settings file that explains itself."""

from __future__ import annotations

import json

from pipeline.config import PipelineSettings
from trainer_module.settings import Settings

_HEADER = "## Settings of Trimline. Every line with a single # is a default: uncomment and change what you need.\n"


def commented_settings() -> str:
    """Returns YAML with every setting, commented out, its default and its meaning."""
    return _HEADER + "\n".join(_lines(PipelineSettings(), 0)) + "\n"


def _lines(settings: Settings, depth: int) -> list[str]:
    indent = "  " * depth
    lines = []
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, Settings):
            lines += [f"{indent}{name}:", *_lines(value, depth + 1)]
        else:
            lines += [f"{indent}## {field.description}", f"{indent}# {name}: {json.dumps(value)}"]
    return lines
