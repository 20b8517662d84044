"""What one arm learns from in one repository: its successes, as conversations to train on.

All sources of one comparison are cut to the number that the poorest has, so that arms differ in what they learn from and not in how
much. Formats, teachers and preferences start from the same chosen attempts.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from types import MappingProxyType

from looper.agent.actions import parse, render
from looper.agent.prompt import opening, question
from looper.errors import BadInput, TooLittle, TreatmentMissing
from looper.experiment.pools import HELD_OUT, Pool, Pools, combined
from looper.memory.deliver import deliver
from looper.memory.distil import distil
from looper.memory.retrieve import Similarity
from looper.protocols import Message
from looper.records.learning import Experience, Learning, Source, Writer
from looper.records.memory import Delivery, Draw, MemoryItem, MemoryKind, Remembering
from looper.records.plan import Arm, Plan
from looper.records.question import AnsweredQuestion
from looper.records.task import Task
from looper.records.training import Example, Format, Measured, Objective, Selection, Turn
from looper.records.trajectory import FinishReason
from looper.records.treatment import too_few_resolved
from looper.records.verdict import Outcome
from looper.training.examples import shuffled_targets, trajectory_examples
from looper.training.formats import keys, retold, says
from looper.training.select import Attempt, without_detours

Ask = Callable[[str, Sequence[Message], str], str]
"""What base, or base with the adapter of an id, replies to a conversation, by the conversation's name."""
Measure = Callable[[str, Sequence[Example]], Sequence[Measured]]
"""What base, or base with the adapter of an id, makes of examples."""


@dataclass(frozen=True)
class Material:
    attempts: tuple[Attempt, ...]
    selection: Selection
    examples: tuple[Example, ...] = ()
    rejected: tuple[Example, ...] = ()
    teachers: tuple[Example, ...] = ()
    answered: tuple[AnsweredQuestion, ...] = ()
    """What was asked to make the examples, where a model answered."""


def delivered(
    experience: Experience,
    how: Remembering,
    task: Task,
    items: Sequence[MemoryItem],
    seed: int,
    similar: Mapping[str, Similarity],
) -> Delivery:
    """What one task is told of `items` by who remembers so, as much as the experience allows."""
    told = experience.told(how)
    by = similar.get(told.retrieval)
    return deliver(how, task, items, told.items, budget_bytes=told.bytes, seed=seed, similar=by)


class ExperienceLibrary:
    """Where the arms of a plan find what they learn from."""

    def __init__(
        self,
        plan: Plan,
        pools: Pools,
        tasks: Mapping[str, Task],
        repos: Sequence[str],
        minimum_tasks: int,
        ask: Ask,
        similar: Mapping[str, Similarity] = MappingProxyType({}),
        measure: Measure = lambda adapter, examples: (),
    ) -> None:
        """Fewer resolved tasks of a repository than `minimum_tasks` are too few."""
        self._measure = measure
        self._plan, self._pools, self._tasks, self.repos = plan, pools, dict(tasks), repos
        self._similar, self._minimum, self._ask = similar, minimum_tasks, ask

    def of(self, arm: Arm, seed: int, repo: str, number: int = 1, writer: str = "") -> Material:
        """For an arm's round `number`; `writer` is the adapter of whoever answers questions. Raises TooLittle where there is
        too little."""
        learning = arm.own_learning
        attempts, selection = self._successes(arm, learning, seed, repo, number)
        if not learning.treatment.is_adapter:
            return Material(attempts, selection)
        match learning.objective:
            case Objective.PREFERENCE:
                return self._preferences(arm, seed, repo, attempts, selection)
            case Objective.DISTILLATION:
                return self._taught(arm, seed, repo, attempts, selection)
            case Objective.IMITATION:
                if learning.format is not Format.TRAJECTORY:
                    told = self._told(arm, attempts, writer)
                    answered = (
                        tuple(self._questions(arm, seed, repo, number, attempts, told))
                        if learning.format is Format.SELF_QA
                        else ()
                    )
                    return Material(attempts, selection, told, answered=answered)
                examples = self._whole(arm, attempts) if learning.masked else self._examples(arm, attempts)
                if learning.failure_weight is not None:
                    examples = tuple(
                        example
                        if attempt.verdict.outcome is Outcome.RESOLVED
                        else example.model_copy(update={"weight": learning.failure_weight})
                        for example, attempt in zip(examples, attempts, strict=True)
                    )
                if learning.shuffled:
                    examples = shuffled_targets(examples, seed)
                return Material(attempts, selection, examples)

    def learned_in(self, arm: Arm, repo: str) -> list[str]:
        """The repositories whose successes an arm learns for one; with no name for all of them."""
        if not repo:
            return list(self.repos)
        return [next_repo(repo, self.repos) if arm.own_learning.elsewhere else repo]

    def selection(self, arm: Arm, seed: int, repo: str, number: int = 1) -> tuple[int, Selection]:
        """How many attempts an arm's round takes, and what became of all that it looks at. Raises TooLittle as `of` does."""
        found = [
            self._successes(arm, arm.own_learning, seed, each, number) for each in self.learned_in(arm, repo)
        ]
        return sum(len(taken) for taken, _ in found), combined(selection for _, selection in found)

    def _successes(
        self, arm: Arm, learning: Learning, seed: int, repo: str, number: int
    ) -> tuple[tuple[Attempt, ...], Selection]:
        pool = self._enough(arm, learning.source, seed, repo, number)
        # What an arm gathers in rounds of its own is its treatment; before that all learn from the same amount.
        count = len(pool.attempts) if number > 1 else self._pools.matched(self._plan, seed, repo)
        taken_ones = pool.attempts[:count][: learning.episodes]
        if learning.recovered is not None:
            own = self._pools.of(Source.OWN, seed, repo)
            taken_ones += own.attempts[: learning.recovered] if own is not None else ()
        if learning.failures:
            taken_ones += pool.wrong[: len(taken_ones)]
        return taken_ones, pool.selection

    def _enough(self, arm: Arm, source: Source, seed: int, repo: str, number: int) -> Pool:
        """The successes of a source. Raises TooLittle where they, or those of the poorest source that says how much each arm learns from, are
        of fewer tasks than the plan wants."""
        pools = {source: self._pools.of(source, seed, repo, arm, number)}
        for other in self._plan.matched_sources if number == 1 else ():
            # What was not gathered says nothing.
            if (found := self._pools.of(other, seed, repo)) is not None:
                pools[other] = found
        tasks = {name: len(found.selection.tasks) if found else 0 for name, found in pools.items()}
        poorest = min(tasks, key=lambda name: tasks[name])
        mine = pools[source]
        if mine is None or tasks[poorest] < self._minimum:
            has = too_few_resolved(repo, tasks[poorest], seed, poorest)
            over = ', or go on for a reason: --override data="…"' if tasks[poorest] else ""
            raise TooLittle(
                f"{arm.name}: {has}, and the plan wants {self._minimum}. Give it more samples or tasks{over}.",
                said=has,
                value=tasks[poorest],
                least=self._minimum,
            )
        return mine

    def _told(self, arm: Arm, attempts: Sequence[Attempt], writer: str) -> tuple[Example, ...]:
        """The successes in the arm's format. Raises TooLittle where one gives no text at all: none is lost in silence."""
        learning = arm.own_learning
        system = arm.scaffold.system.strip("\n")
        found: list[Example] = []
        for number, attempt in enumerate(attempts):
            task = self._tasks[attempt.trajectory.instance_id]
            if learning.format is Format.MIXED and number % 5 == 0:
                found += self._examples(arm, [attempt])
                continue
            told = retold(attempt, task, learning.format, system, learning.pairs)
            if learning.format is Format.SELF_QA:
                told = self._answered(arm, attempt, task, told, writer)
            if not told:
                raise TooLittle(
                    f"{arm.name}: the success {attempt.trajectory.cell} gives no text in the format "
                    f"{learning.format.value}. Use another format, or leave its task out."
                )
            found += told
        return tuple(self._likelier(found) if writer and learning.writer is Writer.HYBRID else found)

    def _questions(
        self,
        arm: Arm,
        seed: int,
        repo: str,
        number: int,
        attempts: Sequence[Attempt],
        told: Sequence[Example],
    ) -> Iterator[AnsweredQuestion]:
        """Every question that was asked of a model, and whether its answer says what the records know."""
        learning = arm.own_learning
        answers = {example.source: example.turns[-1].text for example in told}
        for attempt in attempts:
            task = self._tasks[attempt.trajectory.instance_id]
            how = attempt, task, learning.format
            asked = retold(*how, arm.scaffold.system, learning.pairs)
            for example, key in zip(asked, keys(*how, learning.pairs), strict=True):
                answer = answers.get(example.source, "")
                yield AnsweredQuestion(
                    arm=arm.name,
                    seed=seed,
                    repo=repo,
                    round=number,
                    source=example.source,
                    question=example.turns[1].text,
                    answer=answer,
                    key=key,
                    supported=says(answer, key),
                )

    def _likelier(self, drafts: Sequence[Example]) -> list[Example]:
        """The half that base finds likelier, in their order."""
        losses = [found.loss for found in self._measure("", drafts)]
        middle = median(losses)
        return [draft for draft, loss in zip(drafts, losses, strict=True) if loss <= middle]

    def _answered(
        self, arm: Arm, attempt: Attempt, task: Task, told: Sequence[Example], writer: str
    ) -> list[Example]:
        """The questions with the model's own answers, which it gives with the rollout in its prompt; empty ones are left
        out."""
        raw = distil(attempt.trajectory, attempt.steps, task, render, MemoryKind.RAW)
        seen = Delivery(candidates=1, text=raw.text)
        found = []
        for example in told:
            system, asked, _ = example.turns
            question_with_rollout = question(task, arm.scaffold, seen) + f"\n{asked.text}"
            asked_with = (("system", system.text), ("user", question_with_rollout))
            answer = self._ask(example.source, asked_with, writer).strip()
            if answer:
                turns = (system, asked, Turn(role="assistant", text=answer, supervised=True))
                found.append(example.model_copy(update={"turns": turns}))
        return found

    def _examples(self, arm: Arm, attempts: Sequence[Attempt]) -> tuple[Example, ...]:
        found = trajectory_examples(attempts, self._tasks, partial(opening, scaffold=arm.scaffold), render)
        nothing_lost(found, attempts)
        return found

    def _whole(self, arm: Arm, attempts: Sequence[Attempt]) -> tuple[Example, ...]:
        """The successes as they went, detours shown and not learned."""
        found = []
        for attempt in attempts:
            whole = self._pools.without_pruning(attempt)
            useful = without_detours(whole.steps)
            learned = iter([step in useful for step in whole.steps if step.action is not None])
            (example,) = self._examples(arm, [whole])
            turns = tuple(
                turn.model_copy(update={"supervised": next(learned)}) if turn.supervised else turn
                for turn in example.turns
            )
            found.append(example.model_copy(update={"turns": turns}))
        return tuple(found)

    def _preferences(
        self, arm: Arm, seed: int, repo: str, attempts: Sequence[Attempt], selection: Selection
    ) -> Material:
        pool = self._pools.of(arm.own_learning.source, seed, repo)
        pairs = [pair for pair in pool.pairs if pair[0] in attempts] if pool else []
        if not pairs:
            raise TooLittle(
                f"{arm.name}: with seed {seed} no task of {repo} was both resolved and failed, so there is "
                "nothing to prefer. Give the experience more samples."
            )
        if arm.own_learning.shuffled:
            rng = random.Random(seed)
            pairs = [pair if rng.random() < 0.5 else (pair[1], pair[0]) for pair in pairs]
        good, bad = tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs)
        return Material(good, selection, self._examples(arm, good), self._examples(arm, bad))

    def _taught(
        self, arm: Arm, seed: int, repo: str, attempts: Sequence[Attempt], selection: Selection
    ) -> Material:
        """The same conversations twice: as the arm will have them, and with memory in the prompt as the teacher has them.

        Tasks that get no memory are left out: there the teacher knows no more than the student.
        """
        how = arm.own_learning.teacher
        assert how is not None and self._plan.experience is not None
        elsewhere = how.draw is Draw.PLACEBO
        items = [
            item
            for other in (self.repos if elsewhere else [repo])
            for item in self.items(arm, seed, other, how.kind)
        ]
        kept: list[Attempt] = []
        teachers: list[Example] = []
        for attempt in attempts:
            task = self._tasks[attempt.trajectory.instance_id]
            given = delivered(self._plan.experience, how, task, items, seed, self._similar)
            if given.says:
                kept.append(attempt)
                begin = partial(opening, scaffold=arm.scaffold, memory=given)
                teachers += trajectory_examples([attempt], self._tasks, begin, render)
        if not kept:
            raise TooLittle(
                f"{arm.name}: with seed {seed} no success in {repo} has an earlier one to remember, so the teacher knows "
                "nothing that the arm does not. Give the experience more tasks."
            )
        return Material(tuple(kept), selection, self._examples(arm, kept), teachers=tuple(teachers))

    def batches(self, arm: Arm, materials: Sequence[Material]) -> list[tuple[Example, ...]]:
        """What a strategy is given: the materials of the repositories in order, each a batch or several."""
        assert self._plan.experience is not None
        found = []
        for material in materials:
            size = self._plan.experience.batch or len(material.examples)
            found += [material.examples[at : at + size] for at in range(0, len(material.examples), size)]
        return found[: arm.own_learning.batches]

    def successes(self, seed: int, repo: str) -> tuple[Example, ...]:
        """What base did well in its own experience of a repository; nothing where no arm learns from that."""
        pool = self._pools.of(Source.OWN, seed, repo)
        base = self._plan.learners_base
        return self._examples(base, pool.attempts[:HELD_OUT]) if pool is not None else ()

    def items(self, arm: Arm, seed: int, repo: str, kind: MemoryKind) -> list[MemoryItem]:
        """The successes of an arm in one repository, as something to remember."""
        if not kind.traits.has_items:
            return []
        attempts, _ = self._successes(arm, arm.own_learning, seed, repo, 1)
        found = []
        for attempt in attempts:
            task = self._tasks[attempt.trajectory.instance_id]
            asked = question(task, arm.scaffold)
            found.append(distil(attempt.trajectory, attempt.steps, task, render, kind, asked))
        return found


def nothing_lost(examples: Sequence[Example], attempts: Sequence[Attempt]) -> None:
    """The text to learn from says every action that was done, and no other. Raises TreatmentMissing, naming the first
    that is not there: an arm that never saw an edit does not show what experience is worth."""
    for example, attempt in zip(examples, attempts, strict=True):
        done = [step.action for step in attempt.steps if step.action is not None]
        said = [parse(turn.text, FinishReason.STOP).action for turn in example.turns if turn.supervised]
        for number, action in enumerate(done):
            if number >= len(said) or said[number] != action:
                raise TreatmentMissing(
                    f"The example made of {example.source} does not say its action {number + 1}, {action.tool}: "
                    "what is trained on is not what was done."
                )
        if len(said) > len(done):
            raise TreatmentMissing(f"The example made of {example.source} says more than was done.")


def next_repo(repo: str, repos: Sequence[str]) -> str:
    """The repository after this one, the first after the last. Raises BadInput where there is only one."""
    if len(repos) < 2:
        raise BadInput(f"To learn elsewhere than in {repo} a plan needs a second repository.")
    return repos[(repos.index(repo) + 1) % len(repos)]
