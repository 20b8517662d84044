"""Successes retold as text about the work, in place of the work itself.

Fixed sentences filled from the records, so nothing is made up and nothing is lost; whether such text teaches an agent
anything, or costs it its protocol, is what an experiment with it asks.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, assert_never

from looper.records.task import Task
from looper.records.training import Example, Format, Turn
from looper.records.trajectory import Bash, Done, Edit, ObservationKind, Read, Step, Write
from looper.training.select import Attempt


class QuestionAnswer(NamedTuple):
    """A question, the answer that the records give, and what every right answer has to say, word for word."""

    question: str
    answer: str
    key: str


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
        for number, (question, answer, _) in enumerate(list(_pairs(attempt, task, form))[:pairs], 1)
    ]


def keys(attempt: Attempt, task: Task, form: Format, pairs: int | None = None) -> list[str]:
    """For each example of `retold`, what every right answer has to say."""
    return [pair.key for pair in list(_pairs(attempt, task, form))[:pairs]]


def says(answer: str, key: str) -> bool:
    """Whether an answer holds the key as whole words, whatever its blanks and line ends: 60 does not say 6."""
    wanted = re.escape(" ".join(key.split()))
    return re.search(rf"(?<!\w){wanted}(?!\w)", " ".join(answer.split())) is not None


def _pairs(attempt: Attempt, task: Task, form: Format) -> Iterator[QuestionAnswer]:
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
            return iter([QuestionAnswer(task.problem_statement, task.gold_patch, task.gold_patch)])
        case Format.TRAJECTORY:
            raise ValueError("a trajectory is not retold")


def _changes(steps: Sequence[Step]) -> list[Edit | Write]:
    return [
        step.action
        for step in steps
        if isinstance(step.action, Edit | Write) and step.observation.kind is ObservationKind.OK
    ]


def _simple(steps: Sequence[Step], task: Task) -> Iterator[QuestionAnswer]:
    """What is asked first matters most: an arm may take the first few."""
    issue = task.problem_statement
    changes = _changes(steps)[-1:]
    for change in changes:
        yield QuestionAnswer(f"{issue}\nWhat fixes it?", _in_words(change), _key(change))
        yield QuestionAnswer(f"{issue}\nIn which file is the fix?", change.path, change.path)
    commands = [step for step in steps if isinstance(step.action, Bash)]
    for step in commands[-1:]:
        command = step.action.command if isinstance(step.action, Bash) else ""
        yield QuestionAnswer(f"{issue}\nHow is it checked?", command, command)
        said = step.observation.text.strip()[:OUTPUT_CHARACTERS]
        if said:
            yield QuestionAnswer(f"{issue}\nWhat does `{command}` say in the end?", said, said)
    for change in changes:
        if isinstance(change, Edit):
            yield QuestionAnswer(f"{issue}\nWhat stands there before the fix?", change.old, change.old)
    for path, seen in _seen(steps):
        yield QuestionAnswer(f"{issue}\nWhat is in {path}?", seen, seen)


def _thought(steps: Sequence[Step], task: Task) -> Iterator[QuestionAnswer]:
    told = [f"{number}. {text}" for number, text in enumerate(map(_step, steps), 1) if text]
    if told:
        answer = "\n".join(told)
        yield QuestionAnswer(
            f"{task.problem_statement}\nThink step by step: how is it fixed?", answer, answer
        )


def _reflexion(steps: Sequence[Step], task: Task) -> Iterator[QuestionAnswer]:
    changes = _changes(steps)
    for vain, better in pairwise(changes):
        yield QuestionAnswer(
            f"{task.problem_statement}\n{_in_words(vain)} It did not help. What now?",
            f"{_in_words(better)} What was tried first was not what is wanted here.",
            _key(better),
        )
    for change in changes[-1:]:
        yield QuestionAnswer(
            f"{task.problem_statement}\nWhat is to be learned from the fix?",
            f"In {change.path} this is how it is done: {_code(change)}",
            _code(change) or change.path,
        )


def _facts(steps: Sequence[Step], task: Task) -> Iterator[QuestionAnswer]:
    for change in _changes(steps)[-1:]:
        if _code(change):
            yield QuestionAnswer(f"{task.repo}: how does {change.path} do it?", _code(change), _code(change))
    for path, seen in _seen(steps):
        yield QuestionAnswer(f"{task.repo}: what is in {path}?", seen, seen)


def _seen(steps: Sequence[Step]) -> Iterator[tuple[str, str]]:
    """Every path that was read, with the beginning of what was seen there first."""
    first: dict[str, str] = {}
    for step in steps:
        if isinstance(step.action, Read) and step.observation.kind is ObservationKind.OK:
            first.setdefault(step.action.path, step.observation.text[:OUTPUT_CHARACTERS])
    yield from first.items()


def _step(step: Step) -> str:
    seen = " ".join(step.observation.text[:OUTPUT_CHARACTERS].split())
    match step.action:
        case Bash(command=command):
            return f"I run `{command}` and see: {seen}"
        case Read(path=path):
            return f"I read {path}."
        case Edit() | Write():
            return _in_words(step.action)
        case Done() | None:
            return ""
        case _:
            assert_never(step.action)


def _in_words(change: Edit | Write) -> str:
    if isinstance(change, Write):
        return f"Write {change.path} anew."
    return f"In {change.path} replace `{change.old}` by `{change.new}`."


def _code(change: Edit | Write) -> str:
    return change.new if isinstance(change, Edit) else change.content[:OUTPUT_CHARACTERS]


def _key(change: Edit | Write) -> str:
    """What a right account of a change names: the new code, of a deletion the old, of a file made anew its path."""
    return change.path if isinstance(change, Write) else change.new or change.old
