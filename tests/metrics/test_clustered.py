"""Tests and intervals for cells that are not independent, against values worked out in full."""

import random
import statistics

import numpy as np
import pytest
from scipy.stats import permutation_test

from looper.metrics.clustered import clustered, degrees_of, sign_flip
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


def test_groups_of_one_size_vary_as_their_means_do_with_one_degree_less() -> None:
    groups = [[1.0, 0.0, 1.0], [0.0, 0.0, 0.5], [1.0, 1.0, 1.0], [0.0, 0.5, 0.0]]
    means = [statistics.fmean(values) for values in groups]
    assert clustered(groups) == pytest.approx((statistics.variance(means) / 4, 3))
    assert clustered([[0.7] * 8, [0.7] * 4])[0] == 0.0, "what rounding leaves of equal values is nothing"


@pytest.mark.parametrize("sizes", [(1, 1, 1, 40), (2, 4, 6, 12) * 6, (1, 2)])
def test_groups_of_unlike_sizes_have_the_degrees_of_bell_and_mccaffrey_and_no_bias(
    sizes: tuple[int, ...],
) -> None:
    """By the matrices that their paper writes down, where members of a group are alike."""
    count, groups = sum(sizes), len(sizes)
    member = np.repeat(np.eye(groups), sizes, axis=0)
    residual = np.eye(count) - 1 / count
    scale = np.diag([1 / np.sqrt(1 - size / count) for size in sizes])
    shape = scale @ member.T @ residual @ member / count
    gram = shape @ shape.T
    assert degrees_of(sizes) == pytest.approx(np.trace(gram) ** 2 / (gram**2).sum())
    assert degrees_of(sizes) <= groups - 1 + 1e-9
    # Independent members of variance 1: the mean has variance 1 / count, and so is what is expected of the estimate.
    own = scale @ member.T @ residual / count
    assert np.trace(own @ own.T) == pytest.approx(1 / count)
