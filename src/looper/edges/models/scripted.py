"""Models that answer by a script: for tests, for the arms that play the gold patch or do nothing, and for the expert of the embedded suite."""

from collections.abc import Callable, Sequence

from looper.protocols import ChatRequest, Message
from looper.records.base import content_hash
from looper.records.trajectory import FinishReason, ModelIdentity, Reply, Usage

CUT = "\x00cut"
"""A reply that ends with this is delivered without it, as one that was cut at the output limit."""


class ScriptedModel:
    """Gives the nth reply of its list in the nth turn of a conversation, and the last one ever after.

    Which turn it is, it reads from the conversation: so it answers the same after an interruption.
    """

    def __init__(self, replies: Sequence[str], name: str = "scripted") -> None:
        self._replies, self._name = tuple(replies), name

    def identity(self) -> ModelIdentity:
        return ModelIdentity(
            backend="scripted",
            backend_version="1",
            name=self._name,
            # What gold plays differs by task and is fixed by the task itself; one identity serves the arm.
            digest=content_hash(self._name, *(self._replies if self._name == "scripted" else ())),
            quantisation="none",
            context_tokens=None,
        )

    def count_tokens(self, messages: Sequence[Message]) -> int | None:
        return None

    def reply(self, request: ChatRequest) -> Reply:
        text = self._answer(request.messages)
        return Reply(
            text=text.removesuffix(CUT),
            finish_reason=FinishReason.LENGTH if text.endswith(CUT) else FinishReason.STOP,
            usage=Usage(prompt_tokens=None, completion_tokens=None, counted_by="none"),
            wall_s=0.0,
        )

    def _answer(self, messages: Sequence[Message]) -> str:
        turn = sum(role == "assistant" for role, _ in messages)
        return self._replies[min(turn, len(self._replies) - 1)]

    def forget(self, conversation: str) -> None:
        pass

    def close(self) -> None:
        pass


class ExpertModel(ScriptedModel):
    """Answers by what it was told: `reply_to` is given the user's messages in order."""

    def __init__(self, reply_to: Callable[[Sequence[str]], str], version: str) -> None:
        """`version` changes with what `reply_to` says."""
        super().__init__((), f"expert {version}")
        self._reply_to = reply_to

    def _answer(self, messages: Sequence[Message]) -> str:
        return self._reply_to([text for role, text in messages if role == "user"])
