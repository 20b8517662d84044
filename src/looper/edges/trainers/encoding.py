"""Conversations → tokens with loss weights, by the model's own chat template.

The template renders the conversation up to each assistant turn and past it; what lies between is what the model says
there, and nothing else is trained on. That holds for any template in which a conversation is the beginning of every
longer one; for others there is no such text, and they are refused.
"""

import bisect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from looper.edges.models.sendable import sendable
from looper.edges.models.structure import quick_transformers
from looper.errors import BadInput, one_line
from looper.records.training import Example, Turn

OTHER_TEMPLATE = "Give it a chat template with the roles system, user and assistant, or choose another model."
OPENING = 2
"""System and task message: in every window."""


@dataclass
class Encoded:
    source: str
    instance_id: str
    tokens: list[int]
    weights: list[float]
    """The example's own for tokens that the loss counts, else 0; same length as `tokens`."""
    turns: int
    """Supervised turns in it."""
    parts: list[int]
    """Number of the expert behind each supervised token, −1 for none; same length as `tokens`."""
    base: float = 0.0
    """Log-probability that base gives to its supervised tokens, in nats; measured for preference training only."""
    likely: list[tuple[Any, Any]] = field(default_factory=list)
    """For each supervised token the ids that the teacher holds likely there and their probabilities; measured for
    distillation only."""

    @property
    def supervised(self) -> int:
        """Tokens that the loss counts."""
        return sum(weight > 0 for weight in self.weights)


def load_tokenizer(folder: Path) -> Any:
    # Without PyTorch, which is not needed for tokenizers, the package says so on every import.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    quick_transformers()
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder))


def templated(tokenizer: Any, messages: Sequence[dict[str, str]], **options: Any) -> Any:
    """Messages as the model's chat template puts them. Raises BadInput for a template that cannot, and without one."""
    from jinja2 import TemplateError

    try:
        return tokenizer.apply_chat_template(messages, **options)
    except (TemplateError, ValueError) as error:
        said = one_line(str(error)).partition("!")[0].rstrip(".")
        raise BadInput(
            f"The chat template of this model cannot take our messages: {said}. {OTHER_TEMPLATE}"
        ) from error


def encode(tokenizer: Any, turns: Sequence[Turn]) -> tuple[list[int], list[float]]:
    """Tokens and weights of a whole conversation. Raises BadInput for a template that rewrites its own past."""
    found = whole_conversation(tokenizer, Example(source="", instance_id="", repo="", turns=tuple(turns)))
    return found.tokens, found.weights


def whole_conversation(tokenizer: Any, example: Example) -> Encoded:
    """An example in one piece, however long. Raises BadInput as `encode` does."""
    text, spans = supervised_spans(tokenizer, example.turns)
    taught = [turn for turn in example.turns if turn.supervised]
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    weights, parts = [0.0] * len(found["input_ids"]), [-1] * len(found["input_ids"])
    starts = [start for start, _ in spans]
    for at, (left, right) in enumerate(found["offset_mapping"]):
        within = bisect.bisect_right(starts, left) - 1
        if within >= 0 and left < right <= spans[within][1]:
            weights[at] = example.weight
            part = taught[within].part
            parts[at] = -1 if part is None else part
    return Encoded(example.source, example.instance_id, list(found["input_ids"]), weights, len(taught), parts)


def supervised_spans(tokenizer: Any, turns: Sequence[Turn]) -> tuple[str, list[tuple[int, int]]]:
    """The conversation as text, and where its supervised turns stand: from the first character of the reply to its
    end-of-turn mark, which the model has to say too."""
    whole, spans = _rendered(tokenizer, turns), []
    for number, turn in enumerate(turns):
        if not turn.supervised:
            continue
        before, after = (
            _rendered(tokenizer, turns[:number], asked=True),
            _rendered(tokenizer, turns[: number + 1]),
        )
        if (
            not (whole.startswith(before) and whole.startswith(after))
            or sendable(turn.text) not in after[len(before) :]
        ):
            raise BadInput(
                "The chat template of this model changes earlier turns as the conversation goes on, so what it was "
                "asked and what it said cannot be told apart. Use a template that only appends."
            )
        spans.append((len(before), len(after.rstrip())))
    return whole, spans


def _rendered(tokenizer: Any, turns: Sequence[Turn], *, asked: bool = False) -> str:
    messages = [{"role": turn.role, "content": sendable(turn.text)} for turn in turns]
    return str(templated(tokenizer, messages, tokenize=False, add_generation_prompt=asked))


def windows(tokenizer: Any, example: Example, max_tokens: int) -> tuple[list[Encoded], int]:
    """An example in pieces that fit, each supervised turn in exactly one of them; and the number of turns that fit in
    none, alone with the opening.

    Every window begins with the opening and ends with an action; history is cut from the front, an action never.
    """
    pieces, too_long = window_examples(tokenizer, example, max_tokens)
    return [whole_conversation(tokenizer, piece) for piece in pieces], too_long


def window_examples(tokenizer: Any, example: Example, max_tokens: int) -> tuple[list[Example], int]:
    """The same windows as conversations, and the same number."""
    found: list[Example] = []
    too_long, taught = 0, OPENING
    numbers = [number for number, turn in enumerate(example.turns) if turn.supervised]
    while remaining := [number for number in numbers if number >= taught]:
        fitted = _widest(tokenizer, example, taught, remaining, max_tokens)
        if fitted is None:
            too_long += 1
            taught = remaining[0] + 1
            continue
        piece, last = fitted
        found.append(piece)
        taught = last + 1
    return found, too_long


def _widest(
    tokenizer: Any, example: Example, taught: int, remaining: Sequence[int], max_tokens: int
) -> tuple[Example, int] | None:
    """The window that teaches most turns from the first remaining one on, with as much history before it as fits."""

    def piece(start: int, last: int) -> tuple[Turn, ...]:
        shown = enumerate(example.turns[start : last + 1], start)
        known = (
            turn if number >= taught else turn.model_copy(update={"supervised": False})
            for number, turn in shown
        )
        return (*example.turns[:OPENING], *known)

    def fits(start: int, last: int) -> bool:
        text = _rendered(tokenizer, piece(start, last))
        return len(tokenizer(text, add_special_tokens=False)["input_ids"]) <= max_tokens

    starts = [
        number for number in range(remaining[0], OPENING - 1, -1) if example.turns[number].role == "assistant"
    ]
    start = _furthest(starts, lambda start: fits(start, remaining[0]))
    if start is None:
        return None
    last = _furthest(remaining, lambda last: fits(start, last))
    assert last is not None
    return example.model_copy(update={"turns": piece(start, last)}), last


def _furthest(numbers: Sequence[int], fits: Callable[[int], bool]) -> int | None:
    """The last of some numbers that fits, where each makes longer what the one before it made. What is tried is at most twice as
    long as what fits, so that a long conversation costs what its windows cost."""
    if not fits(numbers[0]):
        return None
    good, stride = 0, 1
    while good + stride < len(numbers) and fits(numbers[good + stride]):
        good, stride = good + stride, stride * 2
    bad = min(good + stride, len(numbers))
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(numbers[middle]) else (good, middle)
    return numbers[good]


def length_histogram(lengths: Sequence[int]) -> dict[str, int]:
    """Counts by upper bound, in powers of two from 128 on."""
    counts: dict[str, int] = {}
    for length in sorted(lengths):
        bound = 128
        while bound < length:
            bound *= 2
        counts[str(bound)] = counts.get(str(bound), 0) + 1
    return counts
