"""Rows in SWE-bench's shape → task records, in sequences: each repository in time order, with what a task refers to before it."""

import heapq
import re
from collections.abc import Iterable, Mapping, Sequence
from graphlib import TopologicalSorter
from typing import Any

from looper.bench.rows import (
    OWN_RUNNERS,
    environment_of,
    files_of_patch,
    listed,
    moment,
    must_have_its_shapes,
    targets_of,
)
from looper.records.task import Runner, Task

SUITE = "swe-bench"
DIFFICULTIES = {"<15 min fix": 1, "15 min - 1 hour": 2, "1-4 hours": 3, ">4 hours": 4}
"""As SWE-bench Verified says them; the other sets say none."""
_DJANGO_AS_PYTEST = re.compile(r"tests/([\w/]+)\.py::(\w+)::(\w+)")
_SYMPY_AS_PYTEST = re.compile(r"[\w/]+\.py::(\w+)")


def task_from_row(row: dict[str, Any]) -> Task:
    """One row as it is labelled, in no sequence yet. Raises KeyError, TypeError or ValueError where a field is missing or of a wrong
    kind."""
    must_have_its_shapes(row)
    difficulty = row.get("difficulty") or None
    if difficulty is not None and difficulty not in DIFFICULTIES:
        raise ValueError(f"difficulty is none of {', '.join(DIFFICULTIES)}")
    runner = OWN_RUNNERS.get(row["repo"], Runner.PYTEST)
    return Task(
        instance_id=row["instance_id"],
        suite=SUITE,
        repo=row["repo"],
        base_commit=row["base_commit"],
        # Of equal length for all rows, so that texts compare as times do.
        created_at=moment(row["created_at"]).isoformat(timespec="seconds").replace("+00:00", "Z"),
        problem_statement=row["problem_statement"],
        difficulty=difficulty and DIFFICULTIES[difficulty],
        sequence_id=f"{SUITE}:{row['repo']}",
        sequence_position=1,
        dependencies=(),
        modified_files=files_of_patch(row["patch"]),
        environment=environment_of(row["repo"], row.get("version")),
        runner=runner,
        test_targets=targets_of(row["test_patch"], runner),
        gold_patch=row["patch"],
        test_patch=row["test_patch"],
        fail_to_pass=_ids(row, "FAIL_TO_PASS", runner),
        pass_to_pass=_ids(row, "PASS_TO_PASS", runner),
    )


def _ids(row: dict[str, Any], kind: str, runner: Runner) -> tuple[str, ...]:
    """As the repository's own runner says them, odd ones too: SWE-bench Verified has a docstring of one character. Raises
    ValueError for a text that was taken apart."""
    found = tuple(own_id(name, runner) for name in listed(row, kind))
    if found and max(map(len, found)) < 2:
        raise ValueError(f"{kind} holds the characters of a text, each by itself")
    return found


def own_id(name: str, runner: Runner) -> str:
    """A test as its runner names it, where a row names it as pytest would: SWE-ContextBench does for every repository."""
    if runner is Runner.DJANGO and (found := _DJANGO_AS_PYTEST.fullmatch(name)):
        return f"{found[3]} ({found[1].replace('/', '.')}.{found[2]})"
    if runner is Runner.SYMPY and (found := _SYMPY_AS_PYTEST.fullmatch(name)):
        return found[1]
    return name


def in_sequences(tasks: Iterable[Task], bases: Mapping[str, Sequence[str]]) -> tuple[Task, ...]:
    """One sequence for each repository, by name: in time order, but never before what a task refers to.

    `bases` are the tasks that a task refers to, by id, all of one repository. Where there are any, they are the dependencies;
    else those are the earlier tasks that touch a file which the gold patch touches. The order of the rows says nothing. Raises
    graphlib.CycleError.
    """
    by_repo: dict[str, list[Task]] = {}
    for task in tasks:
        by_repo.setdefault(task.repo, []).append(task)
    found: list[Task] = []
    for repo in sorted(by_repo):
        order = _ordered(by_repo[repo], bases)
        earlier = _referred_to(order, bases) if bases else _touching(order)
        found += (
            task.model_copy(update={"sequence_position": position, "dependencies": dependencies})
            for position, (task, dependencies) in enumerate(zip(order, earlier, strict=True), 1)
        )
    return tuple(found)


def _ordered(tasks: Sequence[Task], bases: Mapping[str, Sequence[str]]) -> list[Task]:
    """Of all that refer to nothing which is still to come always the oldest."""
    by_id = {task.instance_id: task for task in tasks}
    graph = TopologicalSorter({name: bases.get(name, ()) for name in by_id})
    graph.prepare()
    ready: list[tuple[str, str]] = []
    order = []
    while graph.is_active():
        for name in graph.get_ready():
            heapq.heappush(ready, (by_id[name].created_at, name))
        _, oldest = heapq.heappop(ready)
        order.append(by_id[oldest])
        graph.done(oldest)
    return order


def _referred_to(order: Sequence[Task], bases: Mapping[str, Sequence[str]]) -> list[tuple[str, ...]]:
    at = {task.instance_id: position for position, task in enumerate(order)}
    return [tuple(sorted(bases.get(task.instance_id, ()), key=at.__getitem__)) for task in order]


def _touching(order: Sequence[Task]) -> list[tuple[str, ...]]:
    """For each task the earlier ones that touch one of its files: SWE-Bench-CL's own rule."""
    touched: dict[str, list[int]] = {}
    found = []
    for position, task in enumerate(order):
        before = sorted({at for path in task.modified_files for at in touched.get(path, ())})
        found.append(tuple(order[at].instance_id for at in before))
        for path in task.modified_files:
            touched.setdefault(path, []).append(position)
    return found
