"""Comparing two arms where cells are not independent: several seeds of one task, several tasks of one repository."""

from collections import Counter
from collections.abc import Sequence
from math import comb, fsum

EXACT_SUMS = 20_000
"""Up to so many distinct sums of sign patterns the test is exact."""
SIGN_DRAWS, BATCHES = 100_000, 20
TOLERANCE = 1e-9
"""Sums that differ by rounding are equal."""


def clustered(groups: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Variance of the mean over all members, where whole groups are independent, and its degrees of freedom; two groups or more.

    The variance is CR2, without bias where members are independent; the degrees are Satterthwaite's where members of a group are alike,
    which gives fewer. Of groups of one size that is the usual variance of their means, and one degree less than groups. Sources:
    Bell and McCaffrey 2002; Imbens and Kolesár 2016.
    """
    count = sum(map(len, groups))
    mean = fsum(fsum(values) for values in groups) / count
    spread = fsum((fsum(values) - len(values) * mean) ** 2 / (1 - len(values) / count) for values in groups)
    # What rounding leaves of equal values is no spread.
    variance = 0.0 if spread < TOLERANCE**2 * count else spread / count**2
    return variance, degrees_of([len(values) for values in groups])


def degrees_of(sizes: Sequence[int]) -> float:
    count = sum(sizes)
    shares = [size / count for size in sizes]
    squares = fsum(share * share for share in shares)
    weights = [share * share / (1 - share) for share in shares]
    # Of the matrix whose trace and squares Satterthwaite asks for, by what its entries have in common.
    trace = fsum(weight * (1 - 2 * share + squares) for weight, share in zip(weights, shares, strict=True))
    moments = [
        fsum(weight * share**power for weight, share in zip(weights, shares, strict=True))
        for power in range(3)
    ]
    everywhere = (
        squares**2 * moments[0] ** 2
        + 2 * moments[0] * moments[2]
        - 4 * squares * moments[0] * moments[1]
        + 2 * moments[1] ** 2
    )
    diagonal = fsum(
        weight * weight * (1 + 2 * (squares - 2 * share))
        for weight, share in zip(weights, shares, strict=True)
    )
    # What is left by cancellation of one group beside which the others are nothing.
    return max(1.0, trace * trace / max(everywhere + diagonal, TOLERANCE))


def sign_flip(differences: Sequence[float], seed: int = 0) -> float:
    """Two-sided p-value of the paired permutation test: under the null each difference could as well have the other sign.

    One difference per unit, summed over its cells; equals exact McNemar where a unit is one cell. Exact as long as the sums of all sign
    patterns are few, as they are for means of a few outcomes; else over 100,000 drawn patterns and the observed one.
    """
    moved = [value for value in differences if abs(value) > TOLERANCE]
    observed = abs(sum(moved)) - TOLERANCE
    sums = {0: 1.0}
    # Values of one size are taken together, by the binomial distribution of their signs.
    sizes = Counter(round(abs(value) / TOLERANCE) for value in moved)
    for step, count in sizes.items():
        spread = dict[int, float]()
        for ups in range(count + 1):
            share, shift = comb(count, ups) / 2**count, step * (2 * ups - count)
            for total, chance in sums.items():
                spread[total + shift] = spread.get(total + shift, 0.0) + chance * share
        sums = spread
        if len(sums) > EXACT_SUMS:
            return _drawn(moved, observed, seed)
    # Each step may be off by half a unit; the sums of whole outcomes lie much further apart.
    slack = len(moved) + 1
    return min(1.0, sum(share for total, share in sums.items() if abs(total) + slack >= observed / TOLERANCE))


def _drawn(moved: Sequence[float], observed: float, seed: int) -> float:
    import numpy as np

    rng = np.random.default_rng(seed)
    hits, sizes = 0, np.abs(np.array(moved, dtype=float))
    for _ in range(BATCHES):
        signs = 2.0 * rng.integers(0, 2, (SIGN_DRAWS // BATCHES, len(sizes)), dtype=np.int8) - 1
        hits += int((np.abs(signs @ sizes) >= observed).sum())
    return (hits + 1) / (SIGN_DRAWS + 1)
