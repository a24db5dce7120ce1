"""docs/settings-reference.md, from the settings' own types: `python -m pipeline.settings_reference FILE` writes it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.settings_tree import groups
from trainer_module.files import write_whole

if TYPE_CHECKING:
    from pipeline.settings_tree import Group, Setting

_HEADER = """# Every setting

Made from the settings' types by `make docs`. [settings.md](settings.md) says where settings come from and which to
know. Keys are as for `--set`; in a YAML file each part before a dot is a group. `null` is "not set".
"""


def settings_reference() -> str:
    """Returns the page as Markdown."""
    return "\n".join([_HEADER, *(_section(group) for group in groups() if group.settings)])


def _section(group: Group) -> str:
    heading = f"## {group.key}\n\n{group.description}" if group.key else "## At the top"
    rows = "\n".join(_row(setting) for setting in group.settings)
    return f"{heading}\n\n| Key | Default | Valid | Meaning |\n| --- | --- | --- | --- |\n{rows}\n"


def _row(setting: Setting) -> str:
    default = json.dumps(setting.default, default=str)
    cells = (f"`{setting.key}`", f"`{default}`", setting.valid, setting.field.description or "")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    write_whole(Path(sys.argv[1]), settings_reference())
