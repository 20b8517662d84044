"""Comparing two arms on the cells that both have."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import comb, sqrt
from statistics import NormalDist, fmean

from looper.metrics.clustered import cluster_bootstrap, sign_flip
from looper.metrics.continuous import bca


@dataclass(frozen=True)
class PairedDifference:
    """Resolve rate of one arm minus that of another, on common cells."""

    pairs: int
    gains: int
    """Resolved by the first arm only."""
    losses: int
    """Resolved by the second arm only."""
    difference: float
    low: float
    high: float
    """95 % interval by Newcombe's method 10 for paired proportions."""
    within_margin: tuple[float, float]
    """The same at 90 %: inside a margin it is equivalence."""
    p_value: float
    """Exact McNemar test, two-sided. Takes cells for independent; with several seeds see `p_by_task`."""
    mid_p: float
    """The same test's mid-p value."""
    p_by_task: float
    """Paired permutation test over tasks, each with the mean over its seeds."""
    clusters: int
    """Repositories."""
    by_cluster: tuple[float, float] | None
    """95 % interval when whole repositories are drawn anew; None for a single one."""


@dataclass(frozen=True)
class MeanDifference:
    """Mean of one arm minus that of another, on common cells, of something that is no yes or no."""

    pairs: int
    difference: float
    low: float
    high: float
    """95 % interval: bias-corrected and accelerated bootstrap over tasks."""
    within_margin: tuple[float, float]
    """The same at 90 %."""
    p_by_task: float
    """Paired permutation test over tasks, each with the mean over its seeds."""


def mean_difference(first: Mapping[str, float], second: Mapping[str, float]) -> MeanDifference | None:
    """Keys as in `paired_difference`. None where the arms have no cell in common."""
    common = sorted(first.keys() & second.keys())
    if not common:
        return None
    tasks = [fmean(values) for values in _grouped({key: first[key] - second[key] for key in common}, _task)]
    found = fmean(tasks)
    low, high = bca(tasks) or (found, found)
    return MeanDifference(
        pairs=len(common),
        difference=found,
        low=low,
        high=high,
        within_margin=bca(tasks, confidence=0.9) or (found, found),
        p_by_task=sign_flip(tasks),
    )


def rise(arms: Sequence[Mapping[str, float]]) -> MeanDifference | None:
    """How much a straight line through the arms rises from the first to the last, the arms being evenly apart; keys as in
    `paired_difference`. None where they have no cell in common.

    Where all arms are alike, their values at a task could as well stand in the opposite order, which turns the sign of the
    rise: so the test of `mean_difference` holds for it.
    """
    common = set(arms[0]).intersection(*arms[1:])
    lines = {key: line_rise([arm[key] for arm in arms]) for key in common}
    return mean_difference(lines, dict.fromkeys(common, 0.0))


def line_rise(values: Sequence[float]) -> float:
    """From the first to the last, of the least-squares line through evenly spaced values."""
    middle = (len(values) - 1) / 2
    weights = [at - middle for at in range(len(values))]
    slope = sum(weight * value for weight, value in zip(weights, values, strict=True))
    return (len(values) - 1) * slope / sum(weight * weight for weight in weights)


def paired_difference(first: Mapping[str, bool], second: Mapping[str, bool]) -> PairedDifference | None:
    """Keys are SEED/REPOSITORY-NUMBER, a cell but for its arm. None where the arms have no cell in common."""
    common = first.keys() & second.keys()
    if not common:
        return None
    gains = sum(first[key] and not second[key] for key in common)
    losses = sum(second[key] and not first[key] for key in common)
    both = sum(first[key] and second[key] for key in common)
    table = both, gains, losses, len(common) - both - gains - losses
    low, high = newcombe_paired(*table)
    moved = {key: int(first[key]) - int(second[key]) for key in sorted(common)}
    tasks, repos = _grouped(moved, _task), _grouped(moved, lambda key: _task(key).rpartition("-")[0])
    return PairedDifference(
        pairs=len(common),
        gains=gains,
        losses=losses,
        difference=(gains - losses) / len(common),
        low=low,
        high=high,
        within_margin=newcombe_paired(*table, confidence=0.9),
        p_value=mcnemar_exact(gains, losses),
        mid_p=mcnemar_mid_p(gains, losses),
        p_by_task=sign_flip([fmean(values) for values in tasks]),
        clusters=len(repos),
        by_cluster=cluster_bootstrap(repos),
    )


def _task(key: str) -> str:
    return key.partition("/")[2]


def _grouped(moved: Mapping[str, float], group: Callable[[str], str]) -> list[list[float]]:
    found: dict[str, list[float]] = {}
    for key, value in moved.items():
        found.setdefault(group(key), []).append(value)
    return list(found.values())


@cache
def mcnemar_exact(gains: int, losses: int) -> float:
    """Two-sided exact p-value of a sign test on the discordant pairs; 1 where there are none."""
    from scipy.special import bdtr

    # Not `scipy.stats`, whose import takes twice as long as a small table.
    return min(1.0, 2 * float(bdtr(min(gains, losses), gains + losses, 0.5)))


def mcnemar_mid_p(gains: int, losses: int) -> float:
    """As `mcnemar_exact`, with half of what is as likely as what was seen; nearer to its level on small runs."""
    discordant = gains + losses
    if discordant == 0:
        return 1.0
    return mcnemar_exact(gains, losses) - comb(discordant, gains) / 2.0**discordant * (
        1.0 if gains != losses else 0.0
    )


@cache
def wilson(successes: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of one proportion. Source: Wilson 1927."""
    share, z = successes / total, NormalDist().inv_cdf((1 + confidence) / 2)
    middle = share + z * z / (2 * total)
    half = z * sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2)
    below, above = ((middle + side) / (1 + z * z / total) for side in (-half, half))
    return (below if successes else 0.0, above if successes < total else 1.0)


@cache
def clopper_pearson(successes: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of one proportion that covers at least so often, whatever the proportion. Source: Clopper and Pearson 1934."""
    from scipy.special import betaincinv

    tail, failures = (1 - confidence) / 2, total - successes
    below = betaincinv(successes, failures + 1, tail) if successes else 0.0
    above = betaincinv(successes + 1, failures, 1 - tail) if failures else 1.0
    return float(below), float(above)


def newcombe_paired(
    both: int, first_only: int, second_only: int, neither: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Interval of the difference of two paired proportions. Source: Newcombe 1998, method 10."""
    total = both + first_only + second_only + neither
    first, second = (both + first_only) / total, (both + second_only) / total
    low_1, high_1 = wilson(both + first_only, total, confidence)
    low_2, high_2 = wilson(both + second_only, total, confidence)
    phi = _correlation(both, first_only, second_only, neither)
    difference = first - second
    down = sqrt(
        max(
            0.0, (first - low_1) ** 2 - 2 * phi * (first - low_1) * (high_2 - second) + (high_2 - second) ** 2
        )
    )
    up = sqrt(
        max(
            0.0, (second - low_2) ** 2 - 2 * phi * (second - low_2) * (high_1 - first) + (high_1 - first) ** 2
        )
    )
    return max(-1.0, difference - down), min(1.0, difference + up)


def _correlation(both: int, first_only: int, second_only: int, neither: int) -> float:
    """Newcombe's phi, with his continuity correction where it is positive."""
    total = both + first_only + second_only + neither
    margins = (both + first_only) * (second_only + neither) * (both + second_only) * (first_only + neither)
    if margins == 0:
        return 0.0
    determinant = both * neither - first_only * second_only
    corrected = max(0.0, determinant - total / 2) if determinant > 0 else determinant
    return float(corrected / sqrt(margins))
