"""What one arm learns from: the same successes as conversations, pairs, teachers or text."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from tests.memory.test_memory import PATCH
from tests.training.test_select import CHECK, DONE, FIX, LOOK, REFUSED, attempt, step

from looper.agent.actions import render
from looper.agent.scaffold import packaged_scaffold
from looper.errors import BadInput, TooLittle
from looper.experiment.material import ExperienceLibrary
from looper.experiment.pools import Pool
from looper.records.learning import Experience, Learning, Source, Treatment, Writer
from looper.records.memory import Draw, MemoryKind, Remembering
from looper.records.model import ModelSpec
from looper.records.plan import Arm, ArmRole
from looper.records.task import Task
from looper.records.training import Format, Measured, Objective, Selection
from looper.records.verdict import Outcome
from looper.training.select import Attempt

FAMILIES = ("scale", "join", "scale")


def success(number: int) -> Attempt:
    found = attempt(f"r-{number}", Outcome.RESOLVED, CHECK, LOOK, FIX, CHECK, DONE)
    return Attempt(found.trajectory.model_copy(update={"patch": PATCH}), found.steps, found.verdict)


@pytest.fixture
def tasks(task: Task) -> dict[str, Task]:
    return {
        f"r-{number}": task.model_copy(
            update={
                "instance_id": f"r-{number}",
                "repo": "r",
                "sequence_position": number,
                "problem_statement": f"repo r issue {family}_noun{number} is wrong",
            }
        )
        for number, family in enumerate(FAMILIES, 1)
    }


def library(
    tasks: dict[str, Task],
    ask: Any = lambda name, messages, writer: "",
    minimum: int = 1,
    measure: Any = lambda adapter, examples: (),
    whole: Any = lambda attempt: attempt,
) -> ExperienceLibrary:
    attempts = tuple(success(number) for number in (1, 2, 3))
    counts = dict.fromkeys(("unresolved", "without_verdict", "outside", "duplicates", "over_cap"), 0)
    selection = Selection(seen=3, taken=3, tasks=tuple(tasks), dropped_steps=0, **counts)
    wrong = attempt("r-1", Outcome.UNRESOLVED, CHECK, LOOK, DONE)
    pool = Pool(attempts, selection, ((attempts[0], attempts[1]),), (), (wrong,))
    pools = SimpleNamespace(of=lambda *_: pool, matched=lambda *_: 3, without_pruning=whole)
    experience = Experience(per_repo=3, samples=1, temperature=1.0)
    plan = SimpleNamespace(experience=experience, arms=(learner(),), sources=(), matched_sources=())
    return ExperienceLibrary(plan, pools, tasks, ["r"], minimum, ask, {}, measure)  # type: ignore[arg-type]


def learner(**learning: Any) -> Arm:
    return Arm(
        name="lora",
        role=ArmRole.TREATMENT,
        model=ModelSpec(backend="nano"),
        scaffold=packaged_scaffold("terse"),
        temperature=0.7,
        learning=Learning(treatment=Treatment.ADAPTER, **learning),
    )


def test_a_dose_is_the_first_successes_and_too_few_are_refused(tasks: dict[str, Task]) -> None:
    assert len(library(tasks).of(learner(), 0, "r").examples) == 3
    assert len(library(tasks).of(learner(episodes=2), 0, "r").examples) == 2
    with pytest.raises(BadInput, match=r"r has 3 resolved training tasks .* wants 4.*--override"):
        library(tasks, minimum=4).of(learner(), 0, "r")


def test_the_poorest_source_of_a_repository_is_too_little_for_every_arm_and_named(
    tasks: dict[str, Task],
) -> None:
    """As many successes as it has are learned by all: of none nothing can be."""
    found = library(tasks)
    pools: Any = found._pools
    plan: Any = found._plan
    own = pools.of(Source.OWN, 0, "r")
    nothing = replace(own, attempts=(), selection=own.selection.model_copy(update={"taken": 0, "tasks": ()}))
    by_source = {Source.OWN: own, Source.REDRAWN: nothing}
    pools.of = lambda source, *_: by_source.get(source)
    plan.matched_sources = (*by_source, Source.STALE_MAJOR)
    with pytest.raises(
        TooLittle, match=r"r has 0 resolved training tasks of its redrawn experience with seed 0"
    ) as caught:
        found.of(learner(), 0, "r")
    assert (caught.value.value, caught.value.least) == (0, 1)
    by_source[Source.REDRAWN] = own
    assert found.of(learner(), 0, "r").examples, "what was not tried decides nothing"


def test_a_teacher_sees_an_earlier_success_and_the_student_does_not(tasks: dict[str, Task]) -> None:
    """The first task has nothing earlier, and the second nothing like it: there the teacher knows no more."""
    arm = learner(objective=Objective.DISTILLATION, teacher=Remembering())
    found = library(tasks).of(arm, 0, "r")
    assert [item.trajectory.instance_id for item in found.attempts] == ["r-3"]
    (student,), (teacher,) = found.examples, found.teachers
    assert "memory" in teacher.turns[1].text and "memory" not in student.turns[1].text
    assert student.turns[2:] == teacher.turns[2:]
    alone = learner(objective=Objective.DISTILLATION, teacher=Remembering(draw=Draw.PLACEBO))
    with pytest.raises(BadInput, match="the teacher knows nothing that the arm does not"):
        library(tasks).of(alone, 0, "r")


def test_questions_are_answered_by_base_with_the_rollout_before_it(tasks: dict[str, Task]) -> None:
    heard: list[tuple[str, str]] = []

    def ask(name: str, messages: Any, writer: str) -> str:
        heard.append((name, messages[-1][1]))
        return f" answer {len(heard)} "

    found = library(tasks, ask).of(learner(format=Format.SELF_QA, pairs=2), 0, "r")
    assert [item.turns[-1].text for item in found.examples] == [f"answer {number}" for number in range(1, 7)]
    assert FIX.new in heard[0][1] and found.examples[0].turns[1].text in heard[0][1]
    assert FIX.new not in found.examples[0].turns[1].text


def test_g18_a_success_without_a_single_answer_stops_the_arm_by_name(tasks: dict[str, Task]) -> None:
    def ask(name: str, messages: Any, writer: str) -> str:
        return "" if "r-2" in name else "yes"

    with pytest.raises(BadInput, match="experience/0/r-2 gives no text in the format self_qa"):
        library(tasks, ask).of(learner(format=Format.SELF_QA), 0, "r")


def test_every_fifth_success_stays_a_trajectory_in_the_mixed_format(tasks: dict[str, Task]) -> None:
    found = library(tasks).of(learner(format=Format.MIXED), 0, "r")
    whole = [item for item in found.examples if len(item.turns) > 3]
    assert [item.instance_id for item in whole] == ["r-1"] and len(found.examples) > 3


def test_whoever_writes_is_asked_and_nobody_else(tasks: dict[str, Task]) -> None:
    asked: set[str] = set()

    def ask(name: str, messages: Any, writer: str) -> str:
        asked.add(writer)
        return "so it is"

    arm = learner(format=Format.SELF_QA, rounds=2, writer=Writer.SELF)
    assert library(tasks, ask).of(arm, 0, "r", 2, "adapter-of-round-1").examples
    assert asked == {"adapter-of-round-1"}


def test_failures_are_learned_from_where_the_arm_is_there_to_show_it(tasks: dict[str, Task]) -> None:
    found = library(tasks).of(learner(failures=True), 0, "r")
    outcomes = [item.verdict.outcome for item in found.attempts]
    assert outcomes == [Outcome.RESOLVED] * 3 + [Outcome.UNRESOLVED] and len(found.examples) == 4
    assert all(
        item.verdict.outcome is Outcome.RESOLVED for item in library(tasks).of(learner(), 0, "r").attempts
    )


def test_own_successes_follow_those_of_another_source(tasks: dict[str, Task]) -> None:
    found = library(tasks).of(learner(source=Source.STALE_MAJOR, episodes=1, recovered=2), 0, "r")
    assert [item.trajectory.instance_id for item in found.attempts] == ["r-1", "r-1", "r-2"]


def test_labels_of_preferences_can_be_drawn(tasks: dict[str, Task]) -> None:
    """Over many seeds the better one of the only pair is preferred about half of the time."""
    plain = learner(objective=Objective.PREFERENCE)
    drawn = learner(objective=Objective.PREFERENCE, shuffled=True)
    better = library(tasks).of(plain, 0, "r").examples
    kept = [library(tasks).of(drawn, seed, "r").examples == better for seed in range(40)]
    assert all(library(tasks).of(plain, seed, "r").examples == better for seed in range(3))
    assert 10 < sum(kept) < 30


def test_failures_can_count_less_than_successes(tasks: dict[str, Task]) -> None:
    found = library(tasks).of(learner(failures=True, failure_weight=0.2), 0, "r")
    assert [item.weight for item in found.examples] == [1.0, 1.0, 1.0, 0.2]
    assert {item.weight for item in library(tasks).of(learner(failures=True), 0, "r").examples} == {1.0}


def test_a_masked_success_is_shown_whole_and_its_detours_are_not_learned(tasks: dict[str, Task]) -> None:
    def whole(found: Attempt) -> Attempt:
        """As it went: an edit was refused before the one that was made."""
        refused = step(1, FIX, REFUSED)
        return replace(found, steps=(refused, *found.steps))

    plain = library(tasks, whole=whole).of(learner(), 0, "r").examples[0]
    masked = library(tasks, whole=whole).of(learner(masked=True), 0, "r").examples[0]
    assert len(masked.turns) == len(plain.turns) + 2
    said = [turn for turn in masked.turns if turn.role == "assistant"]
    assert not said[0].supervised and said[0].text == render(FIX)
    assert [turn.text for turn in said[1:] if turn.supervised] == [
        turn.text for turn in plain.turns if turn.supervised
    ]


def test_of_what_a_hybrid_drafts_base_keeps_the_half_that_it_finds_likelier(tasks: dict[str, Task]) -> None:
    asked = []

    def measure(adapter: str, drafts: Any) -> list[Measured]:
        asked.append(adapter)
        return [
            Measured(source=draft.source, loss=float(number % 2), place=())
            for number, draft in enumerate(drafts)
        ]

    def ask(name: str, messages: Any, writer: str) -> str:
        return f"{name} by {writer}"

    arm = learner(format=Format.SELF_QA, pairs=2, rounds=2, writer=Writer.HYBRID)
    shelf = library(tasks, ask, measure=measure)
    drafts = shelf.of(arm, 0, "r", 1).examples
    kept = shelf.of(arm, 0, "r", 2, "adapter").examples
    assert len(drafts) == 6 and asked == [""], "in the first round base writes itself"
    assert [item.source for item in kept] == [item.source for item in drafts[::2]]
    assert all(item.turns[-1].text.endswith("by adapter") for item in kept)


def test_a_teacher_of_gold_sees_the_gold_patch_and_no_lesson(tasks: dict[str, Task]) -> None:
    arm = learner(objective=Objective.DISTILLATION, teacher=Remembering(kind=MemoryKind.GOLD))
    found = library(tasks).of(arm, 0, "r")
    assert len(found.teachers) == 3
    for teacher, example in zip(found.teachers, found.examples, strict=True):
        gold = tasks[example.instance_id].gold_patch
        assert gold in teacher.turns[1].text and gold not in example.turns[1].text
