"""Registered contrasts: what is shown, refuted or left open, by the rule that was written down before."""

import random
import re
from collections.abc import Sequence

import pytest

from looper.metrics.claim import claim_of
from looper.metrics.paired import (
    AnalysisUnit,
    Difference,
    MeanDifference,
    PairedDifference,
    mean_difference,
    newcombe_paired,
    paired_difference,
)
from looper.metrics.registered import ALPHA, DECIDED, Decision, Registered, judge
from looper.records.plan import Contrast, Expect


def outcome(both: int, gains: int, losses: int, neither: int) -> PairedDifference:
    """Of so many tasks, one seed each."""
    pairs = [(True, True)] * both + [(True, False)] * gains + [(False, True)] * losses
    pairs += [(False, False)] * neither
    first = {f"0/r-{number}": ours for number, (ours, _) in enumerate(pairs)}
    second = {f"0/r-{number}": theirs for number, (_, theirs) in enumerate(pairs)}
    found = paired_difference(first, second)
    assert found is not None
    return found


def contrast(expect: Expect, margin: float = 0.1) -> Contrast:
    return Contrast(
        arm="a", against="b", expect=expect, margin=margin, shown="yes", refuted="no", open="cannot tell"
    )


def judged(*found: tuple[Contrast, Difference | None]) -> list[Registered]:
    return judge([(*pair, None) for pair in found])


def one(expect: Expect, found: Difference, margin: float = 0.1) -> Registered:
    return judged((contrast(expect, margin), found))[0]


@pytest.mark.parametrize(
    ("cells", "finding"),
    [
        ((400, 14, 15, 162), Decision.SHOWN),
        ((480, 5, 20, 86), Decision.OPEN),
        ((500, 0, 0, 91), Decision.SHOWN),
        ((480, 0, 60, 51), Decision.REFUTED),
    ],
)
def test_equivalence_is_an_interval_inside_the_margin(
    cells: tuple[int, int, int, int], finding: Decision
) -> None:
    found = one(Expect.SAME, outcome(*cells), margin=0.02)
    assert found.finding is finding
    assert found.confidence == pytest.approx(0.9), "two one-sided tests at 0.05"
    low, high = newcombe_paired(*cells, confidence=0.9)
    assert found.interval == pytest.approx((low, high), abs=2e-4)


def test_no_difference_seen_in_a_few_tasks_is_not_equivalence() -> None:
    found = one(Expect.SAME, outcome(5, 1, 1, 5), margin=0.05)
    assert found.finding is Decision.OPEN and found.sentence == "cannot tell"


@pytest.mark.parametrize("cells", [(1, 0, 0, 0), (12, 0, 0, 0), (0, 0, 0, 12), (6, 0, 0, 6), (20, 0, 0, 0)])
def test_d3_outcomes_that_are_all_alike_show_no_equality(cells: tuple[int, int, int, int]) -> None:
    for expect in (Expect.SAME, Expect.NOT_LESS, Expect.NOT_MORE):
        assert one(expect, outcome(*cells), margin=0.05).finding is Decision.OPEN


def test_d3_figures_that_do_not_vary_have_no_interval_and_decide_nothing() -> None:
    tasks = [f"0/r-{number}" for number in range(12)]
    for value in (0.0, 0.25):
        alike = mean_difference(dict.fromkeys(tasks, value), dict.fromkeys(tasks, 0.0))
        assert isinstance(alike, MeanDifference) and alike.interval() is None
        assert {one(expect, alike).finding for expect in Expect} == {Decision.OPEN}


def test_a_margin_can_hold_on_one_side_only() -> None:
    worse = outcome(100, 4, 60, 40)
    assert one(Expect.NOT_MORE, worse).finding is Decision.SHOWN
    assert one(Expect.NOT_LESS, worse).finding is Decision.REFUTED


def test_d4_the_family_is_what_was_registered_whatever_was_measured() -> None:
    """p = 0.031 is shown alone, and open among four, also where the other three have failed."""
    more, six = contrast(Expect.MORE), outcome(10, 6, 0, 40)
    assert one(Expect.MORE, six).finding is Decision.SHOWN
    family = judged((more, six), (more, None), (more, None), (more, None))
    assert [found.finding for found in family] == [Decision.OPEN, *[Decision.NOT_MEASURED] * 3]
    assert family[0].p_adjusted == pytest.approx(4 * six.p_value)


def test_d5_margins_are_in_the_family() -> None:
    small = outcome(60, 3, 2, 55)
    alone = one(Expect.NOT_MORE, small)
    assert alone.finding is Decision.SHOWN
    unclear = outcome(5, 1, 1, 5)
    family = judged(*[(contrast(Expect.NOT_MORE, 0.05), unclear)] * 9, (contrast(Expect.NOT_MORE), small))
    assert family[-1].p_adjusted == pytest.approx(min(1.0, 10 * alone.p_adjusted))
    assert family[-1].finding is Decision.SHOWN
    assert family[-1].confidence == pytest.approx(1 - 2 * ALPHA / 10)


def test_what_must_not_be_concluded_from_takes_no_step_from_the_others() -> None:
    more, large = contrast(Expect.MORE), outcome(10, 30, 2, 10)
    found = judge([(more, large, Decision.INDECISIVE), (more, outcome(10, 7, 0, 30), None)])
    assert [one.finding for one in found] == [Decision.INDECISIVE, Decision.SHOWN]
    assert found[1].p_adjusted == pytest.approx(2 * 2 / 2**7)


def _random_difference(rng: random.Random) -> Difference:
    tasks = rng.choice([1, 2, 8, 30])
    keys = [f"{seed}/r{task % 3}-{task}" for task in range(tasks) for seed in range(rng.choice([1, 3]))]
    gain = rng.random() / 2
    ours, theirs = ({key: rng.random() < share for key in keys} for share in (0.3 + gain, 0.3))
    unit = rng.choice(list(AnalysisUnit))
    if rng.random() < 0.3:
        found: Difference | None = mean_difference(
            {key: rng.gauss(gain, 0.3) for key in keys}, dict.fromkeys(keys, 0.0), unit
        )
    else:
        found = paired_difference(ours, theirs, unit)
    assert found is not None
    return found


def test_d10_the_interval_that_is_shown_and_the_decision_agree() -> None:
    """Whatever is drawn: shown or refuted exactly where the printed interval lies clear of what it is about."""
    rng, seen = random.Random(10), set[tuple[Expect, Decision]]()
    for _ in range(150):
        family = judged(
            *[
                (contrast(rng.choice(list(Expect)), rng.choice([0.1, 0.3])), _random_difference(rng))
                for _ in range(rng.choice([1, 4]))
            ]
        )
        for found in family:
            seen.add((found.contrast.expect, found.finding))
            assert found.finding is _by_interval(found), found
            assert (found.finding is Decision.OPEN) == (found.p_adjusted >= ALPHA)
    assert len(seen) >= 9, seen


def _by_interval(found: Registered) -> Decision:
    if found.interval is None:
        return Decision.OPEN
    (low, high), margin = found.interval, found.contrast.margin
    above, below = {
        Expect.MORE: (low > 0, high < 0),
        Expect.SAME: (low > -margin and high < margin, low > margin or high < -margin),
        Expect.NOT_MORE: (high < margin, low > margin),
        Expect.NOT_LESS: (low > -margin, high < -margin),
    }[found.contrast.expect]
    return Decision.SHOWN if above else Decision.REFUTED if below else Decision.OPEN


def test_p_values_and_intervals_of_one_difference_agree_at_every_level() -> None:
    rng = random.Random(3)
    for _ in range(100):
        found = _random_difference(rng)
        for alpha in (0.2, 0.05, 0.01, 0.001):
            interval = found.interval(1 - alpha)
            leaves_out = interval is not None and not interval[0] <= 0 <= interval[1]
            assert leaves_out == (found.p_value < alpha), (found, alpha)


def test_what_was_not_measured_is_not_judged() -> None:
    (found,) = judged((contrast(Expect.MORE), None))
    assert found.finding is Decision.NOT_MEASURED and found.sentence == ""
    assert "no task has what is compared in all of the arms" in claim_of(found.contrast, found.finding)
    assert found.interval is None


GAIN, LOSS, DIFFERENCE = (
    f"a {of} of 10.0 points or more is neither shown nor excluded" for of in ("gain", "loss", "difference")
)
CLAIMS: list[tuple[dict[str, object], str, str, str]] = [
    ({}, "a resolves more tasks than b", "a resolves fewer tasks than b", "neither more nor fewer is shown"),
    ({"expect": "not_more"}, "a does not resolve 10.0 points more than b", "a resolves at least 10.0 points more than b", GAIN),
    ({"expect": "not_less"}, "a does not resolve 10.0 points less than b", "a resolves at least 10.0 points less than b", LOSS),
    ({"expect": "same"}, "a and b resolve less than 10.0 points apart", "a and b resolve at least 10.0 points apart", DIFFERENCE),
    (
        {"expect": "same", "margin": 0.1234},
        "a and b resolve less than 12.34 points apart",
        "a and b resolve at least 12.34 points apart",
        "a difference of 12.34 points or more is neither shown nor excluded",
    ),
    (
        {"metric": "valid_actions"},
        "a is higher in valid actions than b",
        "a is lower in valid actions than b",
        "neither higher nor lower is shown",
    ),
    (
        {"metric": "retention", "expect": "not_less", "margin": 0.105},
        "a is not 0.105 nats per token lower in retention than b",
        "a is at least 0.105 nats per token lower in retention than b",
        "a loss of 0.105 nats per token or more is neither shown nor excluded",
    ),
    (
        {"metric": "answers_supported", "expect": "same"},
        "a and b are less than 10.0 points apart in answers supported",
        "a and b are at least 10.0 points apart in answers supported",
        DIFFERENCE,
    ),
    (
        {"through": ("c", "d")},
        "the line through 4 arms from b to a rises in tasks resolved",
        "the line through 4 arms from b to a falls in tasks resolved",
        "neither a rise nor a fall is shown",
    ),
    (
        {"through": ("c",), "expect": "not_less", "metric": "file_recall"},
        "the line through 3 arms from b to a does not fall by 10.0 points in file recall",
        "the line through 3 arms from b to a falls by at least 10.0 points in file recall",
        LOSS,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "shown", "refuted", "undecided"), CLAIMS)
def test_the_claim_of_a_contrast_is_made_of_what_is_compared_and_decided(
    asked: dict[str, object], shown: str, refuted: str, undecided: str
) -> None:
    """And of no word of its plan, whatever its author wrote."""
    found = Contrast.model_validate(
        {
            "arm": "a",
            "against": "b",
            "shown": "Cures all.",
            "refuted": "Kills all.",
            "open": "Who knows.",
            **asked,
        }
    )
    claims = [claim_of(found, each) for each in (Decision.SHOWN, Decision.REFUTED, Decision.OPEN)]
    assert claims == [shown, refuted, undecided]


@pytest.mark.parametrize("finding", [each for each in Decision if each not in DECIDED])
def test_where_nothing_was_decided_the_claim_says_so_and_the_plan_says_nothing(finding: Decision) -> None:
    found = Registered(contrast(Expect.MORE), None, 1.0, 0.95, finding)
    assert re.search(
        "decides nothing|nothing is concluded|nothing to compare", claim_of(found.contrast, finding)
    )
    assert found.sentence == ""


def by_repository(moves: Sequence[int], members: int = 12) -> PairedDifference:
    """Each repository gains or loses as many of its tasks as its entry says."""
    ours, theirs = {}, {}
    for repo, move in enumerate(moves):
        for number in range(members):
            key = f"0/r{repo}-{number}"
            ours[key] = number < members // 2 + move
            theirs[key] = number < members // 2
    found = paired_difference(ours, theirs, AnalysisUnit.REPOSITORY)
    assert found is not None
    return found


def test_d1_a_gain_of_a_few_repositories_is_no_gain_of_repositories() -> None:
    """36 tasks gained and 15 lost would be shown by task; by repository it is what twelve repositories differ by anyway."""
    found = by_repository([6, 6, 6, 6, 6, 6, -3, -3, -3, -3, -3, 0])
    by_task = outcome(57, 36, 15, 36)
    assert found.difference == by_task.difference
    assert by_task.p_value < 0.05 < found.p_value
    assert found.units == 12 and found.effective < 30
    assert one(Expect.MORE, found).finding is Decision.OPEN


def test_repositories_that_all_gain_alike_are_as_sure_as_their_number() -> None:
    found = by_repository([3] * 12)
    assert found.p_flip == pytest.approx(2 / 2**12) and one(Expect.MORE, found).finding is Decision.SHOWN
