"""Projects as git history and task records, in the same shape as SWE-Bench-CL.

The embedded suite and the suites of single functions come through `written`: generators give plain files, and here they become a
mirror with two commits for each task, and its record.
"""

import fcntl
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import ValidationError

from looper.bench.micro.project import Change, Project
from looper.edges.access import made_whole, shared_folder
from looper.edges.workspaces.git import git
from looper.errors import BadInput
from looper.journal import UNREADABLE
from looper.records.task import Runner, Task

_FIRST_DAY = datetime(2024, 1, 1, tzinfo=UTC)
Naming = Callable[[Project, int], str]
"""Id of the task of a number, from 1."""


def written(
    folder: Path, suite: str, projects: Sequence[Project], name: Naming
) -> tuple[tuple[Task, ...], dict[str, Path]]:
    """Tasks in sequence order, and mirrors by suite and repository name, under a folder whose name stands for its content:
    it is written once, and complete or not there at all.

    Each task is two commits of its repository's history, the base and the fix, so that a mirror holds every future
    fix just as a real one does.
    """
    if not folder.is_dir():
        _write(folder, suite, projects, name)
    return _read(folder / "tasks.jsonl"), {
        f"{suite}:{project.name}": folder / f"{project.name}.git" for project in projects
    }


def _read(path: Path) -> tuple[Task, ...]:
    """Raises BadInput where a line is no task."""
    tasks: list[Task] = []
    try:
        *lines, rest = path.read_bytes().split(b"\n")
        for line in lines:
            tasks.append(Task.from_json(line))
    except OSError as error:
        why = error.strerror or str(error)
    except UNREADABLE as error:
        said = error.errors()[0] if isinstance(error, ValidationError) else None
        what = f"{'.'.join(map(str, said['loc']))}: {said['msg']}" if said else str(error)
        why = f"line {len(tasks) + 1} is no task ({what})"
    else:
        if tasks and not rest:
            return tuple(tasks)
        why = "its last line was cut off" if rest else "it is empty"
    raise BadInput(f"{path} is damaged: {why}. Remove the folder {path.parent}; it is made again.")


def _write(folder: Path, suite: str, projects: Sequence[Project], name: Naming) -> None:
    shared_folder(folder.parent)
    with (folder.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.is_dir():
            return
        with made_whole(folder) as made:
            tasks = [task for project in projects for task in _write_project(project, suite, made, name)]
            (made / "tasks.jsonl").write_bytes(b"".join(task.to_json() + b"\n" for task in tasks))


def _write_project(project: Project, suite: str, folder: Path, name: Naming) -> list[Task]:
    mirror = folder / f"{project.name}.git"
    mirror.mkdir()
    git(["init", "--quiet", "--bare", "--template="], cwd=mirror)
    marks = folder / f"{project.name}.marks"
    git(["fast-import", "--quiet", f"--export-marks={marks}"], cwd=mirror, stdin=_history(project))
    commits = dict(line.split() for line in marks.read_text().splitlines())
    marks.unlink()
    fixes = [commits[f":{2 * number}"] for number in range(1, len(project.changes) + 1)]
    gold, tests = (_diffs(mirror, fixes, which) for which in (":(exclude)tests", "tests"))
    return [
        _task(project, number, suite, name, commits[f":{2 * number - 1}"], gold[fix], tests[fix])
        for number, fix in enumerate(fixes, 1)
    ]


def _diffs(mirror: Path, commits: Sequence[str], which: str) -> dict[str, str]:
    """What each commit changes in the files that a pathspec names."""
    arguments = ["diff-tree", "--stdin", "--always", "-p", "-r", "--full-index", "--no-renames", "--", which]
    diffs = git(arguments, cwd=mirror, stdin="".join(f"{commit}\n" for commit in commits).encode()).decode()
    parts = re.split(r"^([0-9a-f]{40})\n", diffs, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _history(project: Project) -> bytes:
    """The repository as a fast-import stream: commit 2n-1 is the base of task n, commit 2n its fix."""
    stream: list[bytes] = []
    for number, change in enumerate(project.changes, 1):
        when = int((_FIRST_DAY + timedelta(days=number)).timestamp())
        stream.append(_commit(2 * number - 1, when, f"Work up to {change.title}", change.base, fresh=True))
        stream.append(_commit(2 * number, when + 3600, f"Fix {change.title}", {**change.fix, **change.tests}))
    return b"".join(stream)


def _commit(mark: int, when: int, message: str, files: dict[str, str], *, fresh: bool = False) -> bytes:
    lines = [b"commit refs/heads/main\n", f"mark :{mark}\n".encode()]
    lines.append(f"committer looper <looper@localhost> {when} +0000\n".encode() + _data(message.encode()))
    if mark > 1:
        lines.append(f"from :{mark - 1}\n".encode())
    if fresh:
        lines.append(b"deleteall\n")
    for path, text in files.items():
        lines.append(f"M 100644 inline {path}\n".encode() + _data(text.encode()))
    return b"".join(lines)


def _data(content: bytes) -> bytes:
    return f"data {len(content)}\n".encode() + content + b"\n"


def _task(project: Project, number: int, suite: str, name: Naming, base: str, gold: str, tests: str) -> Task:
    change = project.changes[number - 1]
    return Task(
        instance_id=name(project, number),
        suite=suite,
        repo=project.name,
        base_commit=base,
        created_at=(_FIRST_DAY + timedelta(days=number)).isoformat(),
        problem_statement=change.issue,
        difficulty=change.difficulty,
        sequence_id=f"{suite}:{project.name}",
        sequence_position=number,
        dependencies=_dependencies(project, number, name),
        modified_files=tuple(sorted(change.fix)),
        environment="harness",
        runner=Runner.PYTEST,
        test_targets=tuple(sorted(change.tests)),
        gold_patch=gold,
        test_patch=tests,
        fail_to_pass=change.fail_to_pass,
        pass_to_pass=change.pass_to_pass,
    )


def _dependencies(project: Project, number: int, name: Naming) -> tuple[str, ...]:
    """Earlier tasks that touch a file which this one's fix touches: the benchmark's own rule."""
    touched = set(project.changes[number - 1].fix)
    earlier: Sequence[Change] = project.changes[: number - 1]
    return tuple(name(project, at) for at, change in enumerate(earlier, 1) if touched & set(change.fix))
