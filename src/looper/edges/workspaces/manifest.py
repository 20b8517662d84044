"""What a tree holds, entry by entry, without running anything on it."""

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

IGNORED_FOLDERS = frozenset(
    {".git", "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis"}
)
"""Git's own records at the root, and caches that tools leave everywhere."""
IGNORED_SUFFIXES = (".pyc", ".pyo")
_CACHE = re.compile(rf"(^|/)({'|'.join(map(re.escape, sorted(IGNORED_FOLDERS)))})/|\.py[co]$")


@dataclass(frozen=True)
class Entry:
    """One entry of a tree."""

    mode: str
    """As git writes it: 100644, 100755 or 120000; other kinds by name."""
    digest: str
    """SHA-256 of the content, or of a link's target; empty for other kinds."""


Manifest = Mapping[str, Entry]
"""Path, with forward slashes and any bytes as surrogate escapes → entry."""


class Scanner:
    """Lists a tree again and again, hashing only what changed since the last time.

    A file is unchanged if its inode, size, modification and change time are: the last of these cannot be set.
    """

    def __init__(self, root: Path) -> None:
        self._root = os.fspath(root)
        self._known: dict[str, tuple[tuple[int, ...], str]] = {}

    def scan(self, *, everything: bool = False) -> dict[str, Entry]:
        """With caches and byte code where `everything` is wanted: a patch may bring them, and Python would read them."""
        manifest: dict[str, Entry] = {}
        known: dict[str, tuple[tuple[int, ...], str]] = {}
        for path, status in _walk(self._root, everything):
            if stat.S_ISREG(status.st_mode):
                identity = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
                before = self._known.get(path)
                digest = before[1] if before and before[0] == identity else self._digest(path)
                known[path] = (identity, digest)
                manifest[path] = Entry("100755" if status.st_mode & 0o100 else "100644", digest)
            elif stat.S_ISLNK(status.st_mode):
                target = os.readlink(os.path.join(self._root, path))
                manifest[path] = Entry("120000", hashlib.sha256(os.fsencode(target)).hexdigest())
            else:
                manifest[path] = Entry(_kind(status.st_mode), "")
        self._known = known
        return manifest

    def _digest(self, path: str) -> str:
        try:
            descriptor = os.open(os.path.join(self._root, path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return "unreadable"
        with os.fdopen(descriptor, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()


def _kind(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "pipe"
    if stat.S_ISSOCK(mode):
        return "socket"
    return "folder" if stat.S_ISDIR(mode) else "device"


def _walk(root: str, everything: bool) -> Iterator[tuple[str, os.stat_result]]:
    """All but plain folders, in a fixed order. A nested repository is one entry of kind `folder`."""
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            entries = sorted(os.scandir(os.path.join(root, folder)), key=lambda entry: entry.name)
        except OSError:
            continue  # Closed or gone: the agent's own doing, nothing of it can enter a patch.
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            status = entry.stat(follow_symlinks=False)
            if entry.name == ".git":
                if folder:
                    yield path, status
            elif not stat.S_ISDIR(status.st_mode):
                if everything or not entry.name.endswith(IGNORED_SUFFIXES):
                    yield path, status
            elif everything or entry.name not in IGNORED_FOLDERS:
                waiting.append(path)


def lasting(manifest: Manifest) -> dict[str, Entry]:
    """What counts as a tree's state: without caches and byte code, which running it leaves."""
    return {path: entry for path, entry in manifest.items() if not _CACHE.search(path)}


def manifest_hash(manifest: Manifest) -> str:
    """One hash for a whole tree, independent of the order of listing."""
    digest = hashlib.sha256()
    for path in sorted(manifest):
        entry = manifest[path]
        digest.update(os.fsencode(path) + b"\0" + entry.mode.encode() + b"\0" + entry.digest.encode() + b"\n")
    return digest.hexdigest()


def link_leaves_tree(path: str, target: str) -> bool:
    """Whether a link in the tree points outside of it."""
    if target.startswith("/"):
        return True
    return os.path.normpath(os.path.join(os.path.dirname(path), target)).startswith("..")
