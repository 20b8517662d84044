"""Whether a better candidate is too dear: a bound of what it spends for each token of its parent, on the same tasks."""

from collections.abc import Callable, Mapping
from math import exp, log
from statistics import fmean

from looper.metrics.continuous import bca
from looper.records.gate import GateOutcome

Spending = Mapping[str, float]
"""SEED/TASK → tokens."""
Costs = Callable[[str, str, str], tuple[Spending, Spending]]
"""Name of a lane, commit of the candidate and of its parent → what each spent there."""


def cost_verdict(candidate: Spending, parent: Spending, most: float) -> tuple[GateOutcome, str]:
    """`most` tokens of the candidate for one of its parent. Not inferior where the upper 95 % bound of the geometric mean ratio lies below."""
    keys = [key for key in candidate if key in parent and candidate[key] > 0 and parent[key] > 0]
    if not keys:
        return GateOutcome.UNDECIDED, "nobody counted tokens"
    ratios = [log(candidate[key] / parent[key]) for key in keys]
    bounds = bca(ratios, confidence=0.9)
    ratio, upper = exp(fmean(ratios)), exp(bounds[1] if bounds else fmean(ratios))
    said = f"{ratio:.2f} tokens for one of the parent's, at most {upper:.2f}; {most:g} are allowed"
    if upper <= most:
        return GateOutcome.PASS, said
    return (GateOutcome.FAIL if ratio > most else GateOutcome.UNDECIDED), said
