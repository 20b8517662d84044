"""A verified success → one item: what was changed where, in the agent's own syntax."""

import re
from collections.abc import Callable, Iterator, Sequence
from textwrap import dedent

from looper.records.base import content_hash
from looper.records.memory import MemoryItem
from looper.records.task import Task
from looper.records.trajectory import Action, Edit, Read, Step, Trajectory

_DEFINED = re.compile(r"\b(?:def|class) (\w+)")
_FILE = re.compile(r"^\+\+\+ b/(.+?)\t?$", re.MULTILINE)


def distil(
    trajectory: Trajectory, steps: Sequence[Step], task: Task, render: Callable[[Action], str]
) -> MemoryItem:
    """Title (the names in the issue that the agent saw defined), the reads of the changed files, the net change."""
    edits = list(net_edits(trajectory.patch))
    changed = {edit.path for edit in edits}
    reads = dict.fromkeys(
        render(step.action) for step in steps if isinstance(step.action, Read) and step.action.path in changed
    )
    title = " ".join(_names(task.problem_statement, steps)) or task.problem_statement.strip().splitlines()[0]
    text = "\n".join([title, *reads, *map(render, edits)])
    return MemoryItem(
        id=content_hash(text, task.instance_id)[:16],
        source=f"{trajectory.cell}#{trajectory.attempt}",
        instance_id=task.instance_id,
        repo=task.repo,
        position=task.sequence_position,
        title=title,
        text=text,
        asked=task.problem_statement,
    )


def _names(issue: str, steps: Sequence[Step]) -> list[str]:
    defined = {name for step in steps for name in _DEFINED.findall(step.observation.text)}
    return list(dict.fromkeys(word for word in re.findall(r"\w+", issue) if word in defined))


def net_edits(patch: str) -> Iterator[Edit]:
    """The blocks of changed lines of a git patch, as edits to read: without indentation, without context."""
    path, old, new = "", list[str](), list[str]()

    def block() -> Iterator[Edit]:
        if path and (old or new):
            yield Edit(path=path, old=_block(old), new=_block(new))
        old.clear()
        new.clear()

    for line in patch.splitlines():
        if line.startswith("+++ "):
            found = _FILE.match(line)
            path = found.group(1) if found else ""
        elif line.startswith(("diff --git ", "--- ", "@@ ", "index ")):
            yield from block()
        elif line.startswith("-"):
            if new:
                yield from block()
            old.append(line[1:])
        elif line.startswith("+"):
            new.append(line[1:])
        else:
            yield from block()
    yield from block()


def _block(lines: Sequence[str]) -> str:
    return dedent("\n".join(lines))
