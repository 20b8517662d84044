"""Figures against published values and against simulation."""

import random

import pytest

from looper.metrics.arms import Rate
from looper.metrics.paired import (
    AnalysisUnit,
    mcnemar_exact,
    mean_difference,
    newcombe_paired,
    paired_difference,
    rate_interval,
    rise,
    wilson,
)


@pytest.mark.parametrize(
    ("gains", "losses", "p"),
    [
        (0, 0, 1.0),
        (3, 0, 0.25),
        (5, 0, 0.0625),
        (6, 0, 0.03125),
        (8, 1, 0.0390625),
        (5, 5, 1.0),
        (0, 10, 2 / 1024),
    ],
)
def test_exact_mcnemar_has_its_known_values(gains: int, losses: int, p: float) -> None:
    assert mcnemar_exact(gains, losses) == pytest.approx(p, abs=1e-12)
    assert mcnemar_exact(losses, gains) == pytest.approx(p, abs=1e-12)


@pytest.mark.parametrize(
    ("successes", "total", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)],
)
def test_wilson_interval_equals_newcombe_1998_table(
    successes: int, total: int, low: float, high: float
) -> None:
    assert wilson(successes, total) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("cells", "low", "high"),
    [
        ((20, 12, 2, 16), 0.056156, 0.329207),
        ((36, 12, 2, 0), 0.056930, 0.340428),
        ((1, 1, 7, 12), -0.506920, -0.025559),
        ((10, 15, 5, 20), 0.025838, 0.356937),
    ],
)
def test_newcombe_method_10_has_its_known_values(
    cells: tuple[int, int, int, int], low: float, high: float
) -> None:
    """Newcombe 1998; both, first only, second only, neither."""
    assert newcombe_paired(*cells) == pytest.approx((low, high), abs=1e-6)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng, held, rounds = random.Random(4), 0, 3000
    for _ in range(rounds):
        cells = [0, 0, 0, 0]
        for _ in range(40):
            cells[rng.choices(range(4), (0.3, 0.2, 0.1, 0.4))[0]] += 1
        low, high = newcombe_paired(*cells)
        held += low <= 0.1 <= high
    assert 0.93 <= held / rounds <= 0.985


def test_exact_mcnemar_keeps_its_level_when_nothing_differs() -> None:
    rng, rejected, rounds = random.Random(5), 0, 4000
    for _ in range(rounds):
        gains = losses = 0
        for _ in range(40):
            pair = rng.random()
            gains, losses = gains + (pair < 0.15), losses + (0.15 <= pair < 0.3)
        rejected += mcnemar_exact(gains, losses) < 0.05
    assert rejected / rounds <= 0.05


def test_g41_arms_are_compared_on_common_cells_only() -> None:
    first = {"a": True, "b": True, "c": False, "only": True}
    second = {"a": False, "b": True, "c": False, "other": False, "another": True}
    found = paired_difference(first, second)
    assert found is not None
    assert (found.pairs, found.gains, found.losses) == (3, 1, 0)
    low, high = found.interval()
    assert found.difference == pytest.approx(1 / 3) and low < found.difference < high
    assert paired_difference(first, {"nothing": True}) is None


def test_swapping_the_arms_flips_the_sign_and_nothing_else() -> None:
    rng = random.Random(6)
    first = {str(n): rng.random() < 0.5 for n in range(50)}
    second = {str(n): rng.random() < 0.4 for n in range(50)}
    there, back = paired_difference(first, second), paired_difference(second, first)
    assert there is not None and back is not None
    assert there.difference == -back.difference and there.p_value == back.p_value
    assert there.interval() == pytest.approx(tuple(-end for end in reversed(back.interval())))


def test_a_rate_of_nothing_has_no_value() -> None:
    assert Rate(0, 0, frozenset()).value is None


def test_a_rise_is_that_of_the_straight_line_through_all_arms() -> None:
    """Least squares by hand: values 0, 1, 1 at doses 0, 1, 2 rise by 0.5 a step, 1.0 from first to last."""
    tasks = [f"0/r-{number}" for number in range(8)]
    arms = [dict.fromkeys(tasks, value) for value in (0.0, 1.0, 1.0)]
    found = rise(arms)
    assert found is not None and found.difference == pytest.approx(1.0) and found.pairs == 8
    assert found.p_flip == pytest.approx(2 / 2**8), "every sign pattern but two is less extreme"
    back = rise(arms[::-1])
    assert back is not None and back.difference == pytest.approx(-1.0)
    two = mean_difference(arms[1], arms[0])
    assert rise(arms[:2]) == two, "a line through two arms is their difference"
    assert rise([arms[0], {"0/other-1": 1.0}, arms[1]]) is None


def test_a_rate_is_as_sure_as_its_units_are_many() -> None:
    """Twelve repositories that are resolved whole or not at all say as much as twelve cells; cells that are independent as much as
    there are."""
    alike = {
        f"{seed}/r{repo}-{task}": repo < 8 for repo in range(12) for task in range(6) for seed in range(2)
    }
    low, high = rate_interval(alike, AnalysisUnit.REPOSITORY)
    assert low < 0.37 and high > 0.86, "Student's quantile for twelve units"
    rng = random.Random(2)
    mixed = {key: rng.random() < 2 / 3 for key in alike}
    narrow = rate_interval(mixed, AnalysisUnit.REPOSITORY)
    assert narrow[1] - narrow[0] < 0.3 < high - low
    assert rate_interval({"0/r-1": True}) == (0.0, 1.0), "one unit says nothing of others"


def test_the_interval_of_a_rate_holds_it_where_repositories_differ() -> None:
    rng, held, draws = random.Random(3), 0, 400
    for _ in range(draws):
        outcomes = {}
        for repo in range(16):
            chance = min(1.0, max(0.0, rng.gauss(0.5, 0.2)))
            outcomes |= {
                f"{seed}/r{repo}-{task}": rng.random() < chance for task in range(6) for seed in range(2)
            }
        low, high = rate_interval(outcomes, AnalysisUnit.REPOSITORY)
        held += low <= 0.5 <= high
    assert held / draws >= 0.93
