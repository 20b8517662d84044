"""What a node of a cluster needs and does not have: read here in pieces, kept there by what it holds.

The run's process answers for what its run needs and nothing else. A node writes what it is told beside its place, holds every file
against its hash, and gives it the hash of the whole as its name; so what is there is whole, and two of one name are the same. It removes
what was used longest ago, never what a process of that machine is at work with.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from looper.edges.access import shared_folder
from looper.edges.models.digests import FileDigests
from looper.errors import BadInput, Cancelled, DiskNearlyFull, InfrastructureError, one_line, reason
from looper.records.content import Content, ContentFile, ContentKind, Wanted
from looper.untrusted import remove_tree

CHUNK_BYTES = 4 << 20
"""Of a file in one answer."""
KEPT_BYTES = 20 << 30
"""On a node, beside what is in use."""
DIGEST_KEPT_BYTES = 256 << 20
"""Hashes of larger files are kept, as for models."""
LOOKED_S = 0.2
"""How often a process that waits for another one's fetching looks."""
_UNFINISHED = ".unfinished-"


def content_of(place: Path, digests: FileDigests) -> Content:
    """What a file or a folder holds; links are what they lead to. Raises OSError."""
    if place.is_file():
        return Content(files=(_file(place, place.name, digests),), is_file=True)
    files = sorted(
        Path(folder, name)
        for folder, _, names in os.walk(place, followlinks=True)
        for name in names
        if Path(folder, name).is_file()
    )
    return Content(files=tuple(_file(path, path.relative_to(place).as_posix(), digests) for path in files))


def _file(path: Path, name: str, digests: FileDigests) -> ContentFile:
    size = path.stat().st_size
    known = digests if size > DIGEST_KEPT_BYTES else FileDigests()
    return ContentFile(path=name, size_bytes=size, sha256=known.of(path))


class ContentSource:
    """What a run's nodes may ask for, on the machine of its process. Safe for several threads."""

    def __init__(self, place_of: Callable[[ContentKind, str], Path | None], digests: FileDigests) -> None:
        """`place_of` knows where something is; None for what is not here, or not of this run."""
        self._place_of, self._digests = place_of, digests
        self._known: dict[tuple[ContentKind, str], tuple[Path, Content]] = {}
        self._lock = threading.Lock()

    def answer(self, wanted: Wanted) -> bytes:
        """A `Content` as JSON, or a piece of a file. Raises InfrastructureError for what cannot be read."""
        try:
            place, content = self._content(wanted)
            if not wanted.path:
                return content.to_json()
            if wanted.path not in {file.path for file in content.files}:
                raise InfrastructureError(
                    f"A node asks for a file that the {wanted.kind.value} {wanted.name} does not have."
                )
            with open(place if content.is_file else place / wanted.path, "rb") as stream:
                stream.seek(wanted.offset)
                return stream.read(CHUNK_BYTES)
        except OSError as error:
            raise InfrastructureError(
                f"The {wanted.kind.value} {wanted.name} cannot be read for a node: {error.strerror or error}. Put it back, then run the "
                "same command again."
            ) from error

    def _content(self, wanted: Wanted) -> tuple[Path, Content]:
        key = wanted.kind, wanted.name
        with self._lock:
            if key not in self._known:
                place = self._place_of(*key)
                if place is None or not place.exists():
                    return Path(), Content(files=())
                self._known[key] = place, content_of(place, self._digests)
            return self._known[key]


class ContentCache:
    """What was fetched on a node, below one folder; everything that this object gave stays until it is closed."""

    def __init__(
        self,
        folder: Path,
        ask: Callable[[Wanted], bytes],
        needed_bytes: int,
        digests: FileDigests,
        stopped: Callable[[], bool],
        say: Callable[[str], None],
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        """`ask` has a question answered by the run's process; so many bytes must stay free beside what is fetched."""
        self._folder, self._ask, self._needed_bytes, self._digests = folder, ask, needed_bytes, digests
        self._stopped, self._say, self._kept_bytes = stopped, say, kept_bytes
        self._given: dict[tuple[ContentKind, str], Path | None] = {}
        self._held: list[int] = []

    def place(self, kind: ContentKind, name: str, own: Path | None) -> Path | None:
        """Where the content of the run's machine is here: in its own place, where that holds the same, or fetched. None where the
        run's machine does not have it. Raises DiskNearlyFull, InfrastructureError for what comes otherwise than it was told or cannot
        be kept for another reason than room, and Cancelled."""
        if (kind, name) not in self._given:
            self._given[kind, name] = self._found(kind, name, own)
        return self._given[kind, name]

    def _found(self, kind: ContentKind, name: str, own: Path | None) -> Path | None:
        try:
            content = Content.from_json(self._ask(Wanted(kind=kind, name=name)))
        except ValueError as error:
            raise InfrastructureError(
                f"What the {kind.value} {name} holds cannot be read: {one_line(str(error))}"
            ) from error
        if not content.files:
            return None
        if own is not None and own.exists() and content_of(own, self._digests) == content:
            return own
        place = self._folder / content.digest
        with self._alone():
            if not self._is_whole(place, content):
                remove_tree(place)
                self._make_room(content.size_bytes, f"the {kind.value} {name}")
                self._fetch(kind, name, content, place)
            os.utime(place)
            held = os.open(place, os.O_RDONLY)
            fcntl.flock(held, fcntl.LOCK_SH)
            self._held.append(held)
        return place / content.files[0].path if content.is_file else place

    def _is_whole(self, place: Path, content: Content) -> bool:
        files = content.files
        with contextlib.suppress(OSError):
            return place.is_dir() and all(
                _file(place / file.path, file.path, self._digests) == file for file in files
            )
        return False

    def _fetch(self, kind: ContentKind, name: str, content: Content, place: Path) -> None:
        """Whole or not there."""
        unfinished = self._folder / f"{_UNFINISHED}{secrets.token_hex(8)}"
        begun = time.monotonic()
        try:
            unfinished.mkdir()
            for file in content.files:
                self._fetch_file(Wanted(kind=kind, name=name, path=file.path), file, unfinished)
            os.rename(unfinished, place)
            _flush(self._folder)
        except OSError as error:
            said = f"The {kind.value} {name} cannot be kept below {self._folder}: {reason(error)}."
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskNearlyFull(
                    f"{said} Make room there, or name another place with LOOPER_HOME."
                ) from error
            raise InfrastructureError(f"{said} Name a place that takes it with LOOPER_HOME.") from error
        finally:
            remove_tree(unfinished)
        took = time.monotonic() - begun
        self._say(f"{kind.value} {name} fetched, {content.size_bytes / 1e6:.1f} MB in {took:.1f} s")

    def _fetch_file(self, wanted: Wanted, file: ContentFile, folder: Path) -> None:
        target = folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        digest, at = hashlib.sha256(), 0
        with open(target, "xb") as stream:
            while at < file.size_bytes:
                piece = self._ask(wanted.model_copy(update={"offset": at}))
                if not piece or at + len(piece) > file.size_bytes:
                    break
                stream.write(piece)
                digest.update(piece)
                at += len(piece)
            stream.flush()
            os.fsync(stream.fileno())
        if at != file.size_bytes or digest.hexdigest() != file.sha256:
            raise InfrastructureError(
                f"The {wanted.kind.value} {wanted.name} did not come as it was told: {file.path} is another file by now. Leave it as it is "
                "while a run needs it, then run the same command again."
            )

    def _make_room(self, wanted_bytes: int, what: str) -> None:
        """Remove what was used longest ago and by nobody now. Raises DiskNearlyFull where that is not enough."""
        for left in self._folder.glob(f"{_UNFINISHED}*"):
            remove_tree(left)  # Whoever fetches is alone: it is of a process that was killed.
        kept = sorted((path for path in self._folder.iterdir() if path.is_dir()), key=_used)
        sizes = {
            path: sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) for path in kept
        }
        for path in kept:
            over = sum(sizes.values()) + wanted_bytes > self._kept_bytes
            if not over and self._free() >= wanted_bytes + self._needed_bytes:
                return
            if _unused(path):
                remove_tree(path)
                del sizes[path]
        if (free := self._free()) < wanted_bytes + self._needed_bytes:
            raise DiskNearlyFull(
                f"{what} takes {(wanted_bytes >> 20) + 1} MiB, and of {free >> 20} MiB that are free where {self._folder} lies "
                f"{self._needed_bytes >> 20} must stay free. Make room there, or name another place with LOOPER_HOME."
            )

    def _free(self) -> int:
        return shutil.disk_usage(self._folder).free

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Other processes of this machine that would fetch the same wait. Raises BadInput where the folder cannot be made."""
        shared_folder(self._folder)
        lock = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if self._stopped():
                        raise Cancelled from None
                    time.sleep(LOOKED_S)
            yield
        finally:
            os.close(lock)

    def close(self) -> None:
        """What was given may be removed by others."""
        for held in self._held:
            os.close(held)
        self._held.clear()
        self._given.clear()


def must_be_idle(folder: Path) -> None:
    """Raises BadInput where a process fetches into the folder of a `ContentCache`, or is at work with what was fetched."""
    if any(not _unused(path) for path in (folder / ".lock", *folder.glob("*/")) if path.exists()):
        raise BadInput(f"a process that runs cells for another machine is at work in {folder}")


def _used(path: Path) -> float:
    return path.stat().st_mtime


def _unused(path: Path) -> bool:
    """Whether no process is at work with it: whoever asks is the only one that could begin."""
    held = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(held)
    return True


def _flush(folder: Path) -> None:
    held = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(held)
    finally:
        os.close(held)
