"""How far every run is, right now: the one projection behind `looper status`, `looper watch` and the pages.

It reads what runs write, whoever started them, takes no lock and writes nothing. Of a file it has seen, only what is new is read.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from shlex import join, quote, split
from statistics import fmean, median, stdev
from typing import Any

from looper.errors import BadInput, as_called
from looper.metrics.behaviour import whole_sum
from looper.metrics.paired import repository_of
from looper.records.base import grouped
from looper.records.plan import REAL_SUITES, Suite, arm_of, task_id_of
from looper.records.session import NodeState
from looper.records.text import counted
from looper.records.trajectory import StopReason
from looper.records.treatment import GateStop, ProofKind
from looper.records.verdict import Outcome
from looper.untrusted import current_folder
from looper.views.findings import damage_lines, pilot_text, stop_lines
from looper.views.runs import RunTail, RunView, Shortened, run_folders, written

QUIET_S = 60.0
"""A run that writes nothing for so long may still be well; it is called stalled after that, or after `QUIET_CELLS` cells' time."""
QUIET_CELLS = 3.0
ENOUGH = 3
"""Fewer cells say nothing about how long the rest will take."""
DRIFT = 0.1
"""By what factor beside 1 a time may be off that never varied: machines have other things to do."""
STRETCHES = 10
"""That the past is cut into, to see how much it varied."""


class RunStatus(StrEnum):
    FINISHED = "finished"
    RUNNING = "running"
    STALLED = "stalled"
    """Somebody is at it, and nothing was written for much longer than a cell takes."""
    STOPPED = "stopped"
    """Nobody is at it, and cells are left: a command goes on with it."""


@dataclass(frozen=True)
class TimeLeft:
    """Seconds until the last cell has its end, with the interval in which past runs mostly ended."""

    seconds: float
    low: float
    high: float


def standing(run: RunView, now: float) -> RunStatus:
    """`now` in seconds since 1970, the clock of the files."""
    if run.writer is None:
        return RunStatus.FINISHED if run.finished >= run.planned else RunStatus.STOPPED
    return RunStatus.STALLED if quiet_s(run, now) > quiet_limit_s(run) else RunStatus.RUNNING


def quiet_s(run: RunView, now: float) -> float:
    """Since anything was written."""
    return max(0.0, now - written(run.folder))


def quiet_limit_s(run: RunView) -> float:
    """Longer silence is a stall: a rollout says something at every step, and a training every second."""
    return max(QUIET_S, QUIET_CELLS * median([took for _, took in _timed_cells(run)] or [0.0]))


class PhaseName(StrEnum):
    """What a run does, one after the other."""

    EXPERIENCE = "experience"
    """Base works on the tasks to learn from; counted in cells."""
    LEARNING = "learning"
    """Adapters are trained and memories filled; counted by arm, seed and repository."""
    EVALUATION = "evaluation"
    """Every arm works on the tasks that count; counted in cells."""


@dataclass(frozen=True)
class RunPhase:
    name: PhaseName
    done: int
    planned: int


def phases(run: RunView) -> list[RunPhase]:
    evaluated = {cell for arm in run.manifest.plan.arms for cell in run.cells(arm.name)}
    ended = {verdict.cell for verdict in run.verdicts} & run.planned_cells
    planned = {
        PhaseName.EXPERIENCE: len(run.planned_cells - evaluated),
        PhaseName.LEARNING: _consolidations_planned(run),
        PhaseName.EVALUATION: len(run.planned_cells & evaluated),
    }
    done = {
        PhaseName.EXPERIENCE: len(ended - evaluated),
        PhaseName.LEARNING: min(len({made.key for made in run.consolidations}), planned[PhaseName.LEARNING]),
        PhaseName.EVALUATION: len(ended & evaluated),
    }
    if done[PhaseName.EVALUATION]:
        # It begins when all others are over, whatever of them a later version of the code would have planned.
        planned |= {name: done[name] for name in (PhaseName.EXPERIENCE, PhaseName.LEARNING)}
    return [RunPhase(name, done[name], planned[name]) for name in PhaseName if planned[name]]


def _consolidations_planned(run: RunView) -> int:
    """Of every arm that learns one for each seed, round, and repository where it has one of its own."""
    plan = run.manifest.plan
    if plan.experience is None or not plan.sources:
        return 0
    repositories = len(set(map(repository_of, run.tasks)))
    return sum(
        len(plan.seeds_of(arm)) * learning.rounds * (1 if learning.strategy else repositories)
        for _, arm, learning in plan.learners
        if learning.needs_experience
    )


def phases_left(run: RunView, found: Sequence[RunPhase], now: float) -> list[TimeLeft | None]:
    """Of each phase alone, from what this process has done of it: what one phase took is no measure for another. None where nothing
    is left, nobody is at it, or nothing of it was measured yet. `now` in seconds since 1970."""
    left: list[TimeLeft | None] = [None] * len(found)
    if run.writer is None or not run.sessions:
        return left
    session = run.sessions[-1]
    begun = datetime.fromisoformat(session.begun).timestamp()
    gathered = next((phase.done for phase in found if phase.name is PhaseName.EXPERIENCE), 0)
    before = min(session.done_before, gathered)
    # The evaluation begins with the last proof, or where there is nothing to prove with the last that was learned. Where an arm
    # failed at work a proof of that was recorded in the middle of it, so the file's time says nothing of the beginning.
    failed_at_work = any(proof.kind is ProofKind.ACTS for proof in run.proofs)
    learned = written(run.folder, "consolidations.jsonl", *([] if failed_at_work else ["proofs.jsonl"]))
    since = {
        PhaseName.EXPERIENCE: (begun, before),
        PhaseName.EVALUATION: (max(begun, learned), session.done_before - before),
    }
    timed, ended = _timed_cells(run), {verdict.cell for verdict in run.verdicts}
    evaluated = {arm.name for arm in run.manifest.plan.arms}
    # Those of an arm that failed later took their time as well, though the run is not held to them any more.
    of_failed = sum(arm_of(cell) in evaluated for cell in ended - run.planned_cells)
    for at, phase in enumerate(found):
        if phase.done >= phase.planned:
            continue
        if phase.name is PhaseName.LEARNING:
            # An adapter may take a thousand times as long as a memory, so nothing is said before every arm has made one.
            learners = run.manifest.plan.learners
            needing = {arm.name for _, arm, learning in learners if learning.needs_experience}
            if {made.arm for made in run.consolidations} != needing:
                break
            took = [made.seconds for made in run.consolidations]
            seconds, off = fmean(took) * (phase.planned - phase.done), _varies(took)
        else:
            start, earlier = since[phase.name]
            of_phase = phase.name is PhaseName.EVALUATION
            count = phase.done + (of_failed if of_phase else 0) - earlier
            if count < ENOUGH:
                break
            rest = [cell for cell in run.planned_cells - ended if (arm_of(cell) in evaluated) is of_phase]
            expected = _expected(run.manifest.plan.selection.suite, timed[-count:], rest)
            if expected is None:
                break
            share, off = expected
            seconds = max(0.0, now - start) * share
        left[at] = TimeLeft(seconds, seconds / (1 + off), seconds * (1 + off))
    return left


def _expected(
    suite: Suite, done: Sequence[tuple[str, float]], rest: Sequence[str]
) -> tuple[float, float] | None:
    """How long cells that are left will take, each as long as those of its repository did, as a multiple of what the ones that are done
    took; and by what factor beside 1 that may be off. None where nothing can be said of repositories that none was of yet: too few
    others were seen, or they are real ones, whose tests take a second or half an hour."""
    took = grouped((_repository(cell), seconds) for cell, seconds in done)
    means = {repository: fmean(seconds) for repository, seconds in took.items()}
    every = fmean(seconds for _, seconds in done) if done else 0.0
    new = sum(_repository(cell) not in means for cell in rest)
    if not every or (new and (suite in REAL_SUITES or len(means) < ENOUGH)):
        return None
    share = sum(means.get(_repository(cell), every) for cell in rest) / (every * len(done))
    unlike = 2 * _relative_spread(list(means.values())) * new / len(rest) if new else 0.0
    return share, _varies([seconds for _, seconds in done]) + unlike


def _timed_cells(run: RunView) -> list[tuple[str, float]]:
    """Every rollout that was judged, with the seconds that both took, in the order of verdicts."""
    return [
        (verdict.cell, run.ends[key].wall_s + verdict.wall_s)
        for verdict in run.verdicts
        if (key := (verdict.cell, verdict.attempt)) in run.ends
    ]


def _repository(cell: str) -> str:
    return repository_of(task_id_of(cell))


def _varies(seconds: Sequence[float]) -> float:
    """By what factor beside 1 an estimate may be off, from how the means of stretches of the past differ: tasks, arms and whatever
    else a machine does change from stretch to stretch, so that cells are no independent draws."""
    parts = min(STRETCHES, len(seconds))
    means = [
        fmean(seconds[len(seconds) * part // parts : len(seconds) * (part + 1) // parts])
        for part in range(parts)
    ]
    return DRIFT + 2 * _relative_spread(means)


def _relative_spread(values: Sequence[float]) -> float:
    return stdev(values) / fmean(values) if len(values) > 1 and fmean(values) else 1.0


def _together(found: Sequence[RunPhase], left: Sequence[TimeLeft | None]) -> TimeLeft | None:
    """Until the last cell has its end. None where nobody is at it, or a phase that is left was not measured yet."""
    wanted = [each for phase, each in zip(found, left, strict=True) if phase.done < phase.planned]
    known = [each for each in wanted if each is not None]
    if not wanted or len(known) < len(wanted):
        return None
    return TimeLeft(*(sum(getattr(each, part) for each in known) for part in ("seconds", "low", "high")))


def at_work(run: RunView) -> list[tuple[str, int, int]]:
    """Cell, attempt and recorded steps of each rollout that has begun and has no verdict; nothing where nobody is at it. What an
    earlier process left has to wait for its turn: of more than are worked on side by side, these are the ones with the latest steps."""
    if run.writer is None:
        return []
    over = {(verdict.cell, verdict.attempt) for verdict in run.verdicts}
    begun = [
        (key, entry.places)
        for key, entry in run.followed().attempts.items()
        if key not in over and key[0] in run.planned_cells
    ]
    workers = run.sessions[-1].workers if run.sessions else len(begun)
    latest = sorted(begun, key=lambda found: found[1][-1:])[-workers:]
    return [(*key, len(places)) for key, places in latest]


def nodes(run: RunView) -> list[dict[str, Any]]:
    """The machines of a cluster that a run worked on, or would have: cells with an end and infrastructure errors of each, and where it
    stands in the newest session, `before` where that has not come to it. Empty for a run of one machine."""
    begun = run.sessions[-1].begun if run.sessions else ""
    cells = Counter(verdict.node for verdict in run.final.values() if verdict.outcome.is_verdict)
    errors = Counter(verdict.node for verdict in run.verdicts if verdict.outcome is Outcome.INFRA_ERROR)
    last = {found.address: found for found in run.nodes}
    addresses = sorted({*last, *(node for node in (*cells, *errors) if node)})
    return [
        {
            "node": address,
            "state": found.state.value if (found := last.get(address)) and found.at >= begun else "before",
            "said": found.said if found else "",
            "cells": cells[address],
            "infra_errors": errors[address],
        }
        for address in addresses
    ]


def nodes_text(status: Mapping[str, Any], most: int) -> str:
    """A run's machines in a line, those that take no cells first, and how many cells wait; empty for a run of one machine."""
    ordered = sorted(status["nodes"], key=lambda one: (one["state"] == NodeState.READY, -one["cells"]))
    told = [
        f"{one['node']} {counted(one['cells'], 'cell')}"
        + (f" and {counted(one['infra_errors'], 'infra error')}" if one["infra_errors"] else "")
        + (f" ({one['state']})" if one["state"] != NodeState.READY else "")
        for one in ordered[:most]
    ]
    if len(ordered) > most:
        told.append(f"{len(ordered) - most} more")
    waiting = f"; {counted(status['queued'], 'cell')} not begun" if status["queued"] else ""
    return f"{counted(len(ordered), 'node')}: {', '.join(told)}{waiting}" if told else ""


def resume_command(
    run: RunView, *, of_what_is_left: bool = False, arms: Sequence[str] | None = None, more: str = ""
) -> str:
    """The command that goes on with a run, from the folder where this process is: as it was last given, or so that cells are left for it,
    or for these arms, all of them where none is named; `more` stands at its end."""
    plan = run.manifest.plan
    if not run.sessions or not run.sessions[-1].command:  # Of a version that did not record it.
        if plan.is_grading:
            return f"looper bench verify {quote(plan.profile)} --suite {plan.selection.suite}"
        return f"looper run {quote(plan.experiment)} --profile {quote(plan.profile)}"
    last = run.sessions[-1]
    here = last.where in ("", current_folder())
    command = _of_this_folder(run, last.command)
    command = _with_what_is_left(run, command) if of_what_is_left else command
    command = _of_arms(command, arms) if arms is not None else command
    command += f" {more}" if more else ""
    command = as_called(command, here=here)
    return command if here else f"cd {quote(last.where)} && {command}"


def _of_this_folder(run: RunView, command: str) -> str:
    """Where a folder was renamed or copied, the run that its command names is another."""
    words = split(command)
    for at, word in enumerate(words[:-1]):
        if word == "--run":
            words[at + 1] = run.folder.name
    return join(words)


def _with_what_is_left(run: RunView, command: str) -> str:
    """Without its `--arm`, where all cells of those arms have an end and others do not: it would do nothing."""
    words = split(command)
    asked = {words[at + 1] for at, word in enumerate(words[:-1]) if word == "--arm"}
    cells = {cell for arm in run.manifest.plan.arms if arm.name in asked for cell in run.cells(arm.name)}
    if not cells or run.finished == run.planned or not cells <= {verdict.cell for verdict in run.verdicts}:
        return command
    return _of_arms(command, ())


def _of_arms(command: str, names: Sequence[str]) -> str:
    """A command for these arms in place of those that it names, or for all."""
    words = split(command)
    places = [at for at, word in enumerate(words[:-1]) if word == "--arm"]
    rest = [word for at, word in enumerate(words) if at not in places and at - 1 not in places]
    return join([*rest, *(word for name in names for word in ("--arm", name))])


def goes_on_with(run: RunView) -> str | None:
    """The command that does more of a run that has cells left: of one that a gate holds up, what the other arms have left. None where
    that gate would stop it before its next cell."""
    held = [stop for stop in run.stopped_by if stop.gate.is_of_the_records]
    if not held:
        return resume_command(run, of_what_is_left=True)
    others = _arms_beside(run, held)
    return resume_command(run, arms=others) if others else None


def passes_over_with(run: RunView) -> str | None:
    """The command that passes over what holds a run up, with a reason that is to be filled in; None where nothing does, or not all of it
    can be passed over. What was gathered stays."""
    gates = {
        None if stop.value == 0 else stop.gate.override
        for stop in run.stopped_by
        if stop.gate.is_of_the_records
    }
    if not gates or None in gates:
        return None
    over = " ".join(f'--override {gate.value}="…"' for gate in gates if gate is not None)
    return resume_command(run, arms=(), more=over)


def _arms_beside(run: RunView, held: Sequence[GateStop]) -> list[str]:
    """Arms with cells left that such gates do not ask about. What is too little for one arm to learn from is so for all that learn."""
    stopped = {stop.arm for stop in held}
    learning = any(stop.seed is not None for stop in held)
    return [
        arm.name
        for arm in run.manifest.plan.arms
        if arm.name not in stopped
        and not (learning and arm.learning is not None and arm.learning.needs_experience)
        and any(cell in run.planned_cells and cell not in run.final for cell in run.cells(arm.name))
    ]


def go_on_text(status: Mapping[str, Any]) -> str:
    """What its command does with a run that nobody is at."""
    if not status["stopped_by"]:
        return "go on with"
    return "go on with the other arms" if status["stops_again"] else "once that is put right, go on with"


def go_on_lines(status: Mapping[str, Any]) -> Iterator[str]:
    """Of a run that nobody is at: what holds it up, and what to type."""
    yield from status["stopped_by"]
    if status["passes_over_with"]:
        yield f"pass it over with: {status['passes_over_with']}"
    if status["goes_on_with"]:
        yield f"{go_on_text(status)}: {status['goes_on_with']}"


def described(run: RunView) -> dict[str, Any]:
    """One run for machines, now: counts and times, nothing that a model or a task said."""
    counts = _counts(run)
    return {**_told(counts), **_clocks(run, counts["phases"], time.time())}


def _counts(run: RunView) -> dict[str, Any]:
    return {
        "run": run.folder.name,
        "experiment": run.manifest.plan.experiment,
        "profile": run.manifest.plan.profile,
        "run_hash": run.manifest.run_hash(),
        "finished": run.finished,
        "planned": run.planned,
        "pilot": pilot_text(run.manifest.plan, run.tasks),
        "tokens": whole_sum(end.tokens for end in run.trajectories),
        "damaged_records": len(run.damage),
        "arms": _arms(run),
        "nodes": nodes(run),
        "phases": phases(run),
    }


def _told(counts: Mapping[str, Any]) -> dict[str, Any]:
    found = counts["phases"]
    told = [{"phase": each.name.value, "done": each.done, "planned": each.planned} for each in found]
    return {**counts, "phases": told}


def _clocks(run: RunView, found: Sequence[RunPhase], now: float) -> dict[str, Any]:
    left, stands, working = phases_left(run, found, now), standing(run, now), at_work(run)
    # Going on with a run that lost what it had would measure it anew and call it the same.
    open_to_all = stands is RunStatus.STOPPED and not any(isinstance(one, Shortened) for one in run.damage)
    return {
        "standing": stands.value,
        "goes_on_with": goes_on_with(run) if open_to_all else None,
        "stopped_by": stop_lines(run),
        # The same command, whatever is put right outside of the run.
        "stops_again": any(stop.gate.is_of_the_records for stop in run.stopped_by),
        "passes_over_with": passes_over_with(run) if open_to_all else None,
        "damage": damage_lines(run),
        "writer": run.writer,
        "quiet_s": round(quiet_s(run, now), 1),
        "left_s": _as_list(_together(found, left)),
        "phases_left_s": list(map(_as_list, left)),
        "at_work": [{"cell": cell, "attempt": attempt, "steps": steps} for cell, attempt, steps in working],
        "queued": max(0, run.planned - run.finished - len(working)) if run.writer else None,
    }


def _as_list(left: TimeLeft | None) -> list[int] | None:
    return None if left is None else [round(left.seconds), round(left.low), round(left.high)]


def _arms(run: RunView) -> list[dict[str, Any]]:
    """What each arm's cells came to, in one pass over them: this is looked at every second."""
    late = Counter(end.arm for end in run.trajectories if end.stop_reason is StopReason.TIME_LIMIT)
    found = []
    for arm in run.manifest.plan.arms:
        cells = run.cells(arm.name)
        counts = Counter(run.final[cell].outcome for cell in cells if cell in run.final)
        found.append(
            {
                "arm": arm.name,
                "cells": len(cells),
                "resolved": counts[Outcome.RESOLVED],
                "attempted": sum(count for outcome, count in counts.items() if outcome.is_verdict),
                "infra_errors": counts[Outcome.INFRA_ERROR],
                "time_limits": late[arm.name],
            }
        )
    return found


class Projection:
    """All runs below a folder. Safe for several threads."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self._tails: dict[str, RunTail] = {}
        self._counted: dict[str, tuple[RunView, dict[str, Any]]] = {}
        self._lock = threading.Lock()

    def read(self) -> tuple[list[RunView], list[str]]:
        """Every run, the one that was begun last at the end, and what is wrong with those that cannot be read: a damaged one does not
        hide the others."""
        with self._lock:
            found, unreadable = [], []
            folders = run_folders(self.runs)
            for gone in self._tails.keys() - {folder.name for folder in folders}:
                del self._tails[gone]
            for folder in folders:
                try:
                    found.append(self._read(folder))
                except BadInput as error:
                    unreadable.append(str(error))
                except OSError as error:
                    unreadable.append(f"{folder} cannot be read: {error.strerror}.")
            return found, unreadable

    def run(self, name: str) -> RunView | None:
        """None where there is no such run. Raises BadInput for one that cannot be read."""
        with self._lock:
            # Looked up among what is there: no part of a name is ever joined to a path.
            folder = next((path for path in run_folders(self.runs) if path.name == name), None)
            return None if folder is None else self._read(folder)

    def _read(self, folder: Path) -> RunView:
        tail = self._tails.setdefault(folder.name, RunTail(folder))
        tail.refresh()
        return tail.view()

    def status(self) -> dict[str, Any]:
        """What `looper status --json` prints."""
        views, unreadable = self.read()
        return {"runs": [self.described(view) for view in views], "unreadable": unreadable}

    def described(self, run: RunView) -> dict[str, Any]:
        """One run now. What was counted of a view that is still the latest is not counted again."""
        kept, counts = self._counted.get(run.folder.name, (None, {}))
        if kept is not run:
            counts = _counts(run)
            self._counted[run.folder.name] = run, counts
        return {**_told(counts), **_clocks(run, counts["phases"], time.time())}
