"""Hashes of whole files, each computed once and then known by the file's place and times.

A file of weights takes a second per gigabyte or two to read, and is asked for at the start of every run.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from looper.edges.access import shared_folder
from looper.errors import BadInput

PIECE = 4 << 20
TELL_EVERY_S = 8.0
SETTLED_S = 2.0
"""A file that was written to within this time can be written to again without its times changing: those have the grain of the
file system's clock. Its hash is not kept."""


class FileDigests:
    """SHA-256 of files, kept below Looper's state folder. Safe for several threads and processes."""

    def __init__(self, kept: Path | None = None, say: Callable[[str], None] = lambda said: None) -> None:
        """`kept` is the file that hashes are kept in; None keeps none. `say` hears of a reading that takes long."""
        self._kept, self._say = kept, say

    def of(self, file: Path) -> str:
        """64 hexadecimal digits. Raises OSError."""
        place = str(file.resolve())
        with open(place, "rb") as stream:
            before = os.fstat(stream.fileno())
            known = self._read().get(place)
            if known is not None and known[:-1] == _times(before):
                return str(known[-1])
            found = self._hashed(stream, place, before.st_size)
            after = os.fstat(stream.fileno())
        if _times(after) == _times(before):
            self._keep(place, [*_times(after), found], max(after.st_mtime, after.st_ctime))
        return found

    def _hashed(self, stream: Any, place: str, size: int) -> str:
        digest, read, told = hashlib.sha256(), 0, time.monotonic()
        while piece := stream.read(PIECE):
            digest.update(piece)
            read += len(piece)
            if time.monotonic() - told > TELL_EVERY_S:
                told = time.monotonic()
                self._say(f"reading {place} once, to know it again: {read >> 20} of {size >> 20} MiB")
        return digest.hexdigest()

    def _read(self) -> dict[str, list[Any]]:
        """What is kept; nothing where that cannot be read."""
        try:
            found = json.loads(self._kept.read_bytes()) if self._kept else {}
            return {name: each for name, each in found.items() if _is_entry(each)}
        except (OSError, ValueError, AttributeError):
            return {}

    def _keep(self, place: str, entry: list[Any], changed: float) -> None:
        """Beside what others keep meanwhile; files that are gone are forgotten. Where nothing can be written, nothing is kept."""
        if self._kept is None:
            return
        with contextlib.suppress(OSError, BadInput), self._alone(self._kept) as now:
            if now - changed <= SETTLED_S:
                return
            kept = {name: each for name, each in self._read().items() if os.path.exists(name)}
            new = self._kept.with_suffix(".new")
            new.write_text(json.dumps(kept | {place: entry}, indent=0), "utf-8")
            new.replace(self._kept)

    @contextlib.contextmanager
    def _alone(self, kept: Path) -> Iterator[float]:
        """Gives the time by the clock that files have theirs from."""
        held = os.open(shared_folder(kept.parent) / f"{kept.stem}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(held, fcntl.LOCK_EX)
            os.utime(held)
            yield os.fstat(held).st_mtime
        finally:
            os.close(held)


def _times(status: os.stat_result) -> list[int]:
    """What changes with a file's content: size, times and inode. The time of the inode too, since `cp -p` and `touch` set the other."""
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _is_entry(found: Any) -> bool:
    return isinstance(found, list) and len(found) == 5 and isinstance(found[-1], str) and len(found[-1]) == 64
