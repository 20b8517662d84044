"""A run as a board: which cell came out how, where arms lie, what can be picked from."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from looper.records.verdict import Outcome
from looper.views.runs import RunView

MARKS = {
    Outcome.RESOLVED: "y",
    Outcome.UNRESOLVED: "n",
    Outcome.TAMPERED: "t",
    Outcome.INFRA_ERROR: "e",
    Outcome.CANCELLED: "e",
}
LISTED = 200
"""Cells on one list."""


@dataclass(frozen=True)
class CellSquare:
    """One cell on the map."""

    cell: str
    mark: str
    """y resolved, n not, t tampered, e without a verdict, empty for to do."""
    said: str


def squares(run: RunView) -> Iterator[tuple[str, list[CellSquare]]]:
    """One row for each arm and seed, one square for each task in the order of the sequence."""
    final = run.final
    for arm in run.manifest.plan.arms:
        seeds = run.manifest.plan.seeds_of(arm)
        for seed in seeds:
            row = []
            for task in run.tasks:
                name = f"{arm.name}/{seed}/{task}"
                verdict = final.get(name)
                mark = MARKS[verdict.outcome] if verdict else ""
                row.append(CellSquare(name, mark, f"{task}: {verdict.outcome.value if verdict else 'to do'}"))
            yield (f"{arm.name} · {seed}" if len(seeds) > 1 else arm.name), row


@dataclass(frozen=True)
class CellRow:
    """One cell on the list."""

    cell: str
    outcome: str
    """Empty for to do."""
    cause: str
    steps: int | None
    seconds: float | None


def cell_rows(run: RunView, arm: str, outcome: str, text: str) -> tuple[list[CellRow], int]:
    """Cells that are asked for, the first `LISTED` of them, and how many there are; empty words ask for everything."""
    found: list[CellRow] = []
    count = 0
    for name in sorted(run.planned_cells):
        verdict = run.final.get(name)
        came = verdict.outcome.value if verdict else ""
        if arm and name.partition("/")[0] != arm:
            continue
        if outcome and outcome != (came or "to do"):
            continue
        if text.lower() not in name.lower():
            continue
        count += 1
        if len(found) < LISTED:
            end = run.ends.get((name, verdict.attempt)) if verdict else None
            found.append(
                CellRow(
                    name,
                    came,
                    verdict.cause if verdict else "",
                    end.steps if end else None,
                    end.wall_s + verdict.wall_s if end and verdict else None,
                )
            )
    return found, count


@dataclass(frozen=True)
class Bar:
    """One difference with its interval, in per cent of the width."""

    name: str
    at: float
    low: float
    high: float
    said: str
    registered: bool


def bars(run: RunView) -> tuple[list[Bar], float, float]:
    """Differences from base that were measured, where 0 lies, and points at the right edge."""
    registered = {(found.arm, found.against) for found in run.manifest.plan.contrasts}
    rows = [
        (arm, base, found)
        for arm, base, found in run.contrasts
        if found is not None and arm not in run.failed_arms
    ]
    if not rows:
        return [], 50.0, 0.0
    edge = max(0.1, *(abs(end) for *_, found in rows for end in found.interval()))

    def place(share: float) -> float:
        return round(50 + 50 * share / edge, 2)

    found_bars = [
        Bar(
            f"{arm} − {base}",
            place(found.difference),
            place(low),
            place(high),
            f"{100 * found.difference:+.1f} points, 95 % {100 * low:+.1f} to {100 * high:+.1f}, {found.pairs} pairs",
            (arm, base) in registered,
        )
        for arm, base, found in rows
        for low, high in [found.interval()]
    ]
    return found_bars, 50.0, 100 * edge


def over_the_sequence(run: RunView, arm: str) -> list[float]:
    """Share resolved of the first n tasks; tasks without a verdict are left out."""
    tasks = by_task(run.outcomes(arm))
    values = [fmean(tasks[task]) for task in run.tasks if task in tasks]
    return [fmean(values[: number + 1]) for number in range(len(values))]


def by_task(outcomes: Mapping[str, bool]) -> dict[str, list[bool]]:
    found: dict[str, list[bool]] = {}
    for where, resolved in outcomes.items():
        found.setdefault(where.partition("/")[2], []).append(resolved)
    return found


def curves(run: RunView) -> dict[str, Any]:
    """For a chart: share resolved over the sequence by arm, and losses of each training by iteration."""
    losses: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for told in run.trainings:
        event = told.event
        if event.event in ("loss", "validation") and event.loss is not None:
            losses.setdefault(told.what, {"loss": [], "validation": []})[event.event].append(
                (event.iteration, event.loss)
            )
    shares = {
        arm.name: [round(value, 4) for value in over_the_sequence(run, arm.name)]
        for arm in run.manifest.plan.arms
        if arm.name not in run.failed_arms
    }
    return {
        "shares": {name: values for name, values in shares.items() if values},
        "losses": [
            {"what": what, "loss": found["loss"], "validation": found["validation"]}
            for what, found in losses.items()
        ],
    }


@dataclass(frozen=True)
class TaskRow:
    """One task of a run."""

    task: str
    difficulty: int | None
    leaked: bool
    """Its issue quotes half of its fix or more."""
    resolved: int
    judged: int
    eligible: str
    """Whether it can tell right from wrong on this machine, where that was tried; else empty."""


def task_rows(run: RunView, eligible: Mapping[str, str]) -> list[TaskRow]:
    leaked, outcomes = set(run.manifest.leaked), dict[str, list[bool]]()
    for verdict in run.final.values():
        if verdict.outcome.is_verdict:
            outcomes.setdefault(verdict.instance_id, []).append(verdict.outcome is Outcome.RESOLVED)
    return [
        TaskRow(
            task,
            run.manifest.difficulty.get(task),
            task in leaked,
            sum(outcomes.get(task, [])),
            len(outcomes.get(task, [])),
            eligible.get(task, ""),
        )
        for task in run.tasks
    ]
