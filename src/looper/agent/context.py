"""The conversation of one rollout, kept within the model's window."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from looper.protocols import Message
from looper.records.plan import PruningSettings

SHORTENED = "[older output removed to save space]"
"""What stands in place of an observation that was pruned."""

Count = Callable[[Sequence[Message]], int | None]


class ContextFull(Exception):
    """Even the shortest form of the conversation does not fit."""


@dataclass
class Conversation:
    """Messages in order. What has been pruned stays pruned, so that the cached prefix changes rarely."""

    messages: list[Message]
    count: Count
    settings: PruningSettings
    opening: int
    """So many messages at the beginning are never touched."""
    pruned: set[int] = field(default_factory=set)
    """Positions of shortened messages."""

    def fit(self, budget_tokens: int) -> int | None:
        """Shorten old observations until the prompt fits; returns its length, None where the model has no tokens.

        Raises ContextFull where it does not fit.
        """
        length = self.count(self.messages)
        if length is None or length <= budget_tokens:
            return length
        if self.settings.mode == "none":
            raise ContextFull
        goal = int(budget_tokens * self.settings.target_share)
        for position in self._prunable():
            role, _ = self.messages[position]
            self.messages[position] = (role, SHORTENED)
            self.pruned.add(position)
            length = self.count(self.messages) or 0
            if length <= goal:
                return length
        if length > budget_tokens:
            raise ContextFull
        return length

    def _prunable(self) -> list[int]:
        """Observations from the oldest on, without the first messages and the content in use."""
        observations = [
            position
            for position, (role, text) in enumerate(self.messages)
            if role == "user" and position >= self.opening and len(text) > len(SHORTENED)
        ]
        return observations[: -self.settings.keep_last]
