"""The benchmark gate: when a candidate counts as better than its parent."""

import random
from math import sqrt
from statistics import stdev

import pytest

from looper.errors import BadInput
from looper.evolution.benchmark import AlphaAccount, AlphaSpent, benchmarked, power_of
from looper.records.gate import BenchmarkRule, GateOutcome
from looper.views import evolution
from looper.views.evolution import credit_line, unseen_line


def outcomes(*counts: int) -> tuple[dict[str, bool], dict[str, bool]]:
    """Candidate and parent with so many tasks resolved by both, by the candidate alone, by the parent alone, by neither."""
    pairs = [(True, True), (True, False), (False, True), (False, False)]
    cells = [pair for pair, count in zip(pairs, counts, strict=True) for _ in range(count)]
    return (
        {f"0/{number}": ours for number, (ours, _) in enumerate(cells)},
        {f"0/{number}": theirs for number, (_, theirs) in enumerate(cells)},
    )


def test_a_clear_gain_passes_and_spends_its_part_of_alpha() -> None:
    account = AlphaAccount(BenchmarkRule(alpha=0.05, challengers=8))
    found = benchmarked(*outcomes(40, 25, 5, 30), account)
    assert found.outcome is GateOutcome.PASS and found.lower > 0
    assert found.alpha_spent == pytest.approx(0.00625) and account.left == pytest.approx(7 * 0.00625)
    assert (found.pairs, found.wins, found.losses, found.estimate) == (100, 25, 5, pytest.approx(0.2))


def test_a_gain_that_chance_explains_is_undecided_and_a_loss_fails() -> None:
    account = AlphaAccount(BenchmarkRule())
    assert benchmarked(*outcomes(40, 12, 6, 42), account).outcome is GateOutcome.UNDECIDED
    assert benchmarked(*outcomes(40, 6, 12, 42), account).outcome is GateOutcome.FAIL
    assert benchmarked(*outcomes(50, 0, 0, 50), account).outcome is GateOutcome.FAIL


def test_the_one_sided_p_value_is_mcnemars() -> None:
    """9 of 10 discordant pairs: 11 of 1024 ways are at least as far."""
    found = benchmarked(*outcomes(10, 9, 1, 10), AlphaAccount(BenchmarkRule()))
    assert found.p_value == pytest.approx(11 / 1024)


def test_repeats_of_one_task_are_no_independent_evidence() -> None:
    """Ten seeds of one task that is won each time are one win."""
    candidate = {f"{seed}/a": True for seed in range(10)} | {f"{seed}/b": True for seed in range(10)}
    parent = {f"{seed}/a": False for seed in range(10)} | {f"{seed}/b": True for seed in range(10)}
    found = benchmarked(candidate, parent, AlphaAccount(BenchmarkRule()))
    assert found.pairs == 2 and found.wins == 1 and found.p_value == pytest.approx(0.5)
    assert found.outcome is not GateOutcome.PASS


def test_the_bounds_of_several_seeds_are_those_of_few_tasks() -> None:
    """Six tasks won by 1, 2, 3, 2, 1 and 0 of three seeds: Student's five degrees, not the normal distribution's."""
    wins = [1, 2, 3, 2, 1, 0]
    candidate = {f"{seed}/t{task}": seed < won for task, won in enumerate(wins) for seed in range(3)}
    parent = dict.fromkeys(candidate, False)
    rule = BenchmarkRule(challengers=1)
    found = benchmarked(candidate, parent, AlphaAccount(rule))
    assert found.estimate == pytest.approx(0.5) and found.p_value == pytest.approx(1 / 32, rel=0.3)
    assert found.lower < 0.5 - 1.645 * stdev(won / 3 for won in wins) / sqrt(6)


def test_a_margin_has_to_be_passed_by_the_lower_bound() -> None:
    strict = AlphaAccount(BenchmarkRule(margin=0.15))
    assert benchmarked(*outcomes(40, 25, 5, 30), strict).outcome is GateOutcome.UNDECIDED


def test_other_tasks_cannot_be_compared() -> None:
    candidate, parent = outcomes(5, 1, 1, 5)
    del parent["0/3"]
    with pytest.raises(BadInput, match="not run on the same cells: 0/3"):
        benchmarked(candidate, parent, AlphaAccount(BenchmarkRule()))


def test_alpha_is_spent_in_order_and_never_given_back() -> None:
    account = AlphaAccount(BenchmarkRule(challengers=2), tested=1)
    benchmarked(*outcomes(5, 5, 5, 5), account)
    assert account.left == 0
    with pytest.raises(AlphaSpent, match="tested 2 challengers"):
        benchmarked(*outcomes(40, 25, 5, 30), account)


def test_a_candidate_that_equals_its_parent_passes_about_never() -> None:
    rng, passed = random.Random(1), 0
    for _ in range(400):
        cells = [rng.choices(range(4), (0.35, 0.15, 0.15, 0.35))[0] for _ in range(100)]
        counts = [cells.count(kind) for kind in range(4)]
        found = benchmarked(*outcomes(*counts), AlphaAccount(BenchmarkRule()))
        passed += found.outcome is GateOutcome.PASS
    assert passed <= 8


@pytest.mark.parametrize(
    ("tasks", "effect", "discordance", "expected"),
    [
        (50, 0.2, 0.3, 0.45),
        (100, 0.2, 0.3, 0.89),
        (150, 0.2, 0.3, 0.99),
        (100, 0.1, 0.2, 0.32),
        (273, 0.1, 0.2, 0.88),
    ],
)
def test_the_power_of_a_lane_is_known_beforehand(
    tasks: int, effect: float, discordance: float, expected: float
) -> None:
    """As computed independently for McNemar's test, for eight challengers; ours is drawn, with an error of 0.02."""
    assert power_of(BenchmarkRule(challengers=8), tasks, effect, discordance) == pytest.approx(
        expected, abs=0.05
    )


def test_every_difference_of_a_campaign_says_of_what_by_which_unit_how_sure_and_who_decides() -> None:
    ours, theirs = outcomes(40, 25, 5, 30)
    found = benchmarked(ours, theirs, AlphaAccount(BenchmarkRule(alpha=0.05, challengers=8)))
    ends = f"98.8 % {100 * found.lower:+.1f} to {100 * found.upper:+.1f}"
    assert evolution.tested_text(found) == (
        f"+20.0 points of tasks resolved, candidate − parent, by task (100), {ends}, one-sided p = {found.p_value:.2g}, decided by the "
        "gate's rule"
    )
    for line, pair in (
        (unseen_line(ours, theirs), "active − first"),
        (credit_line("a change", ours, theirs), "a change, active − without it"),
    ):
        assert f"{pair} (exploratory, about tasks like these): +20.0 points, 95 % " in line
        assert "unadjusted by task (100), 100 pairs" in line and "worth" not in line
