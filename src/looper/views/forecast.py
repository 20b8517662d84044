"""What a plan will take and what it could see, from runs that are there."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from looper.metrics.design import is_pilot
from looper.records.plan import Arm, Plan
from looper.views.findings import power_text
from looper.views.runs import RunView, read_runs


@dataclass(frozen=True)
class Measured:
    """What an earlier run with the same model and limits says about the next one."""

    run: str
    cells: int
    rollout_s: float
    """Median of a rollout with its verification."""
    tokens: float | None
    """Mean of prompt and completion together; None where they were not counted."""


def measured(runs: Path, plan: Plan) -> Measured | None:
    """From the newest run in which this plan's base, or its first arm, worked with the same model and limits."""
    wanted = _main_arm(plan)
    for view in _newest(runs):
        other = view.manifest.plan
        arm = _main_arm(other)
        same = other.limits_of(arm) == plan.limits_of(wanted)
        if arm.model != wanted.model or arm.scaffold != wanted.scaffold or not same:
            continue
        ends = {(end.cell, end.attempt): end for end in view.trajectories if end.arm == arm.name}
        pairs = [
            (ends[key], found) for found in view.verdicts if (key := (found.cell, found.attempt)) in ends
        ]
        if not pairs:
            continue
        tokens = [
            end.prompt_tokens + end.completion_tokens
            for end, _ in pairs
            if end.prompt_tokens is not None and end.completion_tokens is not None
        ]
        return Measured(
            run=view.folder.name,
            cells=len(pairs),
            rollout_s=median(end.wall_s + found.wall_s for end, found in pairs),
            tokens=fmean(tokens) if len(tokens) == len(pairs) else None,
        )
    return None


def discordance(runs: Path, plan: Plan) -> tuple[str, float] | None:
    """How often base and its repeat differed, and in which run: the newest with the same model, suite and limits."""
    wanted = _main_arm(plan)
    for view in _newest(runs):
        other = view.manifest.plan
        arm = _main_arm(other)
        if arm.model != wanted.model or other.limits_of(arm) != plan.limits_of(wanted):
            continue
        if other.selection.suite == plan.selection.suite and (found := view.discordance()) is not None:
            return view.folder.name, found
    return None


def _newest(runs: Path) -> Iterator[RunView]:
    yield from reversed(read_runs(runs))


def _main_arm(plan: Plan) -> Arm:
    return plan.base or plan.arms[0]


def time_lines(plan: Plan, cells: int, workers: int, found: Measured | None) -> Iterator[str]:
    """How long, and how many tokens."""
    if found is None:
        yield (
            "time: not measured; no run here had this model and these limits. A few tasks measure it: run it with "
            f"--arm {_main_arm(plan).name} --limit 4"
        )
        return
    hours = cells * found.rollout_s / workers / 3600
    span = f"{hours:.1f} hours" if hours >= 1.5 else f"{60 * hours:.0f} minutes"
    yield (
        f"time: about {span} for rollouts and verification with {workers} workers, at {found.rollout_s:.2f} s a cell "
        f"(median of {found.cells} in {found.run}); training comes on top"
    )
    if found.tokens is not None:
        yield f"tokens: about {cells * found.tokens / 1e6:.1f} million, at {found.tokens:.0f} a cell"


def power_lines(plan: Plan, tasks: Sequence[str], known: tuple[str, float] | None) -> Iterator[str]:
    """What the plan could see if it were run as it is, decided as it will be; `known` is how often equal arms differed, and in
    which run, to be held against what the plan takes for it."""
    if known is not None:
        yield f"equal arms differed in {100 * known[1]:.0f} % of cells in {known[0]}; the plan takes {100 * plan.discordance:.0f} %"
    if plan.contrasts and tasks:
        pilot = ", a PILOT, which decides nothing" if is_pilot(plan, tasks) else ""
        yield f"power{pilot}: {power_text(plan, tasks)}"
