"""Taking one of several attempts: what a chooser may look at, and what it takes."""

from tests.training.test_select import CHECK, FIX, LOOK, REFUSED, step

from looper.metrics.choice import AttemptOutcome, can_choose, chosen, own_check
from looper.records.plan import Chooser
from looper.records.trajectory import Step

RIGHT, WRONG = AttemptOutcome("a", False, True), AttemptOutcome("b", False, False)
NOTHING = AttemptOutcome("e", True, False)


def test_the_majority_s_patch_is_taken_and_the_earliest_of_equals() -> None:
    assert chosen(Chooser.MAJORITY, [WRONG, RIGHT, RIGHT], "c") == RIGHT
    assert chosen(Chooser.MAJORITY, [WRONG, RIGHT], "c") == WRONG
    assert chosen(Chooser.MAJORITY, [RIGHT, WRONG], "c") == RIGHT


def test_no_patch_is_taken_only_where_nobody_made_one() -> None:
    assert chosen(Chooser.MAJORITY, [NOTHING, NOTHING, WRONG], "c") == WRONG
    assert chosen(Chooser.MAJORITY, [NOTHING, NOTHING], "c") == NOTHING


def test_only_the_ceiling_looks_at_the_verdict() -> None:
    assert chosen(Chooser.ANY, [WRONG, NOTHING, RIGHT], "c") == RIGHT
    assert chosen(Chooser.ANY, [WRONG, NOTHING], "c") == WRONG
    for by in (Chooser.MAJORITY, Chooser.RANDOM):
        for number in range(20):
            made = [AttemptOutcome(name, False, False) for name in "abca"]
            judged = [
                AttemptOutcome(found.patch_hash, False, at == number % 4) for at, found in enumerate(made)
            ]
            taken, again = chosen(by, made, str(number)), chosen(by, judged, str(number))
            assert taken.patch_hash == again.patch_hash


def test_an_agent_s_own_check_decides_where_one_passed() -> None:
    checked, first = AttemptOutcome("b", False, False, checked=True), AttemptOutcome("a", False, True)
    assert chosen(Chooser.CHECKED, [NOTHING, first, checked], "c") == checked
    assert chosen(Chooser.CHECKED, [NOTHING, first, WRONG], "c") == first
    assert chosen(Chooser.CHECKED, [AttemptOutcome("e", True, False, checked=True), WRONG], "c") == WRONG


def test_a_check_counts_only_after_the_last_change() -> None:
    passing, failing = ran(0), ran(1)
    change = step(1, FIX)
    assert own_check([change, passing]) and own_check([failing, change, passing, step(2, LOOK)])
    assert not own_check([passing, change]) and not own_check([change, failing]) and not own_check([])
    assert not own_check([change, ran(-9)]), "killed by a signal"
    assert own_check([passing, step(1, FIX, REFUSED)]), "a refused change changes nothing"


def test_the_likeliest_patch_is_taken_and_nothing_where_that_was_not_measured() -> None:
    attempts = [
        AttemptOutcome("a", False, False, log_likelihood=-0.5),
        AttemptOutcome("b", False, True, log_likelihood=-0.2),
        NOTHING,
    ]
    assert can_choose(Chooser.LIKELIEST, attempts)
    assert chosen(Chooser.LIKELIEST, attempts, "c").patch_hash == "b"
    certain = AttemptOutcome("d", False, False, log_likelihood=0.0)
    assert chosen(Chooser.LIKELIEST, [*attempts, certain], "c") == certain
    assert [by for by in Chooser if not can_choose(by, [*attempts, WRONG])] == [Chooser.LIKELIEST]


def ran(code: int) -> Step:
    made = step(1, CHECK)
    return made.model_copy(update={"observation": made.observation.model_copy(update={"exit_code": code})})


def test_a_drawn_choice_is_the_same_whenever_it_is_made_and_takes_all_alike() -> None:
    made = [AttemptOutcome(name, False, False) for name in "abc"]
    taken = [chosen(Chooser.RANDOM, made, str(number)).patch_hash for number in range(300)]
    assert taken == [chosen(Chooser.RANDOM, made, str(number)).patch_hash for number in range(300)]
    assert all(70 < taken.count(name) < 130 for name in "abc")
