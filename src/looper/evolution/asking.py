"""A model asked for something that has a form, and asked again with what was wrong about its answer."""

from collections.abc import Callable
from typing import TypeVar

from looper.errors import BadInput
from looper.protocols import ChatModel, ChatRequest, Message

CONTEXT_TOKENS = 200_000
TIMEOUT_S = 300.0
RETRIES = 2

Read = TypeVar("Read")


class NoAnswer(Exception):
    """None of the answers had the form; the last problem."""


def asked(
    model: ChatModel,
    conversation: str,
    system: str,
    question: str,
    read: Callable[[str], Read],
    *,
    again: str,
    output_tokens: int,
    seed: int,
    say: Callable[[str], None] = lambda line: None,
) -> Read:
    """What `read` makes of the first answer that has the form; `again` says what is wanted. Raises NoAnswer, and what the model raises."""
    messages: list[Message] = [("system", system), ("user", question)]
    for attempt in range(RETRIES + 1):
        reply = model.reply(
            ChatRequest(
                conversation=conversation,
                messages=tuple(messages),
                max_output_tokens=output_tokens,
                context_tokens=CONTEXT_TOKENS,
                temperature=0.0,
                seed=seed + attempt,
                timeout_s=TIMEOUT_S,
            )
        )
        try:
            return read(reply.text)
        except (ValueError, BadInput) as error:
            problem = str(error)
            say(problem)
            messages += [("assistant", reply.text), ("user", f"{problem} {again}")]
    raise NoAnswer(problem)
