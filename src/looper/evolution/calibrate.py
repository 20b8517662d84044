"""Campaigns by simulation: how often a gate promotes what is no better, and finds what is.

Only the outcomes of tasks are drawn; the gate that decides is the one of real campaigns. Beside it stand the rules that published
systems decide by, on the same draws.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import sqrt

from looper.evolution.benchmark import AlphaAccount, benchmarked
from looper.records.gate import BenchmarkRule, Calibrated, Drawn, GateOutcome

Outcomes = dict[str, bool]
LEEWAY = 0.1
"""By so much a child may be worse in an archive that keeps all (Darwin Gödel Machine, default)."""
PHRASES = ("TESTS: PASS", "VERDICT: APPROVED")
QUOTES = 0.05
"""Share of candidates whose diff happens to hold what a text-matching gate looks for: a test, a fixture, a prompt."""
SCORED_TESTS = (-1, 0, 0, 1, 2, 3)
"""How many tests a candidate adds, drawn; its effect on tasks has nothing to do with it."""


@dataclass(frozen=True)
class Challenge:
    """One candidate, with everything that any of the gates looks at."""

    candidate: Outcomes
    parent: Outcomes
    other_tasks: Outcomes
    """The candidate on tasks of its own, for gates that compare without pairs."""
    review: str
    """A reviewer's text, which holds the diff."""
    added_tests: int
    tokens: int


Decide = Callable[[Challenge], bool]
"""Whether it is promoted."""


def challenge(drawn: Drawn, rng: random.Random) -> Challenge:
    """One candidate and its parent on the same tasks."""
    up = (drawn.discordance + drawn.gain) / 2
    down = (drawn.discordance - drawn.gain) / 2
    both = max(0.0, drawn.rate - down)
    candidate: Outcomes = {}
    parent: Outcomes = {}
    for task in range(drawn.tasks):
        point = rng.random()
        gains, losses, stays = point < up, up <= point < up + down, up + down <= point < up + down + both
        candidate[f"0/{task}"] = gains or stays
        parent[f"0/{task}"] = losses or stays
    other = {f"1/{task}": rng.random() < drawn.rate + drawn.gain for task in range(drawn.tasks)}
    quoted = "\n".join(PHRASES) if rng.random() < QUOTES else ""
    review = f"Reviewed.\n{quoted}\nVERDICT: REJECTED"
    return Challenge(
        candidate, parent, other, review, rng.choice(SCORED_TESTS), rng.randrange(20_000, 60_000)
    )


def gates(rule: BenchmarkRule) -> dict[str, Callable[[], Decide]]:
    """The gate of a campaign, made anew for each, and those of others, by name."""
    return {
        "this one": lambda: _ours(AlphaAccount(rule)),
        "keep all, leeway 0.1": lambda: _keep_all,
        "one sample": lambda: _one_sample,
        "unpaired, each at 0.05": lambda: _unpaired,
        "match of two phrases": lambda: _text_match,
        "tests and assertions less tokens": lambda: _scored,
    }


def _ours(account: AlphaAccount) -> Decide:
    def decide(found: Challenge) -> bool:
        return benchmarked(found.candidate, found.parent, account).outcome is GateOutcome.PASS

    return decide


def _keep_all(found: Challenge) -> bool:
    return _rate(found.candidate) >= _rate(found.parent) - LEEWAY


def _one_sample(found: Challenge) -> bool:
    return _rate(found.candidate) > _rate(found.parent)


def _unpaired(found: Challenge) -> bool:
    """One-sided z test of two proportions, on other tasks for each."""
    ours, theirs = _rate(found.other_tasks), _rate(found.parent)
    pooled = (ours + theirs) / 2
    spread = sqrt(2 * pooled * (1 - pooled) / len(found.parent))
    return spread > 0 and (ours - theirs) / spread > 1.6449


def _text_match(found: Challenge) -> bool:
    return all(phrase in found.review for phrase in PHRASES)


def _scored(found: Challenge) -> bool:
    """Ten points a test and one an assertion, of which a test has two, less a point for a thousand tokens; above the parent's, who
    added none and took the mean number of tokens."""
    return 12 * found.added_tests - found.tokens / 1000 > -40


def _rate(outcomes: Outcomes) -> float:
    return sum(outcomes.values()) / len(outcomes)


def calibrated(drawn: Drawn, rule: BenchmarkRule, campaigns: int) -> Iterator[Calibrated]:
    """Each gate over the same campaigns. A campaign ends when it has tested as many challengers as the rule allows."""
    for name, make in gates(rule).items():
        with_promotion = promotions = 0
        for number in range(campaigns):
            # Of text, so that every gate sees the same draws and one more gate changes none.
            rng = random.Random(f"0/{number}")
            decide = make()
            found = sum(decide(challenge(drawn, rng)) for _ in range(rule.challengers))
            promotions += found
            with_promotion += found > 0
        yield Calibrated(
            gate=name,
            campaigns=campaigns,
            with_promotion=with_promotion,
            promotions=promotions,
            challengers=campaigns * rule.challengers,
        )
