"""The commands that README and docs/ show."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")
_ENDS = {"|", "&", "&&", "||", ";", ">", "2>"}


def shown_commands() -> list[tuple[str, list[str]]]:
    """Returns every command in a block of shell code: the page's name, and the words up to a pipe or comment."""
    return [
        (page.name, words)
        for page in PAGES
        for block in _BLOCK.findall(page.read_text(encoding="utf-8"))
        for line in block.replace("\\\n", " ").splitlines()
        if (words := _words(line))
    ]


def mentioned_commands() -> list[tuple[str, list[str]]]:
    """Returns every trimline command in running text, as far as it can be split into words."""
    return [
        (page.name, words)
        for page in PAGES
        for text in _INLINE.findall(page.read_text(encoding="utf-8"))
        if text.startswith("trimline ") and (words := _words(text))
    ]


def mentioned_code() -> list[tuple[str, str]]:
    """Returns everything in running text that is set as code."""
    return [(page.name, text) for page in PAGES for text in _INLINE.findall(page.read_text(encoding="utf-8"))]


def _words(line: str) -> list[str]:
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        return line.split()
    end = next((place for place, word in enumerate(words) if word in _ENDS), len(words))
    return words[:end]
