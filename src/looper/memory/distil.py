"""A verified success → one item, in the agent's own syntax.

`distil` has a case for each kind of memory, which says what its item tells: a text, and of that the files and the code. The functions below
it read these from a rollout: what it said and saw, where it looked, which names it found, and what its patch changed (`net_edits`).
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from textwrap import dedent
from typing import assert_never

from looper.records.base import content_hash
from looper.records.memory import MemoryItem, MemoryKind
from looper.records.task import Task
from looper.records.text import bare_lines
from looper.records.trajectory import Action, Edit, Read, Step, Trajectory

_DEFINED = re.compile(r"\b(?:def|class) (\w+)")
_FILE = re.compile(r"^\+\+\+ b/(.+?)\t?$", re.MULTILINE)

Render = Callable[[Action], str]


@dataclass(frozen=True)
class _Told:
    """What a kind tells of a success. Of `paths` and `changes` only what its text shows: by them an agent is said to have used an item."""

    text: str
    paths: tuple[str, ...]
    changes: tuple[str, ...]
    turns: tuple[tuple[str, str], ...] = ()


def distil(
    trajectory: Trajectory,
    steps: Sequence[Step],
    task: Task,
    render: Render,
    kind: MemoryKind = MemoryKind.LESSONS,
    question: str = "",
) -> MemoryItem:
    """One success as something of a kind to tell. Every kind has the same title: the names in the issue that the agent saw
    defined.

    `question` is the task as the agent was asked it, for successes that are told as a conversation. Raises ValueError for kinds that
    tell nothing of a success.
    """
    edits = list(net_edits(trajectory.patch))
    title = " ".join(_names(task.problem_statement, steps)) or bare_lines(task.problem_statement.strip())[0]
    paths = tuple(dict.fromkeys(edit.path for edit in edits))
    changes = tuple(edit.new for edit in edits if edit.new)
    match kind:
        case MemoryKind.RAW:
            text = "\n".join([title, *(said for step in steps for said in _said(step, render))])
            told = _Told(text, paths, changes)
        case MemoryKind.SUCCESSES:
            spoken = [
                pair
                for step in steps
                for pair in zip(("assistant", "user"), _said(step, render), strict=True)
            ]
            turns = (("user", question), *spoken[:-1])
            told = _Told("\n".join(said for _, said in turns), paths, changes, turns)
        case MemoryKind.LESSONS | MemoryKind.PLAYBOOK:
            text = "\n".join([title, *_reads(steps, edits, render), *map(render, edits)])
            told = _Told(text, paths, changes)
        case MemoryKind.BLANK | MemoryKind.GOLD:
            raise ValueError(f"{kind.value} tells nothing of a success")
        case _:
            assert_never(kind)
    return MemoryItem(
        id=content_hash(kind.value, told.text, task.instance_id)[:16],
        kind=kind,
        source=f"{trajectory.cell}#{trajectory.attempt}",
        instance_id=task.instance_id,
        repo=task.repo,
        position=task.sequence_position,
        title=title,
        text=told.text,
        turns=told.turns,
        asked=task.problem_statement,
        paths=told.paths,
        changes=told.changes,
    )


def _said(step: Step, render: Render) -> tuple[str, str]:
    action = step.reply.text if step.action is None else render(step.action)
    return action, step.observation.text


def _reads(steps: Sequence[Step], edits: Sequence[Edit], render: Render) -> list[str]:
    """The looks at files that were changed."""
    changed = {edit.path for edit in edits}
    return list(
        dict.fromkeys(
            render(step.action)
            for step in steps
            if isinstance(step.action, Read) and step.action.path in changed
        )
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

    for line in bare_lines(patch):
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
