"""Continual-learning figures on matrices that were worked out by hand, in exact fractions."""

from fractions import Fraction
from statistics import fmean

import pytest

from looper.metrics.continual import (
    area_under_learning_curve,
    backward_transfer_paper,
    forgetting_chaudhry,
    forgetting_paper,
    forgetting_standard,
    forgetting_v1,
    forgotten,
    forward_transfer_paper,
    forward_transfer_stream,
    learning_slope,
    learning_slope_within,
    plasticity,
    tool_use_efficiency_paper,
)

FORGETTING = (forgetting_paper, forgetting_standard, forgetting_chaudhry, forgetting_v1)


def matrix(text: str) -> list[list[float]]:
    return [[float(Fraction(value)) for value in row.split()] for row in text.split("/ ")]


CASES = {
    "M1": (
        matrix("1 0 0 1/ 1 1 0 0/ 0 1 1 0/ 1 0 1 1"),
        [0, 0, 1, 0],
        ("1", "1", ("1/3", "1/3", "1/3", "1/3"), "-1/3", "-1/3"),
    ),
    "M2": (
        matrix("0 1 0/ 1 0 0/ 0 1 1"),
        [0, 1, 0],
        ("1/3", "1/9", ("0", "0", "1/2", "-1/2"), "0", "1/2"),
    ),
    "M3": (
        matrix("1 1 0/ 1 0 1/ 0 0 1"),
        [0, 0, 1],
        ("2/3", "13/18", ("1", "1/2", "1", "1/2"), "1/2", "-1/2"),
    ),
    "M4": (
        matrix("1/2 0 0/ 1/2 1 1/4/ 1/4 1 3/4"),
        [0, 0.5, 0],
        ("3/4", "2/3", ("1/8", "1/8", "1/8", "1/8"), "-1/8", "-1/8"),
    ),
    "two tasks": (
        matrix("1 0/ 1/2 1"),
        [0, 0.25],
        ("1", "1", ("1/2",) * 4, "-1/4", "-1/2"),
    ),
    "better at the end": (
        matrix("0 0/ 1 1"),
        [0, 0],
        ("1/2", "1/4", ("-1",) * 4, "0", "1"),
    ),
    "all fail": (
        matrix("0 0 0/ 0 0 0/ 0 0 0"),
        [0, 0, 0],
        ("0", "0", ("0",) * 4, "0", "0"),
    ),
    "all pass": (
        matrix("1 1 1/ 1 1 1/ 1 1 1"),
        [1, 1, 1],
        ("1", "1", ("0",) * 4, "0", "0"),
    ),
}


def near(text: str) -> object:
    return pytest.approx(float(Fraction(text)))


@pytest.mark.parametrize("name", CASES)
def test_every_variant_has_its_known_value(name: str) -> None:
    scores, zero_shot, (plastic, curve, losses, forward, backward) = CASES[name]
    assert plasticity(scores) == near(plastic)
    assert area_under_learning_curve(scores) == near(curve)
    assert [found(scores) for found in FORGETTING] == [near(value) for value in losses]
    assert forward_transfer_paper(scores, zero_shot) == near(forward)
    assert backward_transfer_paper(scores) == near(backward)


def test_what_is_forgotten_of_each_task_adds_up_to_the_usual_forgetting() -> None:
    for scores, *_ in CASES.values():
        count = len(scores)
        each = [forgotten([scores[at][task] for at in range(task, count)]) for task in range(count)]
        assert each[-1] is None, "nothing came after the last"
        assert fmean(value for value in each if value is not None) == pytest.approx(
            forgetting_standard(scores)
        )


def test_learning_slopes_have_their_known_values() -> None:
    assert learning_slope([0, 0, 1, 0, 1]) == pytest.approx(0.2)
    assert learning_slope([0, 0, 1, 0, 1, 1]) == pytest.approx(0.2)
    assert learning_slope([0, 0.5, 2]) == pytest.approx(1.0)
    assert learning_slope_within([[0, 0, 1], [0, 1, 1]]) == pytest.approx(0.5)
    assert learning_slope([1]) is None and learning_slope([]) is None and learning_slope_within([]) is None


def test_one_pass_gives_the_transfer_of_a_stream() -> None:
    """M1 without re-tests: every task resolved at its own turn."""
    assert forward_transfer_stream([1, 1, 1, 1], CASES["M1"][1]) == pytest.approx(2 / 3)
    assert forward_transfer_stream([1], [0]) is None and forward_transfer_stream([], []) is None


def test_tool_use_efficiency_of_the_paper_is_a_quotient_of_times() -> None:
    assert tool_use_efficiency_paper([50, 80], [30, 50, 80, 100, 120]) == pytest.approx(0.8125)
    assert tool_use_efficiency_paper([], [30, 50]) is None


def test_with_one_task_there_is_nothing_to_forget_and_nothing_to_transfer_to() -> None:
    scores, zero_shot = [[1.0]], [0.0]
    assert [found(scores) for found in FORGETTING] == [None] * 4
    assert forward_transfer_paper(scores, zero_shot) is None and backward_transfer_paper(scores) is None
    assert plasticity(scores) == 1.0
