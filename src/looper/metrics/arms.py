"""What happened in each arm, as counts with their denominators."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from looper.records.trajectory import Trajectory
from looper.records.verdict import Outcome, Verdict


@dataclass(frozen=True)
class Rate:
    """A share of a named set of tasks. Rates over different sets do not compare."""

    numerator: int
    denominator: int
    tasks: frozenset[str]

    @property
    def value(self) -> float | None:
        """None where nothing was counted."""
        return self.numerator / self.denominator if self.denominator else None


@dataclass(frozen=True)
class ArmFigures:
    """One arm of one run. Means are over attempts with a verdict; None where nothing was measured."""

    arm: str
    resolved: Rate
    patched: Rate
    """Attempts with a patch that is not empty."""
    infra_errors: int
    """Cells that are without a verdict."""
    cells: int
    steps: float | None
    prompt_tokens: float | None
    completion_tokens: float | None
    seconds: float | None
    """Median wall time of a rollout."""


def arm_figures(
    arm: str, cells: Sequence[str], verdicts: Iterable[Verdict], trajectories: Iterable[Trajectory]
) -> ArmFigures:
    """`cells` are the arm's planned cell keys; verdicts of other cells are left out."""
    wanted = set(cells)
    final = {verdict.cell: verdict for verdict in verdicts if verdict.cell in wanted}
    ends = {(end.cell, end.attempt): end for end in trajectories if end.cell in wanted}
    judged = [verdict for verdict in final.values() if verdict.outcome.is_verdict]
    tasks = frozenset(verdict.instance_id for verdict in judged)
    done = [ends[key] for verdict in judged if (key := (verdict.cell, verdict.attempt)) in ends]
    return ArmFigures(
        arm=arm,
        resolved=Rate(sum(verdict.outcome is Outcome.RESOLVED for verdict in judged), len(judged), tasks),
        patched=Rate(sum(bool(end.patch) for end in done), len(done), tasks),
        infra_errors=sum(verdict.outcome is Outcome.INFRA_ERROR for verdict in final.values()),
        cells=len(cells),
        steps=_mean([end.steps for end in done]),
        prompt_tokens=_mean([end.prompt_tokens for end in done]),
        completion_tokens=_mean([end.completion_tokens for end in done]),
        seconds=statistics.median([end.wall_s for end in done]) if done else None,
    )


def _mean(values: Sequence[int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None
