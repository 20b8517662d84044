"""Whether a candidate is better than its parent: paired, one-sided, at its part of the campaign's alpha."""

from collections import Counter
from collections.abc import Callable, Mapping

from looper.errors import BadInput
from looper.metrics.design import power_of_tasks
from looper.metrics.paired import paired_difference, task_of
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
    """Probability that one challenger with a true gain of `effect` passes a lane, where so many of the pairs differ then."""
    # No fewer pairs differ than the gain makes differ.
    return power_of_tasks(tasks, max(0.0, discordance - effect), effect, 2 * rule.alpha_each)


def benchmarked(candidate: Outcomes, parent: Outcomes, account: AlphaAccount) -> Benchmarked:
    """Spends one challenger's alpha. Raises BadInput where both have not worked on the same cells: a task that
    one of them lacks would be a comparison of tasks.

    Decided as every difference is, by task: one that was tried with several seeds counts once, so that repeats of one task are no
    independent evidence. The bounds are one-sided, each at the challenger's alpha.
    """
    if candidate.keys() != parent.keys() or not candidate:
        only = sorted(candidate.keys() ^ parent.keys())
        raise BadInput(
            f"Candidate and parent were not run on the same cells: {', '.join(only[:5]) or 'there are none'}."
        )
    found = paired_difference(candidate, parent)
    assert found is not None
    moved: Counter[str] = Counter()
    for key in candidate:
        moved[task_of(key)] += candidate[key] - parent[key]
    alpha = account.spend()
    # Under no gain a task's difference could as well have the other sign, so half of the two-sided tail lies above.
    p_value = found.p_value / 2 if found.difference > 0 else 1.0
    lower, upper = found.interval(1 - 2 * alpha)
    margin = account.rule.margin
    if lower > margin:
        outcome = GateOutcome.PASS
    elif upper <= margin or found.difference <= 0:
        outcome = GateOutcome.FAIL
    else:
        outcome = GateOutcome.UNDECIDED
    return Benchmarked(
        outcome=outcome,
        pairs=found.units,
        wins=sum(value > 0 for value in moved.values()),
        losses=sum(value < 0 for value in moved.values()),
        estimate=found.difference,
        lower=lower,
        upper=upper,
        p_value=p_value,
        alpha_spent=alpha,
    )
