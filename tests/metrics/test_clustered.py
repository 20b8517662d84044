"""Tests and intervals for cells that are not independent, against values worked out in full."""

import random
import statistics

import pytest
from scipy.stats import permutation_test

from looper.metrics.clustered import sign_flip
from looper.metrics.paired import mcnemar_exact


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ((2 / 3, 1 / 3, 0, 1 / 3, -1 / 3, 1 / 3), 5 / 16),
        ((1, 1, 1, 0.5, 0, -0.5), 3 / 16),
        ((1,) * 6, 1 / 32),
        ((1,) * 8 + (-1,), 0.0390625),
        ((0, 0, 0), 1.0),
        ((), 1.0),
    ],
)
def test_sign_flip_has_its_known_values(differences: tuple[float, ...], p: float) -> None:
    assert sign_flip(differences) == pytest.approx(p)
    assert sign_flip([-value for value in differences]) == pytest.approx(p)


def test_sign_flip_equals_exact_mcnemar_for_one_seed() -> None:
    for gains, losses in ((10, 3), (40, 25), (150, 100), (0, 7)):
        differences = [1.0] * gains + [-1.0] * losses + [0.0] * 20
        assert sign_flip(differences) == pytest.approx(mcnemar_exact(gains, losses), rel=1e-9)


def test_sign_flip_is_the_permutation_test_of_scipy() -> None:
    rng = random.Random(3)
    differences = [rng.choice((1.0, 0.5, 0.0, -0.5, -1.0)) for _ in range(12)]
    theirs = permutation_test(
        (differences,), statistics.fmean, permutation_type="samples", n_resamples=100_000, vectorized=False
    )
    assert sign_flip(differences) == pytest.approx(theirs.pvalue, rel=1e-9)


def test_sign_flip_over_differences_of_any_size_is_drawn_and_near_the_exact_one() -> None:
    rng = random.Random(1)
    exact = [rng.choice((1, 0.5, -0.5, 1)) for _ in range(16)]
    uneven = [value + rng.uniform(-1e-3, 1e-3) for value in exact]
    assert sign_flip(uneven) == pytest.approx(sign_flip(exact), abs=0.01)
    assert sign_flip([rng.uniform(0.9, 1.1) for _ in range(200)]) == pytest.approx(1 / 100_001)


def test_sign_flip_keeps_its_size_when_nothing_differs() -> None:
    rng = random.Random(2)
    hits = sum(sign_flip([rng.choice((-1, 1, 0)) for _ in range(12)]) <= 0.05 for _ in range(400))
    assert hits / 400 <= 0.075
