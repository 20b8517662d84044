"""Waiting out faults of a model server, so that a server that restarts costs seconds and not a task."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from looper.errors import BadInput, ModelError
from looper.protocols import ChatModel, ChatRequest, Fingerprinted, Message
from looper.records.training import Example
from looper.records.trajectory import ModelIdentity, Reply


@dataclass(frozen=True)
class RetryPolicy:
    """When to try again, and when to give up."""

    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    deadline_s: float = 600.0
    """From the first fault on; a longer wait that a server asks for ends the patience at once."""


class RetryingModel:
    """Another model, asked again after faults that can pass. Replies are never asked for twice."""

    def __init__(
        self,
        inner: ChatModel,
        policy: RetryPolicy,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._inner, self._policy = inner, policy
        self._sleep, self._clock, self._rng = sleep, clock, rng or random.Random()

    def identity(self) -> ModelIdentity:
        return self._inner.identity()

    def count_tokens(self, messages: Sequence[Message]) -> int | None:
        return self._inner.count_tokens(messages)

    def reply(self, request: ChatRequest) -> Reply:
        begun, faults = self._clock(), 0
        while True:
            asked = self._clock()
            try:
                reply = self._inner.reply(request)
            except ModelError as error:
                faults += 1
                wait = self._wait(faults, error)
                if not error.retryable or self._clock() + wait - begun > self._policy.deadline_s:
                    raise
                self._sleep(wait)
                continue
            return (
                reply.model_copy(update={"retries": faults, "waited_s": asked - begun}) if faults else reply
            )

    def first_logits(self, messages: Sequence[Message]) -> list[float]:
        """Raises BadInput for a model that does not show what it computes."""
        return self._shown().first_logits(messages)

    def losses(self, examples: Sequence[Example]) -> list[float]:
        """Raises BadInput for a model that does not show what it computes."""
        return self._shown().losses(examples)

    def compared(self, examples: Sequence[Example]) -> list[tuple[float, float]]:
        """Raises BadInput for a model that does not show what it computes."""
        return self._shown().compared(examples)

    def _shown(self) -> Fingerprinted:
        if not hasattr(self._inner, "first_logits"):
            raise BadInput(f"{self.identity().name} does not show what it computes; adapters need MLX.")
        return cast(Fingerprinted, self._inner)

    def _wait(self, faults: int, error: ModelError) -> float:
        """Doubling, with jitter so that parallel rollouts do not come back together, never less than was asked for."""
        backoff = min(self._policy.longest_wait_s, self._policy.first_wait_s * 2.0 ** (faults - 1))
        return max(error.retry_after_s or 0.0, backoff * self._rng.uniform(0.5, 1.0))

    def forget(self, conversation: str) -> None:
        self._inner.forget(conversation)

    def close(self) -> None:
        self._inner.close()
