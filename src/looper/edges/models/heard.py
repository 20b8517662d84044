"""One reply as it comes in, whichever server says it, and whether it is whole.

The clients of servers feed a `ReplyBuilder` event by event and ask it for the reply at the end; it raises for what is none. `Counts`
sees from one turn to the next whether a server reads less than it is given.
"""

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from looper.errors import (
    ContextOverflow,
    ModelReplyBroken,
    ModelServerFault,
    PromptCut,
    ReplyWithheld,
    one_line,
)
from looper.protocols import ChatRequest
from looper.records.text import joined
from looper.records.trajectory import MOST_TOKENS, FinishReason, Reply, Usage

WHOLE = frozenset({
    "stop", "end_turn", "eos", "eos_token", "stop_sequence", "complete", "tool_calls", "tool_use",
    "function_call",
})  # fmt: skip
AT_LIMIT = frozenset({"length", "max_tokens", "max_output_tokens"})
WINDOW_FULL = frozenset({"model_context_window_exceeded", "context_length_exceeded"})
GIVEN_UP = frozenset({
    "error", "abort", "aborted", "cancelled", "load", "unload", "network_error",
    "insufficient_system_resource",
})  # fmt: skip
"""The server's own trouble, which can pass. Every other reason is a refusal, of which each provider has words of its own."""
WORDS_PER_TOKEN = 2
"""Every tokenizer in use spends a token on a word and more on code; a server that counted less than half has cut the prompt."""


@dataclass
class ReplyBuilder:
    text: list[str] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    finish: Any = ""
    prompt: Any = None
    """Tokens, as the server counted them, in whatever form."""
    completion: Any = None
    cached: Any = None
    """Of the prompt's tokens those that were not computed anew."""
    begun: float = field(default_factory=time.monotonic)

    def say(self, content: Any, thinking: Any = None) -> None:
        """Take in a piece of text, in the forms in which servers send it. Raises TypeError for another one."""
        for part in content if isinstance(content, list) else [content]:
            match part:
                case None:
                    pass
                case "" | {"text": ""}:
                    pass  # Kept, they would be looked through at each event for a first word.
                case str():
                    self.text.append(part)
                case {"thinking": thought}:
                    self.say(None, thought)
                case {"text": str(said)}:
                    self.text.append(said)
                case {"type": str()}:
                    pass  # A picture, say: nothing that an agent here reads.
                case _:
                    raise TypeError(f"{type(part).__name__} for text")
        inner = ReplyBuilder()
        if thinking:
            inner.say(thinking)
        self.thinking += inner.text

    @property
    def has_words(self) -> bool:
        return bool(self.text or self.thinking)

    def ended(self, server: str) -> FinishReason:
        """Why the model stopped, where the reply is whole or was cut at our limit. Raises ModelError for all else."""
        reason = self.finish.lower() if isinstance(self.finish, str) else ""
        if not reason:
            raise ModelReplyBroken(f"{server} ended its reply without saying why.")
        if reason in WHOLE:
            return FinishReason.STOP
        if reason in AT_LIMIT:
            return FinishReason.LENGTH
        if reason in WINDOW_FULL:
            raise ContextOverflow(f"{server} ended its reply where its window was full ({reason}).")
        if reason in GIVEN_UP:
            raise ModelServerFault(f"{server} gave its reply up ({reason}).")
        raise ReplyWithheld(f"{server} withheld the rest of its reply ({one_line(reason, 60)}).")

    def reply(self, server: str, counted_by: str) -> Reply:
        """Raises ModelError where this is none."""
        finish = self.ended(server)
        text = joined("".join(self.text))
        prompt, completion = counted(self.prompt) or None, counted(self.completion)
        if completion == 0 and text:
            completion = None
        cached = counted(self.cached)
        return Reply(
            text=text,
            thinking=joined("".join(self.thinking)),
            finish_reason=finish,
            usage=Usage(
                prompt_tokens=prompt,
                completion_tokens=completion,
                counted_by=counted_by,
                backend_prompt_tokens=prompt,
                backend_completion_tokens=completion,
                processed_prompt_tokens=_less(prompt, cached),
            ),
            wall_s=time.monotonic() - self.begun,
        )


def _less(prompt: int | None, cached: int | None) -> int | None:
    return None if prompt is None or cached is None or cached > prompt else prompt - cached


def counted(value: Any) -> int | None:
    """A number of tokens in any form that says one; None for what is none, among it more than anybody can have read."""
    try:
        found = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else -1.0
    except (ValueError, OverflowError):
        return None
    return int(found) if 0 <= found <= MOST_TOKENS and found.is_integer() else None


class Counts:
    """What a server counted of each conversation, to see when it reads less than it is given. For several threads."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[ChatRequest, int]] = {}
        self._lock = threading.Lock()

    def check(self, server: str, request: ChatRequest, prompt: int | None) -> None:
        """Raises PromptCut."""
        if prompt is None:
            return
        # Templates may drop what a model said before; what it was told is always there.
        words = sum(len(text.split()) for role, text in request.messages if role != "assistant")
        with self._lock:
            before, least = self._last.get(request.conversation, (request, 0))
            self._last[request.conversation] = request, prompt
        grown = request.messages[: len(before.messages)] == before.messages
        if prompt * WORDS_PER_TOKEN < words or (grown and prompt < least):
            than = (
                f"after {least} of its beginning"
                if prompt * WORDS_PER_TOKEN >= words
                else f"of {words} words"
            )
            raise PromptCut(
                f"{server} read {prompt} tokens of a longer prompt ({than}): it cut it. Give the server a window of "
                f"{request.context_tokens} tokens, with fewer requests side by side if they share it."
            )

    def forget(self, conversation: str) -> None:
        with self._lock:
            self._last.pop(conversation, None)
