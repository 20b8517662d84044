"""A model asked for something that has a form, and asked again with what was wrong about its answer."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from looper.errors import BadInput
from looper.protocols import ChatModel, ChatRequest, Message
from looper.records.text import estimated_tokens

CONTEXT_TOKENS = 200_000
TIMEOUT_S = 300.0
RETRIES = 2
"""So often is asked again for an answer that has the form."""

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

    def reply(messages: tuple[Message, ...], attempt: int) -> str:
        request = ChatRequest(
            conversation=conversation,
            messages=messages,
            max_output_tokens=output_tokens,
            context_tokens=CONTEXT_TOKENS,
            temperature=0.0,
            seed=seed + attempt,
            timeout_s=TIMEOUT_S,
        )
        return model.reply(request).text

    return until_read(reply, system, question, read, lambda problem: f"{problem} {again}", say)


def until_read(
    reply: Callable[[tuple[Message, ...], int], str],
    system: str,
    question: str,
    read: Callable[[str], Read],
    correction: Callable[[str], str],
    say: Callable[[str], None] = lambda line: None,
) -> Read:
    """The same of whoever replies, who is told the number of the attempt and, after a problem, its `correction`."""
    messages: list[Message] = [("system", system), ("user", question)]
    for attempt in range(RETRIES + 1):
        text = reply(tuple(messages), attempt)
        try:
            return read(text)
        except (ValueError, BadInput) as error:
            problem = str(error)
            say(problem)
            messages += [("assistant", text), ("user", correction(problem))]
    raise NoAnswer(problem)


def prompt_tokens(model: ChatModel, messages: Sequence[Message]) -> int:
    """By the model's tokenizer, else an upper estimate."""
    counted = model.count_tokens(messages)
    return estimated_tokens(*(text for _, text in messages)) if counted is None else counted
