"""Runs every cell of a plan that has no verdict yet.

A lane is a list of cells that are worked on one after the other; the engine runs lanes side by side. What the lanes share is kept
under one lock: how often an arm acted, and how many cells in a row failed outside of the agent.
"""

import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from looper.errors import Cancelled, DiskNearlyFull, InfrastructureError, JournalError, LooperError
from looper.experiment.cell import Job, Recorder, ResumeState, RunContext, run_cell
from looper.experiment.ledger import ActionCount, Ledger
from looper.metrics.sequential import DEGENERATE, DEGENERATE_ALPHA, evidence
from looper.protocols import Engine, Item
from looper.records.job import UNTREATED, CellTreatment
from looper.records.plan import Arm, Cell, Plan
from looper.records.task import Task
from looper.records.trajectory import Step
from looper.records.treatment import Proof, ProofKind
from looper.records.verdict import Outcome, Verdict

FREE_BYTES = 2 << 30
"""Least free space to begin another attempt with."""
INFRA_IN_A_ROW = 6
"""So many cells that end as infra_error one after the other stop the run: it would burn all its tasks. Faults of Looper's own do so
where all have the same cause."""


class Progress(Protocol):
    """What a view shows of a running run. Called from several threads."""

    def finished(self, cell: Cell, verdict: Verdict) -> None: ...


TreatmentOf = Callable[[Arm, int, Task], CellTreatment]
"""Of an arm, a seed and a task: an arm that learned has an adapter for each seed and repository."""


def untreated(arm: Arm, seed: int, task: Task) -> CellTreatment:
    return UNTREATED


@dataclass
class _Shared:
    """What the lanes of one run share."""

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
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, step: Step) -> None:
        with self.lock:
            # Another attempt at a cell takes the place of the one before.
            known = self.acted.get(step.cell)
            self.acted[step.cell] = (known if known and step.index > 1 else ActionCount()).and_one(step)

    def degenerate(self, cell: Cell) -> str:
        """Why the arm of a cell that has just come to its end has failed, in words; empty where it has not, or had before."""
        arm = cell.arm
        with self.lock:
            self.over.add(cell.key)
            found = [
                self.acted[key] for key in self.over if key.partition("/")[0] == arm and key in self.acted
            ]
            shares = [acted.without / acted.steps for acted in found]
            if arm in self.failed_arms or evidence(shares, DEGENERATE) < 1 / DEGENERATE_ALPHA:
                return ""
            self.failed_arms.add(arm)
            bad, steps = (sum(numbers) for numbers in ([a.without for a in found], [a.steps for a in found]))
            return (
                f"{bad} of {steps} steps held no action that could be read, in {len(found)} rollouts: more than "
                f"{100 * DEGENERATE:.0f} % of an arm's, at {DEGENERATE_ALPHA}"
            )


def run_plan(
    plan: Plan,
    arms: Sequence[Arm],
    tasks: Mapping[str, Task],
    lanes: Sequence[Sequence[Cell]],
    run_context: RunContext,
    ledger: Ledger,
    engine: Engine,
    stop: threading.Event,
    progress: Progress,
    treatment_of: TreatmentOf = untreated,
    *,
    degenerate_stops: bool = True,
) -> None:
    """Returns when every cell has its end.

    Raises Cancelled where `stop` was set, and the error where going on makes no sense; what was recorded stays.
    """
    open_lanes = [
        [(cell, resume) for cell in lane if (resume := ledger.resume(cell)) is not None] for lane in lanes
    ]
    shared = _Shared(dict(ledger.acted), set(ledger.acted.keys() & ledger.over))
    by_name = {arm.name: arm for arm in arms}

    def work(lane: Sequence[tuple[Cell, ResumeState]]) -> None:
        for cell, resume in lane:
            if stop.is_set():
                raise Cancelled
            if cell.arm in shared.failed_arms:
                continue
            _must_have_space(ledger.folder)
            recorder = Recorder(
                _until(stop, partial(_counted, shared, ledger.steps.append)),
                _until(stop, ledger.trajectories.append),
                _until(stop, ledger.verdicts.append),
                stop.is_set,
            )
            arm, task = by_name[cell.arm], tasks[cell.instance_id]
            treatment = partial(treatment_of, arm, cell.seed, task)
            job = Job(cell, arm, task, plan.limits_of(arm), plan.attempts, treatment)
            verdict = run_cell(job, run_context, recorder, resume)
            progress.finished(cell, verdict)
            if degenerate_stops and (why := shared.degenerate(cell)):
                ledger.proofs.append(
                    Proof(kind=ProofKind.ACTS, arm=cell.arm, subject="", passed=False, said=why)
                )
            _stop_if_hopeless(shared, verdict)

    try:
        for _ in engine.map(work, [lane for lane in open_lanes if lane]):
            pass
    except BaseException:
        stop.set()  # For the lanes that are still at it.
        raise


def _counted(shared: _Shared, append: Callable[[Step], None], step: Step) -> None:
    append(step)
    shared.count(step)


def _until(stop: threading.Event, append: Callable[[Item], None]) -> Callable[[Item], None]:
    """Records nothing once the run is being taken down.

    A lane that is still at it then sees its workspace, its model or its command vanish, and would take that for
    something the agent did: a failed test, an empty folder, a broken sandbox.
    """

    def record(item: Item) -> None:
        if stop.is_set():
            raise Cancelled
        append(item)

    return record


def _must_have_space(folder: Path) -> None:
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


def _count_fault(shared: _Shared, cause: str) -> None:
    """Raises LooperError where cell after cell meets the same one."""
    shared.faults = shared.faults + 1 if cause == shared.fault else 1
    shared.fault = cause
    if shared.faults >= INFRA_IN_A_ROW:
        raise LooperError(
            f"{shared.faults} cells in a row met the same fault of Looper's own: {cause}. `looper show` prints its traceback "
            "below any of them. Mend it, or leave these tasks out."
        )


def _stop_if_hopeless(shared: _Shared, verdict: Verdict) -> None:
    with shared.lock:
        if verdict.fault:
            _count_fault(shared, verdict.cause)
            return  # Looper's own, met on the way of one cell: it says nothing of the world that the others meet.
        shared.faults = 0
        shared.failures = shared.failures + 1 if verdict.outcome is Outcome.INFRA_ERROR else 0
        if shared.failures >= INFRA_IN_A_ROW:
            raise InfrastructureError(
                f"{shared.failures} cells in a row failed outside of the agent; the last: {verdict.cause} "
                "Mend that, then run the same command again."
            )
