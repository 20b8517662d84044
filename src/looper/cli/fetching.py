"""What `looper bench fetch` and `looper bench prepare` do, and `looper node prepare` does of both for the tasks of one plan.

A node that was prepared finds everything of a run in its own places, and fetches nothing of it while cells wait.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from looper.cli.grading import suite_named
from looper.cli.plans import RunOptions, load_written
from looper.cli.preparing import prepare as prepare_plan
from looper.cli.preparing import with_environment
from looper.cli.settings import Settings
from looper.cli.site import control_task, equipped, manifest_of, own_folder
from looper.cli.wiring import (
    base_trees,
    every_task,
    found_elsewhere,
    install_line,
    measured_where,
    mirror,
    missing_compilers,
    missing_programs,
    must_be_whole,
    pinned_environments,
)
from looper.errors import BadInput, EnvironmentBroken, InfrastructureError, WorkspaceError
from looper.experiment.cell import ProcessVerdicts
from looper.experiment.control import control_failure
from looper.experiment.schedule import select_tasks
from looper.records.base import grouped
from looper.records.plan import REAL_SUITES
from looper.records.task import Task
from looper.records.text import counted
from looper.views.environments import environment_lines

Say = Callable[[str], None]


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
    chosen, _ = with_environment(
        select_tasks(every, selection, partial(found_elsewhere, selection, settings)), selection
    )
    return grouped((task.repo, task) for task in chosen)


def fetch(settings: Settings, repos: Sequence[str], suite: str = "swe-bench-cl") -> Iterator[str]:
    """Clone what is not there, then say for each mirror whether everything that tasks begin with is in it. Raises BadInput at the end
    where something is not."""
    wrong = []
    for repo, tasks in tasks_by_repo(settings, repos, suite).items():
        try:
            yield _fetched(repo, tasks, settings)
        except (BadInput, WorkspaceError) as error:
            wrong.append(str(error))
    if wrong:
        raise BadInput(" ".join(wrong))


def _fetched(repo: str, tasks: Sequence[Task], settings: Settings) -> str:
    folder, missing = mirror(repo, tasks, settings)
    if missing:
        raise BadInput(
            f"The mirror {folder} lacks the base commit of {len(missing)} of {counted(len(tasks), 'task')}, or cannot read it; the first is "
            f"{missing[0].base_commit} of {missing[0].instance_id}. Remove the folder and fetch again."
        )
    must_be_whole(folder, [task.base_commit for task in tasks])
    return f"{repo}: {folder} holds all that {counted(len(tasks), 'task begins', 'tasks begin')} with"


def installation(
    settings: Settings, repos: Sequence[str], say: Say, suite: str = "swe-bench-cl"
) -> Iterator[str]:
    """The one line that installs what repositories need of the system and what is not here; none where all is."""
    chosen = tasks_by_repo(settings, repos, suite)
    missing = sorted(
        {name for repo in chosen for name in (*missing_programs(repo), *missing_compilers(repo))}
    )
    if missing:
        yield install_line(missing)
    else:
        say(f"Nothing is missing of the system for {', '.join(chosen)}.")


def prepare(settings: Settings, repos: Sequence[str], say: Say, suite: str = "swe-bench-cl") -> Iterator[str]:
    """Say what is needed, build every environment that is not there, and say what that took; what cannot be built is named, and the
    rest is built all the same. Raises EnvironmentBroken at the end where something could not."""
    yield from _built(tasks_by_repo(settings, repos, suite), settings, say)


def _built(chosen: dict[str, list[Task]], settings: Settings, say: Say) -> Iterator[str]:
    """Of tasks by repository."""
    every = [task for tasks in chosen.values() for task in tasks]
    trees = {repo: base_trees(tasks, settings) for repo, tasks in chosen.items()}
    environments = pinned_environments(lambda task: trees[task.repo].base_tree(task), settings, say)
    needed = environments.needed(every)
    yield from environment_lines(needed, shutil.disk_usage(settings.state).free, measured_where())
    yield from _missing_lines(chosen)
    failed: dict[str, list[str]] = {}
    for task in every:
        try:
            environments.of(task)
        except (BadInput, EnvironmentBroken) as error:
            why = str(error).replace(f" for {task.instance_id}", "")
            failed.setdefault(why, []).append(task.instance_id)
    if not all(each.ready for each in needed):
        needed = environments.needed(every)
        yield from environment_lines(needed, shutil.disk_usage(settings.state).free, measured_where())
    for why, names in failed.items():
        yield f"NOT BUILT for {', '.join(names[:5])}{' …' if len(names) > 5 else ''}: {why}"
    if failed:
        lacking = sum(map(len, failed.values()))
        others = f"; the other {len(every) - lacking} have theirs" if lacking < len(every) else ""
        raise EnvironmentBroken(
            f"{lacking} of {counted(len(every), 'task has', 'tasks have')} no environment, for the reasons above{others}. Fix that and run the same command "
            "again: what is built stays."
        )


def make_ready(options: RunOptions, settings: Settings, say: Say) -> Iterator[str]:
    """Get what the cells of a plan need on this machine, and show that gold and nothing are judged here as they must be. Raises what
    is in the way."""
    written = load_written(options, settings)
    prepared = prepare_plan(written.plan, settings)
    real = grouped((task.repo, task) for task in prepared.every_task if task.suite in REAL_SUITES)
    for repo, tasks in real.items():
        yield _fetched(repo, tasks, settings)
    if real:
        yield from _built(real, settings, say)
        prepared = prepare_plan(written.plan, settings)  # With the mirrors that are here now.
    with equipped(prepared, options.sandbox, settings, say) as (site, models):
        manifest = manifest_of(prepared, site, models, options.arms, options.overrides)
        with own_folder(settings) as folder, site.occupied(folder) as stop:
            control = control_task(prepared)
            context = site.run_context(models.of, ProcessVerdicts())
            if why := control_failure(control, context, stop.is_set):
                raise InfrastructureError(f"This machine judges otherwise than it must: {why}")
    yield f"sandbox {manifest.sandbox}, {counted(len(manifest.environments), 'environment')}, Looper {manifest.code_version}"
    for name, model in dict.fromkeys((model.name, model.digest[:12]) for model in manifest.models.values()):
        yield f"model {name} {model}"
    yield f"gold resolves {control.instance_id} here, and noop does not"
    yield f"ready for {prepared.plan.name}: {manifest.run_hash()}, the same on every machine that is"


def _missing_lines(repos: Iterable[str]) -> Iterator[str]:
    for repo in repos:
        fix = f"looper bench prepare --repo {repo} --fix prints what installs it"
        for names, what in (
            (missing_programs(repo), "its tests call it"),
            (missing_compilers(repo), "packages of it are compiled"),
        ):
            if names:
                yield f"{repo}: {', '.join(names)} is not here, and {what}; {fix}"
