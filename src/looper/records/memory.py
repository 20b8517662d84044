"""What an arm remembers in its prompt.

First the kinds of memory, and what each is like (`MEMORY_KINDS`); then how an arm remembers, an item, and what a task is told.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import Field, model_validator

from looper.records.base import Positive, Record, Unit, unsaid

Retrieval = Annotated[str, Field(pattern=r"^(bm25|ollama:.+)$")]


LEAST_EDIT_BYTES = 40
"""The shortest edit in the agent's own syntax, of one letter into another in a file of one, has 46 bytes."""
LEAST_COMMAND_BYTES = 20
"""A whole rollout has a command that changes a file, with the tags around it, and a title: no fewer together."""


class MemoryKind(StrEnum):
    """What is told of earlier successes."""

    LESSONS = "lessons"
    """What was changed where, one item for each success."""
    RAW = "raw"
    """The whole rollout, actions and observations."""
    SUCCESSES = "successes"
    """The whole rollout, as turns of the conversation before the task."""
    PLAYBOOK = "playbook"
    """One text for each repository, which every success adds a line to or confirms one of."""
    BLANK = "blank"
    """The frame of a memory with nothing in it: the control for the frame."""
    GOLD = "gold"
    """The task's own gold patch, and no experience: the control that must help, whatever it is told to."""

    @property
    def traits(self) -> "MemoryTraits":
        return MEMORY_KINDS[self]


@dataclass(frozen=True)
class MemoryTraits:
    """What a kind of memory is like, for all that treats kinds differently without making or telling items."""

    has_items: bool = True
    """Whether an item is made of each success; what has none is told to every task."""
    chooses: bool = True
    """Whether a task gets some of the items, chosen for it; otherwise one text of all, in a control of those of other repositories."""
    can_wait: bool = False
    """Whether an item can be told at its moment, and not at the start alone; so it names a file."""
    tells_code: bool = True
    """Whether an item tells code, and not words alone."""
    needs_experience: bool = True
    """Whether its arm gathers experience first: that of all kinds with items, and of the frame, so that it is as long on the way as the
    memory whose control it is."""
    least_bytes: int = 1
    """Bytes of the shortest text that it tells of a success, of those that tell code where it tells code; 1 where no more is known."""

    @property
    def has_oracle(self) -> bool:
        """Whether a gold patch can tell which items a task should get: there is a choice, and code to compare with the patch."""
        return self.has_items and self.chooses and self.tells_code


MEMORY_KINDS: Mapping[MemoryKind, MemoryTraits] = {
    MemoryKind.LESSONS: MemoryTraits(can_wait=True, least_bytes=LEAST_EDIT_BYTES),
    MemoryKind.RAW: MemoryTraits(can_wait=True, least_bytes=LEAST_COMMAND_BYTES),
    MemoryKind.SUCCESSES: MemoryTraits(least_bytes=LEAST_COMMAND_BYTES),
    MemoryKind.PLAYBOOK: MemoryTraits(chooses=False, least_bytes=LEAST_EDIT_BYTES),
    MemoryKind.BLANK: MemoryTraits(has_items=False, chooses=False),
    MemoryKind.GOLD: MemoryTraits(has_items=False, chooses=False, needs_experience=False),
}


class Draw(StrEnum):
    """Which items a task gets."""

    RETRIEVED = "retrieved"
    """Those of its repository that are most like its issue."""
    RANDOM = "random"
    """As many of its repository, drawn blindly."""
    PLACEBO = "placebo"
    """As many of like length, of other repositories."""
    ORACLE = "oracle"
    """As many of its repository, most like what the gold patch writes; nothing of that is told. The ceiling of retrieval."""


class Moment(StrEnum):
    """When they are told."""

    START = "start"
    """Before the first step."""
    FILE_OPEN = "file_open"
    """With the first sight of a file that they are about."""
    TEST_FAILURE = "test_failure"
    """With the first command that fails."""


class Remembering(Record):
    """How an arm remembers."""

    kind: MemoryKind = MemoryKind.LESSONS
    """What is told of earlier successes."""
    draw: Draw = Draw.RETRIEVED
    """Which items a task gets."""
    moment: Moment = Moment.START
    """When they are told."""
    items: Annotated[Positive | None, Unit("items"), Field(examples=[3], exclude_if=unsaid)] = None
    """At most so many items in a prompt; None for the experience's `memory_items`."""
    bytes: Annotated[Positive | None, Unit("bytes"), Field(examples=[600], exclude_if=unsaid)] = None
    """At most so long are their texts together; None for the experience's `memory_bytes`."""
    retrieval: Annotated[Retrieval | None, Field(examples=["ollama:nomic-embed-text"], exclude_if=unsaid)] = (
        None
    )
    """How items are found, `bm25` or `ollama:NAME`; None for the experience's `retrieval`."""

    @property
    def of_other_repositories(self) -> bool:
        """Whether the items are of other repositories than the task's: those of a placebo, and of any control of a kind that does not choose."""
        traits = self.kind.traits
        drawn = (Draw.PLACEBO,) if traits.chooses else (Draw.PLACEBO, Draw.RANDOM)
        return traits.has_items and self.draw in drawn

    @property
    def one_text(self) -> str:
        """What a task is told by a kind that has items and does not choose, in words; empty of others."""
        traits = self.kind.traits
        if traits.chooses or not traits.has_items:
            return ""
        whose = (
            "of other repositories" if self.of_other_repositories else "from earlier tasks of its repository"
        )
        return f"one text made of the items {whose}"

    @model_validator(mode="after")
    def _can_be_told_then(self) -> "Remembering":
        if self.moment is not Moment.START and not self.kind.traits.can_wait:
            raise ValueError(f"moment: {self.kind.value} can be told at the start only")
        if self.draw is Draw.ORACLE and not self.kind.traits.has_oracle:
            can = ", ".join(kind.value for kind, traits in MEMORY_KINDS.items() if traits.has_oracle)
            raise ValueError(
                f"draw: oracle chooses among items by their code, so kind must be one of {can}, found {self.kind.value}"
            )
        return self


class RetrievalSettings(Record):
    """What an arm is told at most, and how that is found, once arm and plan are read together."""

    items: int
    bytes: int | None
    """None for no limit."""
    retrieval: str


class MemoryItem(Record):
    """One thing worth telling, from one verified success."""

    id: str
    """Content hash."""
    kind: MemoryKind
    source: str
    """Cell and attempt that it was taken from."""
    instance_id: str
    repo: str
    position: int
    """Of its task in the repository's sequence; later tasks than the one at hand are never shown."""
    title: str
    text: str
    """What stands in the prompt."""
    turns: tuple[tuple[str, str], ...] = ()
    """Role and text of every turn, where it is told as a conversation."""
    asked: str
    """Issue text of its task; retrieval looks here too, the prompt never shows it."""
    paths: tuple[str, ...]
    """Files that it tells of; empty where it names none, so that it cannot wait for one."""
    changes: tuple[str, ...]
    """Code that it says to write; an agent that writes one of these cites it. Empty where it tells no code."""


class Delivery(Record):
    """What the memory of an arm gives to one task."""

    candidates: int
    """Items that could be given: of the right repository, not of this task."""
    items: tuple[str, ...] = ()
    """Ids of the items that stand before the task, in order."""
    text: str | None = None
    """Between the frame's words; None for no frame."""
    earlier: tuple[tuple[str, str], ...] = ()
    """Turns before the task."""
    later: tuple[MemoryItem, ...] = ()
    """To be told at their moment."""
    moment: Moment = Moment.START

    @property
    def says(self) -> bool:
        """Whether the arm is told anything at all."""
        return self.text is not None or bool(self.earlier) or bool(self.later)


class Reverted(Record):
    """An item that is told no more."""

    item: str
    reason: str
