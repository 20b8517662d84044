"""Run folders and append-only JSONL: the only opener of record files.

One folder per run, one file per kind of record, one writer process that holds a lock for as long as it lives. A line is
written by one `write` that ends in a line break, then flushed to the disk; so a crash can only leave a torn last line,
which the next opening cuts off and keeps beside the file. Damage in the middle is found by checksum, set aside and
reported; it never hides the lines around it. Readers take no lock and see whole lines only.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import stat
import threading
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from looper.errors import EXHAUSTED, BadInput, FileRefused, JournalError, RunBusy
from looper.records.base import SCHEMA_VERSION, Record, content_hash
from looper.untrusted import must_be_regular, open_regular, read_descriptor, read_untrusted

RECORD_CAP_BYTES = 256 * 1024
"""A longer record hands its long texts to side files."""
SIDE_TEXT_CHARS = 16 * 1024
"""Texts at least this long move to side files when a record is over the cap."""
BESIDE = b'"$text"'
"""Stands in a line for each of its texts that lies in a side file."""
SIDE_TEXT_BYTES = 1 << 30
"""No longer text is read."""
RESERVE_BYTES = 1024 * 1024
"""Freed when the disk is full, so that the record at hand can still be written."""

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Damage:
    """A line that could not be read as a record."""

    file: str
    line: int
    """From 1."""
    reason: str


def _encode(sequence: int, record: Record, folder: Path) -> bytes:
    """One journal line. The checksum covers the record's bytes exactly as they stand in the line."""
    body = record.to_json()
    if len(body) > RECORD_CAP_BYTES:
        body = json.dumps(_move_long_texts(json.loads(body), folder)).encode()
    head = f'{{"seq":{sequence},"schema":{SCHEMA_VERSION},"crc":"{zlib.crc32(body):08x}","record":'
    return head.encode() + body + b"}\n"


_RECORD_KEY = b'"record":'


UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What Python raises where something that was parsed is not what it should be."""
LARGEST_NUMBER = 2**53
"""No sequence number and no schema is larger: a float holds it exactly, and its text is short."""
REASON_CHARACTERS = 300


class _Unreadable(Exception):
    """Why a line is no record, in one line that any terminal can show."""

    def __init__(self, reason: str) -> None:
        text = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in reason)
        super().__init__(text[:REASON_CHARACTERS])


class _Newer(_Unreadable):
    """A later version will read it."""


def _decode(line: bytes, kind: type[R], folder: Path, most: int = -1) -> tuple[int, R]:
    """Sequence number and record of one line, without its line break; of long texts the first `most` bytes. Whatever stands in the
    line, it raises _Unreadable with the reason; OSError only where the machine has run out of something, which says nothing of it."""
    try:
        return _parse(line, kind, folder, most)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise _Unreadable(f"not a {kind.__name__}: {where}: {first['msg']}") from error
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise
        raise _Unreadable(f"not a {kind.__name__}: {error}") from error
    except (FileRefused, *UNREADABLE) as error:
        raise _Unreadable(f"not a {kind.__name__}: {error}") from error


def _parse(line: bytes, kind: type[R], folder: Path, most: int) -> tuple[int, R]:
    at = line.find(_RECORD_KEY)
    if at < 0 or not line.endswith(b"}"):
        raise _Unreadable("not a journal line")
    body = line[at + len(_RECORD_KEY) : -1]
    sequence, schema, checksum = _head(line[:at])
    if f"{zlib.crc32(body):08x}" != checksum:
        raise _Unreadable("checksum does not match")
    if schema > SCHEMA_VERSION:
        raise _Newer(f"written by a newer version (schema {schema}); update Looper to read it")
    if BESIDE in body:
        return sequence, kind.model_validate(_fetch_long_texts(json.loads(body), folder, most))
    return sequence, kind.from_json(body)


# As _encode writes it. A JSON parser for 50 bytes that have one form takes a tenth of the time in which a large run is read.
_HEAD = re.compile(rb'\{"seq":(\d{1,16}),"schema":(\d{1,16}),"crc":"([0-9a-f]{8})",')


def _head(text: bytes) -> tuple[int, int, str]:
    """Sequence number, schema and checksum."""
    if found := _HEAD.fullmatch(text):
        sequence, schema = int(found[1]), int(found[2])
        if max(sequence, schema) <= LARGEST_NUMBER:
            return sequence, schema, found[3].decode("ascii")
    raise _Unreadable("damaged line head")


def sequence_number(line: bytes) -> int | None:
    """Under which number a line was written, whatever became of its record; None where it has no head."""
    try:
        return _head(line[: max(line.find(_RECORD_KEY), 0)])[0]
    except _Unreadable:
        return None


def _move_long_texts(value: Any, folder: Path) -> Any:
    if isinstance(value, str) and len(value) >= SIDE_TEXT_CHARS:
        return {"$text": _write_side_text(value, folder)}
    if isinstance(value, list):
        return [_move_long_texts(item, folder) for item in value]
    if isinstance(value, dict):
        return {key: _move_long_texts(item, folder) for key, item in value.items()}
    return value


def _fetch_long_texts(value: Any, folder: Path, most: int) -> Any:
    if isinstance(value, dict):
        if set(value) == {"$text"}:
            return _side_text(value["$text"], folder, most)
        return {key: _fetch_long_texts(item, folder, most) for key, item in value.items()}
    if isinstance(value, list):
        return [_fetch_long_texts(item, folder, most) for item in value]
    return value


_SIDE_TEXT_NAME = re.compile("[0-9a-f]{64}")


def _side_text(name: Any, folder: Path, most: int) -> str:
    """Raises FileRefused for what this module did not write, where it is read whole, and OSError."""
    if not isinstance(name, str) or not _SIDE_TEXT_NAME.fullmatch(name):
        raise FileRefused("what it names as a long text is none")
    descriptor = open_regular(folder / "texts" / name)
    try:
        if most < 0:
            text = read_descriptor(descriptor, SIDE_TEXT_BYTES, name)
            if content_hash(text) != name:
                raise FileRefused(f"texts/{name} is not the text that was put there")
            return text.decode("utf-8", "surrogatepass")
        whole = os.fstat(descriptor).st_size <= most
        # A cut may fall into the middle of a character.
        return os.pread(descriptor, most, 0).decode("utf-8", "surrogatepass" if whole else "ignore")
    finally:
        os.close(descriptor)


def _write_side_text(text: str, folder: Path) -> str:
    """Store a text under its hash, complete or not at all; returns the hash."""
    name, content = content_hash(text), text.encode("utf-8", "surrogatepass")
    target = folder / "texts" / name
    if not _holds(target, content):
        target.parent.mkdir(exist_ok=True)
        replace_file(target, content)
    return name


def _holds(path: Path, content: bytes) -> bool:
    try:
        return read_untrusted(path, len(content)) == content
    except FileRefused:
        return False


def replace_file(target: Path, content: bytes) -> None:
    """Write a whole file so that a crash leaves the old content or the new, never a part. Raises JournalError."""
    temporary = _temporary(target)
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            _sync(stream.fileno())
        temporary.replace(target)
        _sync_folder(target.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        way = (
            "Free disk space or check the disk"
            if error.errno in EXHAUSTED
            else "Its folder must be there and writable"
        )
        raise JournalError(f"Cannot write {target}: {error.strerror}. {way}.") from error


def _temporary(target: Path) -> Path:
    """Where a file is written before it has its name. Raises ValueError for a target that has none."""
    return target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}.tmp")


def must_be_replaceable(target: Path) -> None:
    """That `replace_file` can write a file there, by writing an empty one beside it. Raises BadInput."""
    try:
        temporary = _temporary(target)
        temporary.write_bytes(b"")
        temporary.unlink()
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else "it names no file"
        raise BadInput(
            f"{target} cannot be written: {said}. Name a file in a folder that is there and can be written to."
        ) from error


def _sync(descriptor: int) -> None:
    # On macOS fsync leaves the data in the drive's cache; F_FULLFSYNC does not.
    if hasattr(fcntl, "F_FULLFSYNC"):
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


ABSENT = (FileNotFoundError, NotADirectoryError)


def _open(path: Path, flags: int = os.O_RDONLY) -> int:
    """Descriptor of a file of a run folder. Raises JournalError for what is no regular file or may not be opened, one of ABSENT where
    there is none, and OSError where the machine has run out of something."""
    try:
        return open_regular(path, flags)
    except ABSENT:
        raise
    except (FileRefused, OSError) as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: FileRefused | OSError) -> Exception:
    if isinstance(error, FileRefused):
        return JournalError(
            f"{path.parent} cannot be used: {error}. Move that away, then run the same command again."
        )
    if error.errno in EXHAUSTED:
        return error
    return JournalError(
        f"Cannot open {path}: {error.strerror}. Fix its rights or its disk, then run the same command again."
    )


def must_be_records(folder: Path) -> None:
    """Raises JournalError where something that is called like a file of records is none that can be read."""
    for path in sorted(folder.glob("*.jsonl")):
        try:
            must_be_regular(path)
        except FileRefused as error:
            raise _unusable(path, error) from error


class Stream(Generic[R]):
    """One kind of record in one file, open for appending. Safe for several threads of the writing process."""

    def __init__(self, folder: Path, name: str, kind: type[R], lock: "RunLock | None" = None) -> None:
        """`lock` is the folder's, which must still be held when something is appended. Raises JournalError."""
        self.name = name
        self._path = folder / f"{name}.jsonl"
        self._folder = folder
        self._held = lock
        self._lock = threading.Lock()
        self._broken = False
        self.recovered: list[R] = []
        """What stood in the file when it was opened."""
        self.damage: list[Damage] = []
        """What opening found and set aside, torn tail included."""
        try:
            self._recover(kind)
            self._descriptor = _open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            _sync_folder(folder)
        except OSError as error:
            raise JournalError(f"Cannot open {self._path}: {error.strerror}. Check the disk.") from error

    def _recover(self, kind: type[R]) -> None:
        """Cut a torn tail, quarantine damaged lines, and load the rest."""
        data = b"".join(_lines(self._path))
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            self._set_aside("torn", data[whole:])
            os.truncate(self._path, whole)
            self.damage.append(Damage(self._path.name, data.count(b"\n") + 1, "torn last line, cut off"))
        kept: list[bytes] = []
        self._next = 1
        for number, line in enumerate(data[:whole].split(b"\n")[:-1], 1):
            try:
                sequence, record = _decode(line, kind, self._folder)
            except _Newer as reason:
                raise JournalError(f"{self._path} line {number}: {reason}.") from reason
            except _Unreadable as reason:
                self.damage.append(Damage(self._path.name, number, str(reason)))
                self._set_aside("damaged", line + b"\n")
                continue
            kept.append(line + b"\n")
            self.recovered.append(record)
            self._next = max(self._next, sequence + 1)
        if sum(map(len, kept)) < whole:
            replace_file(self._path, b"".join(kept))

    def _set_aside(self, label: str, data: bytes) -> None:
        beside = self._path.with_name(f"{self._path.name}.{label}")
        with os.fdopen(_open(beside, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab") as stream:
            stream.write(data)
            stream.flush()
            _sync(stream.fileno())

    def append(self, record: R) -> None:
        """Return when the record is on the disk.

        Raises JournalError where it is not; the file then ends at the last whole record and takes no more.
        """
        with self._lock:
            if self._broken:
                raise JournalError(
                    f"{self._path} failed before; stop, make room or check the disk, and run again."
                )
            self._must_be_there()
            end = None
            try:
                end = os.fstat(self._descriptor).st_size
                self._write(_encode(self._next, record, self._folder))
                _sync(self._descriptor)
            except OSError as error:
                self._broken = True
                if end is not None:
                    self._truncate(end)
                raise JournalError(
                    f"Cannot write {self._path}: {error.strerror}. What was recorded before is intact; "
                    "free disk space or check the disk, then run the same command again."
                ) from error
            # Once more, or a record would be called durable that went with the volume.
            self._must_be_there()
            self._next += 1

    def _must_be_there(self) -> None:
        """What is written to must be what others find under its name: a removed file and an unmounted volume take every write."""
        if not _is_still(self._descriptor, self._path):
            self._broken = True
            raise JournalError(
                f"{self._path} is not there any more: its folder was moved or removed, or its disk is gone. What was recorded before "
                "lies where that went; bring it back, then run the same command again."
            )
        if self._held is not None and not self._held.is_held():
            self._broken = True
            raise JournalError(
                f"The lock of {self._folder} was removed, so another process may write there. What was recorded before is intact; "
                "when no other process works on it, run the same command again."
            )

    def _write(self, line: bytes) -> None:
        written = 0
        while written < len(line):
            try:
                written += os.write(self._descriptor, line[written:])
            except OSError as error:
                reserve = self._folder / "reserve"
                if error.errno != errno.ENOSPC or not reserve.exists():
                    raise
                reserve.unlink()

    def _truncate(self, end: int) -> None:
        try:
            os.ftruncate(self._descriptor, end)
        except OSError:
            pass  # The next opening cuts the torn line.

    def close(self) -> None:
        with self._lock:
            # A thread that comes later must not write to whatever gets this descriptor's number next.
            self._broken = True
            os.close(self._descriptor)


def _is_still(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one that has this name."""
    try:
        mine, found = os.fstat(descriptor), path.stat()
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino)


class RunLock:
    """The right to write to a folder, held until closed or until the process dies."""

    def __init__(self, folder: Path, what: str = "run folder", elsewhere: str = "") -> None:
        """Raises RunBusy, naming the holder, and JournalError where the folder cannot be written to, with how another place is named where
        that is known."""
        usual = f"name another place with {'LOOPER_RUNS' if what == 'run folder' else 'LOOPER_HOME'}"
        self._path = folder / "lock"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._descriptor = _open(self._path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise JournalError(
                f"Cannot write to the {what} {folder}: {error.strerror}. Fix that, or {elsewhere or usual}."
            ) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._descriptor, 100, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._descriptor)
            raise RunBusy(
                f"The {what} {folder} is in use by process {holder}. Wait for it, or stop it and run again."
            ) from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, str(os.getpid()).encode(), 0)

    def is_held(self) -> bool:
        """Whether others would still meet this lock."""
        return _is_still(self._descriptor, self._path)

    def close(self) -> None:
        os.close(self._descriptor)


def reserve_space(folder: Path) -> None:
    """Put a file aside that is given up when the disk is full."""
    path = folder / "reserve"
    if not path.exists():
        replace_file(path, os.urandom(RESERVE_BYTES))


def read_stream(folder: Path, name: str, kind: type[R], damage: list[Damage] | None = None) -> Iterator[R]:
    """Whole records of a file that may be written to right now; takes no lock.

    A last line without line break is one that is being written. Lines that cannot be read are listed in `damage`.
    """
    for _, record in placed_records(folder, name, kind, damage):
        yield record


def placed_records(
    folder: Path, name: str, kind: type[R], damage: list[Damage] | None = None
) -> Iterator[tuple[int, R]]:
    """The same, each with the byte at which its line begins."""
    path, place = folder / f"{name}.jsonl", 0
    for number, line in enumerate(_whole_lines(path), 1):
        try:
            yield place, _decode(line[:-1], kind, folder)[1]
        except _Unreadable as reason:
            if damage is not None:
                damage.append(Damage(path.name, number, str(reason)))
        place += len(line)


def _whole_lines(path: Path, begin: int = 0) -> Iterator[bytes]:
    """Every line with its break, from the byte `begin` on; nothing where there is no file."""
    for line in _lines(path, begin):
        # What follows of a line that is being written would be taken for one of its own.
        if not line.endswith(b"\n"):
            return
        yield line


def _lines(path: Path, begin: int = 0) -> Iterator[bytes]:
    """The same with a last line that has no break."""
    try:
        descriptor = _open(path)
    except ABSENT:
        return
    with os.fdopen(descriptor, "rb") as stream:
        stream.seek(begin)
        yield from stream


class Tail(Generic[R]):
    """A stream as it grows, for somebody who looks again and again: what was read before is not read again. Takes no lock."""

    def __init__(self, folder: Path, name: str, kind: type[R]) -> None:
        self._folder, self._name, self._kind = folder, name, kind
        self.file = f"{name}.jsonl"
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._at, self._line, self._file = 0, 0, 0
        self.records: list[R] = []
        self.lines: list[int] = []
        """Of each record its line, from 1."""
        self.damage: list[Damage] = []

    def refresh(self) -> bool:
        """Read on to the last whole line; whether anything is different. A file that was replaced, as recovery does, is read anew."""
        path = self._folder / f"{self._name}.jsonl"
        try:
            found = path.lstat()
        except ABSENT:
            changed = bool(self._file)
            self._begin_anew()
            return changed
        except OSError as error:
            raise _unusable(path, error) from error
        # 0 is the number of no file, and stands for none that was read before.
        replaced = self._file not in (0, found.st_ino) or found.st_size < self._at
        if replaced:
            self._begin_anew()
        self._file = found.st_ino
        if found.st_size == self._at and stat.S_ISREG(found.st_mode):
            return replaced
        before = self._at
        for line in _whole_lines(path, self._at):
            self._at += len(line)
            self._line += 1
            try:
                self.records.append(_decode(line[:-1], self._kind, self._folder)[1])
                self.lines.append(self._line)
            except _Unreadable as reason:
                self.damage.append(Damage(path.name, self._line, str(reason)))
        return replaced or self._at > before


def raw_lines(folder: Path, name: str, begin: int = 0) -> Iterator[tuple[int, int, bytes | None]]:
    """Place and length of every whole line from the byte `begin` on, which must be the first of a line, and its record as JSON
    with long texts left where they are; None for a line whose checksum does not match."""
    place = begin
    for line in _whole_lines(folder / f"{name}.jsonl", begin):
        yield place, len(line), _checked(line[:-1])
        place += len(line)


def _checked(line: bytes) -> bytes | None:
    at = line.find(_RECORD_KEY)
    head, body = line[:at], line[at + len(_RECORD_KEY) : -1]
    crc = head.rpartition(b'"crc":"')[2][:8]
    return body if at >= 0 and f"{zlib.crc32(body):08x}".encode() == crc else None


def read_at(folder: Path, name: str, kind: type[R], places: Sequence[int], most: int = -1) -> Iterator[R]:
    """The records whose lines begin at these bytes; what cannot be read is left out, as in `read_stream`. Of texts that lie beside
    the file the first `most` bytes, or all."""
    try:
        descriptor = _open(folder / f"{name}.jsonl")
    except ABSENT:
        return
    with os.fdopen(descriptor, "rb") as stream:
        for place in places:
            stream.seek(place)
            try:
                yield _decode(stream.readline().rstrip(b"\n"), kind, folder, most)[1]
            except _Unreadable:
                continue


def holder_of(folder: Path) -> int | None:
    """Process id of the writer of a run folder; None where nobody writes. Takes no lock that outlives the call."""
    try:
        descriptor = _open(folder / "lock")
    except ABSENT:
        return None
    with os.fdopen(descriptor, "rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            text = stream.read(100).strip()
            return int(text) if text.isdigit() and len(text) < 20 else 0
    return None
