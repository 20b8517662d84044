"""Modes of what commands in a sandbox read: started by root they run as nobody, and the umask may close whatever is made."""

import os
import stat
import subprocess
from collections.abc import Iterable
from pathlib import Path


def shared_folder(folder: Path) -> Path:
    """Make a folder that every user may enter, and those above it that are missing."""
    missing = [part for part in (folder, *folder.parents) if not part.exists()]
    for part in (*reversed(missing), folder):
        part.mkdir(exist_ok=True)
        found = part.stat()
        if found.st_uid == os.geteuid():
            part.chmod(stat.S_IMODE(found.st_mode) | 0o055)
    return folder


def share(tree: Path) -> None:
    """Let every user read a finished tree."""
    subprocess.run(["chmod", "-R", "a+rX", str(tree)], check=True)


def closed_to_others(paths: Iterable[Path]) -> Path | None:
    """The first folder on the way to one of the paths that others than its owner may not enter."""
    for path in paths:
        for folder in reversed(path.resolve().parents):
            if folder.exists() and not folder.stat().st_mode & stat.S_IXOTH:
                return folder
    return None
