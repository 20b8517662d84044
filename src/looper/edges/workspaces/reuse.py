"""Working trees that are used again: what was left of one becomes the next by what differs.

Making and removing thousands of files costs more than most tests do. Whatever a process did to a file changes the file's change time,
which no process can set; a file that was not touched since it was compared with its base is that file still, and every other
one is replaced. Folders hold nothing but their names, rights and attributes, which are set.
"""

import os
import shutil
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
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
CAN_BE_SEEN = hasattr(os, "listxattr")
"""Whether attributes of folders can be looked at here; without that no tree is used again."""


@dataclass(frozen=True, eq=False)
class Base:
    """What a tree is made equal to, git's records apart."""

    files: Path
    tree: Manifest
    """Every file."""
    folders: Mapping[str, int]
    """With their rights; the root is the empty path."""


@dataclass(frozen=True, eq=False)
class Left:
    """A tree that nobody works in; git's records are in it only where nobody touched them."""

    root: Path
    scanner: Scanner
    base: Base
    """That it was made equal to last."""
    identities: Mapping[str, tuple[int, ...]]
    """Of its files, when it was found equal to that."""
    records: Mapping[str, tuple[int, ...]]
    """Identities of what git keeps there, when it was copied."""

    def moved(self, root: Path) -> "Left":
        """Elsewhere, as a whole. Raises OSError."""
        self.root.rename(root)
        return replace(self, root=root, scanner=self.scanner.moved(root))

    def records_are_whole(self) -> bool:
        """Whether git's records are what they were when they were copied, with nothing in any attribute of their folder either."""
        folder, seen = self.root / GIT, 0
        try:
            for path, identity in _identities(folder):
                if self.records.get(path) != identity:
                    return False
                seen += 1
            return seen == len(self.records) and not _attributes(folder)
        except OSError:
            return False


def identities_of_records(root: Path) -> dict[str, tuple[int, ...]]:
    """Of the folder that git keeps in a tree, and all that is in it."""
    return dict(_identities(root / GIT))


def _identities(folder: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    # Without the time of change, which moving it sets.
    top = os.lstat(folder)
    yield "", (top.st_ino, top.st_mode, top.st_uid, top.st_mtime_ns)
    for _, entries in folders_below(str(folder)):
        for entry in entries:
            found = entry.stat(follow_symlinks=False)
            identity = (
                found.st_ino,
                found.st_mode,
                found.st_uid,
                found.st_size,
                found.st_mtime_ns,
                found.st_ctime_ns,
            )
            yield entry.path.removeprefix(f"{folder}/"), identity


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


def make_equal(tree: Left, base: Base, give: Callable[[Path], None]) -> None:
    """Make a tree equal to another base, or to its own again. `give` gives an entry to the user that commands run as. Raises OSError,
    TreeUnreadable or WorkspaceError where that cannot be done: then nothing can be said of it."""
    if tree.base is not base or not tree.records_are_whole():
        remove_tree(tree.root / GIT)
    _mend_folders(tree.root, base.folders, give)
    found, identities = tree.scanner.scan(everything=True), tree.scanner.identities()
    kept = {
        path
        for path, entry in found.items()
        if base.tree.get(path) == entry == tree.base.tree.get(path)
        and identities.get(path) == tree.identities.get(path)
    }
    for path in found.keys() - kept:
        os.unlink(tree.root / path)
    for folder in sorted(base.folders):
        if not os.path.isdir(tree.root / folder):
            (tree.root / folder).mkdir()
            _mend_folder(tree.root / folder, base.folders[folder], give)
    for path in base.tree.keys() - kept:
        _bring(base.files / path, tree.root / path, base.tree[path], give)


def _mend_folders(root: Path, folders: Mapping[str, int], give: Callable[[Path], None]) -> None:
    foreign: list[Path] = []
    _mend_folder(root, folders[""], give)
    for folder, entries in folders_below(str(root)):
        if folder == str(root):
            entries[:] = [entry for entry in entries if entry.name != GIT]
        for entry in [entry for entry in entries if entry.is_dir(follow_symlinks=False)]:
            path = os.path.relpath(entry.path, root)
            if path in folders:
                # Before it is listed: it may be closed.
                _mend_folder(Path(entry.path), folders[path], give)
            else:
                foreign.append(Path(entry.path))
                entries.remove(entry)
    for start in range(0, len(foreign), AT_ONCE):
        remove_tree(*foreign[start : start + AT_ONCE])
    if left := next((place for place in foreign if os.path.lexists(place)), None):
        raise WorkspaceError(f"{left} cannot be removed.")


def _mend_folder(folder: Path, rights: int, give: Callable[[Path], None]) -> None:
    """Rights as in the base tree, owner, and no attribute: whatever could tell the next task something."""
    if stat.S_IMODE(folder.lstat().st_mode) != rights:
        folder.chmod(rights)
    give(folder)
    for name in _attributes(folder):
        os.removexattr(folder, name)


def _attributes(folder: Path) -> list[str]:
    """Those that a user can set."""
    return [name for name in os.listxattr(folder) if name.startswith(("user.", "system."))]


def _bring(source: Path, target: Path, entry: Entry, give: Callable[[Path], None]) -> None:
    if entry.mode == "120000":
        target.symlink_to(os.readlink(source))
    else:
        shutil.copy2(source, target)
    give(target)
