"""Power, size and families of tests, against values that were worked out elsewhere."""

import numpy as np
import pytest

from looper.metrics.clustered import sign_flip
from looper.metrics.design import Design, power_of, sign_flips
from looper.metrics.family import holm
from looper.metrics.paired import AnalysisUnit
from looper.metrics.power import power, smallest_detectable
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


@pytest.mark.parametrize(
    ("pairs", "discordance", "points"),
    [(25, 0.30, 29.9), (50, 0.20, 17.6), (100, 0.10, 8.8), (150, 0.15, 9.1), (273, 0.20, 7.8)],
)
def test_the_smallest_detectable_effect_has_its_known_values(
    pairs: int, discordance: float, points: float
) -> None:
    assert 100 * (smallest_detectable(pairs, discordance) or 0) == pytest.approx(points, abs=0.11)


def test_a_few_pairs_detect_nothing() -> None:
    assert smallest_detectable(15, 0.30) is None and smallest_detectable(25, 0.10) is None
    assert smallest_detectable(78, 0.10) == pytest.approx(0.1), "nothing smaller than all that differ"
    assert power(100, 0.0, 0.0) == 0.0


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
