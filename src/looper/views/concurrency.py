"""Whether the arms of a run were asked under the same load, and of the same servers: both are treatments that no plan names."""

from statistics import median

from looper.records.base import grouped
from looper.views.runs import RunView

UNLIKE = 0.1
"""Shares of an arm's rollouts by one server that differ by more than this from another arm's are told."""


def in_flight(run: RunView) -> dict[str, float]:
    """By arm: the median over its rollouts of the requests that were on their way to its model's server; only where that was counted."""
    found = grouped((end.arm, end.in_flight) for end in run.trajectories if end.in_flight is not None)
    names = [arm.name for arm in run.manifest.plan.arms if arm.name in found]
    return {name: median(found[name]) for name in names}


def concurrency_lines(run: RunView) -> list[str]:
    """A line where arms were asked under unlike load, and one where some servers answered one arm more often than another."""
    return [*_load_lines(run), *_server_lines(run)]


def _server_lines(run: RunView) -> list[str]:
    """By rollouts; one that several servers answered counts in parts."""
    asked = grouped((end.arm, end.servers) for end in run.trajectories if end.servers)
    servers = sorted({server for found in asked.values() for by in found for server in by})
    shares = {
        arm: [sum((server in by) / len(by) for by in found) / len(found) for server in servers]
        for arm, found in asked.items()
    }
    if not any(max(of) - min(of) > UNLIKE for of in zip(*shares.values(), strict=True)):
        return []
    told = "; ".join(
        f"{arm} {', '.join(f'{100 * share:.0f}' for share in found)} %" for arm, found in shares.items()
    )
    return [
        f"rollouts by server {', '.join(map(str, servers))}: {told}. What differs between the servers is part of a difference between these arms"
    ]


def _load_lines(run: RunView) -> list[str]:
    medians = in_flight(run)
    if len(set(medians.values())) < 2:
        return []
    told = ", ".join(f"{arm} {count:g}" for arm, count in sorted(medians.items(), key=lambda item: item[1]))
    return [
        f"requests in flight, median: {told}. How many are answered at once can change what a server answers, so part of a difference "
        "between these arms may be that"
    ]
