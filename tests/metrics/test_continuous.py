"""Several attempts, and differences that are no yes or no, against values worked out in full."""

import random
from statistics import fmean

import pytest

from looper.metrics.attempts import pass_all_k, pass_at_k
from looper.metrics.continuous import bca, rank_biserial


@pytest.mark.parametrize(
    ("attempts", "resolved", "k", "once", "always"),
    [
        (10, 3, 1, 0.3, 0.3),
        (10, 3, 5, 11 / 12, 0.0),
        (4, 1, 2, 0.5, 0.0),
        (4, 0, 2, 0.0, 0.0),
        (4, 2, 2, 5 / 6, 1 / 6),
        (4, 4, 2, 1.0, 1.0),
        (2, 1, 3, None, None),
    ],
)
def test_chances_over_several_attempts(
    attempts: int, resolved: int, k: int, once: float | None, always: float | None
) -> None:
    assert pass_at_k(attempts, resolved, k) == (None if once is None else pytest.approx(once))
    assert pass_all_k(attempts, resolved, k) == (None if always is None else pytest.approx(always))


def test_the_rank_biserial_correlation_has_its_known_values() -> None:
    assert rank_biserial([3, -1, 2, 5, -4]) == pytest.approx(1 / 3)
    assert rank_biserial([1, 1, 1]) == 1.0 and rank_biserial([-2, -2]) == -1.0
    assert rank_biserial([0, 0]) is None and rank_biserial([]) is None
    assert rank_biserial([1, -1, 0]) == 0.0


def test_the_bca_interval_has_its_known_values() -> None:
    assert bca([2, 3, 5, 7, 13]) == pytest.approx((3.4, 10.6))
    assert bca([-1, 0, 1, 2, 7, 3]) == pytest.approx((1 / 3, 14 / 3))
    assert bca([1, 1, 1]) is None


def test_the_bca_interval_of_many_values_is_near_the_normal_one() -> None:
    rng = random.Random(4)
    values = [rng.gauss(10, 2) for _ in range(200)]
    low, high = bca(values) or (0.0, 0.0)
    half = 1.96 * 2 / 200**0.5
    assert low == pytest.approx(fmean(values) - half, abs=0.08)
    assert high == pytest.approx(fmean(values) + half, abs=0.08)
