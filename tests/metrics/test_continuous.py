"""Several attempts, and differences that are no yes or no, against values worked out in full."""

import random
from statistics import fmean

import pytest
from scipy.stats import bootstrap

from looper.metrics.attempts import pass_all_k, pass_at_k
from looper.metrics.continuous import bca, rank_biserial
from looper.metrics.effort import effort
from looper.metrics.paired import AnalysisUnit


@pytest.mark.parametrize(
    ("attempts", "resolved", "k", "once", "always"),
    [
        (10, 3, 1, 0.3, 0.3),
        (10, 3, 5, 11 / 12, 0.0),
        (4, 1, 2, 0.5, 0.0),
        (4, 0, 2, 0.0, 0.0),
        (4, 2, 2, 5 / 6, 1 / 6),
        (4, 4, 2, 1.0, 1.0),
        (4, 1, 4, 1.0, 0.0),
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


def test_the_bca_interval_is_that_of_scipy() -> None:
    rng = random.Random(7)
    values = [rng.expovariate(1) for _ in range(60)]
    theirs = bootstrap((values,), fmean, vectorized=False, n_resamples=10_000, rng=1).confidence_interval
    assert bca(values) == pytest.approx((theirs.low, theirs.high), abs=0.03)


def test_effort_is_compared_task_by_task_over_what_both_have() -> None:
    base = {"0/a": 4.0, "1/a": 6.0, "0/b": 3.0, "0/c": 8.0, "0/d": 1.0}
    arm = {"0/a": 2.0, "1/a": 2.0, "0/b": 1.0, "0/c": 9.0, "0/e": 1.0}
    found = effort(arm, base)
    assert found is not None
    assert (found.tasks, found.base, found.arm) == (3, 5.0, 2.0)
    assert found.effect == pytest.approx((1 - 3 - 2) / 6) and found.p == pytest.approx(0.5)
    assert effort({"0/a": 1.0}, {"0/b": 1.0}) is None


def test_the_effort_of_repositories_is_no_evidence_of_each_of_their_tasks() -> None:
    """Two repositories of ten tasks, each quicker at all of them: twenty tasks would say so, two repositories cannot."""
    base = {f"0/r{repo}-{task}": 8.0 for repo in range(2) for task in range(10)}
    arm = {where: 5.0 + 0.1 * number for number, where in enumerate(base)}
    by_task, by_repository = effort(arm, base), effort(arm, base, AnalysisUnit.REPOSITORY)
    assert by_task is not None and by_task.p < 0.001
    assert by_repository is not None and by_repository.p == pytest.approx(0.5)
