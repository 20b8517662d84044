"""Experience → what each learning arm works with: an adapter or a memory per seed and repository."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from looper.agent.actions import parse, render
from looper.agent.prompt import opening
from looper.errors import BadInput, TreatmentMissing
from looper.journal import read_stream
from looper.memory.distil import distil
from looper.memory.retrieve import at_random, placebo, retrieved
from looper.protocols import Engine, Message, Trainer
from looper.records.memory import Delivery, MemoryItem
from looper.records.plan import Arm, ArmRole, Experience, Learning, Plan, RunManifest, Source, Treatment
from looper.records.task import Task
from looper.records.training import Example, Objective, Selection, TrainingEvent, TrainingRequest
from looper.records.trajectory import FinishReason, ModelIdentity, Step, Trajectory
from looper.records.treatment import Consolidation
from looper.records.verdict import Outcome, Verdict
from looper.training.examples import trajectory_examples
from looper.training.select import Attempt, preference_pairs, select

HELD_OUT = 12
"""Prompts to look at an adapter with."""

Tell = Callable[[str, TrainingEvent], None]
"""What is being trained, and how far it is."""


@dataclass(frozen=True)
class School:
    """What consolidation needs of the outside."""

    arms: tuple[Arm, ...]
    """Those that learn."""
    trainer: Trainer | None
    """None where no arm has an adapter."""
    base: ModelIdentity
    engine: Engine
    tell: Tell
    remember: Callable[[MemoryItem], None]
    record: Callable[[Consolidation], None]


@dataclass(frozen=True)
class Pool:
    """The successes of one source, seed and repository."""

    attempts: tuple[Attempt, ...]
    selection: Selection
    pairs: tuple[tuple[Attempt, Attempt], ...]
    """Successes with a failure at the same task."""
    failures: tuple[Attempt, ...]
    """At tasks that were never resolved. Nothing is trained on them, so they show how a trained model behaves elsewhere."""


PoolKey = tuple[Source, int, str]
Job = tuple[Arm, int, str]


class Treatments:
    """What each arm has learned, by seed and repository."""

    def __init__(
        self,
        plan: Plan,
        consolidations: Sequence[Consolidation],
        items: Sequence[MemoryItem],
        prompts: Mapping[tuple[int, str], Sequence[Sequence[Message]]] | None = None,
    ) -> None:
        self._plan, self._prompts = plan, prompts or {}
        self._of = {found.key: found for found in consolidations}
        self._items = {item.id: item for item in items}

    def adapter(self, arm: Arm, seed: int, repo: str) -> str:
        """Id of the arm's adapter; empty where it has none."""
        if arm.learning is None or not arm.learning.treatment.is_adapter:
            return ""
        return self._of[arm.name, seed, repo].adapter

    def prompts(self, seed: int, repo: str) -> Sequence[Sequence[Message]]:
        """Conversations that nothing was trained on, each up to a point where the model speaks."""
        return self._prompts[seed, repo]

    def memory(self, arm: Arm, seed: int, task: Task) -> Delivery:
        """What stands in the arm's prompt for a task."""
        if arm.learning is None or arm.learning.treatment.is_adapter or self._plan.experience is None:
            return Delivery(candidates=0, items=(), text="")
        items = [
            self._items[key]
            for found in self._of.values()
            if (found.arm, found.seed) == (arm.name, seed)
            for key in found.items
        ]
        count = self._plan.experience.memory_items
        match arm.learning.treatment:
            case Treatment.MEMORY:
                return retrieved(task, items, count)
            case Treatment.RANDOM_MEMORY:
                return at_random(task, items, count, seed)
            case _:
                return placebo(task, items, count, seed)


def consolidate(
    manifest: RunManifest,
    tasks: Mapping[str, Task],
    folder: Path,
    past: Sequence[Consolidation],
    school: School,
) -> Treatments:
    """Make what is not there yet of the records in `folder`.

    Raises BadInput where a repository has too few successes to learn from.
    """
    plan = manifest.plan
    experience = plan.experience
    if experience is None or not plan.sources:
        return Treatments(plan, (), ())
    pools = _pools(manifest, experience, tasks, folder)
    repos = sorted({tasks[name].repo for name in manifest.tasks})
    done = {found.key: found for found in past if _still_there(found, school.trainer)}
    items = {item.id: item for item in read_stream(folder, "memory", MemoryItem)}
    # A random adapter takes its shape from a trained one, which must be there.
    for wave in (
        [
            arm
            for arm in school.arms
            if arm.learning and arm.learning.treatment is not Treatment.RANDOM_ADAPTER
        ],
        [arm for arm in school.arms if arm.learning and arm.learning.treatment is Treatment.RANDOM_ADAPTER],
    ):
        jobs = [
            (arm, seed, repo)
            for seed in plan.seeds
            for repo in repos
            for arm in wave
            if (arm.name, seed, repo) not in done
        ]
        work = _worker(plan, experience, tasks, repos, pools, school, done)
        for found, made in school.engine.map(work, jobs):
            for item in made:
                if item.id not in items:
                    items[item.id] = item
                    school.remember(item)
            school.record(found)
            done[found.key] = found
    prompts = {
        (seed, repo): _held_out(pools, seed, repo, tasks, plan) for seed in plan.seeds for repo in repos
    }
    return Treatments(plan, tuple(done.values()), tuple(items.values()), prompts)


def _held_out(
    pools: Mapping[PoolKey, Pool], seed: int, repo: str, tasks: Mapping[str, Task], plan: Plan
) -> list[tuple[Message, ...]]:
    """Failed attempts of base, each cut before one of its replies, early in one and late in the next."""
    found = []
    base = next(arm for arm in plan.arms if arm.role is ArmRole.BASE)
    failures = [
        attempt
        for source in plan.sources
        if (source, seed, repo) in pools
        for attempt in pools[source, seed, repo].failures
    ]
    for number, attempt in enumerate(failures[:HELD_OUT]):
        messages = list(opening(tasks[attempt.trajectory.instance_id], base.scaffold))
        for step in attempt.steps[: number % len(attempt.steps)] if attempt.steps else ():
            messages += [("assistant", step.reply.text), ("user", step.observation.text)]
        found.append(tuple(messages))
    return found or [opening(tasks[name], base.scaffold) for name in list(tasks)[:1]]


def _still_there(found: Consolidation, trainer: Trainer | None) -> bool:
    """Whether what an earlier process made can be used; an adapter whose folder is gone is made again."""
    return not found.adapter or trainer is None or trainer.has(found.adapter)


def read_attempts(folder: Path) -> list[Attempt]:
    """The last attempt of every cell of a run that has both a rollout and an end."""
    steps: dict[tuple[str, int], list[Step]] = {}
    for step in read_stream(folder, "steps", Step):
        steps.setdefault((step.cell, step.attempt), []).append(step)
    ends = {(end.cell, end.attempt): end for end in read_stream(folder, "trajectories", Trajectory)}
    verdicts = {found.cell: found for found in read_stream(folder, "verdicts", Verdict)}
    return [
        Attempt(end, tuple(steps[end.cell, end.attempt]), verdict)
        for verdict in verdicts.values()
        if (end := ends.get((verdict.cell, verdict.attempt))) is not None
    ]


def _pools(
    manifest: RunManifest, experience: Experience, tasks: Mapping[str, Task], folder: Path
) -> dict[PoolKey, Pool]:
    """The successes of every source, seed and repository, by the rule of the plan."""
    plan = manifest.plan
    by_cell = {attempt.verdict.cell: attempt for attempt in read_attempts(folder)}
    found: dict[PoolKey, Pool] = {}
    for source in plan.sources:
        split = frozenset(manifest.experience_tasks[source])
        attempts: dict[tuple[int, str], list[Attempt]] = {}
        for arm in plan.experience_arms(source):
            for seed in plan.seeds:
                for name in manifest.experience_tasks[source]:
                    attempt = by_cell.get(f"{arm.name}/{seed}/{name}")
                    if attempt is not None:
                        attempts.setdefault((seed, tasks[name].repo), []).append(attempt)
        for (seed, repo), of_repo in attempts.items():
            taken, selection = select(of_repo, split, experience.selection)
            taken.sort(key=lambda item: tasks[item.trajectory.instance_id].sequence_position)
            resolved = set(selection.tasks)
            failures = [
                attempt
                for attempt in of_repo
                if attempt.verdict.outcome is Outcome.UNRESOLVED
                and attempt.trajectory.instance_id not in resolved
            ]
            pairs = preference_pairs(taken, of_repo)
            found[source, seed, repo] = Pool(
                tuple(taken), selection, tuple(pairs), tuple(failures[:HELD_OUT])
            )
    return found


def _worker(
    plan: Plan,
    experience: Experience,
    tasks: Mapping[str, Task],
    repos: Sequence[str],
    pools: Mapping[PoolKey, Pool],
    school: School,
    done: Mapping[tuple[str, int, str], Consolidation],
) -> Callable[[Job], tuple[Consolidation, list[MemoryItem]]]:
    def work(job: Job) -> tuple[Consolidation, list[MemoryItem]]:
        arm, seed, repo = job
        assert arm.learning is not None
        begun = time.monotonic()
        learned_in = _next(repo, repos) if arm.learning.elsewhere else repo
        pool = pools.get((arm.learning.source, seed, learned_in))
        taken = len(pool.selection.tasks) if pool else 0
        if pool is None or taken < experience.selection.minimum_tasks:
            raise BadInput(
                f"{arm.name}: {learned_in} has {taken} resolved training tasks with seed {seed}, and the plan wants "
                f"{experience.selection.minimum_tasks}. Give it more samples or tasks, or lower minimum_tasks."
            )
        used = pool.attempts[: _matched(plan, pools, seed, learned_in)][: arm.learning.episodes]
        rejected: list[Attempt] = []
        if arm.learning.objective is Objective.PREFERENCE:
            pairs = [pair for pair in pool.pairs if pair[0] in used]
            if not pairs:
                raise BadInput(
                    f"{arm.name}: with seed {seed} no task of {learned_in} was both resolved and failed, so there is "
                    "nothing to prefer. Give the experience more samples."
                )
            used, rejected = tuple(good for good, _ in pairs), [bad for _, bad in pairs]
        adapter, items = "", list[MemoryItem]()
        if arm.learning.treatment.is_adapter:
            assert school.trainer is not None
            like = done.get(_model_for(plan, seed, repo))
            request = _request(arm, seed, experience, (used, rejected), tasks, school.base, like)
            adapter = school.trainer.train(
                request, lambda event: school.tell(f"{arm.name}, {repo}, seed {seed}", event)
            ).id
        else:
            items = [
                distil(attempt.trajectory, attempt.steps, tasks[attempt.trajectory.instance_id], render)
                for attempt in used
            ]
        consolidation = Consolidation(
            arm=arm.name,
            seed=seed,
            repo=repo,
            treatment=arm.learning.treatment,
            selection=pool.selection,
            used=len(used),
            adapter=adapter,
            items=tuple(item.id for item in items),
            seconds=time.monotonic() - begun,
        )
        return consolidation, items

    return work


def _next(repo: str, repos: Sequence[str]) -> str:
    """The repository after this one, the first after the last. Raises BadInput where there is only one."""
    if len(repos) < 2:
        raise BadInput(f"To learn elsewhere than in {repo} a plan needs a second repository.")
    return repos[(repos.index(repo) + 1) % len(repos)]


def _matched(plan: Plan, pools: Mapping[PoolKey, Pool], seed: int, repo: str) -> int:
    """How many successes every arm of this seed and repository learns from: as many as the poorest source has.

    Otherwise a control that learns from another source would also learn from another amount.
    """
    return min(
        len(pools[source, seed, repo].attempts) for source in plan.sources if (source, seed, repo) in pools
    )


def _model_for(plan: Plan, seed: int, repo: str) -> tuple[str, int, str]:
    """The trained adapter that a random one is made like."""
    for arm in plan.arms:
        if arm.learning == Learning(treatment=Treatment.ADAPTER):
            return arm.name, seed, repo
    return "", seed, repo


def _request(
    arm: Arm,
    seed: int,
    experience: Experience,
    attempts: tuple[Sequence[Attempt], Sequence[Attempt]],
    tasks: Mapping[str, Task],
    base: ModelIdentity,
    like: Consolidation | None,
) -> TrainingRequest:
    """`attempts` to learn from, and those to learn to avoid."""
    assert arm.learning is not None and experience.training is not None
    examples: tuple[Example, ...] = ()
    rejected: tuple[Example, ...] = ()
    make = {
        Treatment.ZERO_ADAPTER: "zero",
        Treatment.RANDOM_ADAPTER: "random",
    }.get(arm.learning.treatment, "trained")
    if make == "trained":
        examples, rejected = (
            trajectory_examples(found, dict(tasks), partial(opening, scaffold=arm.scaffold), render)
            for found in attempts
        )
        nothing_lost((*examples, *rejected), (*attempts[0], *attempts[1]))
    if make == "random" and like is None:
        raise BadInput(f"{arm.name}: a random adapter needs an arm with a trained one in the same plan.")
    # Each seed of the plan trains with a luck of its own; what is not trained has none.
    settings = experience.training.model_copy(
        update={"seed": seed if make != "zero" else 0, "objective": arm.learning.objective}
    )
    return TrainingRequest.model_validate(
        {
            "base": base,
            "make": make,
            "settings": settings,
            "examples": examples,
            "rejected": rejected,
            "like": like.adapter if like is not None and make == "random" else "",
        }
    )


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
