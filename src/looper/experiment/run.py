"""Runs every cell of a plan that has no verdict yet: hands out jobs, writes what comes of them, and counts.

A lane is a list of cells that are worked on one after the other; the engine runs lanes side by side. What is counted over all of them,
how often an arm acted and how many cells in a row failed outside of the agent, is counted under locks.
"""

import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from looper.errors import Cancelled, DiskNearlyFull, InfrastructureError, JournalError, LooperError
from looper.experiment.cell import obstacle_of
from looper.experiment.ledger import ActionCount, Ledger
from looper.metrics.sequential import DEGENERATE, DEGENERATE_ALPHA, evidence
from looper.protocols import Engine
from looper.records.base import grouped
from looper.records.job import UNTREATED, CellJob, CellTreatment, Event, ResumeState
from looper.records.plan import Arm, Cell, Plan, arm_of
from looper.records.task import Task
from looper.records.text import counted
from looper.records.trajectory import Step, Trajectory
from looper.records.treatment import Proof, ProofKind
from looper.records.verdict import Outcome, Verdict

FREE_BYTES = 2 << 30
"""Least free space to begin another attempt with."""
INFRA_IN_A_ROW = 6
"""So many cells that end as infra_error one after the other stop the run: it would burn all its tasks. Faults of Looper's own do so
where all have the same cause."""


class Progress(Protocol):
    """What a view shows of a running run. Called from several threads, one at a time."""

    def finished(self, cell: Cell, verdict: Verdict) -> None: ...


def server_number(cell: Cell, order: Mapping[str, int]) -> int:
    """Which of its model's servers a cell begins with, from 0, to be counted round: all arms begin a task with the same one at the same seed, so
    that what differs between servers is no part of any difference between arms; tasks take turns, by their `order`."""
    return order[cell.instance_id] + cell.seed


def _in_turns(
    lanes: Sequence[Sequence[Cell]], order: Mapping[str, int], servers: int
) -> Sequence[Sequence[Cell]]:
    """Lanes in their order, but as many side by side as there are servers, each with its own: else all arms of a task, which follow each other,
    would be at one server while the others idle."""
    if servers == 1:
        return lanes
    by_server = grouped((server_number(lane[0], order) % servers, lane) for lane in lanes)
    turns = zip_longest(*(by_server[server] for server in sorted(by_server)))
    return [lane for turn in turns for lane in turn if lane is not None]


TreatmentOf = Callable[[Arm, int, Task], CellTreatment]
"""Of an arm, a seed and a task: an arm that learned has an adapter for each seed and repository."""


def untreated(arm: Arm, seed: int, task: Task) -> CellTreatment:
    return UNTREATED


@dataclass
class _Counts:
    acted: dict[str, ActionCount]
    """Of each cell, those of earlier processes included."""
    over: set[str]
    """Cells that have their end."""
    failures: int = 0
    """Cells in a row that failed outside of the agent."""
    faults: int = 0
    """Cells in a row that met `fault`."""
    fault: str = ""
    failed_arms: set[str] = field(default_factory=set)

    def count(self, step: Step) -> None:
        # Another attempt at a cell takes the place of the one before.
        known = self.acted.get(step.cell)
        self.acted[step.cell] = (known if known and step.index > 1 else ActionCount()).and_one(step)

    def newly_failed(self, arm: str) -> str:
        """Why an arm has failed of which a cell has just come to its end, in words, and counts it as failed; empty where it has not, or had
        before."""
        found = [self.acted[key] for key in self.over if arm_of(key) == arm and key in self.acted]
        shares = [acted.without / acted.steps for acted in found]
        if arm in self.failed_arms or evidence(shares, DEGENERATE) < 1 / DEGENERATE_ALPHA:
            return ""
        self.failed_arms.add(arm)
        bad, steps = (sum(numbers) for numbers in ([a.without for a in found], [a.steps for a in found]))
        return (
            f"{bad} of {counted(steps, 'step')} held no action that could be read, in {counted(len(found), 'rollout')}: more than "
            f"{100 * DEGENERATE:.0f} % of an arm's, at {DEGENERATE_ALPHA}"
        )

    def stop_if_hopeless(self, verdict: Verdict, run: str) -> None:
        """Raises LooperError or InfrastructureError where cell after cell ended without a verdict."""
        if verdict.fault:
            self._count_fault(verdict, run)
            return  # Looper's own, met on the way of one cell: it says nothing of the world that the others meet.
        self.faults = 0
        self.failures = self.failures + 1 if verdict.outcome is Outcome.INFRA_ERROR else 0
        if self.failures >= INFRA_IN_A_ROW:
            raise InfrastructureError(
                f"{self.failures} cells in a row failed outside of the agent; the last: {verdict.cause} "
                "Fix that, then run the same command again."
            )

    def _count_fault(self, verdict: Verdict, run: str) -> None:
        cause = verdict.cause
        self.faults = self.faults + 1 if cause == self.fault else 1
        self.fault = cause
        if self.faults >= INFRA_IN_A_ROW:
            raise LooperError(
                f"{self.faults} cells in a row met the same fault of Looper's own: {cause}. Its traceback: looper show {verdict.cell} --run {run}. "
                "Fix it, or leave these tasks out."
            )


def run_plan(
    plan: Plan,
    arms: Sequence[Arm],
    tasks: Mapping[str, Task],
    lanes: Sequence[Sequence[Cell]],
    ledger: Ledger,
    engine: Engine,
    stop: threading.Event,
    progress: Progress,
    treatment_of: TreatmentOf = untreated,
    *,
    made: Mapping[str, Trajectory] = MappingProxyType({}),
    degenerate_stops: bool = True,
) -> None:
    """Returns when every cell has its end. Here alone the records of cells are written and counted. `made` are rollouts that were
    made elsewhere, by cell: every attempt judges them again, and none begins one.

    Raises Cancelled where `stop` was set, and the error where going on makes no sense; what was recorded stays.
    """
    cells = {cell.key: cell for lane in lanes for cell in lane}
    left = {key: resume for key, cell in cells.items() if (resume := ledger.resume(cell)) is not None}
    counts = _Counts(dict(ledger.acted), set(ledger.acted.keys() & ledger.over))
    by_name = {arm.name: arm for arm in arms}
    # Whoever is told of an end may be slow, a terminal that is stopped for ever: no other rollout waits for it with a step.
    steps_lock, ends_lock = threading.Lock(), threading.Lock()
    order = {name: number for number, name in enumerate(tasks)}
    servers = max(len(arm.model.addresses) for arm in arms)
    open_lanes = [[cell for cell in lane if cell.key in left] for lane in lanes]

    def jobs(lane: Sequence[Cell]) -> Iterator[CellJob]:
        for cell in lane:
            if stop.is_set():
                raise Cancelled
            if cell.arm in counts.failed_arms:
                continue
            must_have_space(ledger.folder)
            arm, resume = by_name[cell.arm], left[cell.key]
            job = CellJob(
                cell=cell,
                arm=arm,
                task=tasks[cell.instance_id],
                limits=plan.limits_of(arm),
                resume=resume,
                made=made.get(cell.key),
                server=server_number(cell, order),
            )
            for attempt in range(resume.attempt, resume.attempt + plan.attempts):
                if attempt > resume.attempt:
                    job = job.model_copy(update={"resume": ResumeState(attempt=attempt)})
                yield _treated(job, treatment_of)
                if cell.key in counts.over:
                    break

    def finish(cell: Cell, verdict: Verdict) -> None:
        counts.over.add(cell.key)
        progress.finished(cell, verdict)
        if degenerate_stops and (why := counts.newly_failed(cell.arm)):
            ledger.proofs.append(Proof(kind=ProofKind.ACTS, arm=cell.arm, subject="", passed=False, said=why))
        counts.stop_if_hopeless(verdict, ledger.folder.name)

    def record(event: Event) -> None:
        if stop.is_set():
            # What is still at it sees its workspace, its model or its command vanish, and would take that for something the agent
            # did: a failed test, an empty folder, a broken sandbox.
            raise Cancelled
        ledger.append(event)
        if isinstance(event, Step):
            with steps_lock:
                counts.count(event)
        elif isinstance(event, Verdict):
            last = left[event.cell].attempt + plan.attempts - 1
            if event.outcome.is_verdict or event.attempt >= last:
                with ends_lock:
                    finish(cells[event.cell], event)

    try:
        turns = _in_turns([lane for lane in open_lanes if lane], order, servers)
        engine.run([jobs(lane) for lane in turns], record)
    except BaseException:
        stop.set()  # For the lanes that are still at it.
        raise


def _treated(job: CellJob, treatment_of: TreatmentOf) -> CellJob:
    """With what the arm has learned, where there is a rollout to begin: a memory may be searched for it, whose model may fail."""
    if job.made is not None or job.resume.trajectory is not None:
        return job
    try:
        found = treatment_of(job.arm, job.cell.seed, job.task)
    except Exception as error:
        return job.model_copy(update={"obstacle": obstacle_of(error)})
    return job.model_copy(update={"treatment": found})


def must_have_space(folder: Path) -> None:
    """Raises DiskNearlyFull, or JournalError where the folder is not there."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise JournalError(
            f"{folder} cannot be reached: {error.strerror}. Bring it back, then run the same command again."
        ) from error
    if free < FREE_BYTES:
        raise DiskNearlyFull(
            f"Only {free >> 20} MiB are free where {folder} lies, and {FREE_BYTES >> 20} MiB are needed to begin another "
            "attempt. Make room, then run the same command again."
        )
