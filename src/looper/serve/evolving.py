"""What the pages ask of a campaign, and what a person may have done to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from looper.evolution.chat import Tell
from looper.evolution.state import Generation, State
from looper.records.generation import Event, Origin


@dataclass(frozen=True)
class LabStatus:
    """How far the work on one generation is."""

    generation: int
    status: str
    """starting, running, done or failed."""
    progress: str
    error: str
    tool_stats: Mapping[str, Mapping[str, int]]
    token_usage: Mapping[str, int]
    stop_reason: str


class CampaignView(Protocol):
    """One campaign. Whatever cannot be done raises a LooperError that says why."""

    name: str
    takes_contracts: bool
    """Whether a person may have something of their own carried out."""

    def state(self) -> State: ...

    def events(self) -> Sequence[Event]: ...

    def contract(self, one: Generation) -> str:
        """Text of the contract; empty where there is none."""
        ...

    def diff(self, one: Generation) -> str:
        """What the candidate changes, as a patch; empty where there is no candidate yet."""
        ...

    def lab(self, one: Generation) -> LabStatus: ...

    def spawn(self, text: str, parent: int | None, source: Origin, request: str) -> Generation: ...

    def promote(self, number: int, candidate_hash: str) -> Generation: ...

    def roll_back(self, number: int) -> Generation: ...

    def budget_left(self) -> Mapping[str, float | None]:
        """Of tokens and money, by name; None for what has no limit, nothing where nothing is spent."""
        ...

    def why_no_chat(self) -> str:
        """Why there is no prime to talk to; empty where there is one."""
        ...

    def chat(self, message: str, tell: Tell) -> str:
        """What the prime answers. Called for one message at a time."""
        ...

    def chat_stats(self) -> dict[str, Any]:
        """messages_count and tool_calls_count."""
        ...
