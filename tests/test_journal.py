"""Records on the disk: rows S01 to S13, figure R11."""

import errno
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import textwrap
import zlib
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from looper.errors import JournalError, RunBusy
from looper.journal import (
    RECORD_CAP_BYTES,
    Damage,
    RunLock,
    Stream,
    Tail,
    holder_of,
    must_be_records,
    raw_lines,
    read_at,
    read_stream,
    replace_file,
)
from looper.records.base import content_hash
from tests.fakes.notes import Note


def numbers(folder: Path) -> list[int]:
    return [note.number for note in read_stream(folder, "notes", Note)]


def write(folder: Path, count: int) -> None:
    stream = Stream(folder, "notes", Note)
    for number in range(count):
        stream.append(Note(number=number, text="x" * number))
    stream.close()


def test_what_was_appended_is_read_back_in_order(tmp_path: Path) -> None:
    write(tmp_path, 5)
    assert numbers(tmp_path) == [0, 1, 2, 3, 4]
    again = Stream(tmp_path, "notes", Note)
    assert [note.number for note in again.recovered] == [0, 1, 2, 3, 4]
    again.append(Note(number=5, text=""))
    assert numbers(tmp_path) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("tail", [b"", b"\0" * 7, b'{"seq":'])
def test_s05_every_prefix_of_a_file_is_recovered_without_losing_a_whole_record(
    tmp_path: Path, tail: bytes
) -> None:
    """A crash can cut the file anywhere, and leave zeros or a part of the next line behind."""
    write(tmp_path, 6)
    whole = (tmp_path / "notes.jsonl").read_bytes()
    for length in range(len(whole) + 1):
        folder = tmp_path / "cut"
        folder.mkdir()
        (folder / "notes.jsonl").write_bytes(whole[:length] + tail)
        stream = Stream(folder, "notes", Note)
        kept = whole[:length].count(b"\n")
        assert [note.number for note in stream.recovered] == list(range(kept))
        stream.append(Note(number=99, text=""))
        stream.close()
        assert numbers(folder) == [*range(kept), 99]
        if whole[:length].rpartition(b"\n")[2] + tail:
            assert (folder / "notes.jsonl.torn").exists() and len(stream.damage) == 1
        shutil.rmtree(folder)


def test_s06_damage_in_the_middle_is_set_aside_reported_and_hides_nothing_else(tmp_path: Path) -> None:
    write(tmp_path, 20)
    path = tmp_path / "notes.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    rng = random.Random(1)
    for number in (3, 11):
        line = bytearray(lines[number])
        line[rng.randrange(len(line) - 1)] ^= 0x15
        lines[number] = bytes(line)
    path.write_bytes(b"".join(lines))
    found: list[Damage] = []
    assert len(list(read_stream(tmp_path, "notes", Note, found))) == 18
    assert [damage.line for damage in found] == [4, 12]
    stream = Stream(tmp_path, "notes", Note)
    assert [note.number for note in stream.recovered] == [n for n in range(20) if n not in (3, 11)]
    assert len(stream.damage) == 2
    assert (tmp_path / "notes.jsonl.damaged").read_bytes() == lines[3] + lines[11]


def line(body: bytes, sequence: bytes = b"2", schema: bytes = b"1") -> bytes:
    """A journal line whose checksum is right, whatever its record is."""
    return b'{"seq":%s,"schema":%s,"crc":"%08x","record":%s}\n' % (sequence, schema, zlib.crc32(body), body)


@pytest.mark.parametrize(
    "bad",
    [
        b"[" * 200_000 + b'"record":{}}\n',
        line(b"{}", sequence=b"Infinity"),
        line(b"{}", schema=b"1e999"),
        line(b"{}", sequence=b"null"),
        line(b"{}", sequence=b"9" * 4000),
        line(b"{}", schema=b"9" * 4000),
        line(b'{"a":' * 200_000 + b"1" + b"}" * 200_000),
        line(b'{"$text":' * 200_000 + b"1" + b"}" * 200_000),
        *(line(b'{"number":1,"text":{"$text":%s}}' % name) for name in (b"5", b"null", b'["x"]', b'{"a":1}')),
        line(b'{"number":1,"text":"","\\u001b[31m\\ud800 newer version":1}'),
        line(b"null"),
        line(b"[1]"),
        line(b"\xff\xfe"),
        b"\0" * 1000 + b"\n",
    ],
    ids=lambda bad: str(bad[:48]),
)
def test_s06_whatever_stands_in_a_line_every_reader_sets_it_aside_and_says_why(
    tmp_path: Path, bad: bytes
) -> None:
    write(tmp_path, 2)
    path = tmp_path / "notes.jsonl"
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + bad + second)
    found: list[Damage] = []
    assert [note.number for note in read_stream(tmp_path, "notes", Note, found)] == [0, 1]
    tail = Tail(tmp_path, "notes", Note)
    assert tail.refresh() and [note.number for note in tail.records] == [0, 1]
    places = [place for place, _, _ in raw_lines(tmp_path, "notes")]
    assert [note.number for note in read_at(tmp_path, "notes", Note, places)] == [0, 1]
    stream = Stream(tmp_path, "notes", Note)
    assert [note.number for note in stream.recovered] == [0, 1]
    assert found == tail.damage == stream.damage and [damage.line for damage in found] == [2]
    assert found[0].reason.isprintable() and found[0].reason.isascii() and len(found[0].reason) <= 300
    assert (tmp_path / "notes.jsonl.damaged").read_bytes() == bad
    stream.append(Note(number=2, text=""))
    stream.close()
    assert numbers(tmp_path) == [0, 1, 2]


def folder_in(place: Path) -> None:
    place.mkdir()


def link_to_zeros(place: Path) -> None:
    place.symlink_to("/dev/zero")


IRREGULAR: list[tuple[str, Callable[[Path], None]]] = [
    ("a pipe", os.mkfifo),
    ("a folder", folder_in),
    ("a link", link_to_zeros),
]


@pytest.mark.parametrize(("what", "make"), IRREGULAR)
def test_a_file_of_records_that_is_no_regular_file_is_named_by_every_reader_and_never_waited_for(
    tmp_path: Path, what: str, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "notes.jsonl")
    readers: list[Callable[[], object]] = [
        lambda: Stream(tmp_path, "notes", Note),
        Tail(tmp_path, "notes", Note).refresh,
        lambda: numbers(tmp_path),
        lambda: list(raw_lines(tmp_path, "notes")),
        lambda: list(read_at(tmp_path, "notes", Note, [0])),
        lambda: must_be_records(tmp_path),
    ]
    for read in readers:
        with pytest.raises(JournalError, match=f"notes.jsonl is {what}, not a regular file. Move that away"):
            read()


@pytest.mark.parametrize(("what", "make"), IRREGULAR)
def test_a_lock_that_is_no_regular_file_is_named_by_who_writes_and_who_looks(
    tmp_path: Path, what: str, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "lock")
    for look in (RunLock, holder_of):
        with pytest.raises(JournalError, match=f"lock is {what}, not a regular file"):
            look(tmp_path)


@pytest.mark.parametrize(("what", "make"), IRREGULAR)
def test_what_is_set_aside_goes_into_a_regular_file_or_stays(
    tmp_path: Path, what: str, make: Callable[[Path], None]
) -> None:
    (tmp_path / "notes.jsonl").write_bytes(b"damaged\n")
    make(tmp_path / "notes.jsonl.damaged")
    with pytest.raises(JournalError, match=f"notes.jsonl.damaged is {what}"):
        Stream(tmp_path, "notes", Note)
    assert (tmp_path / "notes.jsonl").read_bytes() == b"damaged\n"


def test_a_tail_goes_on_once_a_file_of_records_is_in_its_place_again(tmp_path: Path) -> None:
    write(tmp_path, 2)
    tail = Tail(tmp_path, "notes", Note)
    assert tail.refresh()
    kept = (tmp_path / "notes.jsonl").rename(tmp_path / "kept")
    os.mkfifo(tmp_path / "notes.jsonl")
    with pytest.raises(JournalError):
        tail.refresh()
    kept.rename(tmp_path / "notes.jsonl")
    assert tail.refresh() and [note.number for note in tail.records] == [0, 1]


OUTSIDE = "f" * 64


@pytest.mark.parametrize(
    "name",
    ["/dev/zero", "../outside", f"../{OUTSIDE}", "pipe", "", ".", "x\0y", "a" * 300, "\ud800", OUTSIDE],
)
@pytest.mark.parametrize("most", [-1, 10])
def test_a_long_text_is_a_regular_file_of_the_name_that_was_given_to_it_and_nothing_else(
    tmp_path: Path, name: str, most: int
) -> None:
    (tmp_path / "texts").mkdir()
    for secret in (tmp_path / "outside", tmp_path / OUTSIDE):
        secret.write_text("secret")
    (tmp_path / "texts" / OUTSIDE).symlink_to(tmp_path / OUTSIDE)
    os.mkfifo(tmp_path / "texts" / "pipe")
    (tmp_path / "notes.jsonl").write_bytes(line(json.dumps({"number": 1, "text": {"$text": name}}).encode()))
    assert not list(read_at(tmp_path, "notes", Note, [0], most))
    found: list[Damage] = []
    assert not list(read_stream(tmp_path, "notes", Note, found)) and len(found) == 1


@pytest.mark.parametrize(("what", "make"), [IRREGULAR[0], IRREGULAR[2]])
def test_a_long_text_is_written_over_what_is_no_regular_file(
    tmp_path: Path, what: str, make: Callable[[Path], None]
) -> None:
    text = "x" * 2 * RECORD_CAP_BYTES
    (tmp_path / "texts").mkdir()
    make(tmp_path / "texts" / content_hash(text))
    Stream(tmp_path, "notes", Note).append(Note(number=1, text=text))
    assert [note.text == text for note in read_stream(tmp_path, "notes", Note)] == [True]


def test_a_long_text_that_was_changed_is_damage_and_is_written_again(tmp_path: Path) -> None:
    text = "x" * 2 * RECORD_CAP_BYTES
    stream = Stream(tmp_path, "notes", Note)
    stream.append(Note(number=1, text=text))
    (tmp_path / "texts" / content_hash(text)).write_text("y" * 2 * RECORD_CAP_BYTES)
    found: list[Damage] = []
    assert not list(read_stream(tmp_path, "notes", Note, found))
    assert "is not the text that was put there" in found[0].reason
    stream.append(Note(number=2, text=text))
    stream.close()
    assert [note.text == text for note in read_stream(tmp_path, "notes", Note)] == [True, True]


def test_a_longer_text_than_is_ever_written_is_damage(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    with (tmp_path / "texts" / OUTSIDE).open("wb") as stream:
        stream.truncate(1 << 40)
    (tmp_path / "notes.jsonl").write_bytes(line(b'{"number":1,"text":{"$text":"%s"}}' % OUTSIDE.encode()))
    found: list[Damage] = []
    assert not list(read_stream(tmp_path, "notes", Note, found)) and "are allowed" in found[0].reason


def test_a_machine_without_descriptors_says_nothing_of_a_record(tmp_path: Path) -> None:
    write(tmp_path, 1)
    stream = Stream(tmp_path, "notes", Note)
    stream.append(Note(number=1, text="x" * 2 * RECORD_CAP_BYTES))
    stream.close()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    found: list[Damage] = []
    reading = read_stream(tmp_path, "notes", Note, found)
    assert next(reading).number == 0
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        with pytest.raises(OSError, match="Too many open files"):
            next(reading)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert not found and numbers(tmp_path) == [0, 1]


def test_every_flipped_bit_of_a_line_is_noticed(tmp_path: Path) -> None:
    write(tmp_path, 1)
    path = tmp_path / "notes.jsonl"
    line = path.read_bytes()
    for position in range(len(line) - 1):
        path.write_bytes(line[:position] + bytes([line[position] ^ 1]) + line[position + 1 :])
        kept = list(read_stream(tmp_path, "notes", Note))
        # Numbering is bookkeeping: a flipped bit there may leave the record itself intact.
        assert kept in ([], [Note(number=0, text="")])


def test_s07_a_second_writer_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    with pytest.raises(RunBusy, match=str(os.getpid())):
        RunLock(tmp_path)
    assert holder_of(tmp_path) == os.getpid()
    lock.close()
    assert holder_of(tmp_path) is None
    RunLock(tmp_path).close()


def test_a_killed_writer_frees_its_lock_at_once(tmp_path: Path) -> None:
    program = "import sys,time; from pathlib import Path; from looper.journal import RunLock\n"
    program += "lock = RunLock(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        with pytest.raises(RunBusy, match=str(process.pid)):
            RunLock(tmp_path)
        process.kill()
    RunLock(tmp_path).close()


WRITER = """
import sys
from pathlib import Path
from looper.journal import Stream
from tests.fakes.notes import Note
stream = Stream(Path(sys.argv[1]), "notes", Note)
begin = len(stream.recovered)
for number in range(begin, begin + 6):
    stream.append(Note(number=number, text="y" * 500))
    print(number, flush=True)
"""

needs_strace = pytest.mark.skipif(not shutil.which("strace"), reason="needs strace (Linux package strace)")


def inject(folder: Path, fault: str) -> tuple[list[int], int, str]:
    """Run the writer under a fault; numbers that it was told are safe, its exit status, what it said."""
    root = Path(__file__).parents[1]
    argv = [
        "strace",
        "-f",
        "-o",
        "/dev/null",
        "-e",
        f"inject={fault}",
        sys.executable,
        "-c",
        WRITER,
        str(folder),
    ]
    environment = {**os.environ, "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}
    done = subprocess.run(argv, capture_output=True, text=True, cwd=root, env=environment)
    return [int(line) for line in done.stdout.split()], done.returncode, done.stderr


@needs_strace
def test_s01_a_record_is_on_the_disk_when_it_is_acknowledged(tmp_path: Path) -> None:
    """What a power cut takes is seen in the order of the calls: the line, its flush, and only then the word that it is safe."""
    trace, root = tmp_path / "trace", Path(__file__).parents[1]
    argv = ["strace", "-f", "-y", "-o", str(trace), "-e", "trace=write,fsync", sys.executable, "-c", WRITER]
    environment = {**os.environ, "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}
    subprocess.run([*argv, str(tmp_path)], check=True, capture_output=True, cwd=root, env=environment)
    calls = []
    for line in trace.read_text().splitlines():
        if "notes.jsonl>" in line:
            calls.append("line" if "write(" in line else "flush")
        elif "write(1<" in line:
            calls.append("word")
    # One word may take two calls.
    assert [call for call, _ in groupby(calls)] == ["line", "flush", "word"] * 6


@needs_strace
@pytest.mark.slow
@pytest.mark.parametrize("call", ["write", "fsync"])
def test_s01_s02_killed_at_any_write_or_sync_no_acknowledged_record_is_lost_or_doubled(
    tmp_path: Path, call: str
) -> None:
    reached = 0
    for point in range(1, 16):
        folder = tmp_path / f"{call}{point}"
        folder.mkdir()
        acknowledged, status, _ = inject(folder, f"{call}:signal=SIGKILL:when={point}")
        reached += status != 0
        found = numbers(folder)
        assert found[: len(acknowledged)] == acknowledged
        assert len(found) <= len(acknowledged) + 1
        write_more = Stream(folder, "notes", Note)
        write_more.append(Note(number=len(write_more.recovered), text=""))
        write_more.close()
        assert numbers(folder) == list(range(len(numbers(folder))))
    assert reached >= 5


@needs_strace
@pytest.mark.slow
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("call", ["write", "fsync"])
def test_s03_s04_a_failing_disk_stops_the_writer_and_keeps_what_was_there(
    tmp_path: Path, call: str, error: str
) -> None:
    reached = 0
    for point in range(2, 8):
        folder = tmp_path / str(point)
        folder.mkdir()
        acknowledged, status, said = inject(
            folder, f"{call}:error={error}:when={point}{'+' if call == 'fsync' else ''}"
        )
        found = numbers(folder)
        assert found == list(range(len(found))) and found[: len(acknowledged)] == acknowledged
        if "JournalError" in said:
            reached += 1
            assert status == 1 and found == acknowledged
    assert reached >= 2


def test_s04_the_last_record_still_fits_when_the_disk_fills_up(tmp_path: Path) -> None:
    """On a small file system of its own, where user namespaces allow one."""
    program = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from looper.errors import JournalError
        from looper import journal
        from tests.fakes.notes import Note
        journal.RESERVE_BYTES = 16 << 10
        folder = Path("/mnt")
        stream = journal.Stream(folder, "notes", Note)
        journal.reserve_space(folder)
        number = 0
        try:
            while True:
                stream.append(Note(number=number, text="z" * 900))
                number += 1
        except JournalError as error:
            assert "No space left" in str(error), error
        assert not (folder / "reserve").exists()
        found = [note.number for note in journal.read_stream(folder, "notes", Note)]
        assert found == list(range(number)) and number > 20, (found, number)
        print("intact")
        """
    )
    root = Path(__file__).parents[1]
    script = f'mount -t tmpfs -o size=64k none /mnt && exec {sys.executable} -c "$1"'
    environment = {
        **os.environ,
        "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    argv = ["unshare", "-Urm", "/bin/sh", "-c", script, "sh", program]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=root, env=environment)
    if "unshare" in done.stderr:
        pytest.skip(f"no user namespaces here: {done.stderr.strip()}")
    assert done.stdout == "intact\n", done.stderr


def test_s03_after_a_failed_write_the_stream_takes_no_more(tmp_path: Path) -> None:
    stream = Stream(tmp_path, "notes", Note)
    stream.append(Note(number=0, text=""))
    os.close(stream._descriptor)
    stream._descriptor = os.open("/dev/full", os.O_WRONLY)
    for _ in range(2):
        with pytest.raises(JournalError):
            stream.append(Note(number=1, text=""))
    assert numbers(tmp_path) == [0]


@pytest.mark.parametrize("how", ["moved", "removed", "made anew", "only the file"])
def test_c11_a_folder_that_vanished_takes_no_more_and_what_was_recorded_stays(
    tmp_path: Path, how: str
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    stream = Stream(folder, "notes", Note)
    stream.append(Note(number=0, text=""))
    kept = folder.rename(tmp_path / "elsewhere") if how == "moved" else folder
    if how == "only the file":
        (folder / "notes.jsonl").rename(tmp_path / "notes.jsonl")
        kept = tmp_path
    elif how != "moved":
        shutil.rmtree(folder)
    if how == "made anew":
        folder.mkdir()
        (folder / "notes.jsonl").write_bytes(b"")
    for text in ("", "long " * RECORD_CAP_BYTES):
        with pytest.raises(JournalError) as error:
            stream.append(Note(number=1, text=text))
        assert "\n" not in str(error.value)
    assert how in ("removed", "made anew") or numbers(kept) == [0]


def test_c11_a_lock_that_was_removed_stops_the_writer_before_there_are_two(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    stream = Stream(tmp_path, "notes", Note, lock)
    stream.append(Note(number=0, text=""))
    (tmp_path / "lock").unlink()
    second = RunLock(tmp_path)
    with pytest.raises(JournalError, match="lock .* was removed"):
        stream.append(Note(number=1, text=""))
    assert numbers(tmp_path) == [0]
    second.close()


def test_c11_an_unmounted_or_read_only_volume_is_a_journal_error(tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import subprocess
        from pathlib import Path
        from looper.errors import JournalError
        from looper.journal import RunLock, Stream
        from tests.fakes.notes import Note
        for end in (["umount", "-l", "/mnt"], ["mount", "-o", "remount,bind,ro", "/mnt"]):
            folder = Path("/mnt/run")
            lock = RunLock(folder)
            stream = Stream(folder, "notes", Note, lock)
            stream.append(Note(number=0, text=""))
            if "-l" not in end:
                stream.close(), lock.close()
            subprocess.run(end, check=True)
            try:
                stream.append(Note(number=1, text="")) if "-l" in end else RunLock(folder)
            except JournalError as error:
                print("JournalError", error)
            subprocess.run(["mount", "-t", "tmpfs", "none", "/mnt"], check=True)
        """
    )
    root = Path(__file__).parents[1]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    script = f'mount -t tmpfs none /mnt && exec {sys.executable} -c "$1"'
    argv = ["unshare", "-Urm", "/bin/sh", "-c", script, "sh", program]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=root, env=environment)
    if "unshare" in done.stderr:
        pytest.skip(f"no user namespaces here: {done.stderr.strip()}")
    assert done.stdout.count("JournalError") == 2, done.stdout + done.stderr


@pytest.mark.parametrize("asked", [1, 2, 3])
def test_c11_a_volume_whose_open_files_are_stale_is_a_journal_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: int
) -> None:
    stream = Stream(tmp_path, "notes", Note, RunLock(tmp_path))
    calls = iter(range(1, 100))

    def stale(descriptor: int, real: Callable[[int], os.stat_result] = os.fstat) -> os.stat_result:
        if next(calls) >= asked:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return real(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fstat", stale)
        with pytest.raises(JournalError):
            stream.append(Note(number=0, text=""))


def test_s09_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "state"
    replace_file(target, b"old")
    tmp_path.joinpath("state").chmod(0o600)
    with pytest.raises(JournalError):
        replace_file(tmp_path / "no" / "state", b"new")
    replace_file(target, b"new")
    assert target.read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_s10_a_reader_never_sees_half_a_record(tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], cwd=root, env=environment, stdout=-3
    ) as writer:
        while writer.poll() is None:
            damage: list[Damage] = []
            found = [note.number for note in read_stream(tmp_path, "notes", Note, damage)]
            assert found == list(range(len(found))) and not damage
    assert numbers(tmp_path) == list(range(6))


def test_s11_a_newer_line_is_kept_and_named_not_dropped(tmp_path: Path) -> None:
    write(tmp_path, 2)
    path = tmp_path / "notes.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"schema":1', b'"schema":2', 1))
    before = path.read_bytes()
    found: list[Damage] = []
    assert [note.number for note in read_stream(tmp_path, "notes", Note, found)] == [1]
    assert "newer version" in found[0].reason
    with pytest.raises(JournalError, match="update Looper"):
        Stream(tmp_path, "notes", Note)
    assert path.read_bytes() == before


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(ValueError, match="extra"):
        Note.from_json(b'{"number": 1, "text": "", "surprise": 1}')


@given(st.text(st.characters(exclude_categories=[])), st.floats())
@settings(max_examples=1000, deadline=None)
def test_s13_any_text_and_any_float_come_back(text: str, value: float) -> None:
    note = Note(number=1, text=text, value=value)
    line = note.to_json()
    assert b"\n" not in line
    back = Note.from_json(line)
    assert back.text == text and (back.value == value or (back.value != back.value and value != value))


@pytest.mark.parametrize("text", ["x" * 2_000_000, "\ud800 lone" * 50_000, "\x00\n\u2028" * 200_000])
def test_long_texts_go_to_side_files_and_come_back(tmp_path: Path, text: str) -> None:
    stream = Stream(tmp_path, "notes", Note)
    stream.append(Note(number=1, text=text))
    stream.append(Note(number=2, text=text))
    stream.close()
    assert (tmp_path / "notes.jsonl").stat().st_size < RECORD_CAP_BYTES
    assert len(list((tmp_path / "texts").iterdir())) == 1
    assert [note.text == text for note in read_stream(tmp_path, "notes", Note)] == [True, True]


def test_each_line_is_plain_json(tmp_path: Path) -> None:
    write(tmp_path, 3)
    for number, line in enumerate((tmp_path / "notes.jsonl").read_text().splitlines()):
        entry = json.loads(line)
        assert (entry["seq"], entry["record"]["number"]) == (number + 1, number)


def test_appending_from_several_threads_keeps_every_record(tmp_path: Path) -> None:
    """S08."""
    import threading

    stream = Stream(tmp_path, "notes", Note)

    def work(start: int) -> None:
        for number in range(20):
            stream.append(Note(number=start + number, text="w" * 20_000))

    threads = [threading.Thread(target=work, args=(100 * start,)) for start in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers(tmp_path)) == sorted(
        100 * start + number for start in range(6) for number in range(20)
    )
