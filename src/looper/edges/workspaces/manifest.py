"""What a tree holds, entry by entry, without running anything on it.

Paths, modes and hashes of contents, read by descriptor so that nothing is followed out of the tree. Two manifests give a patch or
the proof that a tree is clean; what cannot be read is an entry of its own and not left out.
"""

import errno
import hashlib
import mmap
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from looper.errors import TreeUnreadable, WorkspaceError, is_of_what_was_made

IGNORED_FOLDERS = frozenset(
    {".git", "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis"}
)
"""Git's own records at the root, and caches that tools leave everywhere."""
IGNORED_SUFFIXES = (".pyc", ".pyo")
_CACHE = re.compile(rf"(^|/)({'|'.join(map(re.escape, sorted(IGNORED_FOLDERS)))})/|\.py[co]$")
LONGEST_PATH_BYTES = 3_000
"""Of a folder: programs are given no longer path than 4,096, names below it and folders above the tree included. A deeper folder is one
entry, and what is in it is not looked at."""
HASHED_BYTES = 64 << 20
"""Of a file: a larger one is known by its size, its beginning and its end."""
SCANNED_BYTES = 2 << 30
"""Of all files of a tree together that are hashed whole, in the order of listing; some seconds. The others are known as larger ones
are: a sparse file costs nobody anything to make, and as much as any other to hash."""
EDGE_BYTES = 1 << 20
TICK_S = 0.02
"""Longer than the clock of any file system stands still."""
MOST_ENTRIES = 300_000
"""Files and folders that are looked at: some seconds. The largest repository of the benchmark has 7,000."""


@dataclass(frozen=True)
class Entry:
    mode: str
    """As git writes it: 100644, 100755 or 120000; other kinds by name."""
    digest: str
    """SHA-256 of the content, or of a link's target; empty for other kinds. One word for what cannot be read or is too large."""

    @property
    def is_whole(self) -> bool:
        """Whether the digest says what the entry holds, to the last byte."""
        return self.mode in ("100644", "100755", "120000") and len(self.digest) == 64


Manifest = Mapping[str, Entry]
"""Path, with forward slashes and any bytes as surrogate escapes → entry."""


class Scanner:
    """Lists a tree again and again, hashing only what changed since the last time. What is gone before it was looked at was not there.

    A file is unchanged if its inode, size, modification and change time are: the last of these cannot be set. Where changes do not
    show in it, every file is hashed each time.
    """

    def __init__(self, root: Path, changes_show: bool = True) -> None:
        self._root, self._changes_show = os.fspath(root), changes_show
        self._known: dict[str, tuple[tuple[int, ...], str]] = {}

    def scan(self, *, everything: bool = False) -> dict[str, Entry]:
        """With caches and byte code where `everything` is wanted: a patch may bring them, and Python would read them.

        Raises TreeUnreadable where there is too much to look at.
        """
        manifest: dict[str, Entry] = {}
        known: dict[str, tuple[tuple[int, ...], str]] = {}
        left = SCANNED_BYTES
        for path, status in _walk(self._root, everything):
            if stat.S_ISREG(status.st_mode):
                whole = status.st_size <= min(HASHED_BYTES, left)
                left -= status.st_size if whole else 0
                identity = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, whole)
                before = self._known.get(path) if self._changes_show else None
                digest = before[1] if before and before[0] == identity else self._digest(path, whole)
                known[path] = (identity, digest)
                manifest[path] = Entry("100755" if status.st_mode & 0o100 else "100644", digest)
            elif stat.S_ISLNK(status.st_mode):
                manifest[path] = Entry("120000", self._target_digest(path))
            else:
                manifest[path] = Entry(_kind(status.st_mode), "")
        self._known = known
        return manifest

    def _digest(self, path: str, whole: bool) -> str:
        try:
            descriptor = os.open(os.path.join(self._root, path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as stream:
                return _content_digest(stream, whole)
        except OSError as error:
            _must_be_its_own(error)
            return "unreadable"

    def _target_digest(self, path: str) -> str:
        try:
            return hashlib.sha256(os.fsencode(os.readlink(os.path.join(self._root, path)))).hexdigest()
        except OSError as error:
            _must_be_its_own(error)
            return "unreadable"


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


def _content_digest(stream: BinaryIO, whole: bool) -> str:
    status = os.fstat(stream.fileno())
    if not stat.S_ISREG(status.st_mode):
        return "unreadable"
    if whole and status.st_size <= HASHED_BYTES:
        digest = hashlib.sha256()
        left = HASHED_BYTES
        while left > 0 and (data := stream.read(EDGE_BYTES)):  # It may grow meanwhile.
            digest.update(data)
            left -= len(data)
        return digest.hexdigest()
    ends = stream.read(EDGE_BYTES)
    stream.seek(max(0, status.st_size - EDGE_BYTES))
    return f"large {status.st_size} {hashlib.sha256(ends + stream.read(EDGE_BYTES)).hexdigest()}"


def _kind(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "pipe"
    if stat.S_ISSOCK(mode):
        return "socket"
    return "folder" if stat.S_ISDIR(mode) else "device"


def _walk(root: str, everything: bool) -> Iterator[tuple[str, os.stat_result]]:
    """All but plain folders, in a fixed order. A nested repository is one entry of kind `folder`, and so is a folder too deep."""
    if not os.path.isdir(root):
        gone = f"the folder {os.path.basename(root)} is gone"
        raise (
            TreeUnreadable(gone)
            if os.path.isdir(os.path.dirname(root))
            else WorkspaceError(f"{root} is gone.")
        )
    waiting, seen = [""], 0
    while waiting:
        folder = waiting.pop()
        for entry in _listed(os.path.join(root, folder)):
            seen += 1
            if seen > MOST_ENTRIES:
                raise TreeUnreadable(f"the tree holds more than {MOST_ENTRIES} files and folders")
            path = f"{folder}/{entry.name}" if folder else entry.name
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError as error:
                _must_be_its_own(error)
                continue
            if entry.name == ".git":
                if folder:
                    yield path, status
            elif not stat.S_ISDIR(status.st_mode):
                if everything or not entry.name.endswith(IGNORED_SUFFIXES):
                    yield path, status
            elif not everything and entry.name in IGNORED_FOLDERS:
                continue
            elif len(os.fsencode(path)) > LONGEST_PATH_BYTES:
                yield path, status
            else:
                waiting.append(path)


def lasting(manifest: Manifest) -> dict[str, Entry]:
    """What counts as a tree's state: without caches and byte code, which running it leaves."""
    return {path: entry for path, entry in manifest.items() if not _CACHE.search(path)}


def _listed(folder: str) -> list["os.DirEntry[str]"]:
    """In a fixed order; nothing of a folder that is closed or gone: that is the agent's own doing, and nothing of it can enter a patch."""
    try:
        with os.scandir(folder) as found:
            entries = list(islice(found, MOST_ENTRIES + 1))
    except OSError as error:
        _must_be_its_own(error)
        return []
    return sorted(entries, key=lambda entry: entry.name)


def _must_be_its_own(error: OSError) -> None:
    """What the tree's own shape does not explain (no descriptors left, a broken disk) must not pass for what is not there."""
    if error.errno != errno.ENOENT and not is_of_what_was_made(error):
        raise error


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
