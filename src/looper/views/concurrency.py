"""Whether the arms of a run were asked under the same load, and of the same servers: both are treatments that no plan names."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from looper.records.base import grouped
from looper.records.model import BACKENDS
from looper.records.plan import Arm
from looper.records.text import counted
from looper.records.trajectory import Trajectory
from looper.records.verdict import Outcome
from looper.views.runs import RunView

UNLIKE = 0.1
"""Shares of an arm's rollouts by one server that differ by more than this from another arm's are told."""


def in_flight(run: RunView) -> dict[str, float]:
    """By arm: the median over its rollouts of the requests that were on their way to its model's server; only where that was counted."""
    found = grouped((end.arm, end.in_flight) for end in run.trajectories if end.in_flight is not None)
    names = [arm.name for arm in run.manifest.plan.arms if arm.name in found]
    return {name: median(found[name]) for name in names}


def concurrency_lines(run: RunView) -> list[str]:
    """A line where arms were asked under unlike load, and one where some servers answered one arm more often than another; and what came of each
    server's rollouts, where a model has several."""
    return [*_load_lines(run), *_server_lines(run)]


def _server_lines(run: RunView) -> list[str]:
    """By rollouts; one that several servers answered counts in parts. Only where some arm has several; arms of another model are others by that."""
    arms = {arm.name: arm for arm in run.manifest.plan.arms if BACKENDS[arm.model.backend].address_after}
    if not any(len(arm.model.addresses) > 1 for arm in arms.values()):
        return []
    ends = [end for end in run.trajectories if end.arm in arms]
    return [*_unlike_lines(arms, ends), *_by_server_lines(run, arms, ends)]


def _answered_by(arm: Arm, end: Trajectory) -> list[str]:
    return [arm.model.addresses[number - 1] for number in end.servers or (1,)]


def _unlike_lines(arms: Mapping[str, Arm], ends: Sequence[Trajectory]) -> Iterator[str]:
    by_model = grouped(((arms[end.arm].model.backend, arms[end.arm].model.name), end) for end in ends)
    for found in by_model.values():
        asked = grouped((end.arm, _answered_by(arms[end.arm], end)) for end in found)
        servers = sorted({each for by in asked.values() for one in by for each in one})
        shares = {
            arm: [sum((server in one) / len(one) for one in by) / len(by) for server in servers]
            for arm, by in asked.items()
        }
        if any(max(of) - min(of) > UNLIKE for of in zip(*shares.values(), strict=True)):
            told = "; ".join(
                f"{arm} {', '.join(f'{100 * share:.0f}' for share in by)} %" for arm, by in shares.items()
            )
            yield (
                f"rollouts by server {', '.join(servers)}: {told}. What differs between the servers is part of a difference between these arms"
            )


def _by_server_lines(run: RunView, arms: Mapping[str, Arm], ends: Sequence[Trajectory]) -> Iterator[str]:
    """What came of the rollouts of each: a server that answers badly is seen by nothing else."""
    outcomes = {(found.cell, found.attempt): found.outcome for found in run.verdicts}
    by_server = grouped((server, end) for end in ends for server in _answered_by(arms[end.arm], end))
    for server, found in sorted(by_server.items()):
        resolved = sum(outcomes.get((end.cell, end.attempt)) is Outcome.RESOLVED for end in found)
        reasons = Counter(end.stop_reason.value for end in found).most_common()
        yield (
            f"server {server}: {counted(len(found), 'rollout')}, {resolved} resolved; ended by "
            f"{', '.join(f'{name} {count}' for name, count in reasons)}"
        )


def _load_lines(run: RunView) -> list[str]:
    medians = in_flight(run)
    if len(set(medians.values())) < 2:
        return []
    told = ", ".join(f"{arm} {count:g}" for arm, count in sorted(medians.items(), key=lambda item: item[1]))
    return [
        f"requests in flight, median: {told}. How many are answered at once can change what a server answers, so part of a difference "
        "between these arms may be that"
    ]
