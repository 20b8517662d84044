"""Authors that are language models: each in a process of its own, whose end is seen at once and whose work goes on after a kill.

`LabAuthor` is the campaign's side: it begins the process, waits, and takes over one that an earlier campaign left. `in_lab` is what
that process does. What became of a lab is read from the ledger, and from its lock.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from looper.agent.loop import ReplayDiverged
from looper.errors import (
    Cancelled,
    GitRefused,
    InfrastructureError,
    ModelDenied,
    ModelServerFault,
    ModelUnpaid,
)
from looper.evolution.cycle import cause_of
from looper.evolution.lab import STEPS, Lab, LabResult, work
from looper.evolution.ledger import EventLog
from looper.evolution.moves import move, reported
from looper.evolution.state import Generation
from looper.journal import RunLock, holder_of
from looper.protocols import Sources
from looper.records.generation import Cause, Phase
from looper.records.task import Task
from looper.records.text import counted

GRACE_S = 60.0
"""For a lab to start, to snapshot and to end, beside the time of its work."""


class LabDied(InfrastructureError):
    """An author's process ended without a word."""


class Process(Protocol):
    def wait(self, longest_s: float, cancelled: Callable[[], bool]) -> int | None:
        """Its exit code; None where it was ended, for time or because somebody cancelled."""
        ...

    def tail(self) -> str:
        """The end of what it said."""
        ...


def lab_folder(root: Path, number: int) -> Path:
    """Where one author's steps and log lie."""
    return root / "labs" / f"gen-{number}"


def running(root: Path, number: int) -> int | None:
    """Process that works on a generation now; None where there is none."""
    return holder_of(lab_folder(root, number))


@dataclass(frozen=True)
class LabAuthor:
    """Lets a lab do the work, waits for it, and takes one up again that was left running."""

    ledger: EventLog
    folder: Path
    start: Callable[[int], Process]
    longest_s: float
    cancelled: Callable[[], bool]
    pause: Callable[[float], None]

    def work(self, found: Generation) -> None:
        """Raises what ended it, where that is the outside world; Cancelled where somebody wants to stop, and then it goes on later."""
        while running(self.folder, found.number) is not None:
            if self.cancelled():
                raise Cancelled
            self.pause(0.5)
        now = self.ledger.state().generation(found.number)
        if now.phase not in (Phase.PREPARING, Phase.RUNNING):
            return
        process = self.start(found.number)
        code = process.wait(self.longest_s + GRACE_S, self.cancelled)
        if self.cancelled():
            raise Cancelled
        now = self.ledger.state().generation(found.number)
        if now.phase in (Phase.PREPARING, Phase.RUNNING):
            how = f"it ended with {code}" if code is not None else "it did not end in time"
            evidence = f"the lab died: {how}: {process.tail() or 'it said nothing'}"
            move(self.ledger, now, Phase.INFRA_ERROR, cause=Cause.LAB_DIED, evidence=evidence)
            raise LabDied(f"Generation {found.number}: {evidence}")
        if now.phase is Phase.INFRA_ERROR:
            raise {Cause.AUTH: ModelDenied, Cause.CREDIT: ModelUnpaid, Cause.MODEL: ModelServerFault}.get(
                now.cause, InfrastructureError
            )(now.evidence)


def in_lab(
    ledger: EventLog,
    sources: Sources,
    branch: str,
    root: Path,
    found: Generation,
    make: Callable[[str], tuple[Lab, Task]],
    seed: int,
) -> Generation:
    """What happens inside a lab's process: from `preparing` or `running` to `reported` or another end, all of it in the ledger.

    `make` gives the lab and the task for a base commit. Raises RunBusy where another process works on it, Cancelled where it was asked
    to end, and what the world does wrong, once that is on record."""
    folder = lab_folder(root, found.number)
    with contextlib.closing(RunLock(folder, "lab")):
        if found.phase is Phase.PREPARING:
            found = move(ledger, found, Phase.RUNNING, base_commit=sources.commit_of(branch))
        try:
            done = _worked(folder, found, make, seed)
        except InfrastructureError as error:
            move(ledger, found, Phase.INFRA_ERROR, cause=cause_of(error, Cause.SETUP), evidence=str(error))
            raise
        return _snapshot(ledger, sources, found, done)


def _worked(folder: Path, found: Generation, make: Callable[[str], tuple[Lab, Task]], seed: int) -> LabResult:
    while True:
        lab, task = make(found.base_commit)
        try:
            return work(lab, found.number, 1, seed, task)
        except ReplayDiverged:
            # What was recorded cannot be repeated: it is put aside, and the work begins anew.
            number = len(list(folder.glob(f"{STEPS}-*.jsonl"))) + 1
            (folder / f"{STEPS}.jsonl").rename(folder / f"{STEPS}-{number}.jsonl")
        finally:
            lab.session.close()


def _snapshot(ledger: EventLog, sources: Sources, found: Generation, done: LabResult) -> Generation:
    """The candidate as a commit, whatever ended the work; where it is not to be judged, why."""
    ledger.record(lambda now: done.reported)
    said = f"generation {found.number}: {found.title}"
    cause = done.cause
    try:
        commit = (
            sources.with_patch(found.base_commit, done.patch, said)
            if done.patch.strip()
            else found.base_commit
        )
    except GitRefused as error:
        # Git refuses what would leave the tree.
        commit, cause = found.base_commit, Cause.UNSAFE_TREE
        done = LabResult(done.patch, (*done.flagged, str(error)), done.reported)
    found = reported(ledger, sources, found, found.base_commit, commit)
    if cause is Cause.NONE:
        return found
    evidence = {
        Cause.TIMEOUT: f"the time was over after {counted(done.reported.steps, 'step')}",
        Cause.INCOMPLETE: f"the work ended by {done.reported.stop_reason} after {counted(done.reported.steps, 'step')}",
        Cause.NO_CHANGE: "nothing was changed",
        Cause.UNSAFE_TREE: f"no patch can hold {', '.join(done.flagged[:3])}",
    }[cause]
    return move(ledger, found, Phase.REJECTED, cause=cause, evidence=evidence)
