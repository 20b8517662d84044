"""An arm that acts poorly, and one that does not act: a test that is looked at after every rollout."""

import random

from looper.metrics.sequential import DEGENERATE as BOUND
from looper.metrics.sequential import DEGENERATE_ALPHA as ALPHA
from looper.metrics.sequential import evidence


def called(rng: random.Random, share: float, rollouts: int, steps: int, sticky: bool) -> bool:
    """Whether an arm is ever called degenerate; `sticky` ones have all their bad steps in few rollouts."""
    shares: list[float] = []
    for _ in range(rollouts):
        if sticky:
            shares.append(float(rng.random() < share))
        else:
            shares.append(sum(rng.random() < share for _ in range(steps)) / steps)
        if evidence(shares, BOUND) >= 1 / ALPHA:
            return True
    return False


def test_d6_an_arm_with_fifteen_to_twenty_percent_of_bad_steps_hardly_ever_fails() -> None:
    rng, draws = random.Random(6), 100
    for share in (0.15, 0.18, 0.2):
        for sticky in (False, True):
            failed = sum(called(rng, share, 60, 8, sticky) for _ in range(draws))
            assert failed <= 4, f"{failed} of {draws} at {share}, at most {ALPHA} are right"


def test_an_arm_that_does_not_act_fails_within_a_few_rollouts_and_half_of_one_soon() -> None:
    rng = random.Random(7)
    assert called(rng, 1.0, 4, 8, sticky=False)
    assert sum(called(rng, 0.5, 40, 8, sticky=False) for _ in range(50)) >= 45


def test_the_order_of_rollouts_is_nothing_so_what_an_interruption_leaves_is_enough_to_go_on_with() -> None:
    shares = [0.0, 1.0, 0.25, 0.5, 0.125]
    assert abs(evidence(shares, BOUND) - evidence(sorted(shares), BOUND)) < 1e-12
