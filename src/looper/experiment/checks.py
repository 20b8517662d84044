"""Proof of treatment, before an arm's first task: what is not shown to have reached the model is not run.

A harness that measures arms believes that a prompt is read to its beginning and that an adapter is in the model. Both
fail in silence elsewhere: servers cut prompts and ignore adapter paths, and the arm then measures something else.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from looper.agent.actions import parse
from looper.errors import (
    ContextOverflow,
    MemorySilent,
    ModelUnfit,
    PromptCut,
    ReplyLate,
    ReplyWithheld,
    TreatmentMissing,
)
from looper.protocols import AdapterHost, ChatModel, ChatRequest, Message, Windowed
from looper.records.memory import Delivery
from looper.records.plan import Limits
from looper.records.text import BYTES_PER_TOKEN, counted, listed
from looper.records.training import AdapterRecord, Example
from looper.records.treatment import VALID_MARGIN, Proof, ProofKind

SENTINEL = "keel-4417-amber"
"""A word that no text holds by chance."""
LINE = "The tide was out and the boats lay on the sand until the evening wind came up."
SHORT_LINES = (8, 24)
COUNT_TOLERANCE = 0.03
"""Of a full prompt: how far the server's count may be from the one that two short prompts foretell."""
REPLY_TOKENS = 48
SEEN = 3
"""Tasks that a message names of those that an adapter has seen."""


def check_context(model: ChatModel, arm: str, subject: str, limits: Limits, adapter: str) -> Proof:
    """That a prompt as long as the plan allows is read whole, and by a model that says it has the adapter which the arm names, if one.

    Two short prompts tell how many tokens a line has, so the count of the long one is known beforehand; and where the
    model can repeat the word at the head of a short prompt, it must find it in the long one too. A model that cannot is
    held to its counts alone. Raises PromptCut, TreatmentMissing, and ModelUnfit where the server refuses the long prompt, or says
    beforehand that it has no room for one.
    """
    identity = model.identity()
    if adapter and not identity.adapter:
        # A client that takes no notice of it would answer for the arm with base.
        raise TreatmentMissing(
            f"{arm} is to have the adapter {adapter}, and {identity.name} answers without one. Serve the base with mlx:FOLDER, or leave "
            f"{arm} out."
        )
    window = model.window_tokens() if isinstance(model, Windowed) else None
    if window is not None and window < limits.context_tokens:
        raise ModelUnfit(
            f"{identity.name} has a window of {window} tokens, and the plan wants {limits.context_tokens}. "
            f"Lower context_tokens in the plan's limits to {window}, or serve the model with a longer window if it was trained for one."
        )
    short, longer = (_ask(model, lines, limits) for lines in SHORT_LINES)
    room = limits.context_tokens - limits.output_tokens
    lines, foretold = _lines_for(short, longer, room)
    try:
        full = _ask(model, lines, limits)
    except ContextOverflow as error:
        raise ModelUnfit(
            f"{error} The plan wants {limits.context_tokens} tokens: give the server a window of as many, or lower "
            "context_tokens in the plan's limits."
        ) from error
    if (
        foretold is not None
        and full.counted is not None
        and abs(full.counted - foretold) > max(16, COUNT_TOLERANCE * foretold)
    ):
        raise PromptCut(
            f"{identity.name} counted {full.counted} tokens in a prompt of about {foretold}: it was cut. Give the "
            f"server a window of {limits.context_tokens} tokens, or lower context_tokens in the plan's limits."
        )
    if short.found and longer.found and not full.found:
        raise PromptCut(
            f"{identity.name} repeats a word from the head of a short prompt, and not from one of {room} tokens: the head "
            f"was cut. Give the server a window of {limits.context_tokens} tokens, or lower context_tokens."
        )
    counted = (
        "counts nothing" if full.counted is None else f"counted {full.counted} of about {foretold} tokens"
    )
    word = (
        "found the word at its head"
        if full.found
        else "repeats no word of it, so only token counts were compared"
    )
    return Proof(
        kind=ProofKind.CONTEXT,
        arm=arm,
        subject=subject,
        passed=True,
        said=f"{identity.name} {counted}, {word}",
    )


@dataclass(frozen=True)
class _Asked:
    lines: int
    counted: int | None
    found: bool


def _ask(model: ChatModel, lines: int, limits: Limits) -> _Asked:
    text = "\n".join(
        [f"The code word is {SENTINEL}.", *[LINE] * lines, "Reply with the code word and nothing else."]
    )
    reply = model.reply(
        ChatRequest(
            conversation=f"proof of context, {lines} lines",
            messages=(("system", "You repeat what you are asked for."), ("user", text)),
            max_output_tokens=min(limits.output_tokens, REPLY_TOKENS),
            context_tokens=limits.context_tokens,
            temperature=0.0,
            seed=0,
            timeout_s=max(limits.wall_s, 600.0),
        )
    )
    model.forget(f"proof of context, {lines} lines")
    return _Asked(lines, reply.usage.prompt_tokens, SENTINEL in reply.text)


def _lines_for(short: _Asked, longer: _Asked, room: int) -> tuple[int, int | None]:
    """How many lines fill the window, and how many tokens that will be; None where the model does not count."""
    if short.counted is None or longer.counted is None or longer.counted <= short.counted:
        return max(SHORT_LINES[1], int(room * BYTES_PER_TOKEN / len(LINE))), None
    per_line = (longer.counted - short.counted) / (longer.lines - short.lines)
    lines = max(SHORT_LINES[1], int((room - short.counted) / per_line) + short.lines - 1)
    return lines, round(short.counted + per_line * (lines - short.lines))


def check_adapter(
    model: AdapterHost,
    base: AdapterHost,
    prompts: Sequence[Sequence[Message]],
    arm: str,
    adapter: str,
    *,
    zero: bool,
) -> Proof:
    """That an adapter changes what is computed, or, for the one that must not, that it changes nothing at all.

    Raises TreatmentMissing.
    """
    furthest = max(
        abs(ours - theirs)
        for prompt in prompts
        for ours, theirs in zip(model.first_logits(prompt), base.first_logits(prompt), strict=True)
    )
    said = f"logits differ from base's by up to {furthest:.3g} on {len(prompts)} prompts"
    if zero and furthest > 0:
        raise TreatmentMissing(
            f"{arm}: the adapter {adapter} changes nothing, yet {said}. Base and adapters are not served alike; no arm of "
            "this plan can be compared."
        )
    if not zero and furthest == 0:
        raise TreatmentMissing(
            f"{arm}: the adapter {adapter} did not reach the model: {said}. Check that the backend loads adapters."
        )
    kind = ProofKind.ZERO_IS_BASE if zero else ProofKind.ADAPTER_ARRIVED
    return Proof(kind=kind, arm=arm, subject=adapter, passed=True, said=said)


def check_valid_actions(
    model: ChatModel,
    base: ChatModel,
    prompts: Sequence[Sequence[Message]],
    arm: str,
    adapter: str,
    limits: Limits,
) -> Proof:
    """Whether the changed model still speaks the protocol: of one adapter, which alone fails no arm."""
    ours, theirs = (_valid_share(one, prompts, limits) for one in (model, base))
    return Proof(
        kind=ProofKind.VALID_ACTIONS,
        arm=arm,
        subject=adapter,
        passed=ours >= theirs - VALID_MARGIN,
        stops=False,
        said=f"{100 * ours:.0f} % valid actions on {len(prompts)} prompts, base {100 * theirs:.0f} %",
        before=theirs,
        after=ours,
    )


def check_action_gate(adapters: Sequence[Proof], arm: str, *, stops: bool) -> Proof:
    """Whether an arm still speaks the protocol, by the mean over its adapters: of many, each asked a dozen prompts, one would
    fail by a single odd reply. An arm that does not is failed, not an arm with a rate, but where the plan wants to see what
    becomes of it."""
    ours, theirs = (
        fmean(share) for share in zip(*((one.after or 0, one.before or 0) for one in adapters), strict=True)
    )
    return Proof(
        kind=ProofKind.ACTION_GATE,
        arm=arm,
        subject="",
        passed=ours >= theirs - VALID_MARGIN,
        stops=stops,
        said=f"{100 * ours:.0f} % valid actions, the mean over {counted(len(adapters), 'adapter')}; base {100 * theirs:.0f} %",
    )


def _valid_share(model: ChatModel, prompts: Sequence[Sequence[Message]], limits: Limits) -> float:
    valid = 0
    for number, prompt in enumerate(prompts):
        name = f"proof of protocol {number}"
        request = ChatRequest(
            conversation=name,
            messages=tuple(prompt),
            max_output_tokens=limits.output_tokens,
            context_tokens=limits.context_tokens,
            temperature=0.0,
            seed=0,
            timeout_s=limits.wall_s,
        )
        try:
            reply = model.reply(request)
            valid += parse(reply.text, reply.finish_reason).action is not None
        except (ReplyLate, ReplyWithheld, ContextOverflow):
            pass  # In a rollout its end, and no action.
        finally:
            model.forget(name)
    return valid / len(prompts)


def measure_retention(
    model: AdapterHost, base: AdapterHost, examples: Sequence[Example], arm: str, adapter: str
) -> Proof:
    """How likely the actions of successes elsewhere still are: what learning makes forget, before any task is run."""
    before, after = (fmean(one.losses(examples)) for one in (base, model))
    return Proof(
        kind=ProofKind.RETENTION,
        arm=arm,
        subject=adapter,
        passed=True,
        said=f"{before:.3f} nats per token of {counted(len(examples), 'success', 'successes')} elsewhere with base, {after:.3f} with the adapter",
        before=before,
        after=after,
    )


def check_memory(deliveries: Sequence[Delivery], arm: str, least: float, *, stops: bool = True) -> Proof:
    """Whether an arm's memory has something to say to at least this share of its tasks. Raises MemorySilent where it has not and that
    `stops`, and wherever it has to none."""
    given, total = sum(found.says for found in deliveries), len(deliveries)
    passed = not deliveries or given / total >= least
    if not passed and (stops or not given):
        raise memory_silent({arm: (given, total)}, least)
    return Proof(
        kind=ProofKind.MEMORY_DELIVERED,
        arm=arm,
        subject="memory",
        passed=passed,
        stops=passed or stops,
        said=f"{given} of {len(deliveries)} tasks are told something",
    )


def memory_silent(said: Mapping[str, tuple[int, int]], least: float) -> MemorySilent:
    """What is said of arms, by name, whose memory has something to say to so many of so many tasks, where `least` is the share wanted."""
    told = "; ".join(
        f"{arm}: its memory has something to say to {given} of {counted(total, 'task')}"
        for arm, (given, total) in said.items()
    )
    share = min(math.floor(100 * given / total) / 100 for given, total in said.values())
    lower = f", lower experience.delivered to {share:g} or less" if share else ""
    # What is told nothing at all is base, whatever the reason.
    over = (
        'Pass it over for a reason, which every report then names: --override memory="…". ' if share else ""
    )
    which = "the arm" if len(said) == 1 else "these arms"
    return MemorySilent(
        f"{told}; to the others {which} would be base under another name, and {100 * least:.0f} % are the least (experience.delivered). "
        f"{over}{'Or in' if over else 'In'} the plan, set more tasks aside (experience.per_repo) or try each more often "
        f"(experience.samples){lower}, or leave {which} out: that is another plan, and a new run that gathers again.",
        said,
        least,
    )


def seen_text(adapter: AdapterRecord, evaluated: Sequence[str], arm: str) -> str:
    """Which of the tasks that an adapter is judged on it was trained on, in words; empty where it has seen none of them."""
    seen = sorted(set(adapter.tasks) & set(evaluated))
    if not seen:
        return ""
    return (
        f"{arm}: the adapter {adapter.id} was trained on {len(seen)} of the evaluated tasks, {listed(seen, SEEN)}; what it "
        "remembers of these is not what it has learned"
    )


def check_split(adapter: AdapterRecord, evaluated: Sequence[str], arm: str) -> None:
    """That an adapter has seen none of the tasks it is judged on. Raises TreatmentMissing."""
    if seen := seen_text(adapter, evaluated, arm):
        raise TreatmentMissing(f"{seen}. Evaluate others, or train it on others.")
