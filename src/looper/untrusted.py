"""Files and folders that somebody else made: what a sandboxed process could write is read without following or waiting and removed
whatever it holds, and what a person names is read or named as what it is."""

import contextlib
import os
import stat
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from looper.errors import BadInput, FileRefused

_KINDS = {
    stat.S_IFREG: "",
    stat.S_IFLNK: "a link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}


def open_regular(path: Path, flags: int = os.O_RDONLY) -> int:
    """Descriptor of a regular file, opened without following a link or waiting for whoever is at the other end of a pipe. Raises
    FileRefused for anything else, and OSError where there is none or it cannot be opened."""
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    except OSError:
        must_be_regular(path)
        raise
    try:
        _must_be_regular(os.fstat(descriptor), path.name)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def must_be_regular(path: Path) -> None:
    """Raises FileRefused, which says what it is, where something else stands there; nothing at all may."""
    with contextlib.suppress(OSError):
        _must_be_regular(path.lstat(), path.name)


def _must_be_regular(status: os.stat_result, name: str) -> None:
    if what := _KINDS.get(stat.S_IFMT(status.st_mode), "a device"):
        raise FileRefused(f"{name} is {what}, not a regular file")


def read_untrusted(path: Path, limit_bytes: int) -> bytes:
    """A regular file of at most so many bytes. Raises FileRefused for anything else, a link and a pipe among it."""
    try:
        descriptor = open_regular(path)
    except OSError as error:
        raise FileRefused(f"{path.name}: {error.strerror}") from error
    try:
        return read_descriptor(descriptor, limit_bytes, path.name)
    finally:
        os.close(descriptor)


def read_descriptor(descriptor: int, limit_bytes: int, name: str) -> bytes:
    """The same of a file that is open, from its first byte on."""
    status = os.fstat(descriptor)
    _must_be_regular(status, name)
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
    if path.exists() and not path.is_file() and not path.is_dir():
        # Of a pipe one would wait for whoever writes into it.
        raise BadInput(f"{path} is a pipe or a device, and no file. Name a text file.")
    try:
        return path.read_text("utf-8-sig")  # Editors of Windows put a mark before the first line.
    except OSError as error:
        raise BadInput(
            f"{path} cannot be read: {error.strerror}. Name a file that is there and that you may read."
        ) from error
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{path} is no text in UTF-8: byte {error.start} is {error.object[error.start]:#04x}. Name a text file."
        ) from error


def parsed_toml(text: str, parse_float: Callable[[str], Any] = float) -> dict[str, Any]:
    """Raises TOMLDecodeError, also for tables and lists that lie within each other more deeply than the interpreter reads."""
    try:
        return tomllib.loads(text, parse_float=parse_float)
    except RecursionError as error:
        raise tomllib.TOMLDecodeError("its tables or lists lie within each other too deeply") from error


def remove_tree(*places: Path) -> None:
    """By one call of `rm`: Python's own removal ends at its recursion limit, and at folders without rights."""
    for place in places:
        with contextlib.suppress(OSError):
            place.rmdir()  # Without starting a program where it is empty.
    for script in ('rm -rf -- "$@"', 'chmod -R u+rwx -- "$@"; rm -rf -- "$@"'):
        if left := [str(place) for place in places if os.path.lexists(place)]:
            subprocess.run(["/bin/sh", "-c", script, "remove", *left], capture_output=True)


def current_folder() -> str:
    """Empty where it was removed while somebody is in it."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""
