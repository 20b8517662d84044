"""The index of steps: right after every append, and never trusted over the records."""

import json
import os
import zlib
from pathlib import Path

import pytest
from tests.training.test_select import CHECK, FIX, LOOK, REFUSED, step

from looper.journal import Stream
from looper.records.trajectory import Step
from looper.views.index import NAME, step_index, steps_of


def folder_with(tmp_path: Path, steps: list[Step]) -> Path:
    tmp_path.mkdir(exist_ok=True)
    stream = Stream(tmp_path, "steps", Step)
    for found in steps:
        stream.append(found)
    stream.close()
    return tmp_path


def of(cell: str, attempt: int, found: Step) -> Step:
    return found.model_copy(update={"cell": cell, "attempt": attempt})


FIRST = [of("a/0/t", 1, step(1, CHECK)), of("b/0/t", 1, step(1, LOOK)), of("a/0/t", 1, step(2, FIX, REFUSED))]
LATER = [of("a/0/t", 2, step(1, LOOK)), of("a/0/t", 2, step(2, FIX))]


def test_steps_are_counted_and_found_among_others(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, FIRST)
    counts = step_index(folder).attempts["a/0/t", 1].counts
    assert (counts.steps, counts.acted, counts.edits, counts.edits_refused) == (2, 2, 1, 1)
    assert steps_of(folder, "a/0/t") == [FIRST[0], FIRST[2]] and steps_of(folder, "c/0/t") == []


def test_it_grows_with_the_file_and_the_last_attempt_counts(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, FIRST)
    before = step_index(folder).bytes
    folder_with(tmp_path, LATER)
    assert step_index(folder).bytes > before and steps_of(folder, "a/0/t") == LATER
    kept = json.loads((folder / NAME).read_text())
    assert kept["bytes"] == (folder / "steps.jsonl").stat().st_size


@pytest.mark.parametrize(
    "body", [b"{}", b"null", b'{"cell":["x"]}', b'{"a":' * 100_000 + b"1" + b"}" * 100_000]
)
def test_what_is_no_step_is_passed_over(tmp_path: Path, body: bytes) -> None:
    folder = folder_with(tmp_path, FIRST)
    with (folder / "steps.jsonl").open("ab") as stream:
        stream.write(b'{"seq":4,"schema":1,"crc":"%08x","record":%s}\n' % (zlib.crc32(body), body))
    folder_with(tmp_path / "alike", FIRST)
    assert step_index(folder).attempts == step_index(tmp_path / "alike").attempts


def test_it_can_be_deleted_damaged_or_of_another_file(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, [*FIRST, *LATER])
    found = step_index(folder)
    for text in (
        "",
        "{",
        '{"version": 0}',
        '{"version": 1, "bytes": 3, "attempts": [[1]]}',
        json.dumps({"version": 2, "bytes": 10**9, "attempts": []}),
        json.dumps({"version": 2, "bytes": -1, "attempts": []}),
        json.dumps({"version": 2, "bytes": 3, "attempts": [["a/0/t", 1, [7], [0] * 9]]}),
        json.dumps({"version": 2, "bytes": 3, "attempts": [["a/0/t", 1, ["x"], [0] * 9]]}),
        "[" * 100_000,
    ):
        (folder / NAME).write_text(text)
        assert step_index(folder) == found
    (folder / NAME).unlink()
    assert step_index(folder) == found


def test_a_pipe_or_a_folder_in_its_place_is_not_waited_for(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, FIRST)
    (folder / NAME).mkdir()
    assert steps_of(folder, "a/0/t") == [FIRST[0], FIRST[2]]
    (folder / NAME).rmdir()
    os.mkfifo(folder / NAME)
    assert steps_of(folder, "a/0/t") == [FIRST[0], FIRST[2]]


def test_a_torn_last_line_and_a_damaged_one_are_left_out(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, FIRST)
    path = folder / "steps.jsonl"
    lines = path.read_bytes().splitlines(True)
    path.write_bytes(lines[0] + lines[1].replace(b"ops.py", b"cops.py") + lines[2] + b'{"seq":4,')
    assert set(step_index(folder).attempts) == {("a/0/t", 1)}
    assert steps_of(folder, "a/0/t") == [FIRST[0], FIRST[2]]
