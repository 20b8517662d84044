"""What `looper bench fetch` and `looper bench prepare` do."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from looper.bench.screen import LeakScore, fix_stands_in, leak_score, near_duplicates
from looper.cli.settings import Settings
from looper.cli.wiring import mirrors_of
from looper.edges.datasets.swe_bench_cl import load_hints, load_swe_bench_cl
from looper.edges.environments.pinned import PinnedEnvironments, missing_programs, supported_versions
from looper.edges.workspaces.exports import GitWorkspaces
from looper.edges.workspaces.git import git
from looper.errors import BadInput, EnvironmentBroken, WorkspaceError
from looper.records.task import Task

SOURCES = {
    "django/django": "swe-bench/django__django",
    "matplotlib/matplotlib": "swe-bench/matplotlib__matplotlib",
    "scikit-learn/scikit-learn": "swe-bench/scikit-learn__scikit-learn",
    "astropy/astropy": "swe-bench/astropy__astropy",
}
"""Copies that are a fraction of the size of the project's own repository."""
HOST = "https://github.com"
FETCH_TIMEOUT_S = 3600


def tasks_by_repo(settings: Settings, repos: Sequence[str]) -> dict[str, list[Task]]:
    """Tasks by repository. Raises BadInput for repositories that the benchmark does not have."""
    if not settings.swe_data:
        raise BadInput(
            "SWE-Bench-CL is not configured. Set LOOPER_SWE_DATA (or --data) to its JSONL file or hub:NAME."
        )
    found: dict[str, list[Task]] = {}
    for task in load_swe_bench_cl(settings.swe_data):
        found.setdefault(task.repo, []).append(task)
    unknown = [repo for repo in repos if repo not in found]
    if unknown:
        raise BadInput(f"SWE-Bench-CL has no repository {', '.join(unknown)}. It has: {', '.join(found)}.")
    return {repo: tasks for repo, tasks in found.items() if not repos or repo in repos}


def fetch(settings: Settings, repos: Sequence[str]) -> Iterator[str]:
    """Clone what is not there, then say for each mirror whether every base commit is in it."""
    settings.mirrors.mkdir(parents=True, exist_ok=True)
    for repo, tasks in tasks_by_repo(settings, repos).items():
        mirror = settings.mirrors / f"{repo.replace('/', '__')}.git"
        if not mirror.is_dir():
            _clone(repo, mirror)
        missing = _missing_commits(mirror, tasks)
        if missing:
            raise BadInput(
                f"The mirror {mirror} lacks the base commit of {len(missing)} of {len(tasks)} tasks, the first is "
                f"{missing[0].base_commit} of {missing[0].instance_id}. Remove the folder and fetch again."
            )
        yield f"{repo}: {mirror} holds all {len(tasks)} base commits"


def _clone(repo: str, mirror: Path) -> None:
    source = f"{HOST}/{SOURCES.get(repo, repo)}.git"
    temporary = mirror.with_name(f".{mirror.name}.part")
    try:
        git(
            ["clone", "--quiet", "--mirror", source, str(temporary)],
            cwd=mirror.parent,
            timeout_s=FETCH_TIMEOUT_S,
        )
    except WorkspaceError as error:
        raise BadInput(
            f"Cannot clone {source}: {error} Check the network, or put a bare mirror at {mirror} and name its folder "
            "with --mirrors."
        ) from error
    temporary.rename(mirror)


def _missing_commits(mirror: Path, tasks: Sequence[Task]) -> list[Task]:
    asked = "".join(f"{task.base_commit}^{{tree}}\n" for task in tasks).encode()
    answers = git(["cat-file", "--batch-check"], cwd=mirror, stdin=asked).decode().splitlines()
    return [task for task, answer in zip(tasks, answers, strict=True) if answer.endswith("missing")]


def prepare(settings: Settings, repos: Sequence[str], say: Callable[[str], None]) -> Iterator[str]:
    """Build every environment that the tasks need, one line each; what cannot be built is named, and the rest is built all the
    same. Raises EnvironmentBroken at the end where something could not."""
    chosen = tasks_by_repo(settings, repos)
    trees = {repo: _trees(settings, tasks) for repo, tasks in chosen.items()}
    environments = PinnedEnvironments(
        settings.state / "environments", say, lambda task: trees[task.repo].base_tree(task)
    )
    failed: dict[str, str] = {}
    for repo, tasks in chosen.items():
        if not supported_versions(repo):
            yield f"{repo}: no environment is known yet"
            continue
        for name, package in missing_programs(repo).items():
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


def leak_lines(settings: Settings, repos: Sequence[str], *, every: bool, hints: bool) -> Iterator[str]:
    """Scores task by task, tasks that nearly are another one, then a line per repository."""
    said = load_hints(settings.swe_data) if hints and settings.swe_data else {}
    for repo, tasks in tasks_by_repo(settings, repos).items():
        flagged = unscored = only_in_hints = 0
        for task in tasks:
            score = leak_score(task.gold_patch, task.problem_statement)
            flagged += score.flagged
            unscored += score.covered_share is None
            in_hints = leak_score(task.gold_patch, said[task.instance_id]) if said else None
            only_in_hints += in_hints is not None and in_hints.flagged and not score.flagged
            if every or score.flagged or (in_hints is not None and in_hints.flagged):
                yield (
                    f"{'FLAGGED' if score.flagged else '       '} {task.instance_id}: {_figures(score)} "
                    f"{score.scored_lines} lines{f'; in hints {_figures(in_hints)} them' if in_hints else ''}"
                )
        copies = {
            task.instance_id: found
            for at, task in enumerate(tasks)
            for found in near_duplicates([task], tasks[:at]).values()
        }
        for name, other in copies.items():
            yield f"{name} is nearly the same as {other}"
        yield (
            f"{repo}: {flagged} of {len(tasks)} flagged, {unscored} without a line to score, {len(copies)} nearly the same "
            "as another" + (f", {only_in_hints} more whose hints give it away" if said else "")
        )


def later_lines(settings: Settings, repos: Sequence[str], say: Callable[[str], None]) -> Iterator[str]:
    """For each task how many tasks that come after it in its sequence begin with a tree that holds its fix; a line for each
    repository. Raises BadInput for mirrors that are not there."""
    for repo, tasks in tasks_by_repo(settings, repos).items():
        trees = _trees(settings, tasks)
        holding = pairs = without = 0
        for at, task in enumerate(tasks):
            found = [
                fix_stands_in(task, partial(trees.base_file, later))
                for later in tasks[at + 1 :]
                if later.created_at > task.created_at
            ]
            held, known = sum(bool(each) for each in found), sum(each is not None for each in found)
            holding, pairs, without = holding + held, pairs + known, without + (bool(found) and not known)
            if known:
                yield f"{task.instance_id}: its fix stands in the trees of {held} of {known} later tasks"
            say(f"{at + 1}/{len(tasks)} {repo}")
        yield (
            f"{repo}: {holding} of {pairs} later trees hold an earlier task's fix, {without} tasks without a line to look for: "
            "transfer must not be counted from there"
        )


def _trees(settings: Settings, tasks: Sequence[Task]) -> GitWorkspaces:
    """Base trees, to be read."""
    return GitWorkspaces(
        mirrors_of(tasks, settings.mirrors), settings.state / "exports", settings.workspaces / "read", None
    )


def _figures(score: LeakScore) -> str:
    if score.max_similarity is None or score.covered_share is None:
        return "not scored,"
    return f"best line {score.max_similarity:.2f}, given {score.covered_share:.0%} of"
