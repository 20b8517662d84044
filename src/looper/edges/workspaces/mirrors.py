"""Bare mirrors of repositories: cloned once, held against the commits that tasks begin with."""

from collections.abc import Sequence
from pathlib import Path

from looper.edges.workspaces.git import git
from looper.errors import BadInput, GitRefused, WorkspaceError
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


def mirror_path(folder: Path, repo: str) -> Path:
    return folder / f"{repo.replace('/', '__')}.git"


def mirrors_of(tasks: Sequence[Task], folder: Path) -> dict[str, Path]:
    """Mirrors that exist under `folder`, by suite and repository."""
    paths = {f"{task.suite}:{task.repo}": mirror_path(folder, task.repo) for task in tasks}
    return {name: path for name, path in paths.items() if path.is_dir()}


def clone(repo: str, mirror: Path) -> None:
    """Raises BadInput, and leaves no half of a mirror."""
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


def missing_commits(mirror: Path, tasks: Sequence[Task]) -> list[Task]:
    """The tasks whose base commit a mirror does not hold."""
    asked = "".join(f"{task.base_commit}^{{tree}}\n" for task in tasks).encode()
    answers = git(["cat-file", "--batch-check"], cwd=mirror, stdin=asked).decode().splitlines()
    return [task for task, answer in zip(tasks, answers, strict=True) if answer.endswith("missing")]


def missing_objects(mirror: Path, tasks: Sequence[Task]) -> dict[str, str]:
    """Files and folders of the base trees that a mirror does not hold, with their paths as far as they are known: one that was made with a
    limit of size lacks its largest. The base commits must be there."""
    bases = sorted({task.base_commit for task in tasks})
    asked = ["rev-list", "--objects", "--no-walk", "--missing=print", "--stdin"]
    found = git(asked, cwd=mirror, stdin="\n".join(bases).encode()).decode(errors="replace").splitlines()
    replaced = (
        git(["for-each-ref", "--format=%(refname:lstrip=2)", "refs/replace/"], cwd=mirror).decode().split()
    )
    missing = dict.fromkeys(
        (line[1:] for line in found if line.startswith("?") and line[1:] not in replaced), ""
    )
    for base in bases if missing else ():
        try:
            listed = git(["ls-tree", "-r", "-t", base], cwd=mirror).decode(errors="replace").splitlines()
        except GitRefused:
            continue  # A folder of it is missing itself.
        for name, path in (line.split(" ", 2)[2].split("\t", 1) for line in listed):
            if missing.get(name) == "":
                missing[name] = path
    return missing
