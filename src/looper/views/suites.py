"""What a suite holds, and what of it cannot be run here, in lines."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from looper.records.task import Task
from looper.records.text import counted

Why = Callable[[Task], str]
"""Why no environment is known for a task; empty where one is."""


def suite_lines(
    name: str, tasks: Sequence[Task], state: str, unserved: Why, *, coupled: bool
) -> Iterator[str]:
    """A suite, its repositories, and the versions that no environment is known for; of coupled ones what they build on."""
    yield f"{name}: {counted(len(tasks), 'task')}, {state}"
    for repo, count in Counter(task.repo for task in tasks).items():
        yield f"  {repo} {count}{_coupling([task for task in tasks if task.repo == repo]) if coupled else ''}"
    yield from (f"  not runnable: {line}" for line in unserved_lines(tasks, unserved))


def suite_data(name: str, tasks: Sequence[Task], state: str, unserved: Why) -> dict[str, Any]:
    """The same for programs; tasks counted by repository."""
    return {
        "suite": name,
        "state": state,
        "tasks": len(tasks),
        "repositories": Counter(task.repo for task in tasks),
        "not_runnable": list(unserved_lines(tasks, unserved)),
    }


def unserved_lines(tasks: Sequence[Task], unserved: Why) -> Iterator[str]:
    """One for each version of a repository, with how many tasks and why."""
    found = Counter((task.environment, why) for task in tasks if (why := unserved(task)))
    for (environment, why), count in sorted(found.items()):
        yield f"{environment.replace('@', ' ').strip()}: {counted(count, 'task')}, {why}"


def _coupling(tasks: Sequence[Task]) -> str:
    created = {task.instance_id: task.created_at for task in tasks}
    after = [task for task in tasks if task.dependencies]
    older = sum(task.created_at < max(created[name] for name in task.dependencies) for task in after)
    return (
        f", {len(after)} of them after tasks that they depend on"
        + (f", {older} of these older than one of those" if older else "")
        if after
        else ""
    )
