"""What a run of so many pairs could see, by the exact McNemar test."""

from functools import cache

ALPHA = 0.05
WANTED = 0.8
"""Power from which on an effect counts as detectable."""
STEP = 0.001


def power(pairs: int, discordance: float, effect: float, alpha: float = ALPHA) -> float:
    """Probability that a true difference of rates is found, two-sided at `alpha`; for a one-sided test, twice its alpha.

    `discordance` is the share of pairs in which the arms differ; at least as large as the effect's size. Exact sums over the
    number of discordant pairs and over the gains among them.
    """
    import numpy as np
    from scipy.stats import binom

    if discordance <= 0:
        return 0.0
    gain_share = (discordance + effect) / (2 * discordance)
    discordant, most = range(pairs + 1), _critical(pairs, alpha)
    rejected = binom.cdf(most, discordant, 1 - gain_share) + binom.cdf(most, discordant, gain_share)
    return float(np.dot(binom.pmf(discordant, pairs, discordance), rejected))


@cache
def _critical(pairs: int, alpha: float) -> tuple[int, ...]:
    """For each number of discordant pairs: most losses (or gains) with which the test still rejects; −1 where it never does."""
    from scipy.stats import binom

    found, losses = [], -1
    for discordant in range(pairs + 1):
        # One more pair never takes a loss away, and adds one at most.
        while 2 * binom.cdf(losses + 1, discordant, 0.5) <= alpha:
            losses += 1
        found.append(losses)
    return tuple(found)


def smallest_detectable(pairs: int, discordance: float) -> float | None:
    """Smallest true difference that is found with 80 % power, to 0.1 points; None where even the largest is not."""
    low, high = 0, round(discordance / STEP)
    if power(pairs, discordance, high * STEP) < WANTED:
        return None
    while low < high:
        middle = (low + high) // 2
        if power(pairs, discordance, middle * STEP) >= WANTED:
            high = middle
        else:
            low = middle + 1
    return high * STEP
