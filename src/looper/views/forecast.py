"""What a plan will take and what it could see, from runs that are there.

Runs of the same model, suite and limits say how long a cell takes and how often equal arms differ. With too few of them nothing is
foretold, and what was measured is told beside a plan's own assumption and never put in its place.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev, variance
from typing import Any

from looper.metrics.design import design_of, is_pilot, power_at_interest, smallest_visible
from looper.metrics.paired import student, wilson
from looper.records.base import grouped
from looper.records.learning import Source
from looper.records.plan import AS_COMPUTED, REAL_SUITES, Arm, Plan, arm_of, task_id_of
from looper.records.text import counted
from looper.records.verdict import Outcome
from looper.views.findings import power_text
from looper.views.runs import RunView, read_runs
from looper.views.show import duration, shortened

ENOUGH = 3
"""Fewer cells say nothing about how long others will take."""


@dataclass(frozen=True)
class Estimate:
    """A mean over cells with its 95 % interval, by Student's t: over the cells of each arm, and where it has to stand for arms that
    were not measured over the means of those that were."""

    mean: float
    low: float
    high: float

    def times(self, factor: float) -> "Estimate":
        return Estimate(factor * self.mean, factor * self.low, factor * self.high)


@dataclass(frozen=True)
class MeasuredRun:
    """What an earlier run with the same model, suite and limits says about the next one."""

    run: str
    cells: int
    arms: tuple[str, ...]
    """Whose cells these are, by their names there."""
    unmeasured: int
    """Arms that are asked about and were not measured there."""
    rollout_s: Estimate
    """Of a rollout with its verification."""
    tokens: Estimate | None
    """Of prompt and completion together; None where they were not counted."""


def measured(runs: Path, plan: Plan, asked: Sequence[Arm] = ()) -> MeasuredRun | None:
    """From the run with the most cells of the arms that are asked about, by default the plan's; of equal ones the newest. Its base, or first
    arm, has to work with the same model and limits at tasks of the same suite; that arm stands for the others where it has none of
    them, and where its cells are too few those that gathered experience as it works. None where no run has enough cells."""
    found = [
        one for view in _newest(runs) if (one := _measured_in(view, plan, asked or plan.arms)) is not None
    ]
    return max(found, key=lambda one: one.cells, default=None)


def _measured_in(view: RunView, plan: Plan, asked: Sequence[Arm]) -> MeasuredRun | None:
    other, wanted, arm = view.manifest.plan, _main_arm(plan), _main_arm(view.manifest.plan)
    if arm.model != wanted.model or arm.scaffold != wanted.scaffold or not _alike(other, plan):
        return None
    # What an arm is called changes nothing of it.
    alike = {(each.config_hash(), plan.limits_of(each)) for each in asked}
    there = {each.name: (each.config_hash(), other.limits_of(each)) for each in other.every_arm}
    ends = {(end.cell, end.attempt): end for end in view.trajectories}
    cells = grouped(
        (end.arm, (end, found))
        for found in view.verdicts
        if (end := ends.get((found.cell, found.attempt))) is not None and end.arm in there
    )
    taken = [name for name in cells if there[name] in alike] or [arm.name]
    stands_in = alike - {there[name] for name in taken}
    if sum(len(cells.get(name, [])) for name in taken) < ENOUGH or (stands_in and arm.name not in taken):
        # What gathered experience worked with the same model and limits. Controls alone, which ask no model, stand for nobody else.
        gathers = [each for source, each in other.all_experience() if source is not Source.GUIDED]
        like_it = [each.name for each in gathers if (each.model, each.scaffold) == (arm.model, arm.scaffold)]
        taken = list(dict.fromkeys(name for name in [*taken, *like_it] if name in cells))
        if stands_in and not {arm.name, *like_it} & {*taken}:
            return None
    pairs = {name: cells.get(name, []) for name in taken}
    if (count := sum(map(len, pairs.values()))) < ENOUGH:
        return None
    unmeasured = sum(each not in {there[name] for name in taken} for each in alike)
    seconds = [[end.wall_s + found.wall_s for end, found in each] for each in pairs.values()]
    tokens = [[end.tokens for end, _ in each if end.tokens is not None] for each in pairs.values()]
    return MeasuredRun(
        run=view.folder.name,
        cells=count,
        arms=tuple(taken),
        unmeasured=unmeasured,
        rollout_s=_estimate(seconds, of_others=unmeasured > 0),
        tokens=_estimate(tokens, of_others=unmeasured > 0) if sum(map(len, tokens)) == count else None,
    )


def _estimate(by_arm: Sequence[Sequence[float]], *, of_others: bool) -> Estimate:
    """`of_others`: whether it has to stand for other arms too, so that arms are what was drawn, where there are several."""
    values = [value for each in by_arm for value in each]
    mean, arms = fmean(values), [fmean(each) for each in by_arm]
    if of_others and len(arms) > 1:
        off = student(0.95, len(arms) - 1) * stdev(arms) / sqrt(len(arms))
        return Estimate(mean, max(min(values), mean - off), mean + off)
    varies = [each for each in by_arm if len(each) > 1]
    freedom = sum(len(each) - 1 for each in varies)
    error = sqrt(sum(len(each) * variance(each) for each in varies)) / len(values)
    off = student(0.95, freedom) * error if freedom else 0.0
    # What was measured took no less than nothing.
    return Estimate(mean, max(min(values), mean - off), mean + off)


def _alike(other: Plan, plan: Plan) -> bool:
    """Of what is measured on their main arms."""
    ours, theirs = plan.selection, other.selection
    limits = other.limits_of(_main_arm(other)), plan.limits_of(_main_arm(plan))
    return (theirs.suite, theirs.level) == (ours.suite, ours.level) and limits[0] == limits[1]


@dataclass(frozen=True)
class MeasuredShare:
    """A share of cells in a run, with its 95 % interval."""

    run: str
    cells: int
    share: float
    low: float
    high: float


def runs_alike(runs: Path, plan: Plan) -> list[RunView]:
    """Those whose main arm works as this plan's, drawing its tokens in the same way, at the same repositories, or at others that are
    generated alike; whatever they are called, newest first."""
    return [view for view in _newest(runs) if _works_alike(view.manifest.plan, plan)]


def _works_alike(other: Plan, plan: Plan) -> bool:
    ways = [
        (arm.model, arm.scaffold, arm.temperature, arm.sampling or AS_COMPUTED)
        for arm in (_main_arm(plan), _main_arm(other))
    ]
    return ways[0] == ways[1] and _alike(other, plan) and _repositories(other) == _repositories(plan)


def _repositories(plan: Plan) -> set[str]:
    """Those that a plan names, by itself or by their tasks; none where it takes all of its suite, or a suite that is generated."""
    named = plan.selection
    if named.suite not in REAL_SUITES:
        return set()
    return {*named.repos, *(task.rpartition("-")[0].replace("__", "/") for task in named.tasks)}


def equal_arms(views: Iterable[RunView]) -> list[MeasuredShare]:
    return [found for view in views if (found := _share(view, _differing(view))) is not None]


def discordance(runs: Path, plan: Plan) -> MeasuredShare | None:
    """How often equal arms differed in the run with the most cells, of equal ones the newest."""
    return max(equal_arms(runs_alike(runs, plan)), key=lambda one: one.cells, default=None)


def resolved_by_base(views: Iterable[RunView], plan: Plan) -> MeasuredShare | None:
    """How often the plan's base resolved a task, in the run with the most cells of it, of equal ones the first."""
    wanted = plan.base
    found = [
        one
        for view in views
        if wanted is not None
        and (base := view.manifest.plan.base) is not None
        and (one := _share(view, list(view.outcomes(base.name).values()))) is not None
    ]
    return max(found, key=lambda one: one.cells, default=None)


@dataclass(frozen=True)
class MeasuredAttempts:
    """Attempts at the very tasks to learn from, in a run that gathered at them."""

    run: str
    stopped: bool
    """Whether a gate ended it."""
    of_task: dict[str, tuple[int, int]]
    """Resolved ones and all that have a verdict, by id."""

    @property
    def resolved(self) -> int:
        return sum(resolved for resolved, _ in self.of_task.values())

    @property
    def attempts(self) -> int:
        return sum(attempts for _, attempts in self.of_task.values())


def gathered_at(
    views: Iterable[RunView], plan: Plan, source: Source, tasks: Sequence[str]
) -> MeasuredAttempts | None:
    """What came of gathering from that source at these tasks, in the run of `views` with the most of such attempts, of equal ones the
    first. Its tasks have to be of the same suite, and tried at the same temperature."""
    found = [_gathered(view, source, tasks) for view in views if _gathers_alike(view.manifest.plan, plan)]
    return max((one for one in found if one.attempts >= ENOUGH), key=lambda one: one.attempts, default=None)


def _gathers_alike(other: Plan, plan: Plan) -> bool:
    ours, theirs = plan.selection, other.selection
    return (
        other.experience is not None
        and plan.experience is not None
        and other.experience.temperature == plan.experience.temperature
        and (theirs.suite, theirs.level, theirs.suite_seed) == (ours.suite, ours.level, ours.suite_seed)
    )


def _gathered(view: RunView, source: Source, tasks: Sequence[str]) -> MeasuredAttempts:
    arms = {arm.name for arm in view.manifest.plan.experience_arms(source)}
    outcomes = grouped(
        (task_id_of(cell), found.outcome is Outcome.RESOLVED)
        for cell, found in view.final.items()
        if arm_of(cell) in arms and found.outcome.is_verdict
    )
    wanted = {*tasks} & outcomes.keys()
    of_task = {name: (sum(outcomes[name]), len(outcomes[name])) for name in sorted(wanted)}
    return MeasuredAttempts(view.folder.name, bool(view.stopped_by), of_task)


def _differing(view: RunView) -> list[bool]:
    return [first != second for first, second in view.equal_pairs()]


def _share(view: RunView, cells: Sequence[bool]) -> MeasuredShare | None:
    if len(cells) < ENOUGH:
        return None
    hits = sum(cells)
    return MeasuredShare(view.folder.name, len(cells), hits / len(cells), *wilson(hits, len(cells)))


def _newest(runs: Path) -> Iterator[RunView]:
    yield from reversed(read_runs(runs))


def _main_arm(plan: Plan) -> Arm:
    return plan.base or plan.arms[0]


def time_lines(
    plan: Plan, wanted: Sequence[Arm], tasks: int, cells: int, workers: int, found: MeasuredRun | None
) -> Iterator[str]:
    """How long so many cells take, of these arms of the plan at so many tasks and of what gathers for them, and how many tokens."""
    if found is None:
        few = f"A few tasks measure it: run it with --arm {_main_arm(plan).name} --limit {ENOUGH + 1}"
        yield (
            f"time: not measured; no run here has {ENOUGH} cells with this model, suite and limits. "
            + (few if tasks > ENOUGH + 1 else "It is small enough to be run to see")
        )
        return
    seconds, each = found.rollout_s.times(cells / workers), found.rollout_s
    training = any(arm.learning and arm.learning.treatment.is_adapter for arm in wanted)
    yield (
        f"time: about {duration(seconds.mean)} ({duration(seconds.low)} to {duration(seconds.high)}, 95 %) for rollouts and verification "
        f"with {counted(workers, 'worker')}, at {each.mean:.2f} s a cell with its tests, mean of {counted(found.cells, 'cell')} of "
        f"{counted(len(found.arms), 'arm')} in {found.run}{_unmeasured_text(found)}"
        + (
            "; starting, training, checks of adapters and likelihoods come on top"
            if training
            else "; starting comes on top"
        )
    )
    if found.tokens is not None:
        tokens = found.tokens.times(cells)
        about, low, high = map(shortened, (tokens.mean, tokens.low, tokens.high))
        yield f"tokens: about {about} ({low} to {high}), at {found.tokens.mean:.0f} a cell"


def _unmeasured_text(found: MeasuredRun) -> str:
    """That arms which are asked about were not measured, and what the interval is of then; empty where all were."""
    if not found.unmeasured:
        return ""
    one = len(found.arms) == 1
    of = f"the cells of {found.arms[0]} alone" if one else "how far apart its arms lie"
    return f"; {counted(found.unmeasured, 'other arm')} {'is' if found.unmeasured == 1 else 'are'} taken to be like {'it' if one else 'them'}, and the interval is of {of}"


def time_data(cells: int, workers: int, found: MeasuredRun | None) -> dict[str, Any]:
    """The same for programs, in seconds and tokens of all cells; None for what was not measured."""
    return {
        "measured": found,
        "seconds": found.rollout_s.times(cells / workers) if found else None,
        "tokens": found.tokens.times(cells) if found and found.tokens else None,
    }


def power_data(plan: Plan, tasks: Sequence[str], known: MeasuredShare | None) -> dict[str, Any]:
    """As `power_lines`, for programs; shares as shares."""
    compared = bool(plan.contrasts and tasks)
    return {
        "equal_arms": known,
        "power": power_at_interest(plan, tasks) if compared else None,
        "smallest_visible": smallest_visible(design_of(plan, tasks)) if compared else None,
    }


def _with(plan: Plan, tasks: Sequence[str], known: MeasuredShare) -> str:
    """What the plan would be with what is known, where it takes less than that."""
    if known.low <= plan.discordance or not plan.contrasts or not tasks:
        return ""
    measured = plan.model_copy(update={"discordance": min(1.0, known.share)})
    return (
        f", which is too few: with {100 * known.share:.0f} % it would be a pilot"
        if is_pilot(measured, tasks)
        else f", which is too few: {power_text(measured, tasks)}"
    )


def power_lines(plan: Plan, tasks: Sequence[str], known: MeasuredShare | None) -> Iterator[str]:
    """What the plan could see if it were run as it is, decided as it will be; `known` is how often equal arms differed, to be held
    against what the plan takes for it."""
    if known is not None:
        yield (
            f"equal arms differed in {100 * known.share:.0f} % of {counted(known.cells, 'cell')} ({100 * known.low:.0f} to "
            f"{100 * known.high:.0f}, 95 %) in {known.run}; the plan takes {100 * plan.discordance:.0f} %{_with(plan, tasks, known)}"
        )
    if plan.contrasts and tasks:
        pilot = ", a PILOT, which decides nothing" if is_pilot(plan, tasks) else ""
        yield f"power{pilot}: {power_text(plan, tasks)}"
