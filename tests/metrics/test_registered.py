"""Registered contrasts: what is shown, refuted or left open, by the rule that was written down before."""

import pytest

from looper.metrics.paired import PairedDifference, newcombe_paired, paired_difference
from looper.metrics.registered import Finding, judge
from looper.records.plan import Contrast, Expect


def outcome(both: int, gains: int, losses: int, neither: int) -> PairedDifference:
    pairs = [(True, True)] * both + [(True, False)] * gains + [(False, True)] * losses
    pairs += [(False, False)] * neither
    first = {f"0/r-{number}": ours for number, (ours, _) in enumerate(pairs)}
    second = {f"0/r-{number}": theirs for number, (_, theirs) in enumerate(pairs)}
    found = paired_difference(first, second)
    assert found is not None
    return found


def contrast(expect: Expect, margin: float = 0.02) -> Contrast:
    return Contrast(
        arm="a", against="b", expect=expect, margin=margin, shown="yes", refuted="no", open="cannot tell"
    )


@pytest.mark.parametrize(
    ("cells", "low", "high", "finding"),
    [
        ((400, 14, 15, 162), -0.017015, 0.013623, Finding.SHOWN),
        ((400, 15, 15, 161), -0.015570, 0.015570, Finding.SHOWN),
        ((480, 5, 20, 86), -0.040023, -0.011270, Finding.OPEN),
        ((500, 0, 0, 91), -0.004202, 0.004202, Finding.SHOWN),
        ((480, 0, 60, 51), None, None, Finding.REFUTED),
    ],
)
def test_equivalence_is_an_interval_inside_the_margin(
    cells: tuple[int, int, int, int], low: float | None, high: float | None, finding: Finding
) -> None:
    if low is not None:
        assert newcombe_paired(*cells, confidence=0.9) == pytest.approx((low, high), abs=1e-6)
    (found,) = judge([(contrast(Expect.SAME), outcome(*cells))])
    assert found.finding is finding and found.p_adjusted is None


def test_no_difference_seen_in_a_few_tasks_is_not_equivalence() -> None:
    (found,) = judge([(contrast(Expect.SAME, 0.05), outcome(5, 1, 1, 5))])
    assert found.finding is Finding.OPEN and found.sentence == "cannot tell"


def test_a_margin_can_hold_on_one_side_only() -> None:
    worse = outcome(50, 2, 30, 20)
    findings = [
        judge([(contrast(expect, 0.1), worse)])[0].finding for expect in (Expect.NOT_MORE, Expect.NOT_LESS)
    ]
    assert findings == [Finding.SHOWN, Finding.REFUTED]


def test_differences_are_tested_over_the_whole_family() -> None:
    small, large = outcome(10, 7, 0, 10), outcome(10, 20, 2, 10)
    more = contrast(Expect.MORE)
    alone = judge([(more, small)])[0]
    assert alone.finding is Finding.SHOWN and alone.sentence == "yes"
    assert alone.p_adjusted == pytest.approx(1 / 64)
    family = judge([(more, small), (more, large), (more, outcome(5, 1, 1, 5)), (more, small)])
    assert [found.finding for found in family] == [Finding.SHOWN, Finding.SHOWN, Finding.OPEN, Finding.SHOWN]
    assert family[0].p_adjusted == pytest.approx(3 / 64)
    (harm,) = judge([(more, outcome(10, 0, 9, 10))])
    assert harm.finding is Finding.REFUTED and harm.sentence == "no"


def test_what_was_not_measured_is_not_judged() -> None:
    (found,) = judge([(contrast(Expect.MORE), None)])
    assert found.finding is Finding.NOT_MEASURED and "no task has a verdict in both arms" in found.sentence
