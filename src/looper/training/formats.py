"""Successes retold as text about the work, in place of the work itself.

Fixed sentences filled from the records, so nothing is made up and nothing is lost; whether such text teaches an agent
anything, or costs it its protocol, is what an experiment with it asks.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from looper.records.task import Task
from looper.records.training import Example, Format, Turn
from looper.records.trajectory import Bash, Edit, ObservationKind, Read, Step, Write
from looper.training.select import Attempt

Pair = tuple[str, str]
"""Question and answer."""
OUTPUT_CHARACTERS = 200
"""Of an observation that is told."""


def retold(
    attempt: Attempt, task: Task, form: Format, system: str, pairs: int | None = None
) -> list[Example]:
    """Each question and answer as a conversation of its own, at most `pairs` of them."""
    end = attempt.trajectory
    return [
        Example(
            source=f"{end.cell}#{end.attempt}/{number}",
            instance_id=task.instance_id,
            repo=task.repo,
            turns=(
                Turn(role="system", text=system),
                Turn(role="user", text=question),
                Turn(role="assistant", text=answer, supervised=True),
            ),
        )
        for number, (question, answer) in enumerate(list(_pairs(attempt, task, form))[:pairs], 1)
    ]


def _pairs(attempt: Attempt, task: Task, form: Format) -> Iterator[Pair]:
    match form:
        case Format.SIMPLE_QA | Format.SELF_QA | Format.MIXED:
            return _simple(attempt.steps, task)
        case Format.CHAIN_OF_THOUGHT:
            return _thought(attempt.steps, task)
        case Format.REFLEXION:
            return _reflexion(attempt.steps, task)
        case Format.CONTEXTUAL:
            return _facts(attempt.steps, task)
        case Format.GOLD_DIFF:
            return iter([(task.problem_statement, task.gold_patch)])
        case Format.TRAJECTORY:
            raise ValueError("a trajectory is not retold")


def _changes(steps: Sequence[Step]) -> list[Edit | Write]:
    return [
        step.action
        for step in steps
        if isinstance(step.action, Edit | Write) and step.observation.kind is ObservationKind.OK
    ]


def _simple(steps: Sequence[Step], task: Task) -> Iterator[Pair]:
    issue = task.problem_statement
    for change in _changes(steps)[-1:]:
        yield f"{issue}\nWhat fixes it?", _in_words(change)
        yield f"{issue}\nIn which file is the fix?", change.path
    commands = [step.action.command for step in steps if isinstance(step.action, Bash)]
    if commands:
        yield f"{issue}\nHow is it checked?", commands[-1]


def _thought(steps: Sequence[Step], task: Task) -> Iterator[Pair]:
    told = [f"{number}. {text}" for number, text in enumerate(map(_step, steps), 1) if text]
    if told:
        yield f"{task.problem_statement}\nThink step by step: how is it fixed?", "\n".join(told)


def _reflexion(steps: Sequence[Step], task: Task) -> Iterator[Pair]:
    changes = _changes(steps)
    for vain, better in pairwise(changes):
        yield (
            f"{task.problem_statement}\n{_in_words(vain)} It did not help. What now?",
            f"{_in_words(better)} What was tried first was not what is wanted here.",
        )
    if changes:
        yield (
            f"{task.problem_statement}\nWhat is to be learned from the fix?",
            f"In {changes[-1].path} this is how it is done: {_code(changes[-1])}",
        )


def _facts(steps: Sequence[Step], task: Task) -> Iterator[Pair]:
    for change in _changes(steps)[-1:]:
        yield f"{task.repo}: how does {change.path} do it?", _code(change)
    for path in dict.fromkeys(step.action.path for step in steps if isinstance(step.action, Read)):
        seen = next(
            step.observation.text
            for step in steps
            if isinstance(step.action, Read) and step.action.path == path
        )
        yield f"{task.repo}: what is in {path}?", seen[:OUTPUT_CHARACTERS]


def _step(step: Step) -> str:
    seen = " ".join(step.observation.text[:OUTPUT_CHARACTERS].split())
    match step.action:
        case Bash(command=command):
            return f"I run `{command}` and see: {seen}"
        case Read(path=path):
            return f"I read {path}."
        case Edit() | Write():
            return _in_words(step.action)
        case _:
            return ""


def _in_words(change: Edit | Write) -> str:
    if isinstance(change, Write):
        return f"Write {change.path} anew."
    return f"In {change.path} replace `{change.old}` by `{change.new}`."


def _code(change: Edit | Write) -> str:
    return change.new if isinstance(change, Edit) else change.content[:OUTPUT_CHARACTERS]
