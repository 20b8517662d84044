"""Waiting out faults of a model server, so that a server that restarts costs seconds and not a task.

Every model of a run that reads its prompt stands behind one of these, so no client tries anything again itself, and none compares
who answers with who answered before. What is waited out and for how long is in `RetryPolicy` and `_patience_s`; the faults are
those of `errors.ModelError`.
"""

import math
import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

from looper.edges.models.outage import Outage
from looper.errors import (
    ModelError,
    ModelMissing,
    ModelOverloaded,
    ModelReplyBroken,
    ModelUnreachable,
    RequestRefused,
)
from looper.protocols import CarriesThere, ChatModel, ChatRequest, Message, Result, Windowed
from looper.records.trajectory import ModelIdentity, Reply


@dataclass(frozen=True)
class RetryPolicy:
    """When to try again, and when to give up."""

    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    deadline_s: float = 600.0
    """Of one outage of the server, over all requests that meet it; a longer wait that a server asks for ends the patience at once."""
    untried_s: float = 30.0
    """The same for what has never gone well yet, which is more likely set up wrongly than ill."""
    unreached_s: float = 0.0
    """For a server that nobody listens for and that has never answered: its address is wrong, or it is being started."""


ONE_WORD: tuple[Message, ...] = (("system", "You repeat what you are asked for."), ("user", "Say: yes"))
TELL_EVERY_S = 2.0
"""Whoever waits is told of it so often."""


class RetryingModel:
    """Another model, asked again after faults that can pass. Replies are never asked for twice.

    A server that nobody listens for and that has never answered is waited for `unreached_s`, which unless set otherwise is not at all.
    Patience is for what has been well: `untried_s` for a kind of question that has never been answered, `deadline_s` where it has, and
    for a server that asks to wait. A reply that comes broken again and again is waited for no longer than its request allows a whole one.
    """

    def __init__(
        self,
        inner: ChatModel,
        policy: RetryPolicy,
        *,
        tell: Callable[[str, float], None] = lambda why, seconds: None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        outage: Outage | None = None,
    ) -> None:
        """`tell` hears why is waited and for how many seconds more, at the beginning and every `TELL_EVERY_S`. `outage`
        is that of the model's server, shared with all that ask it; None for a server of its own."""
        self._outage = outage or Outage()
        self._inner, self._policy, self._tell = inner, policy, tell
        self._sleep, self._clock, self._rng = sleep, clock, rng or random.Random()
        self._well: set[str] = set()
        """Kinds of questions that were answered."""
        self._answered: ChatRequest | None = None
        """The shortest request that was."""
        self._identity: ModelIdentity | None = None
        """What was found when it was first asked for."""

    def identity(self) -> ModelIdentity:
        """Asked anew each time. Raises ModelMissing where another model answers than at first."""
        found = self._answer("identity", self._inner.identity)[0]
        first = self._identity = self._identity or found
        if (found.digest, found.adapter) != (first.digest, first.adapter):
            raise ModelMissing(
                f"{first.backend} now serves another {first.name} ({_digests(found)}) than when it was first asked "
                f"({_digests(first)}). Serve the former one and continue, or begin another run with the new one."
            )
        return found

    def count_tokens(self, messages: Sequence[Message]) -> int | None:
        return self._answer("count", partial(self._inner.count_tokens, messages))[0]

    def window_tokens(self) -> int | None:
        return (
            self._answer("window", self._inner.window_tokens)[0]
            if isinstance(self._inner, Windowed)
            else None
        )

    def arrival(self) -> str:
        return self._inner.arrival() if isinstance(self._inner, CarriesThere) else ""

    def reply(self, request: ChatRequest) -> Reply:
        try:
            reply, faults, waited_s = self._replied(request)
        except ModelError as error:
            if error.message_if_others_answered and self._answers_others(request):
                raise RequestRefused(error.message_if_others_answered) from error
            raise
        if self._answered is None or _length(request) < _length(self._answered):
            self._answered = request
        lost = {"retries": reply.retries + faults, "waited_s": reply.waited_s + waited_s}
        return reply.model_copy(update=lost) if faults else reply

    def _replied(self, request: ChatRequest) -> tuple[Reply, int, float]:
        return self._answer("reply", partial(self._inner.reply, request), request.timeout_s)

    def _answers_others(self, refused: ChatRequest) -> bool:
        """Whether the shortest request that was answered is answered again, so that a refusal was of one conversation alone.

        A run that goes on may have nothing left but what is refused: a server that is known is then asked for one word.
        """
        if not self._well:
            return False
        other = self._answered or replace(refused, messages=ONE_WORD)
        again = replace(other, conversation=f"{refused.conversation}, after a refusal")
        try:
            self._replied(again)
        except ModelError:
            return False
        finally:
            self._inner.forget(again.conversation)
        return True

    def _answer(
        self, kind: str, ask: Callable[[], Result], broken_s: float = math.inf
    ) -> tuple[Result, int, float]:
        """An answer, the faults that came before it, and the seconds that they took.

        Waits no longer than `broken_s` in all for one that comes broken.
        """
        begun, faults, waited_s = self._clock(), 0, 0.0
        with ExitStack() as waiting:
            while True:
                asked = self._clock()
                try:
                    answer = ask()
                except ModelError as error:
                    if not error.retryable:
                        raise
                    faults += 1
                    if faults == 1:
                        waiting.enter_context(self._outage.waited_for(self._clock))
                    wait = self._wait(faults, error)
                    now = self._clock()
                    out_s, shared_s = now - begun, self._outage.failed(kind, now)
                    if kind in self._well or isinstance(error, ModelOverloaded):
                        out_s = max(out_s, shared_s)
                    left_s = self._patience_s(kind, error) - out_s
                    if isinstance(error, ModelUnreachable) and left_s > 0.0:
                        # It may come back at the last moment, and asking costs it nothing.
                        wait = min(wait, left_s)
                    if wait > left_s:
                        raise
                    waited_s += wait
                    if isinstance(error, ModelReplyBroken) and waited_s > broken_s:
                        raise
                    self._pause(wait, str(error))
                    continue
                self._well.add(kind)
                self._outage.answered(kind, self._clock())
                return answer, faults, asked - begun

    def _patience_s(self, kind: str, error: ModelError) -> float:
        if kind in self._well or isinstance(error, ModelOverloaded):
            return self._policy.deadline_s
        untried_s = min(self._policy.untried_s, self._policy.deadline_s)
        if isinstance(error, ModelUnreachable):
            return max(self._policy.unreached_s, untried_s if self._well else 0.0)
        return untried_s

    def _pause(self, seconds: float, why: str) -> None:
        while seconds > 0:
            self._tell(why, seconds)
            part = min(TELL_EVERY_S, seconds)
            self._sleep(part)
            seconds -= part

    def _wait(self, faults: int, error: ModelError) -> float:
        """Doubling, with jitter so that parallel rollouts do not come back together, never less than was asked for."""
        backoff = min(self._policy.longest_wait_s, self._policy.first_wait_s * 2.0 ** (faults - 1))
        return max(error.retry_after_s or 0.0, backoff * self._rng.uniform(0.5, 1.0))

    def forget(self, conversation: str) -> None:
        self._inner.forget(conversation)

    def close(self) -> None:
        self._inner.close()


def _digests(of: ModelIdentity) -> str:
    return " with adapter ".join(filter(None, (of.digest, of.adapter)))


def _length(request: ChatRequest) -> int:
    return sum(len(text) for _, text in request.messages)
