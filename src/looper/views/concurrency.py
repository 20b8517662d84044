"""Whether the arms of a run were asked under the same load: requests in flight are a treatment that no plan names."""

from statistics import median

from looper.records.base import grouped
from looper.views.runs import RunView


def in_flight(run: RunView) -> dict[str, float]:
    """By arm: the median over its rollouts of the requests that were on their way to its model's server; only where that was counted."""
    found = grouped((end.arm, end.in_flight) for end in run.trajectories if end.in_flight is not None)
    names = [arm.name for arm in run.manifest.plan.arms if arm.name in found]
    return {name: median(found[name]) for name in names}


def concurrency_lines(run: RunView) -> list[str]:
    """One line where arms were asked under unlike load, nothing where under the same."""
    medians = in_flight(run)
    if len(set(medians.values())) < 2:
        return []
    told = ", ".join(f"{arm} {count:g}" for arm, count in sorted(medians.items(), key=lambda item: item[1]))
    return [
        f"requests in flight, median: {told}. How many are answered at once can change what a server answers, so part of a difference "
        "between these arms may be that"
    ]
