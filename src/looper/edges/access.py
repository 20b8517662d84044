"""Modes of what commands in a sandbox read: started by root they run as nobody, and the umask may close whatever is made. And folders
that are there whole or not at all."""

import errno
import os
import stat
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from looper.errors import BadInput, EnvironmentBroken
from looper.untrusted import remove_tree

_NO_PLACE = (
    *(errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ELOOP, errno.ENAMETOOLONG),
)
"""What the system says where no folder can be made, however often it is tried."""


def shared_folder(folder: Path) -> Path:
    """Make a folder that every user may enter, and those above it that are missing. Raises BadInput."""
    try:
        missing = [part for part in (folder, *folder.parents) if not part.exists()]
        for part in (*reversed(missing), folder):
            part.mkdir(exist_ok=True)
            found = part.stat()
            if found.st_uid == os.geteuid():
                part.chmod(stat.S_IMODE(found.st_mode) | 0o055)
    except OSError as error:
        if error.errno not in _NO_PLACE:
            raise
        raise BadInput(
            f"The folder {folder} cannot be made: {error.strerror}. Name a place that can be written to with LOOPER_HOME, or with "
            "LOOPER_WORKSPACES or LOOPER_MIRRORS for that part of it."
        ) from error
    return folder


@contextmanager
def made_whole(folder: Path) -> Iterator[Path]:
    """A folder beside its place, which it takes once all in it is made; where that fails, or another process was faster, nothing stays."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name[:12]}-", dir=folder.parent))
    temporary.chmod(0o755)
    try:
        yield temporary
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        remove_tree(temporary)


def share(tree: Path) -> None:
    """Let every user read a finished tree. Raises EnvironmentBroken."""
    done = subprocess.run(["chmod", "-R", "a+rX", str(tree)], stderr=subprocess.PIPE)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines() or [f"status {done.returncode}"]
        raise EnvironmentBroken(f"{tree} cannot be opened to the user whom commands run as: {said[-1]}.")


def closed_to_others(paths: Iterable[Path]) -> tuple[Path, Path] | None:
    """The first folder on the way to one of the paths that others than its owner may not enter, and that path."""
    for path in paths:
        for folder in reversed(path.resolve().parents):
            if folder.exists() and not folder.stat().st_mode & stat.S_IXOTH:
                return folder, path
    return None
