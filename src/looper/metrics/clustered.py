"""Comparing two arms where cells are not independent: several seeds of one task, several tasks of one repository."""

import random
from collections.abc import Sequence
from itertools import product
from math import fsum

EXACT_SUMS = 20_000
"""Up to so many distinct sums of sign patterns the test is exact."""
SIGN_DRAWS = 100_000
EXACT_RESAMPLES = 20_000
DRAWS = 10_000
TOLERANCE = 1e-9
"""Sums that differ by rounding are equal."""


def sign_flip(differences: Sequence[float], seed: int = 0) -> float:
    """Two-sided p-value of the paired permutation test: under the null each difference could as well have the other sign.

    One difference per task, the mean over its seeds; equals exact McNemar for one seed. Exact as long as the sums of all sign
    patterns are few, as they are for means of a few outcomes; else over 100,000 drawn patterns and the observed one.
    """
    moved = [value for value in differences if abs(value) > TOLERANCE]
    observed = abs(sum(moved)) - TOLERANCE
    sums = {0: 1.0}
    for value in moved:
        step, spread = round(value / TOLERANCE), dict[int, float]()
        for total, share in sums.items():
            for sign in (step, -step):
                spread[total + sign] = spread.get(total + sign, 0.0) + share / 2
        sums = spread
        if len(sums) > EXACT_SUMS:
            return _drawn(moved, observed, seed)
    # Each step may be off by half a unit; the sums of whole outcomes lie much further apart.
    slack = len(moved) + 1
    return min(1.0, sum(share for total, share in sums.items() if abs(total) + slack >= observed / TOLERANCE))


def _drawn(moved: Sequence[float], observed: float, seed: int) -> float:
    rng = random.Random(seed)
    hits = 0
    for _ in range(SIGN_DRAWS):
        bits = rng.getrandbits(len(moved))
        total = sum(value if bits >> at & 1 else -value for at, value in enumerate(moved))
        hits += abs(total) >= observed
    return (hits + 1) / (SIGN_DRAWS + 1)


def cluster_bootstrap(clusters: Sequence[Sequence[float]], seed: int = 0) -> tuple[float, float] | None:
    """95 % percentile interval of the mean over all members when whole clusters are drawn anew; None for fewer than two.

    With few clusters (below ten) it is too narrow; say so where it is shown.
    """
    if len(clusters) < 2:
        return None
    means = sorted(resampled_means(clusters, seed))
    return means[int(0.025 * (len(means) - 1))], means[-1 - int(0.025 * (len(means) - 1))]


def resampled_means(clusters: Sequence[Sequence[float]], seed: int = 0) -> list[float]:
    """Means over the members of every resample of clusters; all of them where they are few, else a sample."""
    count = len(clusters)
    # A resample's mean needs only the sum and the size of each cluster in it.
    parts = [(fsum(cluster), len(cluster)) for cluster in clusters]
    if count**count <= EXACT_RESAMPLES:
        chosen = [list(choice) for choice in product(parts, repeat=count)]
    else:
        rng = random.Random(seed)
        chosen = [rng.choices(parts, k=count) for _ in range(DRAWS)]
    return [sum(total for total, _ in choice) / sum(size for _, size in choice) for choice in chosen]
