"""Reads a Dockerfile, as far as ours goes."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from pathlib import Path


@dataclasses.dataclass
class Stage:
    """A stage of a build: what it starts from, and its instructions in their order."""

    base: str
    steps: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        """Returns the arguments of every instruction of a kind."""
        return [arguments for name, arguments in self.steps if name == instruction]

    def environment(self) -> dict[str, str]:
        """Returns what ENV sets."""
        return dict(pair.split("=", 1) for arguments in self.all("ENV") for pair in shlex.split(arguments))

    def copied(self) -> list[str]:
        """Returns what is copied from the build's context."""
        return [
            source
            for arguments in self.all("COPY")
            if not arguments.startswith("--from")
            for source in arguments.split()[:-1]
        ]


def read_stages(file: Path) -> dict[str, Stage]:
    """Reads the named stages of a Dockerfile."""
    text = re.sub(r"^#.*\n", "", file.read_text(), flags=re.MULTILINE).replace("\\\n", "")
    stages: dict[str, Stage] = {}
    current: Stage | None = None
    for line in filter(None, map(str.strip, text.splitlines())):
        instruction, arguments = line.split(None, 1)
        if instruction == "FROM":
            base, _, name = arguments.split()
            current = stages[name] = Stage(base)
        elif current:
            current.steps.append((instruction, arguments))
    return stages


def exec_form(arguments: str) -> list[str]:
    """Returns the words of an instruction that is given as a list."""
    return json.loads(arguments)
