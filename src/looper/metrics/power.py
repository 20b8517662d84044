"""What a run of so many pairs could see, by the exact McNemar test."""

from functools import cache
from math import comb

from looper.metrics.paired import mcnemar_exact

ALPHA = 0.05
WANTED = 0.8
"""Power from which on an effect counts as detectable."""
STEP = 0.001


def power(pairs: int, discordance: float, effect: float) -> float:
    """Probability that a true difference of rates is found, two-sided at 0.05.

    `discordance` is the share of pairs in which the arms differ; at least as large as the effect's size. Exact sums over the
    number of discordant pairs and over the gains among them.
    """
    if discordance <= 0:
        return 0.0
    gain_share = (discordance + effect) / (2 * discordance)
    return sum(
        _binomial(pairs, discordant, discordance) * _rejected(discordant, gain_share)
        for discordant in range(pairs + 1)
    )


def _rejected(discordant: int, gain_share: float) -> float:
    most = _critical(discordant)
    if most is None:
        return 0.0
    return sum(
        _binomial(discordant, losses, 1 - gain_share) + _binomial(discordant, losses, gain_share)
        for losses in range(most + 1)
    )


@cache
def _critical(discordant: int) -> int | None:
    """Most losses (or gains) with which the test still rejects; None where it never does."""
    found = [
        losses for losses in range(discordant // 2 + 1) if mcnemar_exact(discordant - losses, losses) <= ALPHA
    ]
    return found[-1] if found else None


def _binomial(trials: int, hits: int, share: float) -> float:
    return float(comb(trials, hits) * share**hits * (1 - share) ** (trials - hits))


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
