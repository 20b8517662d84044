"""Attempts → conversations to learn from, in the very text that the model will be asked with."""

import random
from collections.abc import Callable, Iterable, Sequence

from looper.records.base import grouped
from looper.records.task import Task
from looper.records.training import Example, Turn
from looper.records.trajectory import Action
from looper.training.select import Attempt

Opening = Callable[[Task], Sequence[tuple[str, str]]]
"""The messages that a rollout of this task begins with, as the agent makes them."""
Render = Callable[[Action], str]
"""The agent's own renderer: one text for an action, in training as at work."""


def trajectory_examples(
    attempts: Iterable[Attempt], tasks: dict[str, Task], opening: Opening, render: Render
) -> tuple[Example, ...]:
    """One example per attempt: every action is supervised, nothing else is."""
    return tuple(
        _example(attempt, tasks[attempt.trajectory.instance_id], opening, render) for attempt in attempts
    )


def _example(attempt: Attempt, task: Task, opening: Opening, render: Render) -> Example:
    turns = [Turn.model_validate({"role": role, "text": text}) for role, text in opening(task)]
    for step in attempt.steps:
        if step.action is None:
            turns.append(Turn(role="assistant", text=step.reply.text))
        else:
            turns.append(
                Turn(role="assistant", text=render(step.action), supervised=True, tool=step.action.tool)
            )
        turns.append(Turn(role="user", text=step.observation.text))
    if turns[-1].role == "user":
        turns.pop()  # What came after the last action teaches nothing.
    end = attempt.trajectory
    return Example(
        source=f"{end.cell}#{end.attempt}", instance_id=end.instance_id, repo=task.repo, turns=tuple(turns)
    )


def shuffled_targets(examples: Sequence[Example], seed: int) -> tuple[Example, ...]:
    """The same conversations with every action in the place of another one of the same tool: form without sense.

    Each tool's actions are moved on by a drawn number of places, so each is said as often as before, and none where it
    was said.
    """
    rng = random.Random(seed)
    said = grouped(
        (turn.tool or "", turn.text) for example in examples for turn in example.turns if turn.supervised
    )
    for texts in said.values():
        shift = rng.randrange(1, len(texts)) if len(texts) > 1 else 0
        texts[:] = texts[shift:] + texts[:shift]
    return tuple(
        example.model_copy(
            update={
                "turns": tuple(
                    turn.model_copy(update={"text": said[turn.tool or ""].pop(0)})
                    if turn.supervised
                    else turn
                    for turn in example.turns
                )
            }
        )
        for example in examples
    )
