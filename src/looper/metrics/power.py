"""What a run of so many pairs could see, by the exact McNemar test."""

from bisect import bisect_left
from collections.abc import Callable
from functools import cache

ALPHA = 0.05
ENOUGH = 0.8
"""Power from which on an effect counts as detectable, and below which a plan is a pilot."""


def power(pairs: int, discordance: float, effect: float, alpha: float = ALPHA) -> float:
    """Probability that a true difference of rates is found, two-sided at `alpha`; for a one-sided test, twice its alpha.

    `discordance` is the share of pairs in which the arms differ; at least as large as the effect's size. Exact sums over the
    number of discordant pairs and over the gains among them.
    """
    import numpy as np
    from scipy.special import bdtr, gammaln, xlog1py, xlogy

    # Not scipy.stats: its import alone takes most of a second, and every page of a run asks for this.
    if discordance <= 0:
        return 0.0
    gain_share = (discordance + effect) / (2 * discordance)
    discordant, most = np.arange(pairs + 1), np.array(_critical(pairs, alpha))
    rejected = np.where(
        most < 0,
        0.0,
        bdtr(np.maximum(most, 0), discordant, 1 - gain_share)
        + bdtr(np.maximum(most, 0), discordant, gain_share),
    )
    ways = gammaln(pairs + 1) - gammaln(discordant + 1) - gammaln(pairs - discordant + 1)
    chances = np.exp(ways + xlogy(discordant, discordance) + xlog1py(pairs - discordant, -discordance))
    return float(np.dot(chances, rejected))


@cache
def _critical(pairs: int, alpha: float) -> tuple[int, ...]:
    """For each number of discordant pairs: most losses (or gains) with which the test still rejects; −1 where it never does."""
    from scipy.special import bdtr

    found, losses = [], -1
    for discordant in range(pairs + 1):
        # One more pair never takes a loss away, and adds one at most.
        while losses < discordant and 2 * bdtr(losses + 1, discordant, 0.5) <= alpha:
            losses += 1
        found.append(losses)
    return tuple(found)


def least(steps: range, size: float, power_at: Callable[[float], float]) -> float | None:
    """Smallest difference of so many steps that has the power; None where not even the largest has it."""
    if power_at(steps[-1] * size) < ENOUGH:
        return None
    at = bisect_left(steps[:-1], True, key=lambda step: power_at(step * size) >= ENOUGH)
    return steps[at] * size
