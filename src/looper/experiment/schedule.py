"""A plan and its tasks → cells, in the order in which they run.

Who is evaluated and who is learned from is settled here, before anything runs: by the order of the sequence, or drawn by a seed,
and without tasks that would give the answer away. Lanes then interleave the arms, so that drift of a machine meets all alike.
"""

import difflib
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import groupby, islice
from statistics import fmean

from looper.bench.screen import gives_away, near_duplicates
from looper.errors import BadInput, possible, quoted
from looper.records.base import grouped
from looper.records.learning import AGES, Experience, Source, Split
from looper.records.plan import Arm, Cell, Plan, TaskSelection
from looper.records.task import Task
from looper.records.text import counted
from looper.records.training import SelectionSettings

QUOTES = "its issue quotes the fix"
"""Why a task is left out of learning that could be learned from if a plan says so."""
TASKS_PER_TURN = 4
"""Tasks that one arm runs before the next arm takes its turn."""


def select_tasks(
    tasks: Sequence[Task],
    selection: TaskSelection,
    elsewhere: Callable[[str], str] = lambda name: "",
    aside: Collection[str] = (),
) -> tuple[Task, ...]:
    """The tasks that a plan names, in sequence order. Raises BadInput for names that do not exist, or where none is left.

    `elsewhere` says where there is a repository or a task that is not among `tasks`; `aside` are ids that are learned from.
    """
    _names_exist(tasks, selection, elsewhere, aside)
    chosen = named_tasks(tasks, selection)
    if not chosen and selection.repos and selection.tasks:
        raise BadInput(
            f"No task is left: of the tasks that are named ({', '.join(selection.tasks[:5])}{' …' if len(selection.tasks) > 5 else ''}) "
            f"none is of {', '.join(selection.repos)}. Leave out the repository, or those tasks."
        )
    if selection.skip:
        skipped = {task.instance_id for task in first_of_each(tasks, selection.skip)}
        chosen = [task for task in chosen if task.instance_id not in skipped]
    if selection.per_repo is not None:
        chosen = list(first_of_each(chosen, selection.per_repo))
    chosen = chosen[: selection.limit]
    if not chosen:
        few = f" No repository has more than {selection.skip} (tasks.skip): lower it." * bool(selection.skip)
        raise BadInput(f"The plan's selection leaves no task.{few}")
    return tuple(chosen)


def named_tasks(tasks: Sequence[Task], selection: TaskSelection) -> list[Task]:
    """Those whose repository and id a selection names, or leaves open."""
    return [
        task
        for task in tasks
        if (not selection.repos or task.repo in selection.repos)
        and (not selection.tasks or task.instance_id in selection.tasks)
    ]


def _names_exist(
    tasks: Sequence[Task], selection: TaskSelection, elsewhere: Callable[[str], str], aside: Collection[str]
) -> None:
    """Raises BadInput that says of the first name that is none what there is, and what to type."""
    repos, ids = (
        list(dict.fromkeys(task.repo for task in tasks)),
        {task.instance_id: task.repo for task in tasks},
    )
    level = f" level {selection.level}" if selection.suite == "micro" else ""
    suite, listed = f"{selection.suite}{level}", f"looper bench list --suite {selection.suite}"
    for name in selection.repos:
        if name not in repos:
            found = elsewhere(name) or f"{possible(name, repos)} See them: {listed}.{of_your_own(name)}"
            raise BadInput(f'{suite} has no repository "{name}". {found}')
    for name in selection.tasks:
        if name in aside:
            raise BadInput(
                f'The task "{name}" is set aside to learn from (experience.per_repo, experience.split), so it is not evaluated. '
                "Name others (tasks.tasks), or set fewer aside."
            )
        if name not in ids:
            near = difflib.get_close_matches(name, ids, n=3, cutoff=0.6)
            of = next((repo for repo in repos if name.startswith((repo, repo.replace("/", "__")))), "")
            hint = f"Did you mean {' or '.join(near)}? " if near else ""
            found = elsewhere(name) or f"{hint}See them: {listed}{f' --repo {of}' if of else ''}"
            raise BadInput(f'{suite} has no task "{name}". {found}')


def of_your_own(name: str) -> str:
    """What to do with a repository that is no benchmark's, where a name looks like one; empty elsewhere."""
    if "/" not in name and not name.startswith((".", "~")):
        return ""
    return (
        " A repository of your own is no benchmark, which needs issues with tests that tell when they are resolved: an agent "
        "works on yours by looper evolve --repo FOLDER"
    )


def split_tasks(
    tasks: Sequence[Task],
    selection: TaskSelection,
    experience: Experience | None,
    elsewhere: Callable[[str], str] = lambda name: "",
) -> tuple[tuple[Task, ...], tuple[Task, ...]]:
    """Tasks to evaluate, as the plan selects them, and tasks of the same repositories to learn from, by the plan's split.

    No task is in both. Raises BadInput as `select_tasks` does, and where learning leaves a repository that is named without any.
    """
    kept, left = _divided(tasks, experience)
    if gone := [
        why for repo, why in exhausted_repositories(tasks, experience).items() if repo in selection.repos
    ]:
        raise BadInput(f"{'; '.join(gone)}. Set fewer aside, or leave the repository out (tasks.repos).")
    evaluated = select_tasks(left, selection, elsewhere, {task.instance_id for task in kept})
    repos = {task.repo for task in evaluated}
    return evaluated, tuple(task for task in kept if task.repo in repos)


def exhausted_repositories(tasks: Sequence[Task], experience: Experience | None) -> dict[str, str]:
    """Repositories that have no task left to evaluate once some are set aside to learn from, and how that comes."""
    kept, left = _divided(tasks, experience)
    there = {task.repo for task in left}
    found: dict[str, str] = {}
    for of_repo in _by_repo(tasks):
        repo, aside = of_repo[0].repo, sum(task.repo == of_repo[0].repo for task in kept)
        if repo in there or experience is None:
            continue
        why = "no other one builds on those" if aside < len(of_repo) else "so none is left to evaluate"
        found[repo] = (
            f"{repo} has {counted(len(of_repo), 'task')}, of which {aside} are set aside to learn from (experience.per_repo = "
            f"{experience.per_repo}), {why}"
        )
    return found


def _divided(tasks: Sequence[Task], experience: Experience | None) -> tuple[list[Task], list[Task]]:
    """Those to learn from, and those that may be evaluated."""
    if experience is None:
        return [], list(tasks)
    kept = [task for of_repo in _by_repo(tasks) for task in _for_learning(of_repo, experience)]
    names = {task.instance_id for task in kept}
    left = [task for task in tasks if task.instance_id not in names]
    if experience.split is Split.COUPLED:
        left = [task for task in left if names.intersection(task.dependencies)]
    return kept, left


def _by_repo(tasks: Sequence[Task]) -> list[list[Task]]:
    return list(grouped((task.repo, task) for task in tasks).values())


def _for_learning(tasks: Sequence[Task], experience: Experience) -> list[Task]:
    """Of one repository's tasks those to learn from, in sequence order."""
    match experience.split:
        case Split.FIRST:
            order = list(tasks)
        case Split.LAST:
            order = list(reversed(tasks))
        case Split.ODD:
            order = list(tasks[::2])
        case Split.DRAWN:
            order = random.Random(f"{experience.split_seed}/{tasks[0].repo}").sample(tasks, len(tasks))
        case Split.COUPLED:
            built_on = {name for task in tasks for name in task.dependencies}
            order = [task for task in tasks if task.instance_id in built_on]
    names = {task.instance_id for task in order[: experience.per_repo]}
    return [task for task in tasks if task.instance_id in names]


def learnable(
    learning: Sequence[Task], evaluated: Sequence[Task], settings: SelectionSettings
) -> tuple[tuple[Task, ...], dict[str, str]]:
    """The tasks that may be learned from, and why the others may not, by id: what nearly is an evaluated task would be
    learned by heart, and where the issue quotes its fix there is nothing to learn but quoting."""
    left_out = {
        name: f"nearly the same as {other}" for name, other in near_duplicates(learning, evaluated).items()
    }
    if not settings.leaked:
        left_out |= dict.fromkeys(leaking_tasks(learning), QUOTES)
    return tuple(task for task in learning if task.instance_id not in left_out), left_out


def leaking_tasks(tasks: Sequence[Task]) -> tuple[str, ...]:
    """Ids of the tasks whose issue gives half of their fix away, or more."""
    return tuple(task.instance_id for task in tasks if gives_away(task.gold_patch, task.problem_statement))


def difficulties(tasks: Sequence[Task]) -> dict[str, int]:
    """Of the tasks whose difficulty somebody said, by id."""
    return {task.instance_id: task.difficulty for task in tasks if task.difficulty is not None}


def by_age(tasks: Sequence[Task]) -> dict[Source, tuple[Task, ...]]:
    """Training tasks in four ages, of each repository as many for each; the youngest of what is left over are left out."""
    found: dict[Source, list[Task]] = {age: [] for age in AGES}
    for of_repo in _by_repo(tasks):
        oldest_first = sorted(of_repo, key=lambda task: (task.created_at, task.instance_id))
        size = len(oldest_first) // len(AGES)
        for number, age in enumerate(AGES):
            names = {task.instance_id for task in oldest_first[number * size : (number + 1) * size]}
            found[age] += [task for task in of_repo if task.instance_id in names]
    return {age: tuple(kept) for age, kept in found.items()}


def changed_since(
    old: Sequence[Task], now: Sequence[Task], base_file: Callable[[Task, str], bytes | None]
) -> float | None:
    """How much of what matters now is no longer what it was: of the files that the gold patches of `now` change, the share that
    differs between the youngest tree of `old` and the task's own. Mean over tasks; None where no repository is in both."""
    youngest = {task.repo: task for task in sorted(old, key=lambda task: task.created_at)}
    shares = [
        fmean(base_file(youngest[task.repo], path) != base_file(task, path) for path in task.modified_files)
        for task in now
        if task.repo in youngest and task.modified_files
    ]
    return fmean(shares) if shares else None


def first_of_each(tasks: Sequence[Task], count: int) -> tuple[Task, ...]:
    seen: dict[str, int] = {}
    kept = []
    for task in tasks:
        seen[task.repo] = seen.get(task.repo, 0) + 1
        if seen[task.repo] <= count:
            kept.append(task)
    return tuple(kept)


def experience_lanes(
    seeds: Sequence[int], arms: Sequence[Arm], tasks: Sequence[Task]
) -> tuple[tuple[Cell, ...], ...]:
    """Attempts to learn from, each a lane of its own."""
    return tuple(
        (Cell(arm=arm.name, seed=seed, instance_id=task.instance_id),)
        for seed in seeds
        for task in tasks
        for arm in arms
    )


def lanes(plan: Plan, tasks: Sequence[Task], arms: Sequence[str] = ()) -> tuple[tuple[Cell, ...], ...]:
    """Cells grouped by what must run one after the other. Lanes may run side by side.

    In parallel order each cell is a lane, and arms alternate every few tasks, each time beginning with another one, so
    that a machine that slows down or heats up does so for all arms alike, while cells that run at the same time mostly
    share an adapter. In sequence order each arm and seed is one lane.
    `arms` restricts the cells without changing the plan.
    """
    names = [arm.name for arm in plan.arms]
    unknown = [name for name in arms if name not in names]
    if unknown:
        raise BadInput(f"The plan has no arm {quoted(unknown)}. {possible(unknown[0], names)}")
    wanted = [name for name in names if not arms or name in arms]
    seeds = {arm.name: plan.seeds_of(arm) for arm in plan.arms}
    if plan.order == "sequence":
        return tuple(
            tuple(Cell(arm=name, seed=seed, instance_id=task.instance_id) for task in tasks)
            for seed in plan.seeds
            for name in wanted
            if seed in seeds[name]
        )
    return tuple(
        (Cell(arm=name, seed=seed, instance_id=task.instance_id),)
        for seed in plan.seeds
        for number, block in enumerate(_blocks(tasks))
        for name in (*wanted[number % len(wanted) :], *wanted[: number % len(wanted)])
        if seed in seeds[name]
        for task in block
    )


def _blocks(tasks: Sequence[Task]) -> Iterator[list[Task]]:
    """A few tasks of one repository at a time."""
    for _, of_repo in groupby(tasks, key=lambda task: task.repo):
        while block := list(islice(of_repo, TASKS_PER_TURN)):
            yield block
