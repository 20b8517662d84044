"""Working trees that are used again: what was left of one becomes the next by what differs.

Making and removing thousands of files costs more than most tests do. Whatever a process does to a file or a folder changes its
change time, which no process can set; what was not touched since it was compared with its base is that still, and everything else is
made anew. On a file system where that does not hold, as on those in memory, no tree is used again.
"""

import mmap
import os
import secrets
import shutil
import stat
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from looper.edges.workspaces.manifest import Entry, Manifest, Scanner
from looper.errors import WorkspaceError
from looper.untrusted import folders_below, remove_tree

GIT = ".git"
MOST_IDLE = 8
"""Trees that wait to be used again; the oldest is removed."""
AT_ONCE = 500
"""Places that are named to one call of a program."""
TICK_S = 0.02
"""Longer than the clock of any file system stands still."""

Folders = Mapping[str, tuple[int, int]]
"""Path, the root's empty → rights, and when the folder was changed, in nanoseconds."""
Identities = Mapping[str, tuple[int, ...]]
"""Path → what stays the same only while nobody touches what is there."""


def changes_show(folder: Path) -> bool:
    """Whether every write to a file here changes its change time. Those to mapped memory do not on Linux's tmpfs; where it cannot be
    tried, they may not."""
    try:
        with tempfile.TemporaryFile(dir=folder) as stream:
            stream.write(bytes(mmap.PAGESIZE))
            stream.flush()
            with mmap.mmap(stream.fileno(), mmap.PAGESIZE) as memory:
                _ = memory[0]  # Mapped by being read, it may be written without anybody being told.
                before = os.fstat(stream.fileno()).st_ctime_ns
                time.sleep(TICK_S)
                memory[0] = 1
                memory.flush()
            return os.fstat(stream.fileno()).st_ctime_ns != before
    except OSError:
        return False


@dataclass(frozen=True, eq=False)
class Base:
    """What a tree is made equal to, git's records apart."""

    files: Path
    tree: Manifest
    """Every file."""
    folders: Folders


@dataclass(frozen=True, eq=False)
class Left:
    """A tree that nobody works in, without git's records."""

    root: Path
    scanner: Scanner
    base: Base
    """That it was made equal to last."""
    files: Identities
    """Of its files, when it was found equal to that."""
    folders: Identities
    """Of its folders, then."""

    def moved(self, root: Path) -> "Left":
        """Elsewhere, as a whole. Raises OSError."""
        self.root.rename(root)
        return replace(self, root=root, scanner=self.scanner.moved(root))


def identities_of_folders(root: Path, folders: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Raises OSError where one is not there."""
    return {path: _identity(root / path) for path in folders}


def _identity(folder: Path) -> tuple[int, ...]:
    status = folder.lstat()
    return status.st_ino, status.st_ctime_ns


class Idle:
    """Trees to be used again, by repository. Safe for several threads."""

    def __init__(self) -> None:
        self._trees: deque[tuple[str, Left]] = deque()
        self._lock = threading.Lock()

    def take(self, repository: str, base: Base) -> Left | None:
        """One of the same base tree where there is one, else of another."""
        with self._lock:
            fit = [each for each in self._trees if each[0] == repository]
            found = next((each for each in fit if each[1].base is base), fit[-1] if fit else None)
            if found is None:
                return None
            self._trees.remove(found)
            return found[1]

    def give(self, repository: str, tree: Left) -> None:
        with self._lock:
            self._trees.append((repository, tree))
            oldest = self._trees.popleft()[1] if len(self._trees) > MOST_IDLE else None
        if oldest is not None:
            remove_tree(oldest.root)


def make_equal(tree: Left, base: Base, give: Callable[[Path], None]) -> Left:
    """The tree made equal to another base, or to its own again. `give` gives an entry to the user that commands run as. Raises OSError,
    TreeUnreadable or WorkspaceError where that cannot be done: then nothing can be said of it."""
    remove_tree(tree.root / GIT)
    touched = _opened(tree, base.folders)
    found, identities = tree.scanner.scan(everything=True), tree.scanner.identities()
    kept = {
        path
        for path, entry in found.items()
        if base.tree.get(path) == entry == tree.base.tree.get(path)
        and identities.get(path) == tree.files.get(path)
    }
    for path in found.keys() - kept:
        os.unlink(tree.root / path)
    for folder in touched:
        _make_anew(tree.root / folder)
    anew = set(touched)
    tree.scanner.forgive(path for path in kept if path.rpartition("/")[0] in anew)
    for folder in sorted(base.folders):
        place = tree.root / folder
        if not os.path.isdir(place):
            place.mkdir()
        if stat.S_IMODE(place.lstat().st_mode) != base.folders[folder][0]:
            place.chmod(base.folders[folder][0])
        give(place)
    for path in base.tree.keys() - kept:
        _bring(base.files / path, tree.root / path, base.tree[path], give)
    # Last: what is made or removed in a folder changes them.
    for folder in base.folders:
        set_times(tree.root, base, folder)
    files = {path: identity for path, identity in tree.scanner.identities().items() if path in kept}
    return replace(tree, base=base, files=files, folders=identities_of_folders(tree.root, base.folders))


def set_times(root: Path, base: Base, folder: str = "") -> None:
    """Of a folder, which say when its names changed, or anything that its owner likes."""
    place, when = root / folder, base.folders[folder][1]
    if place.lstat().st_mtime_ns != when:
        os.utime(place, ns=(when, when))


def _opened(tree: Left, folders: Folders) -> list[str]:
    """Folders that anybody touched, the outermost first, the root among them; all that a base knows can be listed then, and no others
    are there any more."""
    touched, foreign = [""], list[Path]()
    os.chmod(tree.root, folders[""][0])
    for _, entries in folders_below(str(tree.root)):
        for entry in [entry for entry in entries if entry.is_dir(follow_symlinks=False)]:
            path = os.path.relpath(entry.path, tree.root)
            if path not in folders:
                foreign.append(Path(entry.path))
                entries.remove(entry)
            elif _identity(Path(entry.path)) != tree.folders.get(path):
                touched.append(path)
                # Before it is listed: it may be closed.
                os.chmod(entry.path, folders[path][0])
    for start in range(0, len(foreign), AT_ONCE):
        remove_tree(*foreign[start : start + AT_ONCE])
    if left := next((place for place in foreign if os.path.lexists(place)), None):
        raise WorkspaceError(f"{left} cannot be removed.")
    return sorted(touched)


def _make_anew(folder: Path) -> None:
    """With what is in it: its size, flags, attributes and times could tell the next task something."""
    fresh = folder.with_name(f".{secrets.token_hex(8)}")
    fresh.mkdir()
    for name in os.listdir(folder):
        (folder / name).rename(fresh / name)
    folder.rmdir()
    fresh.rename(folder)


def _bring(source: Path, target: Path, entry: Entry, give: Callable[[Path], None]) -> None:
    if entry.mode == "120000":
        target.symlink_to(os.readlink(source))
    else:
        shutil.copy2(source, target)
    give(target)
