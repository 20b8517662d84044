"""Power, size and families of tests, against values that were worked out elsewhere."""

import numpy as np
import pytest

from looper.metrics.clustered import sign_flip
from looper.metrics.design import (
    LARGEST_EFFECT,
    Design,
    changes,
    power_of,
    power_of_tasks,
    sign_flips,
    smallest_of_tasks,
)
from looper.metrics.family import holm
from looper.metrics.paired import AnalysisUnit, mcnemar_exact
from looper.metrics.power import power
from looper.records.plan import Contrast, Expect


@pytest.mark.parametrize(
    ("pairs", "discordance", "effect", "expected"),
    [
        (25, 0.20, 0.10, 0.06),
        (50, 0.10, 0.08, 0.21),
        (100, 0.10, 0.08, 0.67),
        (100, 0.15, 0.10, 0.70),
        (273, 0.10, 0.04, 0.48),
        (273, 0.20, 0.08, 0.82),
    ],
)
def test_power_of_the_exact_test_has_its_known_values(
    pairs: int, discordance: float, effect: float, expected: float
) -> None:
    assert power(pairs, discordance, effect) == pytest.approx(expected, abs=0.006)
    assert power(pairs, discordance, -effect) == pytest.approx(power(pairs, discordance, effect))


@pytest.mark.parametrize(
    ("pairs", "discordance", "size"),
    [(25, 0.10, 0.001), (50, 0.10, 0.009), (100, 0.20, 0.029), (273, 0.30, 0.038)],
)
def test_without_an_effect_the_exact_test_stays_below_its_level(
    pairs: int, discordance: float, size: float
) -> None:
    assert power(pairs, discordance, 0.0) == pytest.approx(size, abs=6e-4)


def test_a_pair_that_never_differs_shows_nothing() -> None:
    assert power(100, 0.0, 0.0) == 0.0


@pytest.mark.parametrize(
    ("tasks", "discordance", "effect"),
    [(12, 0.3, 0.5), (12, 1.0, 0.5), (12, 0.5, 0.62), (24, 1.0, 0.3), (24, 0.5, 0.8), (24, 0.05, 0.3), (80, 0.9, 0.3)],
)  # fmt: skip
def test_a_drawn_world_has_the_difference_it_is_said_to_have(
    tasks: int, discordance: float, effect: float
) -> None:
    """Held against cells drawn one by one: the difference as it is said, noise beside it as far as there are cells for both."""
    gain, loss = changes(discordance, effect)
    assert changes(discordance, -effect) == (loss, gain)
    assert gain - loss == pytest.approx(effect) and gain + loss <= 1 and min(gain, loss) >= 0
    assert gain + loss == pytest.approx(min(1, discordance + abs(effect)))
    rng = np.random.default_rng(1)
    drawn = rng.random((4000, tasks))
    gains, losses = (drawn < gain).sum(axis=1), (drawn > 1 - loss).sum(axis=1)
    assert float((gains - losses).mean()) / tasks == pytest.approx(effect, abs=0.01)
    found = np.mean(
        [mcnemar_exact(int(up), int(down)) <= 0.05 for up, down in zip(gains, losses, strict=True)]
    )
    assert power_of_tasks(tasks, discordance, effect, 0.05) == pytest.approx(float(found), abs=0.06)
    assert power(tasks, float(gain + loss), effect) == pytest.approx(float(found), abs=0.03)


def test_more_noise_makes_no_plan_decisive() -> None:
    """For any difference that a plan may count on: by exact sums at every design, and as a plan is worked out at some."""
    noises = [number / 20 for number in range(1, 21)]
    for tasks in (12, 24, 36, 48, 60, 90, 140, 300):
        for effect in (0.05, 0.1, 0.2, LARGEST_EFFECT):
            exact = [power(tasks, min(1.0, noise + effect), effect) for noise in noises]
            enough = [found >= 0.8 for found in exact]
            assert enough == sorted(enough, reverse=True), (tasks, effect)
        for noise in (0.05, 0.3, 0.6, 0.7, 0.8, 1.0):
            assert power_of_tasks(tasks, noise, LARGEST_EFFECT, 0.05) == pytest.approx(
                power(tasks, min(1.0, noise + LARGEST_EFFECT), LARGEST_EFFECT), abs=0.06
            )


@pytest.mark.parametrize(
    ("tasks", "noise", "points"), [(12, 0.33, 74), (12, 0.5, 74), (24, 0.3, 53), (120, 0.3, 18)]
)
def test_the_smallest_visible_difference_is_one_that_can_be(tasks: int, noise: float, points: int) -> None:
    least = smallest_of_tasks(tasks, noise) or 0.0
    assert 100 * least == pytest.approx(points, abs=2)
    assert power(tasks, min(1.0, noise + least), least) == pytest.approx(0.8, abs=0.05)


def test_holm_has_its_known_values() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.02] * 3) == pytest.approx([0.06] * 3)
    assert holm([0.5, 0.6, 0.7]) == [1.0, 1.0, 1.0] and holm([0.04]) == [0.04] and holm([]) == []


def test_power_counts_what_the_exact_test_refuses() -> None:
    """Twenty tasks of which eight are gained are not decided where the sign flip does not reach its level, so such a run is a pilot."""
    contrast = Contrast(arm="a", against="b", shown="", refuted="", open="")
    few = Design(tasks=20, seeds=1, worth=4, unit=AnalysisUnit.TASK, family=1, discordance=0.1)
    assert power_of(few, contrast, 0.4) == pytest.approx(0.69, abs=0.03)
    drawn = np.random.default_rng(0).integers(-3, 4, (50, 9))
    assert sign_flips(drawn) == pytest.approx([sign_flip(list(map(int, row))) for row in drawn], abs=1e-12)
    assert sign_flips(np.zeros((2, 3), int)) == pytest.approx([1.0, 1.0])


def test_without_an_effect_what_varies_between_repositories_hardly_ever_shows_one() -> None:
    contrast = Contrast(arm="a", against="b", shown="", refuted="", open="")
    many = Design(
        tasks=120, seeds=1, worth=12, unit=AnalysisUnit.REPOSITORY, family=1, discordance=0.1, spread=0.2
    )
    assert power_of(many, contrast, 0.0) <= 0.05
    assert power_of(many, contrast, 0.2) > power_of(many, contrast, 0.1) > 0.1


@pytest.mark.parametrize(("margin", "chance"), [(0.05, 0.44), (0.06, 0.70), (0.08, 0.95)])
def test_the_power_of_a_margin_is_that_of_two_one_sided_tests(margin: float, chance: float) -> None:
    """By the normal approximation, 2 Φ(margin / error − 1.653) − 1."""
    alike = Contrast(arm="a", against="b", expect=Expect.SAME, margin=margin, shown="", refuted="", open="")
    tasks = Design(tasks=200, seeds=1, worth=4, unit=AnalysisUnit.TASK, family=1, discordance=0.1)
    assert power_of(tasks, alike, 0.0) == pytest.approx(chance, abs=0.04)
