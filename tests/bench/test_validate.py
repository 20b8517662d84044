"""Which tasks can tell right from wrong: judged with gold and with nothing, before any model."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from looper.bench.validate import (
    difference,
    eligible,
    in_force,
    shipped,
    validate,
)
from looper.bench.verify import TestReport
from looper.cli.validating import ValidationEta
from looper.errors import EnvironmentBroken, RunKilled, VerifierBroken
from looper.records.eligibility import Validation
from looper.records.task import Task
from looper.records.verdict import Outcome, TestOutcome
from looper.views.eligibility import table_lines

PASSED, FAILED, MISSING = TestOutcome.PASSED, TestOutcome.FAILED, TestOutcome.MISSING


@pytest.fixture
def labelled(task: Task) -> Task:
    return task.model_copy(update={"gold_patch": "gold", "fail_to_pass": ("f",), "pass_to_pass": ("p", "q")})


def judged(fixed: TestOutcome, *kept: TestOutcome, tampering: tuple[str, ...] = ()) -> TestReport:
    passed = all(test.passes for test in (fixed, *kept)) and not tampering
    return TestReport(
        outcome=Outcome.TAMPERED if tampering else Outcome.RESOLVED if passed else Outcome.UNRESOLVED,
        cause="" if passed else "said by the tests",
        f2p_only=False,
        fail_to_pass={"f": fixed},
        pass_to_pass=dict(zip("pq", kept, strict=False)),
        stripped_paths=(),
        tampering=tampering,
        wall_s=2.0,
    )


def validated(task: Task, golds: Sequence[TestReport], nothing: TestReport) -> tuple[Validation, int]:
    asked = []

    def judge(found: Task, patch: str) -> TestReport:
        asked.append(patch)
        return nothing if not patch else golds[asked.count("gold") - 1]

    return validate(task, "environment", judge), asked.count("gold")


def taken(
    task: Task, found: Validation, missing: Callable[[str], tuple[str, ...]] = lambda repo: ()
) -> tuple[tuple[Task, ...], dict[str, str]]:
    return eligible([task], in_force([task], [found], (), missing))


def test_a_clean_task_is_judged_once_with_gold(labelled: Task) -> None:
    found, golds = validated(labelled, [judged(PASSED, PASSED, PASSED)], judged(FAILED, PASSED, PASSED))
    assert (found.valid, found.cause, found.excluded, golds) == (True, "", {}, 1)


def test_gold_and_nothing_are_judged_side_by_side(labelled: Task) -> None:
    both = threading.Barrier(2)

    def judge(task: Task, patch: str) -> TestReport:
        both.wait(timeout=20.0)
        return judged(PASSED if patch else FAILED, PASSED, PASSED)

    assert validate(labelled, "environment", judge).valid


def test_ids_that_gold_does_not_always_keep_are_left_out_with_how_often(labelled: Task) -> None:
    golds = [judged(PASSED, FAILED, PASSED), judged(PASSED, FAILED, PASSED), judged(PASSED, FAILED, MISSING)]
    found, asked = validated(labelled, golds, judged(FAILED, PASSED, PASSED))
    assert found.valid and asked == 3
    assert found.excluded == {"p": "failed with gold, 3 of 3 times", "q": "missing with gold, 1 of 3 times"}
    kept, left_out = taken(labelled, found)
    assert kept[0].pass_to_pass == () and not left_out


def test_a_fix_that_flips_is_no_task(labelled: Task) -> None:
    golds = [judged(FAILED, PASSED, PASSED), judged(PASSED, PASSED, PASSED), judged(PASSED, PASSED, PASSED)]
    found, _ = validated(labelled, golds, judged(FAILED, PASSED, PASSED))
    assert not found.valid and "f failed in 1 of 3 runs" in found.cause
    assert taken(labelled, found) == ((), {labelled.instance_id: found.cause})


def test_a_task_that_nothing_resolves_or_that_cannot_be_believed_is_no_task(labelled: Task) -> None:
    good = judged(PASSED, PASSED, PASSED)
    found, _ = validated(labelled, [good], good)
    assert not found.valid and found.cause == "every FAIL_TO_PASS id passes without a patch"
    broken = replace(good, outcome=Outcome.UNRESOLVED, cause="the test run ended", complete=False)
    found, _ = validated(labelled, [broken, good, good], judged(FAILED))
    assert found.cause == "with gold the test run does not come to its end in 1 of 3 runs: the test run ended"
    lies = judged(PASSED, PASSED, PASSED, tampering=("a canary did not run",))
    found, _ = validated(labelled, [lies] * 3, judged(FAILED))
    assert not found.valid and "a canary did not run" in found.cause


def test_a_validation_holds_for_the_labels_and_rules_it_was_made_with(labelled: Task) -> None:
    found, _ = validated(labelled, [judged(FAILED)] * 3, judged(FAILED))
    relabelled = labelled.model_copy(update={"fail_to_pass": ("g",)})
    older = found.model_copy(update={"verifier": "0"})
    assert taken(relabelled, found)[0] == (relabelled,)
    assert taken(labelled, older)[0] == (labelled,)


def test_v11_a_missing_program_is_no_verdict_about_a_task_and_part_of_what_a_validation_is_known_by(
    labelled: Task,
) -> None:
    """Without it gold may fail, and what was found without it says nothing once it is installed."""

    def without_dot(gold: TestReport) -> Validation:
        return validate(
            labelled,
            "environment",
            lambda task, patch: gold if patch else judged(FAILED, PASSED, PASSED),
            ("dot",),
        )

    with pytest.raises(EnvironmentBroken, match="dot is not installed"):
        without_dot(judged(FAILED, PASSED, PASSED))
    found = without_dot(judged(PASSED, FAILED, PASSED))
    assert found.valid and found.excluded and found.key[-1] == ("dot",)
    assert taken(labelled, found, lambda repo: ("dot",))[0][0].pass_to_pass == ("q",)
    assert taken(labelled, found)[0] == (labelled,), "installed by now"


def test_the_table_counts_what_was_not_tried_and_gives_every_cause(labelled: Task) -> None:
    bad, _ = validated(labelled, [judged(FAILED)] * 3, judged(FAILED))
    partly, _ = validated(
        labelled.model_copy(update={"instance_id": "r-2"}),
        [judged(PASSED, FAILED, PASSED)] * 3,
        judged(FAILED, PASSED, PASSED),
    )
    lines = table_lines({labelled.repo: 5}, [bad, partly])
    assert f"| {labelled.repo} | 5 | 1 | 1 | 1 | 3 | 0 | 2.0 | 2.0 |" in lines
    assert any(line.startswith(f"- {labelled.instance_id}: 1 of 1 FAIL_TO_PASS") for line in lines)
    assert any("r-2: `p` (failed with gold, 3 of 3 times)" in line for line in lines)


def test_what_was_found_elsewhere_holds_until_this_machine_found_out_itself(labelled: Task) -> None:
    """By whatever rules it was found there; but not for other labels, nor where a program is missing that was there."""
    bad, _ = validated(labelled, [judged(FAILED)] * 3, judged(FAILED))
    clean, _ = validated(labelled, [judged(PASSED, PASSED, PASSED)], judged(FAILED, PASSED, PASSED))
    there, name = bad.model_copy(update={"verifier": "0"}), labelled.instance_id
    assert in_force([labelled], [], [there]) == {name: there}
    assert in_force([labelled], [clean], [there]) == {name: clean}
    assert in_force([labelled], [clean.model_copy(update={"verifier": "0"})], [there]) == {name: there}
    assert in_force([labelled.model_copy(update={"fail_to_pass": ("g",)})], [], [there]) == {}
    assert in_force([labelled], [], [there], lambda repo: ("dot",)) == {}


def test_what_is_shipped_says_where_and_when_each_task_was_judged_once() -> None:
    names = [found.instance_id for found in shipped()]
    assert len(names) == len(set(names))
    for found in shipped():
        assert found.machine and found.day and found.gold_s > 0 and not found.missing_programs
        assert found.valid == (not found.cause)


def test_two_validations_differ_by_what_they_say_of_the_task_and_not_by_seconds(labelled: Task) -> None:
    clean, _ = validated(labelled, [judged(PASSED, PASSED, PASSED)], judged(FAILED, PASSED, PASSED))
    partly, _ = validated(labelled, [judged(PASSED, FAILED, PASSED)] * 3, judged(FAILED, PASSED, PASSED))
    bad, _ = validated(labelled, [judged(FAILED)] * 3, judged(FAILED))
    assert difference(clean, clean.model_copy(update={"gold_s": 99.0, "machine": "another"})) == ""
    assert difference(partly, clean) == "1 id left out here only, p"
    assert difference(clean, partly) == "1 id left out there only, p"
    assert difference(clean, bad) == f"valid here, invalid ({bad.cause}) there"


def test_what_takes_longest_is_judged_first_and_the_time_left_is_reckoned_from_what_it_took_elsewhere(
    labelled: Task,
) -> None:
    clean, _ = validated(labelled, [judged(PASSED, PASSED, PASSED)], judged(FAILED, PASSED, PASSED))

    def timed(name: str, environment_s: float) -> Validation:
        return clean.model_copy(update={"instance_id": name, "environment_s": environment_s})

    tasks = [labelled.model_copy(update={"instance_id": name}) for name in ("short", "long", "new")]
    short, long, new = timed("short", 0.0), timed("long", 96.0), timed("new", 46.0)
    left = ValidationEta(tasks, [short, long])
    assert [task.instance_id for task in left.longest_first()] == ["new", "long", "short"]
    assert left.after(long, 50.0) == "", "nobody knows of the new one"
    left.without(tasks[2])
    assert left.after(short, 50.0) == ", about 0 s left", "nothing is left, the new one was judged before"
    left = ValidationEta(tasks, [short, long, new])
    assert [task.instance_id for task in left.longest_first()] == ["long", "new", "short"]
    assert left.after(long, 50.0) == ", about 27 s left", "54 s of 100 + 50 + 4, at half of their speed"
    left = ValidationEta(tasks, [short, long, new])
    assert left.after(timed("long", 0.0), 2.0) == ", about 4 s left", (
        "what is built here is not waited for again"
    )
    slow = timed("new", 0.0).model_copy(update={"gold_s": 10 * new.gold_s, "empty_s": 10 * new.empty_s})
    assert left.after(slow, 22.0) == ", about 11 s left", (
        "the tests of short, by the median of a like one and a slow one"
    )


def test_a_task_that_nobody_validated_with_these_labels_keeps_every_id_as_it_is_labelled(
    labelled: Task,
) -> None:
    """Ids cut at a blank are names of tests, and what gold did not pass was found for the very labels that were judged."""
    known = next(each for each in shipped() if each.valid and each.excluded)
    cut = "a.py::test_error[file-'str'"
    task = labelled.model_copy(
        update={
            "instance_id": known.instance_id,
            "pass_to_pass": ("[100%]", cut, "a.py::test_x", *known.excluded),
        }
    )
    assert in_force([task], [], shipped()) == {}, "other labels"
    assert eligible([task], in_force([task], [], shipped())) == ((task,), {})


def test_a_validation_counts_for_rows_that_say_the_same_of_what_is_judged_in_whatever_suite(
    labelled: Task,
) -> None:
    partly, _ = validated(labelled, [judged(PASSED, FAILED, PASSED)] * 3, judged(FAILED, PASSED, PASSED))
    same = {
        "problem_statement": f"{labelled.problem_statement} ",
        "suite": "swe-bench",
        "sequence_position": 7,
        "difficulty": None,
        "created_at": "2020-01-01",
        "dependencies": ("r-1",),
        "pass_to_pass": labelled.pass_to_pass[::-1],
    }
    for name, value in same.items():
        task = labelled.model_copy(update={name: value})
        assert taken(task, partly)[0][0].pass_to_pass == ("q",), name
    other = {
        "base_commit": "f" * 40,
        "test_patch": "another",
        "gold_patch": "another",
        "environment": "owner/name@2",
        "fail_to_pass": ("f", "g"),
        "pass_to_pass": ("p", "q", "r"),
    }
    for name, value in other.items():
        task = labelled.model_copy(update={name: value})
        assert taken(task, partly)[0] == (task,), name


def test_a_run_that_the_machine_killed_is_tried_again_and_says_nothing_of_a_task(labelled: Task) -> None:
    left = {"gold": 2, "": 2}

    def judge(task: Task, patch: str) -> TestReport:
        if left[patch]:
            left[patch] -= 1
            raise RunKilled("killed")
        return judged(PASSED if patch else FAILED, PASSED, PASSED)

    found = validate(labelled, "environment", judge)
    assert (found.valid, found.repeats, found.excluded) == (True, 1, {})
    for patch in ("gold", ""):
        left[patch] = 99
        with pytest.raises(RunKilled):
            validate(labelled, "environment", judge)
        left[patch] = 0


def unfinished(reached: str, seconds: float) -> TestReport:
    found = judged(MISSING, MISSING, MISSING)
    return replace(found, cause="no end", complete=False, reached=reached, wall_s=seconds)


def with_nothing(task: Task, nothings: Sequence[TestReport], gold: TestReport) -> Validation:
    left = list(nothings)
    return validate(task, "environment", lambda task, patch: gold if patch else left.pop(0))


@pytest.mark.parametrize(("reached", "seconds"), [("time", 9.0), ("memory", 1.0), ("", 1.0)])
def test_tests_that_hang_or_crash_without_a_patch_each_time_do_not_pass(
    labelled: Task, reached: str, seconds: float
) -> None:
    gold = replace(judged(PASSED, PASSED, PASSED), wall_s=2.0)
    found = with_nothing(labelled, [unfinished(reached, seconds)] * 3, gold)
    assert (found.valid, found.empty_s) == (True, seconds)


def test_without_a_patch_a_run_that_does_not_come_to_its_end_by_chance_or_load_proves_nothing(
    labelled: Task,
) -> None:
    gold = replace(judged(PASSED, PASSED, PASSED), wall_s=4.0)
    with pytest.raises(VerifierBroken, match=r"do not come to their end in 3 of 3 runs \(no end\)"):
        with_nothing(labelled, [unfinished("time", 9.0)] * 3, gold)
    with pytest.raises(VerifierBroken, match=r"do not come to their end in 1 of 3 runs \(no end\)"):
        with_nothing(labelled, [unfinished("", 1.0), *[judged(FAILED, PASSED, PASSED)] * 2], gold)
    bad, _ = validated(labelled, [judged(FAILED)] * 3, unfinished("time", 9.0))
    assert not bad.valid, "which gold shows by itself"


def test_what_ships_leaves_out_each_id_that_no_test_went_by() -> None:
    assert not [
        name
        for each in shipped()
        for name, how in each.disagreements.items()
        if "here missing" in how and name not in each.excluded
    ]
