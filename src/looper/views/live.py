"""How far every run is, right now: the one projection behind `looper status`, `looper watch` and the pages.

It reads what runs write, whoever started them, takes no lock and writes nothing. Of a file it has seen, only what is new is read.
"""

import threading
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from math import sqrt
from pathlib import Path
from shlex import quote
from statistics import fmean, median, stdev
from typing import Any

from looper.errors import BadInput
from looper.records.trajectory import StopReason
from looper.records.verdict import Outcome
from looper.untrusted import current_folder
from looper.views.runs import RunTail, RunView, run_folders, written

QUIET_S = 60.0
"""A run that writes nothing for so long may still be well; it is called stalled after that, or after `QUIET_CELLS` cells' time."""
QUIET_CELLS = 3.0
ENOUGH = 3
"""Fewer cells say nothing about how long the rest will take."""


class RunStatus(StrEnum):
    """What a run is doing."""

    FINISHED = "finished"
    RUNNING = "running"
    STALLED = "stalled"
    """Somebody is at it, and nothing was written for much longer than a cell takes."""
    STOPPED = "stopped"
    """Nobody is at it, and cells are left: a command goes on with it."""


@dataclass(frozen=True)
class TimeLeft:
    """Seconds until the last cell has its end, with a 95 % interval."""

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
    return max(QUIET_S, QUIET_CELLS * median(_cell_seconds(run) or [0.0]))


def time_left(run: RunView, now: float) -> TimeLeft | None:
    """None where nobody is at it, or too little has ended since this process began."""
    if run.writer is None or not run.sessions:
        return None
    session = run.sessions[-1]
    done, rest = run.finished - session.done_before, run.planned - run.finished
    if done < ENOUGH or rest <= 0:
        return None
    each = max(0.0, now - datetime.fromisoformat(session.begun).timestamp()) / done
    seconds = _cell_seconds(run)[-done:]
    spread = stdev(seconds) / fmean(seconds) if len(seconds) > 1 and fmean(seconds) else 1.0
    off = min(0.95, 1.96 * spread / sqrt(done))
    return TimeLeft(each * rest, each * rest * (1 - off), each * rest * (1 + off))


def resume_command(run: RunView) -> str:
    """The command that goes on with a run, from the folder where this process is."""
    plan = run.manifest.plan
    if not run.sessions or not run.sessions[-1].command:  # Of a version that did not record it.
        if plan.is_grading:
            return f"looper bench verify {quote(plan.profile)} --suite {plan.selection.suite}"
        return f"looper run {quote(plan.experiment)} --profile {quote(plan.profile)}"
    last = run.sessions[-1]
    here = last.where in ("", current_folder())
    return last.command if here else f"cd {quote(last.where)} && {last.command}"


def _cell_seconds(run: RunView) -> list[float]:
    """Of each rollout with its verification, in the order of verdicts."""
    return [
        run.ends[key].wall_s + verdict.wall_s
        for verdict in run.verdicts
        if (key := (verdict.cell, verdict.attempt)) in run.ends
    ]


def described(run: RunView) -> dict[str, Any]:
    """One run for machines, now: counts and times, nothing that a model or a task said."""
    return {**_counts(run), **_clocks(run, time.time())}


def _counts(run: RunView) -> dict[str, Any]:
    return {
        "run": run.folder.name,
        "experiment": run.manifest.plan.experiment,
        "profile": run.manifest.plan.profile,
        "run_hash": run.manifest.run_hash(),
        "finished": run.finished,
        "planned": run.planned,
        "tokens": _tokens(run),
        "damaged_records": len(run.damage),
        "arms": _arms(run),
    }


def _clocks(run: RunView, now: float) -> dict[str, Any]:
    remaining, stands = time_left(run, now), standing(run, now)
    seconds = remaining and (remaining.seconds, remaining.low, remaining.high)
    return {
        "standing": stands.value,
        "goes_on_with": resume_command(run) if stands is RunStatus.STOPPED else None,
        "writer": run.writer,
        "quiet_s": round(quiet_s(run, now), 1),
        "left_s": list(map(round, seconds)) if seconds else None,
    }


def _tokens(run: RunView) -> int | None:
    """Prompts and replies of all rollouts together; None where some were not counted."""
    total = 0
    for end in run.trajectories:
        if end.prompt_tokens is None or end.completion_tokens is None:
            return None
        total += end.prompt_tokens + end.completion_tokens
    return total


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
        """Every run, the one written to last at the end, and what is wrong with those that cannot be read: a damaged one does not
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
        return {**counts, **_clocks(run, time.time())}
