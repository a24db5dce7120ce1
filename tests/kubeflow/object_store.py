"""An object store in a directory."""

from __future__ import annotations

import shutil
from pathlib import Path


class ObjectStore:
    """Keeps what is uploaded under a URI; knows files only, no folders of their own, as object stores do."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def upload(self, local: Path, uri: str) -> None:
        """Copies a file, or every file of a folder; what is not there is passed over, as the launcher does."""
        for file in _files(local):
            target = self._path(uri) / file.relative_to(local) if local.is_dir() else self._path(uri)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)

    def download(self, uri: str, local: Path) -> None:
        """Copies what lies under a URI."""
        source = self._path(uri)
        local.parent.mkdir(parents=True, exist_ok=True)
        if source.is_file():
            shutil.copyfile(source, local)
        elif source.is_dir():
            shutil.copytree(source, local, dirs_exist_ok=True)

    def files(self, uri: str) -> dict[str, bytes]:
        """Returns the content of every object under a URI, by its key below that."""
        source = self._path(uri)
        return {str(file.relative_to(source)): file.read_bytes() for file in _files(source)}

    def _path(self, uri: str) -> Path:
        scheme, _, key = uri.partition("://")
        return self._root / scheme / key


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [each for each in sorted(path.rglob("*")) if each.is_file()]
