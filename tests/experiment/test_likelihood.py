"""Which arms are asked what they make of which successes, and what is recorded of their answers."""

import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from tests.experiment.test_coherence import EXPERIENCE, WARM, arm
from tests.experiment.test_plans import SAME, contrast, planned
from tests.experiment.test_run_ledger import TASK, add, manifest_of, opened
from tests.fakes.written_run import step, write_run
from tests.training.test_select import CHECK, DONE, FIX, LOOK, attempt

from looper.errors import Cancelled
from looper.experiment.likelihood import (
    LikelihoodScorer,
    of_attempt,
    score_arms,
    score_attempts,
    successes_of_base,
)
from looper.journal import read_stream
from looper.records.likelihood import AttemptLikelihood, Likelihood
from looper.records.plan import Arm
from looper.records.task import Task
from looper.records.training import Example, Turn
from looper.records.verdict import Outcome
from looper.training.select import Attempt

PLAN = planned(
    arm("own", 'learning = { treatment = "adapter" }')
    + arm("batched", 'learning = { treatment = "adapter", strategy = { name = "sequential" } }')
    + WARM,
    EXPERIENCE,
)
BASE, OWN, BATCHED = PLAN.arms[0], PLAN.arms[2], PLAN.arms[3]
TASKS = {
    name: TASK.model_copy(update={"instance_id": name, "repo": name[0]})
    for name in ("a-1", "a-2", "b-1", "b-2")
}


class Host:
    """A model that finds a token of an example as unlikely as its number says, a tenth less with an adapter."""

    def __init__(self, adapter: str, asked: list[tuple[str, tuple[str, ...]]]) -> None:
        self.adapter, self._asked = adapter, asked

    def losses(self, examples: Sequence[Example]) -> list[float]:
        self._asked.append((self.adapter, tuple(found.instance_id for found in examples)))
        return [
            (float(found.instance_id[-1]) + ord(found.instance_id[0]) - ord("a"))
            * (0.5 if self.adapter else 1)
            for found in examples
        ]

    def loss_and_kl(self, examples: Sequence[Example]) -> list[tuple[float, float]]:
        return [(loss, loss / 4) for loss in self.losses(examples)]


def example(name: str) -> Example:
    turns = (Turn(role="user", text="?"), Turn(role="assistant", text="!", supervised=True))
    return Example(instance_id=name, repo=name[0], source=name, turns=turns)


def success(name: str, arm: str = "base", outcome: Outcome = Outcome.RESOLVED, number: int = 1) -> Attempt:
    found = attempt(name, outcome, CHECK, LOOK, FIX, DONE, cell=f"{arm}/{number}")
    end = found.trajectory.model_copy(update={"arm": arm, "attempt": number})
    return Attempt(end, found.steps, found.verdict.model_copy(update={"attempt": number}))


def scorer(
    successes: Sequence[Attempt], **known: Any
) -> tuple[LikelihoodScorer, list[tuple[str, tuple[str, ...]]]]:
    asked: list[tuple[str, tuple[str, ...]]] = []
    treatments = SimpleNamespace(
        adapter=lambda arm, seed, repo: known.get("adapters", {}).get(repo, "") if arm.learning else "",
        batches=lambda arm, seed: known.get("batches", ()),
        after=lambda arm, seed: known.get("after", ()),
        memory=lambda arm, seed, task: None,
    )
    found = LikelihoodScorer(TASKS, treatments, lambda arm, adapter: Host(adapter, asked), successes)  # type: ignore[arg-type,return-value]
    return found, asked


ALL = [success(name) for name in TASKS]


def test_an_arm_is_asked_with_the_adapter_that_it_worked_with_in_each_repository() -> None:
    asking, asked = scorer(ALL, adapters={"a": "one"})
    ((key, ask),) = asking.of(OWN, 3)
    assert key == ("own", 3, 0, True) and not asked, "nothing is asked that may be on record"
    found = ask()
    assert found == Likelihood(
        arm="own",
        seed=3,
        batches=0,
        last=True,
        adapters=("one",),
        held_out={"a-1": -0.5, "a-2": -1.0, "b-1": -2.0, "b-2": -3.0},
        kl_from_base={"a-1": 0.125, "a-2": 0.25},
    )
    assert found.key == key and asked == [("one", ("a-1", "a-2")), ("", ("b-1", "b-2"))]
    ((_, ask),) = scorer(ALL)[0].of(BASE, 0)
    assert (ask().adapters, ask().held_out["b-2"], ask().kl_from_base) == ((), -3.0, {})


BATCHES = [(example("a-1"), example("a-2")), (example("b-1"),), (example("a-1"), example("b-2"))]
LEARNED = {"a-1": -1.0, "a-2": -2.0, "b-1": -2.0, "b-2": -3.0}


def test_a_strategy_is_asked_before_its_first_batch_after_each_and_what_it_worked_with_at_the_end() -> None:
    asking, asked = scorer(
        ALL, batches=BATCHES, after=("one", "two", "three"), adapters=dict.fromkeys("ab", "three")
    )
    keys, found = zip(*((key, ask()) for key, ask in asking.of(BATCHED, 0)), strict=True)
    assert keys == tuple(("batched", 0, number, number == 3) for number in range(4))
    assert [each.key for each in found] == list(keys)
    assert [each.adapters for each in found] == [(), ("one",), ("two",), ("three",)]
    assert found[0].learned == LEARNED and found[1].learned == {
        name: each / 2 for name, each in LEARNED.items()
    }
    # A task is of the first batch that has it.
    assert all(each.batch_of == {"a-1": 1, "a-2": 1, "b-1": 2, "b-2": 3} for each in found)
    assert [bool(each.held_out) for each in found] == [False, False, False, True]
    assert found[3].held_out == found[3].learned and found[3].kl_from_base["b-2"] == 0.375
    assert asked[0] == ("", ("a-1", "a-2", "b-1", "a-1", "b-2")), "batches to come are asked too"


def test_batches_that_were_learned_together_are_asked_before_and_after() -> None:
    asking, _ = scorer(ALL, batches=BATCHES, after=("one",))
    assert [key[2:] for key, _ in asking.of(BATCHED, 0)] == [(0, False), (3, True)]


def test_a_task_that_several_examples_are_of_has_their_mean() -> None:
    again = [*ALL, success("a-2", number=2)]
    ((_, ask),) = scorer(again)[0].of(BASE, 0)
    assert ask().held_out["a-2"] == -2.0
    mixed = [(example("a-1"), example("a-3"), example("a-1"))]
    examples = [
        found.model_copy(update={"instance_id": "a-1"}) if at == 2 else found
        for at, found in enumerate(mixed[0])
    ]
    asking, _ = scorer(ALL, batches=[examples], after=("one",))
    assert next(ask for _, ask in asking.of(BATCHED, 0))().learned == {"a-1": -1.0, "a-3": -3.0}


def test_an_attempt_without_an_action_is_asked_nothing() -> None:
    model = Host("", asked := [])
    found = of_attempt(BASE, TASKS["b-2"], success("b-2", "warm", Outcome.UNRESOLVED, 2), model)  # type: ignore[arg-type]
    assert found == AttemptLikelihood(cell="warm/2/b-2", attempt=2, log_likelihood=-3.0)
    silent = success("b-2")
    mute = tuple(each.model_copy(update={"action": None}) for each in silent.steps)
    assert of_attempt(BASE, TASKS["b-2"], Attempt(silent.trajectory, mute, silent.verdict), model) is None  # type: ignore[arg-type]
    assert len(asked) == 1


def test_the_successes_that_are_asked_about_are_base_s_the_earliest_of_each_task() -> None:
    silent = success("a-2")
    mute = tuple(each.model_copy(update={"action": None}) for each in silent.steps)
    attempts = [
        success("a-1", "warm"), success("a-1", outcome=Outcome.UNRESOLVED), success("a-1", number=2), success("a-1", number=3),
        Attempt(silent.trajectory, mute, silent.verdict), success("b-1", outcome=Outcome.TAMPERED),
    ]  # fmt: skip
    assert successes_of_base(PLAN, attempts) == [attempts[2]]
    again = planned(arm("again", "repetition = 1", "again") + WARM)
    repeated = success("b-2", "again")
    assert successes_of_base(again, [*attempts, repeated]) == [attempts[2], repeated]


def test_more_successes_are_asked_about_where_a_contrast_compares_the_answers() -> None:
    many = [success(f"t-{number}") for number in range(70)]
    compared = planned(
        arm("own", 'learning = { treatment = "adapter" }')
        + contrast("own", "base", f'{SAME}metric = "action_log_likelihood"\nmargin = "0.1 nats"\n'),
        EXPERIENCE,
        reason="a warmer one",
    )
    assert successes_of_base(PLAN, many) == many[:12] and successes_of_base(compared, many) == many[:64]


class Staged:
    """What asking needs of a run: its plan, its tasks, a model, and a folder of records."""

    def __init__(self, ledger: Any, plan: Any) -> None:
        self.manifest, self.tasks, self.ledger, self.stop = (
            SimpleNamespace(plan=plan),
            TASKS_OF_RUN,
            ledger,
            threading.Event(),
        )
        self.asked: list[tuple[str, tuple[str, ...]]] = []

    def adapted(self, arm: Arm, adapter: str) -> Host:
        return Host(adapter, self.asked)


TASKS_OF_RUN: dict[str, Task] = {
    name: TASK.model_copy(update={"instance_id": name}) for name in ("a__b-1", "a__b-2")
}
NOTHING = SimpleNamespace(
    adapter=lambda arm, seed, repo: "one" if arm.learning else "", memory=lambda arm, seed, task: None
)


def test_arms_that_learned_are_asked_once_and_only_where_something_was_learned(tmp_path: Any) -> None:
    folder = write_run(tmp_path, found={"outcome": Outcome.RESOLVED})
    run: Any
    with opened(folder) as ledger:
        run = Staged(ledger, planned(WARM))
        score_arms(run, run.manifest.plan.arms, NOTHING)  # type: ignore[arg-type]
        assert not run.asked, "nothing was learned"
        run = Staged(ledger, PLAN)
        arms = [found for found in PLAN.arms if found is not BATCHED]
        score_arms(run, arms, NOTHING)  # type: ignore[arg-type]
        assert [adapter for adapter, _ in run.asked] == ["", "one"], (
            "base, and who learned; not the warmer one"
        )
        run.stop.set()
        with pytest.raises(Cancelled):
            score_arms(run, arms, NOTHING)  # type: ignore[arg-type]
    kept = list(read_stream(folder, "likelihoods", Likelihood))
    assert [found.key for found in kept] == [("base", 0, 0, True), ("own", 0, 0, True)]
    assert kept[1].held_out == {"a__b-1": -0.5, "a__b-2": -1.0}
    with opened(folder) as ledger:
        run = Staged(ledger, PLAN)
        score_arms(run, arms, NOTHING)  # type: ignore[arg-type]
        assert not run.asked, "what is on record is not asked again"


def test_attempts_are_asked_about_where_the_likeliest_is_chosen_of_them(tmp_path: Any) -> None:
    folder = write_run(tmp_path)
    add(folder, "steps", step("base/0/a__b-1", 6, 9, "x", "y"))
    likeliest = '[[choices]]\nname = "likely"\nby = "likeliest"\nof = ["base", "again"]\nreason = "the likelier one"\n'
    plan = planned(arm("again", "repetition = 1", "again") + likeliest + WARM)
    run: Any
    with opened(folder) as ledger:
        run = Staged(ledger, planned(WARM))
        score_attempts(run)
        assert not run.asked, "nothing is chosen by its likelihood"
        run = Staged(ledger, plan)
        score_attempts(run)
    kept = list(read_stream(folder, "attempt_likelihoods", AttemptLikelihood))
    assert [(found.cell, found.log_likelihood) for found in kept] == [
        ("base/0/a__b-1", -1.0),
        ("base/0/a__b-2", -2.0),
    ]
    with opened(folder) as ledger:
        run = Staged(ledger, plan)
        score_attempts(run)
        assert not run.asked
        run.stop.set()
        with pytest.raises(Cancelled):
            score_attempts(run)
    assert manifest_of(folder).tasks == tuple(TASKS_OF_RUN)
