"""A trajectory, step by step, for a terminal.

`looper show` prints it, and `looper train --show-mask` the sequences that a training would read of it.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.text import Text

from looper.records.text import counted, encodable
from looper.records.training import Windows
from looper.records.trajectory import Step, Trajectory
from looper.records.verdict import TestOutcome, Verdict

SHOWN_LINES = 40
"""Of one message of the prompt, and of what failing tests printed, unless all is asked for."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Escape sequences that a model or a tool printed could set titles, move the cursor or fill the clipboard."""


def harmless(text: str) -> str:
    """Text with control characters, and halves of characters, made visible."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", encodable(text).replace("\r\n", "\n"))


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Its lines. The first column is words, all others are numbers."""
    ruled = "|---|" + "---:|" * (len(columns) - 1)
    head, *body = (f"| {' | '.join(row)} |" for row in (columns, *rows))
    return [head, ruled, *body]


def duration(seconds: float) -> str:
    """As people say it: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def shortened(number: float) -> str:
    """A number of tokens as people say it: 812, 42.9 k, 1.2 M."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        # What would round up to the next unit is said in that.
        if number >= 0.9995 * unit:
            return f"{number / unit:.1f} {name}"
    return f"{number:.0f}"


def prompt_length(step: Step) -> str:
    """Tokens of a step's prompt and who counted them: the server's or tokenizer's own count, or what was estimated before it was
    asked; empty where nobody did."""
    usage = step.reply.usage
    if usage.prompt_tokens is None:
        return "" if step.context_tokens is None else f"about {step.context_tokens} prompt tokens, estimated"
    processed = usage.processed_prompt_tokens
    cached = "" if processed is None else f"{usage.prompt_tokens - processed} of them cached, "
    return f"{usage.prompt_tokens} prompt tokens ({cached}counted by {usage.counted_by})"


@dataclass(frozen=True)
class Prompt:
    messages: tuple[tuple[str, str], ...]
    """Role and text, in order; as far as they are known."""
    note: str = ""
    """What of it is not known, or not the same, and why; empty where these are the very messages that the model got."""


def prompt_text(prompt: Prompt, *, whole: bool) -> str:
    """The messages before the first reply, each as far as it is shown."""
    lines = []
    for role, text in prompt.messages:
        lines += [f"── prompt: {role} ──", bounded(harmless(text), whole=whole)]
    if prompt.note:
        lines.append(f"── prompt: {harmless(prompt.note)} ──")
    return "\n".join(lines)


def bounded(text: str, *, whole: bool) -> str:
    """The beginning of a text, and how the rest of it is seen."""
    lines = text.split("\n")
    if whole or len(lines) <= SHOWN_LINES:
        return text
    return "\n".join([*lines[:SHOWN_LINES], f"… {len(lines) - SHOWN_LINES} more lines: --whole shows all"])


def result_text(step: Step) -> str:
    """What came of a step, in a word or two: of a command that failed its exit code."""
    seen = step.observation
    return f"exit code {seen.exit_code}" if seen.exit_code else seen.kind.value


def step_text(step: Step) -> str:
    """One step: what was said, what came back, and what the harness noted."""
    notes = [f"{step.wall_s:.2f} s"]
    if prompt := prompt_length(step):
        notes.append(harmless(prompt))
    if step.problem:
        notes.append(f"problem: {step.problem.value}")
    notes += [f"guard: {guard.value}" for guard in step.guards]
    if step.stop_reason:
        notes.append(f"ends: {step.stop_reason.value}")
    head = f"── step {step.index} ── {', '.join(notes)}"
    result, seen = result_text(step), harmless(step.observation.text)
    # What a tool says of a success is often the word of its result and nothing else.
    told = [] if seen.strip() == result else [seen]
    return "\n".join([head, harmless(step.reply.text), f"── {result} ──", *told])


def took_text(end: Trajectory, verdict: Verdict | None) -> str:
    """How long a cell took: the agent alone, which is what the table of arms has, and with the tests that judged it."""
    whole = f", {end.wall_s + verdict.wall_s:.1f} s with tests" if verdict is not None else ""
    return f"agent {end.wall_s:.1f} s{whole}"


def ending_text(end: Trajectory | None, verdict: Verdict | None, *, whole: bool = True) -> str:
    """How a cell ended: stop reason, patch, verdict per test, what the failing ones printed."""
    lines = []
    if end is not None:
        why = f": {harmless(end.stop_cause)}" if end.stop_cause else ""
        lines.append(
            f"══ {end.stop_reason.value} after {counted(end.steps, 'step')}, {took_text(end, verdict)}{why} ══"
        )
        lines.append(harmless(end.patch) or "(empty patch)")
    if verdict is None:
        return "\n".join([*lines, "══ no verdict yet ══"])
    cause = f": {harmless(verdict.cause)}" if verdict.cause else ""
    lines.append(f"══ {verdict.outcome.value}{cause} ══")
    for label, outcomes in (("FAIL_TO_PASS", verdict.fail_to_pass), ("PASS_TO_PASS", verdict.pass_to_pass)):
        lines += [f"{label} {_counts(list(outcomes.values()))}"]
        lines += [
            f"  {outcome.value:8} {name}"
            for name, outcome in outcomes.items()
            if outcome is not TestOutcome.PASSED
        ]
    if verdict.output:
        lines += ["── output of the failing tests ──", bounded(harmless(verdict.output), whole=whole)]
    if verdict.applied:
        lines.append(f"applied by: {verdict.applied}")
    if verdict.stripped_paths:
        lines.append(f"left out of the patch: {harmless(', '.join(verdict.stripped_paths))}")
    if end is not None and end.flagged_paths:
        lines.append(f"no patch can hold: {harmless(', '.join(end.flagged_paths))}")
    if verdict.fault:
        lines.append(harmless(verdict.fault).rstrip("\n"))
    return "\n".join(lines)


def _counts(outcomes: Sequence[TestOutcome]) -> str:
    passed = sum(outcome is TestOutcome.PASSED for outcome in outcomes)
    return f"{passed} of {len(outcomes)} passed"


TRAINED_ON = "trained on │ "
"""Before each line of what is trained on, where no colour is seen; it stands on lines of its own, behind as many blanks where it is not."""


def _lines(text: str, mark: str, marked: bool) -> str:
    """Where parts are marked, each line of a text behind its mark, or behind as many blanks; a line break at the end of the text is left
    out, since the next part has lines of its own."""
    if not marked or not text:
        return text
    lines = text.split("\n")
    while len(lines) > 1 and not lines[-1]:
        lines.pop()
    return "".join(f"{mark:{len(TRAINED_ON)}}{line}\n" for line in lines)


def mask_text(found: Windows, max_tokens: int, *, colour: bool = True) -> Text:
    """An example as the model reads it, piece by piece: what is trained on stands out, by its colour or on marked lines; the rest is dim."""
    shown, marked = Text(), not colour and not found.kept_aside
    verb = "kept aside for validation, not trained on" if found.kept_aside else "trained on"
    for number, (text, spans) in enumerate(found.texts, 1):
        piece = f", part {number} of {len(found.texts)}" if len(found.texts) > 1 else ""
        shown.append(f"── {found.example.source}, {found.example.instance_id}{piece} ──\n", style="bold")
        at = 0
        for start, end in spans:
            shown.append(_lines(harmless(text[at:start]), "", marked), style="dim")
            trained = _lines(harmless(text[start:end]), TRAINED_ON, marked)
            shown.append(trained, style="dim" if found.kept_aside else "bold green")
            at = end
        shown.append(_lines(harmless(text[at:]), "", marked), style="dim")
        characters = sum(end - start for start, end in spans)
        turns = counted(len(spans), "turn")
        shown.append(f"\n{turns} {verb}, {characters} of {len(text)} characters\n", style="bold")
    if found.too_long:
        actions = counted(found.too_long, "action")
        shown.append(
            f"── {found.example.source}: {actions} left out, longer than --max-tokens {max_tokens} with the opening ──\n",
            style="bold",
        )
    return shown
