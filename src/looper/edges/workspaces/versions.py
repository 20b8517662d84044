"""Versions of the evolving program as folders, and the pointer to the one that works."""

import os
from pathlib import Path

from looper.errors import BadInput

POINTER = "active"


class VersionFolders:
    """Under `root`: a folder for each version, and a link that names the active one, swapped by a rename."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._root = root

    def folder(self, version: str) -> Path:
        return self._root / version

    def active(self) -> str:
        pointer = self._root / POINTER
        return os.readlink(pointer) if pointer.is_symlink() else ""

    def activate(self, version: str) -> None:
        if not self.folder(version).is_dir():
            raise BadInput(f"There is no version {version} in {self._root}.")
        new = self._root / f".{POINTER}.{os.getpid()}"
        new.unlink(missing_ok=True)
        new.symlink_to(version)
        new.replace(self._root / POINTER)
