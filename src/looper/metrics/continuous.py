"""Differences that are no yes or no: steps, tokens, seconds, shares of tests."""

import random
from collections.abc import Sequence
from itertools import product
from math import isclose
from statistics import NormalDist, fmean

EXACT_RESAMPLES = 50_000
"""Up to so many, all of them; else a draw."""
DRAWS = 10_000


def rank_biserial(differences: Sequence[float]) -> float | None:
    """(W⁺ − W⁻) / (W⁺ + W⁻) of the signed ranks, from −1 to 1, zeros left out and ties at their mean rank; None where nothing
    differs. Source: Kerby 2014."""
    moved = [value for value in differences if value]
    if not moved:
        return None
    ranks = _ranks([abs(value) for value in moved])
    up = sum(rank for rank, value in zip(ranks, moved, strict=True) if value > 0)
    return 2 * up / sum(ranks) - 1


def _ranks(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    return [fmean(at for at, other in enumerate(ordered, 1) if other == value) for value in values]


def bca(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Bias-corrected and accelerated bootstrap interval of the mean; None where all values are equal. Source: Efron 1987.

    All resamples where they are few, else 10,000 drawn ones; quantiles by the inverse of the distribution.
    """
    if len(set(values)) < 2:
        return None
    found = fmean(values)
    resampled = sorted(map(fmean, _resamples(values)))
    normal = NormalDist()
    below = sum(value < found and not isclose(value, found, rel_tol=1e-12) for value in resampled)
    equal = sum(isclose(value, found, rel_tol=1e-12, abs_tol=1e-12) for value in resampled)
    bias = normal.inv_cdf((below + equal / 2) / len(resampled))
    acceleration = _acceleration(values)
    ends = []
    for share in ((1 - confidence) / 2, (1 + confidence) / 2):
        z = bias + normal.inv_cdf(share)
        # The share that the percentile moves to by bias and acceleration, and the first value that at least this share of the
        # resamples does not exceed: number ⌈share · n⌉, counted from 1 (−(−x // 1) rounds up).
        moved = normal.cdf(bias + z / (1 - acceleration * z))
        at = min(len(resampled) - 1, max(0, -int(-moved * len(resampled) // 1) - 1))
        ends.append(resampled[at])
    return ends[0], ends[1]


def _resamples(values: Sequence[float]) -> list[Sequence[float]]:
    if len(values) ** len(values) <= EXACT_RESAMPLES:
        return list(product(values, repeat=len(values)))
    rng = random.Random(0)
    return [rng.choices(values, k=len(values)) for _ in range(DRAWS)]


def _acceleration(values: Sequence[float]) -> float:
    """From the skewness of the means without each value."""
    without = [fmean([*values[:at], *values[at + 1 :]]) for at in range(len(values))]
    centre = fmean(without)
    squares = sum((centre - value) ** 2 for value in without)
    return float(sum((centre - value) ** 3 for value in without) / (6 * squares**1.5)) if squares else 0.0
