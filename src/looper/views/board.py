"""A run as a board: which cell came out how, where arms lie, what can be picked from.

For pages, whose parts are asked for one at a time: everything here is plain data that a template lays out, and filters, orders and
pages are taken from the address.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log10
from statistics import fmean
from typing import Any

from looper.metrics.registered import DECIDED
from looper.records.base import grouped
from looper.records.plan import Metric, arm_of
from looper.records.text import counted
from looper.records.trajectory import StopReason
from looper.records.verdict import Outcome, Verdict
from looper.views.findings import (
    arm_rows,
    asked_text,
    finding_text,
    share_text,
    standing_of,
    unfinished_text,
)
from looper.views.live import at_work
from looper.views.plots import COLOURS
from looper.views.runs import RunView, by_task

MARKS = {
    Outcome.RESOLVED: "y",
    Outcome.UNRESOLVED: "n",
    Outcome.TAMPERED: "t",
    Outcome.INFRA_ERROR: "e",
    Outcome.CANCELLED: "e",
}
FAILED = (Outcome.UNRESOLVED, Outcome.TAMPERED, Outcome.INFRA_ERROR)
LISTED = 50
"""Cells on one page of the list."""
AT_WORK, TO_DO = "at work", "to do"
"""In place of an outcome: a rollout that has begun, and none."""
FAILED_ONES = "failed"
"""To be asked for in place of an outcome: everything in `FAILED`."""
NO_VERDICT = "without a verdict"
"""To be asked for in place of an outcome: to do, at work, cancelled, or an infrastructure error."""
JUDGED = frozenset(outcome.value for outcome in Outcome if outcome.is_verdict)


def arm_colours(run: RunView) -> dict[str, str]:
    """Of every arm and choice the colour that it has wherever it is drawn, by its place in the plan."""
    names = [*(arm.name for arm in run.manifest.plan.arms), *run.choice_names]
    return {name: COLOURS[at % len(COLOURS)] for at, name in enumerate(names)}


@dataclass(frozen=True)
class CellSquare:
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
                row.append(CellSquare(name, mark, f"{name}: {verdict.outcome.value if verdict else TO_DO}"))
            yield (f"{arm.name} · {seed}" if len(seeds) > 1 else arm.name), row


@dataclass(frozen=True)
class CellRow:
    cell: str
    outcome: str
    """`AT_WORK` or `TO_DO` where there is none yet."""
    cause: str
    """As `why_text` has it."""
    steps: int | None
    tokens: int | None
    """Of prompts and replies together; None where they were not counted."""
    agent_s: float | None
    """Seconds of the rollout alone, as tables of arms have them."""
    seconds: float | None
    """Of the rollout with its verification."""


@dataclass(frozen=True)
class CellQuery:
    arm: str = ""
    """Empty for all, as the next two."""
    outcome: str = ""
    """Or `FAILED_ONES`, or `NO_VERDICT`."""
    find: str = ""
    """Part of a cell's name, or of why it failed, whatever its case."""
    sort: str = "cell"
    """A key of `SORTED`; "cell" is the order of the plan."""
    descending: bool = False
    page: int = 1


@dataclass(frozen=True)
class CellPage:
    rows: list[CellRow]
    count: int
    """Cells that are asked for, on all pages."""
    page: int
    """From 1."""
    pages: int


SORTED: dict[str, Callable[[CellRow], Any]] = {
    "cell": lambda row: 0,
    "task": lambda row: row.cell.partition("/")[2].partition("/")[2],
    "outcome": lambda row: row.outcome,
    "steps": lambda row: row.steps,
    "tokens": lambda row: row.tokens,
    "agent_s": lambda row: row.agent_s,
    "seconds": lambda row: row.seconds,
    "why": lambda row: row.cause or None,
}
"""What a list of cells can be sorted by; what has no such figure comes last."""


def listed_cells(run: RunView) -> list[str]:
    """Every planned cell by arm, seed and task in the order of the plan; experience comes after the arms of the plan."""
    names = [
        name for arm in run.manifest.plan.arms for name in run.cells(arm.name) if name in run.planned_cells
    ]
    return names + sorted(run.planned_cells - set(names))


def as_failures(run: RunView, cells: Sequence[str]) -> list[str]:
    """Cells in the order in which their failures are worth a look: those of arms that must fail come last."""
    must_fail = {arm.name for arm in run.manifest.plan.arms if arm.model.backend == "noop"}
    return sorted(cells, key=lambda cell: arm_of(cell) in must_fail)


def next_failed(run: RunView, cell: str = "", wanted: CellQuery = CellQuery()) -> str | None:
    """The next failed cell of those that are asked for, `as_failures`, from the first after `cell` on and once around; None where there
    is no other, and without a `cell` the first. How a list is sorted plays no part."""
    names = [
        name
        for name in as_failures(run, listed_cells(run))
        if name == cell or ((found := run.final.get(name)) is not None and _is_failure(run, found, wanted))
    ]
    at = names.index(cell) + 1 if cell in names else 0
    return next((name for name in names[at:] + names[:at] if name != cell), None)


def cell_page(run: RunView, wanted: CellQuery) -> CellPage:
    """The cells that are asked for, `LISTED` on a page, as `listed_cells`, or where failed ones are asked for `as_failures`."""
    names = listed_cells(run)
    if wanted.outcome == FAILED_ONES:
        names = as_failures(run, names)
    begun = {cell: steps for cell, _, steps in at_work(run)}
    rows = [
        row
        for name in names
        for row in [_cell_row(run, name, begun)]
        if _is_asked(name, row.outcome, row.cause, wanted)
    ]
    by = SORTED.get(wanted.sort, SORTED["cell"])
    known = sorted((row for row in rows if by(row) is not None), key=by, reverse=wanted.descending)
    if wanted.sort == "cell" and wanted.descending:
        known = rows[::-1]
    rows = known + [row for row in rows if by(row) is None]
    pages = max(1, ceil(len(rows) / LISTED))
    page = min(max(1, wanted.page), pages)
    return CellPage(rows[(page - 1) * LISTED : page * LISTED], len(rows), page, pages)


def arms_with_cells(run: RunView) -> list[str]:
    """What a list of cells can be narrowed to: the arms that are compared, then those that gather experience."""
    return [arm.name for arm in run.manifest.plan.every_arm if run.cells(arm.name)]


def only_experience(run: RunView) -> dict[str, int]:
    """Of each arm that gathers experience how many of its cells have an end, while no cell that is compared has one; empty otherwise."""
    ended = Counter(map(arm_of, run.final))
    if any(ended[arm.name] for arm in run.manifest.plan.arms):
        return {}
    return {name: ended[name] for name in run.gathering if ended[name]}


def why_text(run: RunView, found: Verdict) -> str:
    """Why a cell ended as it did: what ended its rollout, where that was not the agent, and what the verdict says; empty where it is
    resolved and the agent ended it."""
    end = run.ends.get((found.cell, found.attempt))
    by_itself = end is None or end.stop_reason in (StopReason.DONE, StopReason.IMPORTED)
    return ": ".join(filter(None, ("" if by_itself or end is None else end.stop_reason.value, found.cause)))


def _is_failure(run: RunView, found: Verdict, wanted: CellQuery) -> bool:
    return found.outcome in FAILED and _is_asked(
        found.cell, found.outcome.value, why_text(run, found), wanted
    )


def _is_asked(name: str, outcome: str, cause: str, wanted: CellQuery) -> bool:
    text = wanted.find.lower()
    return (
        wanted.arm in ("", arm_of(name))
        and (
            wanted.outcome in ("", outcome)
            or (wanted.outcome == FAILED_ONES and outcome in FAILED)
            or (wanted.outcome == NO_VERDICT and outcome not in JUDGED)
        )
        and (text in name.lower() or text in cause.lower())
    )


def _cell_row(run: RunView, name: str, begun: Mapping[str, int]) -> CellRow:
    verdict = run.final.get(name)
    if verdict is None:
        return CellRow(name, AT_WORK if name in begun else TO_DO, "", begun.get(name), None, None, None)
    end = run.ends.get((name, verdict.attempt))
    return CellRow(
        name,
        verdict.outcome.value,
        why_text(run, verdict),
        end.steps if end else None,
        end.tokens if end else None,
        end.wall_s if end else None,
        end.wall_s + verdict.wall_s if end else None,
    )


@dataclass(frozen=True)
class Bar:
    """One difference with its interval, in per cent of the width."""

    name: str
    at: float
    low: float
    high: float
    said: str
    decided: bool
    """Registered before the data, by a plan that is no pilot for it, and the run is over: filled."""
    colour: str
    """Of its first arm."""


@dataclass(frozen=True)
class Bars:
    """Differences beside each other on one axis."""

    rows: list[Bar]
    ticks: list[tuple[float, str]]
    """Places in per cent of the width, and points."""


def bars(run: RunView) -> Bars:
    """Registered differences of what was resolved, with the interval that decides them once the run is over; then what else was
    measured against base. Each says what of it was registered, and what came of that."""
    over = run.finished >= run.planned
    # Name, first arm, difference, interval, what is said of it, whether it is decided.
    found: list[tuple[str, str, float, tuple[float, float], str, bool]] = []
    drawn = set()
    for one in run.registered if over else ():
        each, ends, contrast = one.difference, one.interval, one.contrast
        if contrast.metric is Metric.RESOLVED and each is not None and ends is not None:
            drawn.add(frozenset(contrast.arms))
            said = f"{asked_text(contrast)}, {finding_text(run, one)}"
            level, filled = share_text(one.confidence), one.finding in DECIDED
            said = f"{_points(each.difference, ends, level, each.pairs)}, registered{said}"
            found.append((contrast.name, contrast.arm, each.difference, ends, said, filled))
    for arm, base, other in run.contrasts:
        if other is not None and arm not in run.failed_arms and frozenset((arm, base)) not in drawn:
            ends = other.interval()
            said = f"{_points(other.difference, ends, '95 %', other.pairs)}, {standing_of(run, arm, base)}{unfinished_text(run)}"
            found.append((f"{arm} − {base}", arm, other.difference, ends, said, False))
    edge = _round_edge(max((abs(end) for each_one in found for end in each_one[3]), default=0.0))
    colours = arm_colours(run)

    def place(share: float) -> float:
        return round(50 + 50 * share / edge, 2)

    rows = [
        Bar(
            name,
            place(value),
            place(low),
            place(high),
            said,
            filled,
            colours[arm],
        )
        for name, arm, value, (low, high), said, filled in found
    ]
    ticks = [
        (place(edge * part), f"{100 * edge * part:+.3g}" if part else "0") for part in (-1, -0.5, 0, 0.5, 1)
    ]
    return Bars(rows, ticks)


def _points(value: float, ends: tuple[float, float], level: str, pairs: int) -> str:
    low, high = ends
    return f"{100 * value:+z.1f} points, {level} {100 * low:+z.1f} to {100 * high:+z.1f}, {counted(pairs, 'pair')}"


def _round_edge(share: float) -> float:
    """The next round number of points: 1, 2 or 5 times a power of ten, at least ten points."""
    points = max(10.0, 100 * share)
    power = 10.0 ** int(log10(points))
    return next(step * power for step in (1, 2, 5, 10) if points <= step * power) / 100


def over_the_sequence(run: RunView, arm: str) -> list[float]:
    """Share resolved of the first n tasks; tasks without a verdict are left out."""
    tasks = by_task(run.outcomes(arm).items())
    values = [fmean(tasks[task]) for task in run.tasks if task in tasks]
    return [fmean(values[: number + 1]) for number in range(len(values))]


def curves(run: RunView) -> dict[str, Any]:
    """For a chart: share resolved over the sequence by arm, each arm's colour and rate as everywhere, and losses of each training by
    iteration."""
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
        "colours": arm_colours(run),
        "rates": {row[0]: row[2] for row in arm_rows(run)},
        "losses": [
            {"what": what, "loss": found["loss"], "validation": found["validation"]}
            for what, found in losses.items()
        ],
    }


@dataclass(frozen=True)
class TaskRow:
    task: str
    difficulty: int | None
    leaked: bool
    """Its issue quotes half of its fix or more."""
    resolved: int
    judged: int
    eligible: str
    """Whether it can tell right from wrong on this machine, where that was tried; else empty."""


def task_rows(run: RunView, eligible: Mapping[str, str]) -> list[TaskRow]:
    leaked = set(run.manifest.leaked)
    outcomes = grouped(
        (verdict.instance_id, verdict.outcome is Outcome.RESOLVED)
        for verdict in run.final.values()
        if verdict.outcome.is_verdict
    )
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
