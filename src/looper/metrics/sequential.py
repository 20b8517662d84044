"""A test that may be looked at after every observation, and still errs as rarely as it says."""

from collections.abc import Iterable
from math import exp, fsum, log
from statistics import fmean

DEGENERATE = 0.2
"""Share of a rollout's steps without a readable action beyond which, on the average, an arm is no agent any more: it stops and has
no rate."""
DEGENERATE_ALPHA = 0.01
"""Chance that an arm is called so which is not, over the whole of a run and however often it is interrupted."""
STAKES = (0.1, 0.25, 0.5, 0.75, 0.95)
"""Shares of what may be lost at each observation; no one of them is best for all that may be true."""


def evidence(shares: Iterable[float], bound: float) -> float:
    """How much a bet against "their mean is at most `bound`" has grown from 1; each share is from 0 to 1, in any order.

    Where no share is expected to exceed the bound, whatever came before it, this exceeds 1/alpha, at any time, with a chance of at
    most alpha, however the shares are spread. That their mean over a whole list is below it is not enough: bad ones could come first.
    Source: Waudby-Smith and Ramdas 2024, the mean of capital processes of fixed stakes; Ville 1939 for the bound.
    """
    seen = list(shares)
    grown = (fsum(log(1 + stake * (share - bound) / bound) for share in seen) for stake in STAKES)
    return fmean(exp(min(each, 700.0)) for each in grown)
