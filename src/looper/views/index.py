"""Where the steps of each attempt stand in their file, and how many there are of each kind: derived, kept beside the records,
made again from them whenever it is not there or does not fit. It grows with the file.

Steps are most of what a run writes, and a page shows forty of them. The index says where each line begins, so one is read without
the others; and it holds the counts that behaviour is computed from, so that no table reads them all.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, NonNegativeInt

from looper.errors import FileRefused, JournalError
from looper.journal import UNREADABLE, raw_lines, read_at, replace_file
from looper.metrics.behaviour import StepCounts
from looper.records.base import Record
from looper.records.trajectory import Step
from looper.untrusted import read_untrusted

NAME = "steps.index.json"
VERSION = 2
INDEX_BYTES = 1 << 28
"""A longer one is made again each time."""


@dataclass
class AttemptIndex:
    places: list[int] = field(default_factory=list)
    """Where each line begins, in bytes, in the order of recording."""
    counts: StepCounts = field(default_factory=StepCounts)


@dataclass
class StepIndex:
    """Of the first `bytes` bytes of the steps of a run."""

    bytes: int = 0
    attempts: dict[tuple[str, int], AttemptIndex] = field(default_factory=dict)

    def add(self, place: int, step: "_Counted | Step") -> None:
        entry = self.attempts.setdefault((step.cell, step.attempt), AttemptIndex())
        entry.places.append(place)
        entry.counts.add(
            tool=step.action.tool if step.action is not None else None,
            problem=step.problem,
            kind=step.observation.kind,
            overseen=step.reply.overseen,
            tolerant=step.observation.tolerant,
        )


class _Part(Record):
    """What counting looks at; the rest of a step, texts that lie beside it among it, is not read."""

    model_config = ConfigDict(extra="ignore")


class _Action(_Part):
    tool: str


class _Observation(_Part):
    kind: str
    tolerant: bool = False


class _Reply(_Part):
    overseen: bool = False


class _Counted(_Part):
    cell: str
    attempt: int
    action: _Action | None
    problem: str | None
    observation: _Observation
    reply: _Reply


def step_index(folder: Path) -> StepIndex:
    """Up to the last whole line now. What was read before is not read again."""
    found = kept_index(folder)
    before = found.bytes
    read_on(found, folder)
    if found.bytes > before and os.access(folder, os.W_OK):
        # It is derived: a reader goes on without it where it cannot be kept.
        with contextlib.suppress(JournalError):
            _keep(found, folder / NAME)
    return found


def kept_index(folder: Path) -> StepIndex:
    """As far as somebody kept it; an empty one where that does not fit the file."""
    path = folder / "steps.jsonl"
    found = _kept(folder / NAME)
    return found if path.exists() and found.bytes <= path.stat().st_size else StepIndex()


def read_on(found: StepIndex, folder: Path) -> None:
    """Up to the last whole line now; writes nothing."""
    for place, length, body in raw_lines(folder, "steps", found.bytes):
        if body is not None:
            # What is no step is damage, which who reads the steps is told of.
            with contextlib.suppress(*UNREADABLE):
                found.add(place, _Counted.from_json(body))
        found.bytes = place + length


def steps_of(folder: Path, cell: str) -> list[Step]:
    attempts = {key: entry for key, entry in step_index(folder).attempts.items() if key[0] == cell}
    if not attempts:
        return []
    return steps_at(folder, attempts[max(attempts, key=lambda key: key[1])])


def steps_at(folder: Path, entry: AttemptIndex) -> list[Step]:
    return list(read_at(folder, "steps", Step, entry.places))


def some_steps(folder: Path, places: Sequence[int], most: int) -> Iterator[Step]:
    """The steps whose lines begin there, one at a time; of texts that lie beside the file the first `most` bytes."""
    return read_at(folder, "steps", Step, places, most)


class _Kept(Record):
    version: Literal[2]
    bytes: NonNegativeInt
    attempts: list[tuple[str, int, list[NonNegativeInt], list[int]]]


def _kept(path: Path) -> StepIndex:
    """The index as it was kept; an empty one where there is none that can be read."""
    try:
        found = _Kept.from_json(read_untrusted(path, INDEX_BYTES))
        if any(place >= found.bytes for _, _, places, _ in found.attempts for place in places):
            return StepIndex()
        return StepIndex(
            found.bytes,
            {
                (cell, attempt): AttemptIndex(places, StepCounts(*counts))
                for cell, attempt, places, counts in found.attempts
            },
        )
    except (FileRefused, *UNREADABLE):
        return StepIndex()


def _keep(found: StepIndex, path: Path) -> None:
    rows: Iterator[list[Any]] = (
        [cell, attempt, entry.places, entry.counts.as_list()]
        for (cell, attempt), entry in found.attempts.items()
    )
    text = json.dumps(
        {"version": VERSION, "bytes": found.bytes, "attempts": list(rows)}, separators=(",", ":")
    )
    replace_file(path, text.encode())
