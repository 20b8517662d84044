"""Whether a candidate is better than its parent: paired, one-sided, at its part of the campaign's alpha."""

from collections.abc import Callable, Mapping
from math import sqrt
from statistics import NormalDist, fmean, stdev

from looper.errors import BadInput
from looper.metrics.clustered import sign_flip
from looper.metrics.paired import newcombe_paired
from looper.metrics.power import power
from looper.records.gate import Benchmarked, BenchmarkRule, GateOutcome

Outcomes = Mapping[str, bool]
"""SEED/TASK → whether it was resolved."""
Lane = Callable[[str, str, str], tuple[Outcomes, Outcomes]]
"""Name of the lane, commit of the candidate and of its parent → what each resolved."""


class AlphaSpent(BadInput):
    """The campaign has tested as many challengers as it may."""


class AlphaAccount:
    """One campaign's alpha for one lane: equal parts, spent in order, never refunded."""

    def __init__(self, rule: BenchmarkRule, tested: int = 0) -> None:
        """`tested` challengers were tested before, in an earlier process."""
        self.rule, self.tested = rule, tested

    @property
    def left(self) -> float:
        return self.rule.alpha_each * max(0, self.rule.challengers - self.tested)

    def spend(self) -> float:
        """One challenger's part. Raises AlphaSpent."""
        if self.tested >= self.rule.challengers:
            raise AlphaSpent(
                f"This campaign has tested {self.tested} challengers, and its alpha of {self.rule.alpha} was divided by "
                f"{self.rule.challengers}. Begin a new campaign, on tasks that this one has not used."
            )
        self.tested += 1
        return self.rule.alpha_each


def power_of(rule: BenchmarkRule, tasks: int, effect: float, discordance: float) -> float:
    """Probability that one challenger with a true gain of `effect` passes a lane, where so many pairs differ."""
    return power(tasks, discordance, effect, 2 * rule.alpha_each)


def benchmarked(candidate: Outcomes, parent: Outcomes, account: AlphaAccount) -> Benchmarked:
    """Spends one challenger's alpha. Raises BadInput where both have not worked on the same cells: a task that
    one of them lacks would be a comparison of tasks.

    A task that was tried with several seeds counts once, by the mean of its differences, so that repeats of one task are no
    independent evidence. The test is the exact sign-flip permutation test, which for one seed is McNemar's.
    """
    if candidate.keys() != parent.keys() or not candidate:
        only = sorted(candidate.keys() ^ parent.keys())
        raise BadInput(
            f"Candidate and parent were not run on the same cells: {', '.join(only[:5]) or 'there are none'}."
        )
    by_task: dict[str, list[int]] = {}
    for key in sorted(candidate):
        by_task.setdefault(key.partition("/")[2], []).append(int(candidate[key]) - int(parent[key]))
    moved = [fmean(values) for values in by_task.values()]
    estimate = fmean(moved)
    alpha = account.spend()
    # Under no gain a task's difference could as well have the other sign, so half of the two-sided tail lies above.
    p_value = sign_flip(moved) / 2 if estimate > 0 else 1.0
    lower, upper = _bounds(candidate, parent, moved, alpha)
    margin = account.rule.margin
    if p_value <= alpha and lower > margin:
        outcome = GateOutcome.PASS
    elif upper <= margin or estimate <= 0:
        outcome = GateOutcome.FAIL
    else:
        outcome = GateOutcome.UNDECIDED
    return Benchmarked(
        outcome=outcome,
        pairs=len(moved),
        wins=sum(value > 0 for value in moved),
        losses=sum(value < 0 for value in moved),
        estimate=estimate,
        lower=lower,
        upper=upper,
        p_value=p_value,
        alpha_spent=alpha,
    )


def _bounds(candidate: Outcomes, parent: Outcomes, moved: list[float], alpha: float) -> tuple[float, float]:
    """One-sided bounds of the gain, each at `alpha`: Newcombe's for one seed, by the normal distribution over tasks for
    several."""
    if len(moved) == len(candidate):
        both = sum(candidate[key] and parent[key] for key in candidate)
        gains = sum(candidate[key] and not parent[key] for key in candidate)
        losses = sum(parent[key] and not candidate[key] for key in candidate)
        neither = len(candidate) - both - gains - losses
        return newcombe_paired(both, gains, losses, neither, 1 - 2 * alpha)
    if len(moved) < 2:
        return -1.0, 1.0
    half = NormalDist().inv_cdf(1 - alpha) * stdev(moved) / sqrt(len(moved))
    return fmean(moved) - half, fmean(moved) + half
