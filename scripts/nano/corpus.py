"""Trajectories that the embedded model is trained on: a scripted expert at work in generated repositories.

The expert knows what an agent can know: it looks for the function where it may be, guesses the convention, checks, and
guesses again. With a memory of the same family it goes straight to the place and the right constant, so that reading
a memory block is part of what the model learns. Repositories come from the training class of names only.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from looper.agent.actions import render
from looper.agent.scaffold import packaged_scaffold
from looper.agent.tools import numbered_lines
from looper.bench.micro.level0 import (
    CHECK_COMMAND,
    CONVENTIONS,
    DETERMINED,
    FAMILIES,
    Bug,
    Conventions,
    draw_bug,
)
from looper.bench.micro.names import NOUNS
from looper.records.text import bare_lines
from looper.records.trajectory import Action, Bash, Done, Edit, Read

MAX_STEPS = 10
READ_LINES = 9
SHARE_OF_CONVENTIONS = 0.75
SHARE_WITH_MEMORY = 0.6
SHARE_OF_MEMORIES_THAT_FIT = 0.75
SHARE_OF_SLIPS = 0.08
"""Of edits that are preceded by a wrong one, so that the model meets the error and what follows it."""
SLIP = "slip"
"""Role of an action that is shown but not imitated; the model sees it as its own."""

Message = tuple[str, str]
"""Role and text."""


@dataclass(frozen=True)
class Episode:
    """One trajectory in the model's chat format."""

    messages: tuple[Message, ...]
    bug: Bug


def episodes(rng: random.Random) -> Iterator[Episode]:
    """Endless episodes, each from a repository of its own."""
    while True:
        yield _draw(rng)


def _draw(rng: random.Random) -> Episode:
    conventions = Conventions.draw(rng, for_training=True)
    family = rng.choice(list(CONVENTIONS if rng.random() < SHARE_OF_CONVENTIONS else DETERMINED))
    bug = draw_bug(conventions, family, rng.choice(NOUNS), rng)
    memory, knows = "", False
    if rng.random() < SHARE_WITH_MEMORY:
        other_family = family if rng.random() < SHARE_OF_MEMORIES_THAT_FIT else rng.choice(list(FAMILIES))
        other = draw_bug(conventions, other_family, rng.choice(NOUNS), rng)
        memory, knows = memory_item(other), other_family == family
    return Episode((*opening(bug, memory), *expert(bug, rng, knows=knows)), bug)


def opening(bug: Bug, memory: str = "") -> tuple[Message, ...]:
    """System and first user message, as the terse scaffold renders them."""
    scaffold = packaged_scaffold("terse")
    block = scaffold.memory.replace("{items}", memory) if memory else ""
    return ("system", scaffold.system), (
        "user",
        scaffold.task.replace("{memory}", block).replace("{issue}", bug.issue),
    )


def memory_item(bug: Bug) -> str:
    """What is worth remembering of a solved task: its title, the read that found the place, the edit that fixed it."""
    return "\n".join([bug.function, render(_read(bug.path)), render(_edit(bug, bug.wrong, bug.right))])


def expert(bug: Bug, rng: random.Random, *, knows: bool) -> tuple[Message, ...]:
    """Actions and observations up to a passing check and `done`, or up to `MAX_STEPS` actions.

    What runs out of steps is kept: how to go on after a failed check is most of what there is to learn.
    """
    turns: list[Message] = []

    def act(action: Action, observation: str, role: str = "assistant") -> None:
        turns.extend(((role, render(action)), ("user", observation)))

    failed = f"FAIL {bug.function}"
    act(Bash(command=CHECK_COMMAND), failed)
    for path in [bug.path] if knows else rng.sample(list(bug.files), len(bug.files)):
        act(_read(path), numbered_lines(bare_lines(bug.files[path])[:READ_LINES], 1))
        if path == bug.path:
            break
    family = FAMILIES[bug.family]
    guesses = [family.expression(choice) for choice in rng.sample(family.choices, len(family.choices))]
    tried = [bug.wrong]
    for guess in [bug.right] if knows else guesses:
        if rng.random() < SHARE_OF_SLIPS:
            act(_slip(bug, tried, guess, rng), "error: old text not found", SLIP)
        act(_edit(bug, tried[-1], guess), "ok")
        tried.append(guess)
        act(Bash(command=CHECK_COMMAND), "PASS" if guess == bug.right else failed)
        if guess == bug.right:
            break
    turns.append(("assistant", render(Done(message="fixed"))))
    return tuple(turns[: 2 * MAX_STEPS])


def _slip(bug: Bug, tried: list[str], guess: str, rng: random.Random) -> Edit:
    """An edit of another file, or of a text that no longer stands there."""
    if len(tried) > 1 and rng.random() < 0.5:
        return _edit(bug, tried[-2], guess)
    other = rng.choice([path for path in bug.files if path != bug.path])
    return _edit(bug, tried[-1], guess).model_copy(update={"path": other})


def _read(path: str) -> Read:
    return Read(path=path, start=1, end=READ_LINES)


def _edit(bug: Bug, old: str, new: str) -> Edit:
    return Edit(path=bug.path, old=f"return {old}", new=f"return {new}")
