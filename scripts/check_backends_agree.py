"""Do servers of one model say what MLX says of it? Replies and log probabilities of 50 prompts, at temperature 0.

    python scripts/check_backends_agree.py mlx:NAME openai:m@http://127.0.0.1:8080/v1 vllm:m@http://127.0.0.1:8000 ollama:NAME@http://127.0.0.1:11434

The first one is the one that all are compared with; models are named as for --model, and servers run already. `openai:` is a server of
llama.cpp's here. Weights have to be the same: make the folder of the GGUF file that is
served (`looper model add FILE`). Whole replies go the way of a run's, chat template included. Log probabilities are of the next
token after each prompt, written by the folder's template. Where two replies part, the reply of the first is read again word for
word on both, to the token at which they part, and what both make of both tokens is printed.
"""

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from looper.cli.settings import settings
from looper.cli.wiring import answering, mlx_model, trained_folder
from looper.edges.models.arrival import NextTokens
from looper.edges.models.ollama import DEFAULT_URL
from looper.edges.models.ollama_adapters import next_tokens
from looper.edges.models.openai_compatible import OpenAICompatibleModel
from looper.experiment.plans import parse_model
from looper.protocols import ChatModel, ChatRequest, Message

SYSTEM = "You fix bugs in Python."
ASKED = (
    "What does {} do?", "Write a test for {}.", "Name one bug that {} often has.", "Rewrite {} without a loop.",
    "Which file would hold {}?",
)  # fmt: skip
THINGS = (
    "def add(a, b): return a - b", "sorted(items, key=len)[:3]", "range(10, 250, 25)", "open('notes.txt').read()",
    "a parser of dates such as 2026-11-30", "the regular expression ^[a-z]+$", "a cache of 128 entries", "x = 1 if y else 0",
    "the loop `for name in os.listdir(path):`", "a class with __eq__ and without __hash__",
)  # fmt: skip
PROMPTS = tuple(asked.format(thing) for thing in THINGS for asked in ASKED)
WINDOW = 512
"""The one that `next_tokens` asks Ollama for: it loads a model again for each other one."""


@dataclass(frozen=True)
class Served:
    name: str
    model: ChatModel
    next_tokens: NextTokens


def served(name: str) -> Served:
    spec = parse_model(name)
    if spec.shows_losses:
        model = mlx_model(spec, settings(), WINDOW)
        return Served("MLX", model, partial(model.next_tokens, count=20))
    answers = answering(spec, settings().key_of(spec.backend), WINDOW)
    version = answers.identity().backend_version
    if spec.backend == "ollama":
        import ollama

        client = ollama.Client(host=spec.base_url or DEFAULT_URL)
        return Served(name.partition("@")[0], answers, partial(next_tokens, client, spec.name))
    assert isinstance(answers, OpenAICompatibleModel)
    return Served(version, answers, answers.next_tokens)


def messages(prompt: str) -> tuple[Message, ...]:
    return ("system", SYSTEM), ("user", prompt)


@dataclass(frozen=True)
class Said:
    reply: str
    prompt_tokens: int | None
    """As counted by the server."""
    next_tokens: Mapping[str, float]


def said_by(of: Served, prompts: Sequence[str], written: Sequence[str], tokens: int) -> list[Said]:
    """To each prompt, and to the same as a text with its template; to the first ones alone where it is interrupted (Ctrl-C)."""
    found: list[Said] = []
    with suppress(KeyboardInterrupt):
        for prompt, text in zip(prompts, written, strict=True):
            print(f"{of.name}: {len(found)} of {len(prompts)} prompts", end="\r", file=sys.stderr, flush=True)
            request = ChatRequest(prompt, messages(prompt), tokens, WINDOW, 0.0, 1, 1800.0)
            reply = of.model.reply(request)
            of.model.forget(prompt)
            found.append(Said(reply.text, reply.usage.prompt_tokens, of.next_tokens(text)))
    return found


def parting(one: NextTokens, other: NextTokens, prompt: str, tokens: int) -> str:
    """What both make of the tokens at which the other would leave the first one's reply."""
    said = ""
    for _ in range(tokens):
        here, there = one(prompt + said), other(prompt + said)
        if not there:
            return f"after {said!r} the other ends its reply, of which it tells no log probability"
        first, second = max(here, key=here.__getitem__), max(there, key=there.__getitem__)
        if first != second:
            told = (
                f"{name} {which!r} {found.get(which, float('nan')):.4f}"
                for name, found in (("first", here), ("other", there))
                for which in (first, second)
            )
            return f"after {said!r}: {', '.join(told)}"
        said += first
    return "on none of the tokens, read one by one: so the templates differ, or what is drawn"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "models", nargs="+", help="mlx:NAME, openai:NAME@URL, vllm:NAME@URL or ollama:NAME@URL"
    )
    parser.add_argument("--prompts", type=int, default=len(PROMPTS))
    parser.add_argument("--tokens", type=int, default=16, help="Of a reply at most.")
    chosen = parser.parse_args()
    from mlx_lm.utils import load_tokenizer

    first, *others = map(served, chosen.models)
    words: Any = load_tokenizer(trained_folder(parse_model(chosen.models[0]), settings()))
    prompts = PROMPTS[: chosen.prompts]
    written = [
        words.apply_chat_template(
            [{"role": role, "content": text} for role, text in messages(prompt)],
            add_generation_prompt=True,
            tokenize=False,
        )
        for prompt in prompts
    ]
    ours = said_by(first, prompts, written, chosen.tokens)
    for other in others:
        pairs = list(zip(ours, said_by(other, prompts, written, chosen.tokens), strict=False))
        apart = [
            abs(here.next_tokens[token] - there.next_tokens[token])
            for here, there in pairs
            for token in here.next_tokens.keys() & there.next_tokens.keys()
        ]
        counted = sum(here.prompt_tokens == there.prompt_tokens for here, there in pairs)
        same = sum(here.reply == there.reply for here, there in pairs)
        print(
            f"{first.name} and {other.name}: {same} of {len(pairs)} replies equal, {counted} prompts of the same number of tokens; "
            f"log probabilities of {len(apart)} next tokens apart by {statistics.mean(apart or [0.0]):.5f} nats on average, {max(apart, default=0.0):.5f} at most",
            flush=True,
        )
        for prompt, text, (here, there) in zip(prompts, written, pairs, strict=False):
            if here.reply != there.reply:
                print(f"  {prompt}  ({here.prompt_tokens} and {there.prompt_tokens} tokens)")
                print(f"    {here.reply!r}\n    {there.reply!r}")
                left = parting(first.next_tokens, other.next_tokens, text, chosen.tokens)
                print(f"    they part {left}", flush=True)
    for each in (first, *others):
        each.model.close()


if __name__ == "__main__":
    main()
