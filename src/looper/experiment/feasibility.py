"""Whether a plan's gates can be passed at all with the tasks that it selects, before anything runs.

A gate that no data can pass would be met after hours of gathering. Here it is worked out from the numbers of tasks alone, and what
would do is said with them.
"""

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import and_, or_

from looper.experiment.schedule import QUOTES
from looper.experiment.toml_positions import Path
from looper.memory.deliver import deliver
from looper.memory.retrieve import candidates, words
from looper.records.learning import Experience, Learning, Source, TrainingChange, Treatment
from looper.records.memory import Draw, MemoryItem, MemoryKind, Remembering
from looper.records.plan import Arm, Gate, Metric, Plan
from looper.records.strategy import Mixture, PartialReplay
from looper.records.task import Task
from looper.records.text import counted
from looper.records.training import Objective

Learner = tuple[int, Arm, Learning]
"""Its place among the plan's arms, and what it learns."""


@dataclass(frozen=True)
class Selected:
    """A plan's tasks, as they are known before a run."""

    plan: Plan
    learners: tuple[Arm, ...]
    """Those that this run needs."""
    evaluated: tuple[Task, ...]
    experience: Mapping[Source, Sequence[Task]]
    """What is left to learn from."""
    left_out: Mapping[str, str]
    """What of it was set aside and is not learned from, and why, by id."""
    set_aside: Mapping[Source, Sequence[Task]]
    data_stops: bool
    """Whether too little to learn from ends an arm; otherwise one success of a repository is enough."""
    memory_stops: bool = True
    """Whether a memory with too little to say does; otherwise one task that is told something is enough."""

    @property
    def repos(self) -> list[str]:
        return sorted({task.repo for task in self.evaluated})

    def count(self, source: Source, repo: str) -> int:
        return sum(task.repo == repo for task in self.experience.get(source, ()))

    def most(self, repo: str) -> int:
        """Successes of a repository that an arm may learn from at most: every task resolved, in the poorest source."""
        experience = self.plan.experience
        assert experience is not None
        per_task = min(experience.selection.per_task, experience.samples)
        return min(
            (
                self.count(source, repo) * (1 if source is Source.GOLD else per_task)
                for source in self.plan.sources
                if source is not Source.GUIDED
            ),
            default=0,
        )


def impossible(found: Selected) -> Iterator[tuple[Path, str]]:
    """Keys of gates and settings that cannot be met whatever the model does, the numbers, and what to change."""
    experience = found.plan.experience
    learners = [
        each for each in found.plan.learners if each[1] in found.learners and each[2].needs_experience
    ]
    if experience is None or not learners:
        return
    short = list(_too_few_tasks(found, experience, learners))
    yield from short
    yield from _needs_another_repository(found, learners)
    if short:
        return
    yield from _memories(found, experience, learners)
    yield from _doses(found, learners)
    yield from _samples(experience, learners)
    yield from _kept_aside(found, experience, learners)
    yield from _batches(found, experience, learners)


def _too_few_tasks(
    found: Selected, experience: Experience, learners: Sequence[Learner]
) -> Iterator[tuple[Path, str]]:
    """The gate of data against the tasks that are left to learn from."""
    least = max(1, experience.selection.minimum_tasks) if found.data_stops else 1
    # The poorest source decides for all arms, whichever are asked for.
    sources = dict.fromkeys((*(learning.source for *_, learning in learners), *found.plan.matched_sources))
    poor = [
        (source, repo, found.count(source, repo))
        for source in sources
        for repo in found.repos
        if found.count(source, repo) < least
    ]
    if not poor:
        return
    told = ", ".join(
        f"{repo} has {count}{_of_source(source)}{_lost(found, source, repo)}" for source, repo, count in poor
    )
    fewest = min(count for _, _, count in poor)
    quoting = any(why == QUOTES for why in found.left_out.values())
    ways = [
        *([f"set it to {fewest} or less"] if fewest and found.data_stops else []),
        f"set more tasks aside (experience.per_repo, now {experience.per_repo})",
        *(["learn from issues that quote their fix (leaked = true)"] if quoting else []),
        "leave the repository out (tasks.repos)",
        *(['go on for a reason: --override data="…"'] if fewest and found.data_stops else []),
    ]
    yield (
        ("experience", "selection", "minimum_tasks"),
        f"{counted(least, 'resolved task')} of each repository are wanted, and {told} to learn from. "
        f"Either {', or '.join(ways)}",
    )


def _of_source(source: Source) -> str:
    return "" if source is Source.OWN else f" of {source.value} experience"


def _lost(found: Selected, source: Source, repo: str) -> str:
    """What became of the tasks that were set aside."""
    aside = [task.instance_id for task in found.set_aside.get(source, ()) if task.repo == repo]
    gone = [found.left_out[name] for name in aside if name in found.left_out]
    if not gone:
        return f" (of {len(aside)} set aside)" if aside else ""
    quoting = sum(why == QUOTES for why in gone)
    why = [
        *([f"{quoting} whose issue quotes the fix"] if quoting else []),
        *([f"{len(gone) - quoting} nearly the same as an evaluated one"] if len(gone) > quoting else []),
    ]
    return f" (of {len(aside)} set aside, without {' and '.join(why)})"


def _needs_another_repository(found: Selected, learners: Sequence[Learner]) -> Iterator[tuple[Path, str]]:
    if len(found.repos) != 1:
        return
    for at, arm, learning in learners:
        told, teacher = learning.remembers, learning.teacher
        for needs, keys, what in (
            (learning.elsewhere, ("elsewhere",), "works with what was learned in another repository"),
            (
                told is not None and told.of_other_repositories,
                ("memory", "draw"),
                f"is told of another repository{_by_draw(told)}",
            ),
            (
                teacher is not None and teacher.of_other_repositories,
                ("teacher", "draw"),
                f"has a teacher that is told of another repository{_by_draw(teacher)}",
            ),
        ):
            if needs:
                yield (
                    ("arms", at, "learning", *keys),
                    f"{arm.name} {what}, and {found.repos[0]} is the only one of {counted(len(found.evaluated), 'task')}. Name a second "
                    "one in tasks.repos, raise tasks.limit, or leave the arm out: --arm NAME for each that is to run",
                )


def _by_draw(how: Remembering | None) -> str:
    """Which draw of which kind means another repository, where not every kind's does."""
    return (
        "" if how is None or how.draw is Draw.PLACEBO else f", as a {how.kind.value} of draw {how.draw.value}"
    )


def _memories(
    found: Selected, experience: Experience, learners: Sequence[Learner]
) -> Iterator[tuple[Path, str]]:
    """The gate of memory against what could be told at most."""
    total = len(found.evaluated)
    for at, arm, learning in learners:
        how = learning.remembers
        # That there is no other repository to be told of is said by itself.
        if how is None or (how.of_other_repositories and len(found.repos) == 1):
            continue
        tasks = found.experience.get(learning.source, ())
        wanted = experience.told(how).items
        most = max(map(found.most, found.repos), default=0)
        chosen_here = how.kind.traits.chooses and how.draw is not Draw.PLACEBO
        if chosen_here and learning.source is not Source.GUIDED and wanted > most:
            own = how.items is not None
            yield (
                ("arms", at, "learning", "memory", "items") if own else ("experience", "memory_items"),
                f"{arm.name} is told up to {counted(wanted, 'item')}, and no repository has more than {most} to learn. Lower it, or set more tasks aside "
                f"(experience.per_repo, now {experience.per_repo})",
            )
        given = told_at_most(experience, how, found.evaluated, tasks)
        if given / total < experience.delivered and (found.memory_stops or not given):
            lower = f"lower it to {math.floor(100 * given / total) / 100} or less, " if given else ""
            items = [_item_of(task, how.kind) for task in tasks]
            early = sum(not candidates(task, items) for task in found.evaluated)
            # However many more are set aside, they would lie as these do.
            why = (
                f"{early} of {total} come before every task of their repository that is learned from, and nothing is told of later ones. "
                f'Learn from earlier tasks (experience.split, now "{experience.split.value}")'
                if (total - early) / total < experience.delivered
                else f"{given} of {total} have an issue like one of the {len(tasks)} that are learned from, even if each of these is "
                f"resolved. Set more tasks aside (experience.per_repo, now {experience.per_repo})"
            )
            yield (
                ("experience", "delivered"),
                f"{arm.name} has to be told something at {100 * experience.delivered:.0f} % of its tasks, and {why}, "
                f"{lower}choose other tasks, "
                + ('pass it over for a reason: --override memory="…", ' if given else "")
                + "or leave the arm out",
            )


def told_at_most(
    experience: Experience, how: Remembering, evaluated: Sequence[Task], resolved: Sequence[Task]
) -> int:
    """Tasks at which an arm is told something by who remembers so, where these tasks to learn from are resolved. With fewer of them
    none is told more: a word that tells one issue from the others does so among more of them too."""
    told = experience.told(how)
    similar = None if told.retrieval == "bm25" else _alike
    items = [_item_of(task, how.kind) for task in resolved]
    return sum(deliver(how, task, items, told.items, similar=similar).says for task in evaluated)


DRAWS = 400
"""Of what may be resolved: of so many the 95 % between 2.5 and 97.5 % are known to about a per cent."""
ALIKE = 2.0
"""As how many attempts at a task counts what is known of all of them: with 2 and none of its own, its chance may be anything where half of
all attempts succeed."""


@dataclass(frozen=True)
class Attempted:
    """What is known of attempts at tasks to learn from."""

    resolved: int
    attempts: int
    """Of all that are taken to be like them; 0 where nothing is known, and half of them are taken to succeed."""
    of_task: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Resolved ones and attempts of those tasks themselves that were tried, by id."""


@dataclass(frozen=True)
class ToldForecast:
    """At how many tasks an arm will be told something: the median of draws, and the interval that holds 95 % of them."""

    tasks: float
    low: float
    high: float


def told_forecast(
    experience: Experience,
    how: Remembering,
    evaluated: Sequence[Task],
    learned: Sequence[Task],
    known: Attempted,
    seeds: int,
) -> ToldForecast:
    """The mean over so many seeds. Each draw has a share of attempts that succeed, as sure as the known ones make it, a chance of each
    task about it that its own attempts move (beta-binomial), and successes by that chance."""
    rng, told = random.Random(0), _teller(experience, how, evaluated, learned)
    found = []
    for _ in range(DRAWS):
        mean = (
            rng.betavariate(known.resolved + 0.5, known.attempts - known.resolved + 0.5)
            if known.attempts
            else 0.5
        )
        chances = [
            rng.betavariate(
                max(ALIKE * mean + resolved, 1e-6), max(ALIKE * (1 - mean) + attempts - resolved, 1e-6)
            )
            for task in learned
            for resolved, attempts in [known.of_task.get(task.instance_id, (0, 0))]
        ]
        often = [1 - (1 - chance) ** experience.samples for chance in chances]
        found.append(sum(told([rng.random() < each for each in often]) for _ in range(seeds)) / seeds)
    found.sort()
    low, middle, high = (found[round(share * (DRAWS - 1))] for share in (0.025, 0.5, 0.975))
    return ToldForecast(middle, low, high)


def _teller(
    experience: Experience, how: Remembering, evaluated: Sequence[Task], learned: Sequence[Task]
) -> Callable[[Sequence[bool]], int]:
    """As `told_at_most` of those tasks that were resolved, in a hundredth of its time: BM25 finds what shares a word with the issue that
    does not stand in all items."""
    traits = how.kind.traits
    if not traits.has_items:
        return lambda resolved: len(evaluated)
    by_words = traits.chooses and experience.told(how).retrieval == "bm25"
    elsewhere = how.of_other_repositories
    asked = [frozenset(words(task.problem_statement)) for task in learned]
    items = [_item_of(task, how.kind) for task in learned]
    place = {item.id: at for at, item in enumerate(items)}
    rows = []
    for task in evaluated:
        bits = {word: 1 << at for at, word in enumerate({*words(task.problem_statement)})}
        shared = [
            (at, sum(bits[word] for word in asked[at] & bits.keys()))
            for at in (place[item.id] for item in candidates(task, items))
        ]
        rows.append((task.repo, shared))

    def told(resolved: Sequence[bool]) -> int:
        repos = {task.repo for task, is_resolved in zip(learned, resolved, strict=True) if is_resolved}
        count = 0
        for repo, shared in rows:
            masks = [mask for at, mask in shared if resolved[at]]
            some = reduce(or_, masks, 0) & ~reduce(and_, masks) if masks and by_words else bool(masks)
            count += bool(some and (not elsewhere or repos - {repo}))
        return count

    return told


def _item_of(task: Task, kind: MemoryKind) -> MemoryItem:
    """What memory would have of a task that was resolved, as far as is looked at before it is told."""
    return MemoryItem(
        id=task.instance_id,
        kind=kind,
        source="",
        instance_id=task.instance_id,
        repo=task.repo,
        position=task.sequence_position,
        title="",
        text="",
        turns=(("user", ""),),
        asked=task.problem_statement,
        # A success changes some file, for which its item can wait.
        paths=(task.repo,),
        changes=(),
    )


def _alike(question: str, texts: Sequence[str]) -> list[float]:
    """Of a model that is asked only by a run: all could be like the question."""
    return [1.0] * len(texts)


def _doses(found: Selected, learners: Sequence[Learner]) -> Iterator[tuple[Path, str]]:
    for at, arm, learning in learners:
        for repo in found.repos:
            most = found.most(repo)
            if learning.episodes is not None and learning.episodes > most:
                yield (
                    ("arms", at, "learning", "episodes"),
                    f"{arm.name} learns from {counted(learning.episodes, 'success', 'successes')} of each repository, and {repo} cannot have more than "
                    f"{most}. Lower it, or set more tasks aside (experience.per_repo)",
                )
                break
            if learning.recovered is not None and learning.recovered > found.count(Source.OWN, repo):
                yield (
                    ("arms", at, "learning", "recovered"),
                    f"{arm.name} learns from {learning.recovered} of its own successes, and {repo} has "
                    f"{counted(found.count(Source.OWN, repo), 'task')} for them. Lower it, or set more tasks aside (experience.per_repo)",
                )
                break


def _samples(experience: Experience, learners: Sequence[Learner]) -> Iterator[tuple[Path, str]]:
    per_task = experience.selection.per_task
    if per_task > experience.samples:
        yield (
            ("experience", "selection", "per_task"),
            f"up to {per_task} histories of one task are to be learned from, and it is tried {experience.samples} times. Lower it, or "
            "raise experience.samples",
        )
    for at, arm, learning in learners:
        if learning.objective is Objective.PREFERENCE and experience.samples < 2:
            yield (
                ("arms", at, "learning", "objective"),
                f"{arm.name} prefers a success to a failure at the same task, and each task is tried once. Set experience.samples to 2 "
                "or more",
            )


def _kept_aside(
    found: Selected, experience: Experience, learners: Sequence[Learner]
) -> Iterator[tuple[Path, str]]:
    """Trainings that keep so many tasks aside, to see when to stop, that too few are left."""
    if experience.training is None:
        return
    least = max(1, experience.selection.minimum_tasks) if found.data_stops else 1
    told: set[Path] = set()
    for at, arm, learning in learners:
        if learning.treatment is not Treatment.ADAPTER or learning.source is Source.GUIDED:
            continue
        own = learning.training or TrainingChange()
        share = own.of(experience.training).validation_share
        path: Path = (
            ("experience", "training", "validation_share")
            if own.validation_share is None
            else ("arms", at, "learning", "training", "validation_share")
        )
        # A dose of successes is cut after the gate of data, so that of it one has to be left.
        wanted = least if learning.episodes is None else 1
        for repo in found.repos:
            tasks = min(found.count(learning.source, repo), learning.episodes or found.most(repo))
            aside = max(1, round(share * tasks)) if share else 0
            if aside and tasks - aside < wanted and path not in told:
                told.add(path)
                yield (
                    path,
                    f"{arm.name} keeps {aside} of {counted(tasks, 'task')} of {repo} aside, and trains on {tasks - aside} at most "
                    f"where {wanted} {'are' if wanted != 1 else 'is'} wanted. Lower it, or set more tasks aside (experience.per_repo)",
                )


def _batches(
    found: Selected, experience: Experience, learners: Sequence[Learner]
) -> Iterator[tuple[Path, str]]:
    """Strategies that would have nothing to come one after another."""
    successes = [found.most(repo) for repo in found.repos]
    size = experience.batch
    batches = sum(-(-most // size) if size else 1 for most in successes)
    told = f"{counted(sum(successes), 'success', 'successes')} at most are {counted(batches, 'batch', 'batches')}"
    forgets = {
        name
        for contrast in found.plan.contrasts
        if contrast.metric is Metric.FORGETTING
        for name in contrast.arms
    }
    for at, arm, learning in learners:
        if learning.strategy is None:
            continue
        if learning.batches is not None and learning.batches >= batches:
            yield (
                ("arms", at, "learning", "batches"),
                f"{arm.name} stops after {learning.batches}, and {told}. Make them smaller (experience.batch), or set more tasks aside",
            )
        elif arm.name in forgets and batches < 2:
            yield (
                ("experience", "batch") if size else ("experience",),
                f"{arm.name} is to forget an earlier batch, and {told}. Make them smaller (experience.batch), or set more tasks aside",
            )
        yield from _of_strategy(learning, at, arm.name, sum(successes))


def _of_strategy(learning: Learning, at: int, name: str, successes: int) -> Iterator[tuple[Path, str]]:
    match learning.strategy:
        case PartialReplay(buffer=buffer) if buffer >= successes:
            yield (
                ("arms", at, "learning", "strategy", "buffer"),
                f"{name} keeps {counted(buffer, 'success', 'successes')}, and there are {successes} at most: that is full replay. Lower it, or set more "
                "tasks aside (experience.per_repo)",
            )
        case Mixture(experts=int() as experts) if experts > successes:
            yield (
                ("arms", at, "learning", "strategy", "experts"),
                f"{name} has {experts} experts, and there are {counted(successes, 'success', 'successes')} at most. Lower it, or set more tasks aside "
                "(experience.per_repo)",
            )


def data_stops(plan: Plan, overridden: Sequence[Gate]) -> bool:
    """Whether the gate of data ends what does not pass it."""
    return Gate.DATA not in (*plan.measured_only, *overridden)
