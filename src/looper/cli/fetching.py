"""What `looper bench fetch` and `looper bench prepare` do."""

from collections.abc import Callable, Iterator, Sequence

from looper.cli.grading import suite_named
from looper.cli.preparing import served
from looper.cli.settings import Settings
from looper.cli.wiring import base_trees, every_task, mirror, pinned_environments
from looper.errors import BadInput, EnvironmentBroken
from looper.experiment.schedule import select_tasks
from looper.records.plan import REAL_SUITES
from looper.records.task import Task


def tasks_by_repo(
    settings: Settings, repos: Sequence[str], suite: str = "swe-bench-cl"
) -> dict[str, list[Task]]:
    """Tasks that can be run here by repository. Raises BadInput for repositories that the suite does not have, or where none can."""
    if suite not in REAL_SUITES:
        raise BadInput(
            f'The suite "{suite}" has no repositories to get. These have: {", ".join(REAL_SUITES)}.'
        )
    selection = suite_named(suite, 0).model_copy(update={"repos": tuple(repos)})
    every, _ = every_task(selection, settings)
    chosen, _ = served(select_tasks(every, selection), selection)
    found: dict[str, list[Task]] = {}
    for task in chosen:
        found.setdefault(task.repo, []).append(task)
    return found


def fetch(settings: Settings, repos: Sequence[str], suite: str = "swe-bench-cl") -> Iterator[str]:
    """Clone what is not there, then say for each mirror whether every base commit is in it."""
    for repo, tasks in tasks_by_repo(settings, repos, suite).items():
        folder, missing = mirror(repo, tasks, settings)
        if missing:
            raise BadInput(
                f"The mirror {folder} lacks the base commit of {len(missing)} of {len(tasks)} tasks, the first is "
                f"{missing[0].base_commit} of {missing[0].instance_id}. Remove the folder and fetch again."
            )
        yield f"{repo}: {folder} holds all {len(tasks)} base commits"


def prepare(
    settings: Settings, repos: Sequence[str], say: Callable[[str], None], suite: str = "swe-bench-cl"
) -> Iterator[str]:
    """Build every environment that the tasks need, one line each; what cannot be built is named, and the rest is built all the
    same. Raises EnvironmentBroken at the end where something could not."""
    chosen = tasks_by_repo(settings, repos, suite)
    trees = {repo: base_trees(tasks, settings) for repo, tasks in chosen.items()}
    environments = pinned_environments(lambda task: trees[task.repo].base_tree(task), settings, say)
    failed: dict[str, str] = {}
    for repo, tasks in chosen.items():
        for name, package in environments.missing_programs(repo).items():
            yield f"{repo}: {name} is not installed, so its tests will be skipped: apt-get install {package}"
        made: dict[tuple[str, str], int] = {}
        for task in tasks:
            try:
                found = environments.of(task)
            except (BadInput, EnvironmentBroken) as error:
                failed[task.instance_id] = str(error)
                continue
            key = task.environment, f"{found.python}, {found.id}"
            made[key] = made.get(key, 0) + 1
        for (name, what), count in sorted(made.items()):
            yield f"{name}: {what}, for {count} task{'s' if count > 1 else ''}"
    for why in dict.fromkeys(failed.values()):
        names = [name for name, said in failed.items() if said == why]
        yield f"NOT BUILT for {', '.join(names[:5])}{' …' if len(names) > 5 else ''}: {why}"
    if failed:
        raise EnvironmentBroken(
            f"{len(failed)} tasks have no environment, for the reasons above; the others are ready. Mend that and run the same "
            "command again: what is built stays."
        )
