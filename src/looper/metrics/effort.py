"""What an arm's attempts took, against base's at the same tasks."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean, median

from looper.metrics.continuous import rank_biserial
from looper.metrics.paired import AnalysisUnit, mean_difference
from looper.records.base import grouped


@dataclass(frozen=True)
class Effort:
    """One quantity over the tasks that both arms have, each task with the mean over its seeds."""

    tasks: int
    base: float
    """Median of base."""
    arm: float
    effect: float | None
    """Rank-biserial correlation, from −1 (always less than base) to 1; None where nothing differs."""
    p: float
    """Two-sided, of no mean difference, by unit."""


def effort(
    arm: Mapping[str, float], base: Mapping[str, float], unit: AnalysisUnit = AnalysisUnit.TASK
) -> Effort | None:
    """Keys are SEED/TASK. None where the arms have no cell in common."""
    ours, theirs = _by_task(arm, arm.keys() & base.keys()), _by_task(base, arm.keys() & base.keys())
    found = mean_difference(arm, base, unit)
    if found is None:
        return None
    differences = [ours[task] - theirs[task] for task in sorted(ours)]
    return Effort(
        tasks=len(ours),
        base=median(theirs.values()),
        arm=median(ours.values()),
        effect=rank_biserial(differences),
        p=found.p_value,
    )


def _by_task(values: Mapping[str, float], keys: Iterable[str]) -> dict[str, float]:
    found = grouped((key.partition("/")[2], values[key]) for key in keys)
    return {task: fmean(each) for task, each in found.items()}
