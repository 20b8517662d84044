"""Experience → what each learning arm works with: an adapter or a memory per seed and repository.

Arms learn in waves, since some are made from another's adapter. Every consolidation is recorded as it is made and skipped when it
is there; what comes out is looked up by arm, seed, repository and round when a cell asks what it has.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from looper.agent.prompt import opening
from looper.errors import BadInput, TooLittle
from looper.experiment.material import Ask, ExperienceLibrary, Material, delivered, next_repo
from looper.experiment.pools import HELD_OUT, Pools, combined, read_attempts
from looper.journal import read_stream
from looper.memory.deliver import deliver
from looper.memory.retrieve import Similarity
from looper.protocols import Message, Trainer, Workers
from looper.records.learning import Experience, TrainingChange, Treatment, Writer
from looper.records.memory import Delivery, MemoryItem, Reverted
from looper.records.plan import Arm, Gate, Plan, RunManifest
from looper.records.question import AnsweredQuestion
from looper.records.task import Task
from looper.records.training import AdapterRecord, Example, Make, TrainingEvent, TrainingRequest
from looper.records.trajectory import ModelIdentity
from looper.records.treatment import Consolidation, GateStop, StoppingGate
from looper.training.strategies import TrainingContext, TrainingOutcome, learn

ALL = ""
"""In place of a repository: one adapter serves them all."""

Tell = Callable[[str, TrainingEvent], None]
"""What is being trained, and how far it is."""


@dataclass(frozen=True)
class ConsolidationContext:
    arms: tuple[Arm, ...]
    """Those that learn."""
    trainer: Trainer | None
    """None where no arm has an adapter."""
    base: ModelIdentity
    workers: Workers
    tell: Tell
    remember: Callable[[MemoryItem], None]
    record: Callable[[Consolidation], None]
    asked: Callable[[AnsweredQuestion], None]
    stopped: Callable[[GateStop], None]
    """Of what there was too little for. Called from several threads."""
    ask: Ask
    similar: Mapping[str, Similarity] = field(default_factory=dict)
    """For retrieval, by the name that settings give it; BM25 for a name that is not here."""


Key = tuple[str, int, str, int]
"""Arm, seed, repository, round."""
ConsolidationKey = tuple[Arm, int, str]


class Treatments:
    """What each arm has learned, by seed and repository."""

    def __init__(
        self,
        plan: Plan,
        consolidations: Sequence[Consolidation],
        items: Sequence[MemoryItem],
        prompts: Mapping[tuple[int, str], Sequence[Sequence[Message]]] | None = None,
        successes: Mapping[tuple[int, str], Sequence[Example]] | None = None,
        similar: Mapping[str, Similarity] = MappingProxyType({}),
        reverted: Collection[str] = (),
        batches: Callable[[Arm, int], Sequence[Sequence[Example]]] = lambda arm, seed: (),
    ) -> None:
        self._plan, self._prompts, self._similar = plan, prompts or {}, similar
        self.batches = batches
        """What a strategy's arm learns with a seed, batch by batch."""
        self._successes = successes or {}
        self._reverted = frozenset(reverted)
        self._of = {found.key: found for found in consolidations}
        self._items = {item.id: item for item in items}

    def adapter(self, arm: Arm, seed: int, repo: str, number: int | None = None) -> str:
        """Id of the arm's adapter after its round `number`, the last one by default; empty where it has none."""
        if arm.learning is None or not arm.has_adapter:
            return ""
        where = ALL if arm.learning.strategy else repo
        return self._of[arm.name, seed, where, number or arm.learning.rounds].adapter

    def after(self, arm: Arm, seed: int) -> tuple[str, ...]:
        """Ids of a strategy's adapters, one after each batch; one alone where all were learned together."""
        return self._of[arm.name, seed, ALL, 1].after

    def prompts(self, seed: int, repo: str) -> Sequence[Sequence[Message]]:
        """Conversations that nothing was trained on, each up to a point where the model speaks."""
        return self._prompts[seed, repo]

    def elsewhere(self, arm: Arm, seed: int, repo: str) -> list[Example]:
        """Successes of base in repositories that the arm's adapter for `repo` has learned nothing of."""
        if arm.learning is None or arm.learning.strategy is not None:
            return []
        repos = sorted({each for with_seed, each in self._successes if with_seed == seed})
        learned = next_repo(repo, repos) if arm.learning.elsewhere else repo
        others = (self._successes[seed, each] for each in repos if each != learned)
        return [example for found in others for example in found][:HELD_OUT]

    def memory(self, arm: Arm, seed: int, task: Task) -> Delivery:
        how = arm.remembers
        experience = self._plan.experience
        if how is not None and not how.kind.traits.needs_experience:
            return deliver(how, task, (), 0)
        if how is None or experience is None:
            return Delivery(candidates=0)
        items = [
            self._items[key]
            for found in self._of.values()
            if (found.arm, found.seed) == (arm.name, seed)
            for key in found.items
            if key not in self._reverted
        ]
        return delivered(experience, how, task, items, seed, self._similar)


def consolidate(
    manifest: RunManifest,
    tasks: Mapping[str, Task],
    folder: Path,
    recorded: Sequence[Consolidation],
    context: ConsolidationContext,
    number: int = 1,
) -> Treatments:
    """Make what is not there yet of the records in `folder`, for the arms' round `number`.

    Raises TooLittle where a repository has too few successes to learn from.
    """
    plan = manifest.plan
    if plan.experience is None or not plan.sources:
        return Treatments(plan, (), ())
    repos = sorted({tasks[name].repo for name in manifest.tasks})
    pools = Pools(manifest, tasks, read_attempts(folder))
    # Nothing at all cannot be learned from, whatever the reason.
    minimum = max(1, plan.experience.selection.minimum_tasks) if manifest.stops(Gate.DATA) else 1
    measure = context.trainer.measure if context.trainer else lambda adapter, examples: ()
    library = ExperienceLibrary(plan, pools, tasks, repos, minimum, context.ask, context.similar, measure)
    done = {found.key: found for found in recorded if _still_there(found, context.trainer)}
    items = {item.id: item for item in read_stream(folder, "memory", MemoryItem)}
    work = _Consolidator(plan, plan.experience, library, context, number, done)
    for wave in _waves(context.arms):
        jobs = [
            (arm, seed, repo)
            for arm in wave
            for seed in plan.seeds_of(arm)
            if arm.learning is not None and arm.learning.rounds >= number
            for repo in ([ALL] if arm.learning.strategy else repos)
            if (arm.name, seed, repo, number) not in done
        ]
        for found, made, questions in context.workers.map(work.do, jobs):
            for question in questions:
                context.asked(question)
            for item in made:
                if item.id not in items:
                    items[item.id] = item
                    context.remember(item)
            context.record(found)
            done[found.key] = found
    prompts = {
        (seed, repo): _held_out(plan, pools, seed, repo, tasks) for seed in plan.seeds for repo in repos
    }
    successes = {(seed, repo): library.successes(seed, repo) for seed in plan.seeds for repo in repos}
    reverted = [found.item for found in read_stream(folder, "reverted", Reverted)]
    return Treatments(
        plan,
        tuple(done.values()),
        tuple(items.values()),
        prompts,
        successes,
        context.similar,
        reverted,
        lambda arm, seed: library.batches(arm, [library.of(arm, seed, repo) for repo in repos]),
    )


def _waves(arms: Sequence[Arm]) -> tuple[list[Arm], list[Arm]]:
    """What is made from a trained adapter comes after it."""
    later = [arm for arm in arms if arm.learning and arm.learning.made_from_another]
    return [arm for arm in arms if arm not in later], later


def _held_out(
    plan: Plan, pools: Pools, seed: int, repo: str, tasks: Mapping[str, Task]
) -> list[tuple[Message, ...]]:
    """Failed attempts of base, each cut before one of its replies, early in one and late in the next."""
    found = []
    base = plan.learners_base
    for number, attempt in enumerate(pools.failures(plan, seed, repo)[:HELD_OUT]):
        messages = list(opening(tasks[attempt.trajectory.instance_id], base.scaffold))
        # One step later with each attempt, from the first again where one has no more: so every depth of a conversation is asked.
        for step in attempt.steps[: number % len(attempt.steps)] if attempt.steps else ():
            messages += [("assistant", step.reply.text), ("user", step.observation.text)]
        found.append(tuple(messages))
    return found or [opening(tasks[name], base.scaffold) for name in list(tasks)[:1]]


def _still_there(found: Consolidation, trainer: Trainer | None) -> bool:
    """Whether what an earlier process made can be used; an adapter whose folder is gone is made again."""
    return not found.adapter or trainer is None or trainer.has(found.adapter)


@dataclass(frozen=True)
class _Consolidator:
    """One consolidation after another, in several threads."""

    plan: Plan
    experience: Experience
    library: ExperienceLibrary
    context: ConsolidationContext
    number: int
    done: Mapping[Key, Consolidation]

    def do(self, job: ConsolidationKey) -> tuple[Consolidation, list[MemoryItem], list[AnsweredQuestion]]:
        """Raises TooLittle, once that is told."""
        arm, seed, repo = job
        try:
            return self._done(arm, seed, repo)
        except TooLittle as error:
            self.context.stopped(
                GateStop(
                    gate=StoppingGate.MATERIAL if error.least is None else StoppingGate.DATA,
                    arm=arm.name,
                    seed=seed,
                    repo=repo,
                    round=self.number,
                    value=error.value,
                    least=error.least,
                    said=error.said,
                )
            )
            raise

    def _done(
        self, arm: Arm, seed: int, repo: str
    ) -> tuple[Consolidation, list[MemoryItem], list[AnsweredQuestion]]:
        learning = arm.own_learning
        begun = time.monotonic()
        items: list[MemoryItem] = []
        learned_in = self.library.learned_in(arm, repo)
        learned = TrainingOutcome()
        if repo == ALL:
            materials = [self.library.of(arm, seed, each) for each in learned_in]
            learned = self._by_strategy(arm, seed, self.library.batches(arm, materials))
        else:
            writer = self._writer(arm, seed, repo)
            materials = [self.library.of(arm, seed, each, self.number, writer) for each in learned_in]
            if arm.has_adapter:
                learned.stands(self._train(arm, repo, seed, self._request(arm, seed, repo, materials[0])))
        if how := learning.remembers:
            items = [item for each in learned_in for item in self.library.items(arm, seed, each, how.kind)]
        consolidation = Consolidation(
            arm=arm.name,
            seed=seed,
            repo=repo,
            round=self.number,
            treatment=learning.treatment,
            selection=combined(material.selection for material in materials),
            used=sum(len(material.attempts) for material in materials),
            adapter=learned.last_id,
            made=tuple(card.id for card in learned.made),
            after=tuple(card.id for card in learned.after),
            trained_tokens=sum(card.trained_tokens for card in learned.made),
            training_s=sum(card.seconds for card in learned.made),
            items=tuple(item.id for item in items),
            seconds=time.monotonic() - begun,
        )
        return consolidation, items, [found for material in materials for found in material.answered]

    def _writer(self, arm: Arm, seed: int, repo: str) -> str:
        """Adapter of whoever answers questions in this round; empty for base."""
        if self.number == 1:
            return ""
        match arm.own_learning.writer:
            case Writer.BASE:
                return ""
            case Writer.FIRST:
                number = 1
            case Writer.SELF | Writer.HYBRID:
                number = self.number - 1
        return self.done[arm.name, seed, repo, number].adapter

    def _train(self, arm: Arm, repo: str, seed: int, request: TrainingRequest) -> AdapterRecord:
        assert self.context.trainer is not None
        what = f"{arm.name}{f', {repo}' if repo else ''}, seed {seed}"
        return self.context.trainer.train(request, lambda event: self.context.tell(what, event))

    def _by_strategy(self, arm: Arm, seed: int, batches: Sequence[Sequence[Example]]) -> TrainingOutcome:
        assert self.context.trainer is not None and self.experience.training is not None
        learning = arm.own_learning
        assert learning.strategy is not None
        training_context = TrainingContext(
            base=self.context.base,
            settings=(learning.training or TrainingChange()).of(
                self.experience.training.model_copy(update={"seed": seed})
            ),
            train=lambda request: self._train(arm, ALL, seed, request),
            measure=self.context.trainer.measure,
        )
        return learn(learning.strategy, batches, training_context)

    def _request(self, arm: Arm, seed: int, repo: str, material: Material) -> TrainingRequest:
        assert self.experience.training is not None
        learning, treatment = arm.own_learning, arm.treatment
        # Each seed of the plan trains with a seed of its own; what is not trained has none.
        training_seed = 0 if treatment is Treatment.ZERO_ADAPTER else seed
        settings = self.experience.training.model_copy(update={"seed": training_seed})
        if treatment is Treatment.ADAPTER and learning.times is None:
            if learning.training is not None:
                settings = learning.training.of(settings)
            return TrainingRequest(
                base=self.context.base,
                make=Make.TRAINED,
                settings=settings.model_copy(update={"objective": learning.objective}),
                examples=material.examples,
                rejected=material.rejected,
                teachers=material.teachers,
            )
        if treatment is Treatment.ZERO_ADAPTER:
            return TrainingRequest(base=self.context.base, make=Make.ZERO, settings=settings)
        plain = self.plan.made_from(arm)
        like = self.done.get((plain.name, seed, repo, 1)) if plain is not None else None
        if like is None:
            raise BadInput(
                f"{arm.name} is made from the adapter of an arm that is plainly trained on {learning.source.value} "
                "experience, and none was: the plan needs such an arm, and it has to run."
            )
        return TrainingRequest(
            base=self.context.base,
            make=Make.RANDOM if treatment is Treatment.RANDOM_ADAPTER else Make.SCALED,
            settings=settings,
            parts=(like.adapter,),
            times=learning.times,
        )
