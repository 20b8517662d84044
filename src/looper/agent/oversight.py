"""A second model that looks at every action before it is done, and may put its own in its place.

The overseer sees what the agent sees, with a memory in its opening that the agent does not have; it sees no gold patch and
no hidden test. Its reply stands in the record as the step's, marked, with the tokens of both.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from threading import Lock

from looper.agent.actions import parse
from looper.protocols import ChatModel, ChatRequest, Message
from looper.records.trajectory import ModelIdentity, Reply, Usage

CALLS = 4
"""Interventions in one rollout, at most."""
RELEASE = 0.5
"""Chance at each step that a blind overseer steps in, once a seeing one would have by then."""


class SupervisedModel:
    """The agent's model under an overseer, in one rollout. What was used up before an interruption is not counted after it."""

    def __init__(
        self,
        agent: ChatModel,
        overseer: ChatModel,
        told: Sequence[Message],
        untold: Sequence[Message],
        *,
        blind: bool = False,
    ) -> None:
        """`told` is the overseer's opening, `untold` the agent's. A blind overseer steps in as often as a seeing one
        would, at drawn steps, and has the agent think again."""
        self._agent, self._overseer, self._blind = agent, overseer, blind
        self._told, self._untold = tuple(told), tuple(untold)
        self._used: Counter[str] = Counter()
        self._owed: Counter[str] = Counter()
        self._lock = Lock()

    def identity(self) -> ModelIdentity:
        return self._agent.identity()

    def count_tokens(self, messages: Sequence[Message]) -> int | None:
        return self._agent.count_tokens(messages)

    def forget(self, conversation: str) -> None:
        self._agent.forget(conversation)
        self._overseer.forget(_beside(conversation))

    def close(self) -> None:
        self._agent.close()
        self._overseer.close()

    def reply(self, request: ChatRequest) -> Reply:
        first = self._agent.reply(request)
        if self._used[request.conversation] >= CALLS:
            return first
        second = self._overseer.reply(
            replace(
                request,
                conversation=_beside(request.conversation),
                messages=(*self._told, *request.messages[len(self._untold) :]),
                temperature=0.0,
            )
        )
        advised, meant = (parse(found.text, found.finish_reason).action for found in (second, first))
        differs = advised is not None and advised != meant
        both = _together(first, second)
        if not self._blind:
            if not differs:
                return _with_cost(first, both)
            self._count(request.conversation)
            # Which server answered, and beside how many, is told of the agent's own model.
            kept = {"overseen": True, "server": first.server, "in_flight": first.in_flight}
            return _with_cost(second, both).model_copy(update=kept)
        return self._think_again(request, first, both, differs)

    def _think_again(self, request: ChatRequest, first: Reply, spent: Reply, differs: bool) -> Reply:
        with self._lock:
            self._owed[request.conversation] += differs
        now = random.Random(f"{request.conversation}/{request.seed}").random() < RELEASE
        if not now or not self._owed[request.conversation]:
            return _with_cost(first, spent)
        with self._lock:
            self._owed[request.conversation] -= 1
        self._count(request.conversation)
        # Another seed, or it would say the same again; made from this one, so that a rollout that is gone on with samples as before.
        again = self._agent.reply(replace(request, seed=request.seed ^ 1))
        return _with_cost(again, _together(spent, again)).model_copy(update={"overseen": True})

    def _count(self, conversation: str) -> None:
        with self._lock:
            self._used[conversation] += 1


def _beside(conversation: str) -> str:
    return f"{conversation} overseer"


def _together(first: Reply, second: Reply) -> Reply:
    """The first reply with what both cost."""
    return first.model_copy(
        update={
            "usage": Usage(
                prompt_tokens=_sum(first.usage.prompt_tokens, second.usage.prompt_tokens),
                completion_tokens=_sum(first.usage.completion_tokens, second.usage.completion_tokens),
                counted_by=first.usage.counted_by,
            ),
            "wall_s": first.wall_s + second.wall_s,
            "waited_s": first.waited_s + second.waited_s,
            "retries": first.retries + second.retries,
        }
    )


def _with_cost(reply: Reply, spent: Reply) -> Reply:
    kept = ("usage", "wall_s", "waited_s", "retries")
    return reply.model_copy(update={name: getattr(spent, name) for name in kept})


def _sum(first: int | None, second: int | None) -> int | None:
    return None if first is None or second is None else first + second
