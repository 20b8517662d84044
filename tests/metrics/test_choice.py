"""Taking one of several attempts: what a chooser may look at, and what it takes."""

from looper.metrics.choice import Made, chosen
from looper.records.plan import Chooser

RIGHT, WRONG = Made("a", False, True), Made("b", False, False)
NOTHING = Made("e", True, False)


def test_the_majority_s_patch_is_taken_and_the_earliest_of_equals() -> None:
    assert chosen(Chooser.MAJORITY, [WRONG, RIGHT, RIGHT], "c") == RIGHT
    assert chosen(Chooser.MAJORITY, [WRONG, RIGHT], "c") == WRONG
    assert chosen(Chooser.MAJORITY, [RIGHT, WRONG], "c") == RIGHT


def test_no_patch_is_taken_only_where_nobody_made_one() -> None:
    assert chosen(Chooser.MAJORITY, [NOTHING, NOTHING, WRONG], "c") == WRONG
    assert chosen(Chooser.MAJORITY, [NOTHING, NOTHING], "c") == NOTHING


def test_only_the_ceiling_looks_at_the_verdict() -> None:
    assert chosen(Chooser.ANY, [WRONG, NOTHING, RIGHT], "c") == RIGHT
    for by in (Chooser.MAJORITY, Chooser.RANDOM):
        for number in range(20):
            made = [Made(name, False, False) for name in "abca"]
            judged = [Made(found.patch_hash, False, at == number % 4) for at, found in enumerate(made)]
            taken, again = chosen(by, made, str(number)), chosen(by, judged, str(number))
            assert taken.patch_hash == again.patch_hash


def test_a_drawn_choice_is_the_same_whenever_it_is_made_and_takes_all_alike() -> None:
    made = [Made(name, False, False) for name in "abc"]
    taken = [chosen(Chooser.RANDOM, made, str(number)).patch_hash for number in range(300)]
    assert taken == [chosen(Chooser.RANDOM, made, str(number)).patch_hash for number in range(300)]
    assert all(70 < taken.count(name) < 130 for name in "abc")
