"""Files and folders that somebody else made: what a sandboxed process could write is read without following or waiting and removed
whatever it holds, and what a person names is read or named as what it is."""

import contextlib
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

from looper.errors import BadInput, FileRefused


def read_untrusted(path: Path, limit_bytes: int) -> bytes:
    """A regular file of at most so many bytes. Raises FileRefused for anything else, a link and a pipe among it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise FileRefused(f"{path.name}: {error.strerror}") from error
    try:
        return read_descriptor(descriptor, limit_bytes, path.name)
    finally:
        os.close(descriptor)


def read_descriptor(descriptor: int, limit_bytes: int, name: str) -> bytes:
    """The same of a file that is open, from its first byte on."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise FileRefused(f"{name} is not a regular file")
    if status.st_size > limit_bytes:
        raise FileRefused(f"{name} has {status.st_size} bytes, and {limit_bytes} are allowed")
    parts, at = [], 0
    while at < limit_bytes and (part := os.pread(descriptor, limit_bytes - at, at)):
        parts.append(part)
        at += len(part)
    return b"".join(parts)


def folders_below(root: str) -> Iterator[tuple[str, list["os.DirEntry[str]"]]]:
    """Each folder with its entries, the outermost first and without recursion, which a tree can be too deep for. What cannot be listed
    is passed over. A caller that removes an entry from the list keeps out of it."""
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as found:
                entries = list(found)
        except OSError:
            continue
        yield folder, entries
        waiting += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]


def named_text(path: Path) -> str:
    """Text of a file that a person named, with any line ends as `\\n`. Raises BadInput where it cannot be had."""
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{path} is no text in UTF-8: byte {error.start} is {error.object[error.start]:#04x}."
        ) from error


def remove_tree(*places: Path) -> None:
    """By one call of `rm`: Python's own removal ends at its recursion limit, and at folders without rights."""
    for place in places:
        with contextlib.suppress(OSError):
            place.rmdir()  # Without starting a program where it is empty.
    for script in ('rm -rf -- "$@"', 'chmod -R u+rwx -- "$@"; rm -rf -- "$@"'):
        if left := [str(place) for place in places if os.path.lexists(place)]:
            subprocess.run(["/bin/sh", "-c", script, "remove", *left], capture_output=True)
