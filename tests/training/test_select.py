"""Which attempts are learned from. Guards G-06, G-09, G-10."""

from collections.abc import Callable

import pytest

from looper.agent.actions import parse, render
from looper.agent.prompt import opening
from looper.agent.scaffold import packaged_scaffold
from looper.errors import TreatmentMissing
from looper.experiment.material import nothing_lost
from looper.records.task import Task
from looper.records.training import Example, SelectionSettings
from looper.records.trajectory import (
    Action,
    Bash,
    Done,
    Edit,
    FinishReason,
    ModelIdentity,
    Observation,
    ObservationKind,
    Read,
    Reply,
    Step,
    StopReason,
    Trajectory,
    Usage,
)
from looper.records.verdict import Outcome, Verdict
from looper.training.examples import trajectory_examples
from looper.training.select import Attempt, preference_pairs, select, without_detours

OK, REFUSED, END = ObservationKind.OK, ObservationKind.REFUSED, ObservationKind.END
CHECK, LOOK = Bash(command="python check.py"), Read(path="ops.py", start=1, end=9)
ASIDE = Read(path="util.py", start=1, end=9)
FIX = Edit(path="ops.py", old="return x * 3", new="return x * 60")
DONE = Done(message="fixed")


def step(index: int, action: Action | None, kind: ObservationKind = OK, said: str = "") -> Step:
    usage = Usage(prompt_tokens=None, completion_tokens=None, counted_by="none")
    text = render(action) if action is not None else "hm"
    return Step(
        cell="c",
        attempt=1,
        index=index,
        reply=Reply(text=text, finish_reason=FinishReason.STOP, usage=usage, wall_s=0.0),
        action=action,
        problem=None,
        observation=Observation(kind=kind, text=said or f"seen {index}"),
        guards=(),
        stop_reason=None,
        context_tokens=None,
        pruned_messages=0,
        tree="",
        wall_s=0.0,
    )


def attempt(task: str, outcome: Outcome, *actions: Action, cell: str = "experience/0") -> Attempt:
    steps = tuple(
        step(index, action, END if isinstance(action, Done) else OK)
        for index, action in enumerate(actions, 1)
    )
    identity = ModelIdentity(
        backend="x", backend_version="1", name="x", digest="x", quantisation="none", context_tokens=None
    )
    end = Trajectory(
        cell=f"{cell}/{task}",
        attempt=1,
        instance_id=task,
        arm="experience",
        arm_hash="",
        seed=0,
        code_version="",
        prompt_hash="",
        model=identity,
        environment="",
        sandbox="",
        workspace_clean_state="",
        steps=len(steps),
        stop_reason=StopReason.DONE,
        patch="a patch that was made",
        patch_hash="",
        patch_at_limit=False,
        flagged_paths=(),
        prompt_tokens=None,
        completion_tokens=None,
        guards={},
        wall_s=0.0,
        model_s=0.0,
    )
    verdict = Verdict(
        cell=end.cell,
        attempt=1,
        instance_id=task,
        outcome=outcome,
        cause="",
        f2p_only=False,
        fail_to_pass={},
        pass_to_pass={},
        stripped_paths=(),
        tampering=(),
        patch_hash="",
        environment="",
        sandbox="",
        verifier="",
        wall_s=0.0,
    )
    return Attempt(end, steps, verdict)


def test_g09_only_verified_successes_of_training_tasks_are_taken_and_all_others_are_counted() -> None:
    good = (CHECK, LOOK, FIX, CHECK, DONE)
    attempts = [
        attempt("t1", Outcome.RESOLVED, *good),
        attempt("t1", Outcome.RESOLVED, *good, cell="experience/1"),
        attempt("t1", Outcome.RESOLVED, CHECK, *good, cell="experience/2"),
        attempt("t2", Outcome.UNRESOLVED, *good),
        attempt("t3", Outcome.TAMPERED, *good),
        attempt("t4", Outcome.INFRA_ERROR, *good),
        attempt("held out", Outcome.RESOLVED, *good),
    ]
    taken, counts = select(attempts, {"t1", "t2", "t3", "t4"}, SelectionSettings())
    assert [item.trajectory.cell for item in taken] == ["experience/0/t1"], "the shortest"
    assert (counts.seen, counts.taken, counts.unresolved, counts.without_verdict) == (7, 1, 2, 1)
    assert (counts.outside, counts.duplicates, counts.over_cap) == (1, 1, 1)
    assert counts.tasks == ("t1",)


def test_a_pool_of_failures_gives_nothing() -> None:
    taken, counts = select([attempt("t", Outcome.UNRESOLVED, FIX)] * 5, {"t"}, SelectionSettings())
    assert not taken and counts.unresolved == counts.seen == 5


def test_detours_are_left_out_and_what_the_change_needed_stays() -> None:
    steps = (
        step(1, CHECK),
        step(2, ASIDE),
        step(3, LOOK),
        step(4, None, ObservationKind.PROBLEM),
        step(5, FIX, REFUSED),
        step(6, FIX),
        step(7, DONE, REFUSED),
        step(8, CHECK),
        step(9, DONE, END),
    )
    assert [found.index for found in without_detours(steps)] == [1, 3, 6, 8, 9]


@pytest.fixture
def opening_of() -> Callable[[Task], tuple[tuple[str, str], ...]]:
    return lambda task: opening(task, packaged_scaffold("terse"))


def test_g06_an_example_is_what_the_model_would_be_asked_and_would_have_said(
    task: Task, opening_of: Callable[[Task], tuple[tuple[str, str], ...]]
) -> None:
    source = attempt(task.instance_id, Outcome.RESOLVED, CHECK, LOOK, FIX, CHECK, DONE)
    (example,) = trajectory_examples([source], {task.instance_id: task}, opening_of, render)
    assert [(turn.role, turn.text) for turn in example.turns[:2]] == list(opening_of(task))
    said = [turn for turn in example.turns if turn.role == "assistant"]
    assert all(turn.supervised for turn in said)
    assert [parse(turn.text, FinishReason.STOP).action for turn in said] == [CHECK, LOOK, FIX, CHECK, DONE]
    heard = [turn.text for turn in example.turns[2:] if turn.role == "user"]
    assert heard == ["seen 1", "seen 2", "seen 3", "seen 4"], "nothing follows the last action"
    assert not any(turn.supervised for turn in example.turns if turn.role != "assistant")


def test_g35_an_example_that_lost_an_action_is_found_before_anything_is_trained(
    task: Task, opening_of: Callable[[Task], tuple[tuple[str, str], ...]]
) -> None:
    source = attempt(task.instance_id, Outcome.RESOLVED, CHECK, LOOK, FIX, CHECK, DONE)

    def made(renderer: Callable[[Action], str]) -> tuple[Example, ...]:
        return trajectory_examples([source], {task.instance_id: task}, opening_of, renderer)

    nothing_lost(made(render), [source])
    without_edits = made(lambda action: "(edited)" if isinstance(action, Edit) else render(action))
    with pytest.raises(TreatmentMissing, match="action 3, edit"):
        nothing_lost(without_edits, [source])
    (example,) = made(render)
    last_only = tuple(
        turn.model_copy(update={"supervised": number == len(example.turns) - 1})
        for number, turn in enumerate(example.turns)
    )
    with pytest.raises(TreatmentMissing, match="action 1, bash"):
        nothing_lost([example.model_copy(update={"turns": last_only})], [source])


def test_pairs_are_a_success_and_a_failure_at_the_same_task() -> None:
    good, bad = (CHECK, LOOK, FIX, DONE), (CHECK, DONE)
    attempts = [
        attempt("t1", Outcome.RESOLVED, *good),
        attempt("t1", Outcome.UNRESOLVED, *good, cell="experience/1"),
        attempt("t1", Outcome.UNRESOLVED, *bad, cell="experience/2"),
        attempt("t2", Outcome.RESOLVED, *good),
        attempt("t3", Outcome.UNRESOLVED, *bad),
        attempt("t4", Outcome.RESOLVED, *good),
        attempt("t4", Outcome.INFRA_ERROR, *bad, cell="experience/1"),
    ]
    taken, _ = select(attempts, {"t1", "t2", "t3", "t4"}, SelectionSettings())
    pairs = preference_pairs(taken, attempts)
    assert [(ours.trajectory.cell, theirs.trajectory.cell) for ours, theirs in pairs] == [
        ("experience/0/t1", "experience/2/t1")
    ]
