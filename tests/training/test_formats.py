"""Successes retold as text: what each format asks and answers, from the records alone."""

import pytest

from looper.records.task import Task
from looper.records.training import Format
from looper.records.trajectory import Edit
from looper.records.verdict import Outcome
from looper.training.formats import keys, retold, says
from tests.training.test_select import CHECK, DONE, FIX, LOOK, attempt

WRONG = Edit(path=FIX.path, old=FIX.old, new="return x * 7")
SUCCESS = attempt("t", Outcome.RESOLVED, CHECK, LOOK, WRONG, CHECK, FIX, CHECK, DONE)


def told(form: Format, task: Task, pairs: int | None = None) -> list[tuple[str, str]]:
    return [(item.turns[1].text, item.turns[2].text) for item in retold(SUCCESS, task, form, "system", pairs)]


def test_every_format_but_the_trajectory_itself_has_something_to_tell(task: Task) -> None:
    for form in Format:
        if form is Format.TRAJECTORY:
            with pytest.raises(ValueError, match="not retold"):
                told(form, task)
            continue
        found = retold(SUCCESS, task, form, "system")
        assert found and all(item.instance_id == task.instance_id for item in found)
        assert len({item.source for item in found}) == len(found)
        assert [turn.supervised for turn in found[0].turns] == [False, False, True]


def test_questions_are_answered_with_the_change_that_stayed(task: Task) -> None:
    answers = dict(told(Format.SIMPLE_QA, task))
    assert f"In {FIX.path} replace `{FIX.old}` by `{FIX.new}`." in answers.values()
    assert FIX.path in answers.values() and CHECK.command in answers.values()
    assert len(told(Format.SIMPLE_QA, task, 2)) == 2


def test_every_answer_says_its_key_and_more_can_be_asked_than_one_fix(task: Task) -> None:
    for form in Format:
        if form is not Format.TRAJECTORY:
            for (_, answer), key in zip(told(form, task), keys(SUCCESS, task, form), strict=True):
                assert says(answer, key), (form, answer, key)
    asked = told(Format.SIMPLE_QA, task)
    assert len({question for question, _ in asked}) == len(asked) >= 6
    assert dict(asked)[f"{task.problem_statement}\nWhat stands there before the fix?"] == FIX.old


def test_blanks_and_line_ends_do_not_count_in_an_answer() -> None:
    assert says("use\n  return x * 60 there", "return  x *\n60")
    assert not says("return x * 6", "return x * 60") and not says("", "return")
    assert not says("return x * 60", "return x * 6"), "a longer number is another number"


def test_a_deletion_is_told_by_what_was_deleted(task: Task) -> None:
    gone = Edit(path=FIX.path, old=FIX.old, new="")
    found = attempt("t", Outcome.RESOLVED, CHECK, LOOK, gone, CHECK, DONE)
    for form in (Format.SIMPLE_QA, Format.REFLEXION, Format.CONTEXTUAL):
        assert all(keys(found, task, form)), "an empty key would be said by every answer"


def test_reflexion_tells_what_was_in_vain_before_what_helped(task: Task) -> None:
    (question, answer), *_ = told(Format.REFLEXION, task)
    assert WRONG.new in question and "did not help" in question and FIX.new in answer


def test_thoughts_follow_the_steps_and_facts_are_those_of_the_repository(task: Task) -> None:
    ((_, thought),) = told(Format.CHAIN_OF_THOUGHT, task)
    assert thought.index(CHECK.command) < thought.index(WRONG.new) < thought.index(FIX.new)
    facts = dict(told(Format.CONTEXTUAL, task))
    assert facts[f"{task.repo}: how does {FIX.path} do it?"] == FIX.new


def test_the_gold_diff_is_the_benchmarks_own(task: Task) -> None:
    assert told(Format.GOLD_DIFF, task) == [(task.problem_statement, task.gold_patch)]
