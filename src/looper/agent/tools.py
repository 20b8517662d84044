"""What the actions do to a workspace, and how the model is told.

A tool returns what the model is told; what it raises is the world's. So each case here decides whether something was the agent's
doing. Output is capped in the middle, since both ends of a log matter.
"""

import ast
import re
from dataclasses import dataclass, replace

from looper.agent.edits import EditRefused, replace_text
from looper.errors import FileRefused, is_of_what_was_made, named
from looper.protocols import Session
from looper.records.plan import Limits, Scaffold
from looper.records.text import bare_lines
from looper.records.trajectory import (
    Action,
    Bash,
    Done,
    Edit,
    Guard,
    Observation,
    ObservationKind,
    Read,
    Write,
)

COMMAND_BYTES = 120 << 10
"""The system takes 128 KiB in one argument, and the sandbox says something before the command."""
CHECKED_BYTES = 1 << 20
"""Of a Python file whose syntax is checked: some seconds of parsing."""
MESSAGE_CHARACTERS = 2_000
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
SHRINK_SHARE = 0.5
"""A write that keeps less than this share of a file's bytes must be confirmed."""


@dataclass(frozen=True)
class ToolContext:
    """What the tools of one rollout work with."""

    session: Session
    scaffold: Scaffold
    limits: Limits


@dataclass(frozen=True)
class ToolEffect:
    observation: Observation
    guards: tuple[Guard, ...] = ()


def execute(action: Action, tool_context: ToolContext, time_left_s: float) -> ToolEffect:
    """Run one action. What the agent did wrong is an observation; what the world did wrong is raised."""
    try:
        _must_be_text(action)
        match action:
            case Bash():
                return _bash(action, tool_context, time_left_s)
            case Read():
                return ToolEffect(_read(action, tool_context))
            case Edit():
                return _edit(action, tool_context)
            case Write():
                return _write(action, tool_context)
            case Done():
                return ToolEffect(Observation(kind=ObservationKind.END, text=""))
    except FileRefused as refusal:
        return ToolEffect(_refused(str(refusal)))
    except Exception as error:
        if not is_of_what_was_made(error):
            raise
        return ToolEffect(_refused(named(error)))


def _must_be_text(action: Action) -> None:
    """Raises FileRefused for what no file and no program can be given."""
    for name, value in action:
        if isinstance(value, str) and (found := _LONE_SURROGATE.search(value)):
            raise FileRefused(f"the {name} holds a lone surrogate, {found[0]!a}, which is no character")


def _bash(action: Bash, tool_context: ToolContext, time_left_s: float) -> ToolEffect:
    if "\0" in action.command:
        raise FileRefused("the command holds a NUL byte, which no program can be given")
    if (size := len(action.command.encode())) > COMMAND_BYTES:
        raise FileRefused(
            f"the command has {size} bytes, and {COMMAND_BYTES} are the most; put a script into a file with <write>, then run it"
        )
    limit = min(tool_context.limits.command_s, time_left_s)
    result = tool_context.session.exec(
        action.command,
        limit,
        memory_mb=tool_context.limits.memory_mb,
        output_cap_bytes=tool_context.scaffold.output_cap_bytes,
    )
    text = result.text().strip("\n")
    if result.killed_by:
        cause = {
            "time": f"after {limit:.0f} s",
            "disk": "it filled the disk quota",
            "memory": "it took too much memory",
        }
        text = f"{text}\n[killed: {cause[result.killed_by]}]".lstrip("\n")
        kind = ObservationKind.TIMEOUT if result.killed_by == "time" else ObservationKind.REFUSED
        return ToolEffect(Observation(kind=kind, text=text, omitted_bytes=result.omitted_bytes))
    if not text:
        text = "ok" if result.exit_code == 0 else f"exit code {result.exit_code}"
    elif result.exit_code != 0 and not tool_context.scaffold.terse:
        text += f"\n[exit code {result.exit_code}]"
    return ToolEffect(
        Observation(
            kind=ObservationKind.OK, text=text, exit_code=result.exit_code, omitted_bytes=result.omitted_bytes
        )
    )


def _read(action: Read, tool_context: ToolContext) -> Observation:
    data = tool_context.session.read(action.path)
    if b"\0" in data[:8192]:
        return _refused(f"{action.path} is a binary file of {len(data)} bytes")
    lines = bare_lines(data.decode("utf-8", "backslashreplace"))
    first = max(1, action.start or 1)
    last = min(len(lines), action.end or len(lines), first + tool_context.scaffold.read_cap_lines - 1)
    if not lines:
        return Observation(kind=ObservationKind.OK, text=f"{action.path} is empty")
    if first > len(lines) or last < first:
        return _refused(f"{action.path} has {len(lines)} lines; there is no {action.start}-{action.end}")
    shown, omitted = _capped(
        numbered_lines(lines[first - 1 : last], first), tool_context.scaffold.output_cap_bytes
    )
    asked_to = min(action.end or len(lines), len(lines))
    if not tool_context.scaffold.terse:
        shown = f"{action.path}, lines {first}-{last} of {len(lines)}:\n{shown}"
        if last < asked_to:
            shown += f"\n[... {asked_to - last} more lines; read {action.path}:{last + 1}-{asked_to} ...]"
    return Observation(kind=ObservationKind.OK, text=shown, omitted_bytes=omitted)


def _edit(action: Edit, tool_context: ToolContext) -> ToolEffect:
    before = tool_context.session.read(action.path)
    try:
        done = replace_text(
            _decode(before),
            action.old,
            action.new,
            action.occurrence,
            tolerant=tool_context.scaffold.tolerant_edits,
        )
    except EditRefused as refusal:
        terse = tool_context.scaffold.terse
        return ToolEffect(
            _refused(str(refusal) if terse else f"{action.path}: {refusal}. {refusal.hint}".rstrip(". "))
        )
    after = _encode(done.text)
    tool_context.session.write(action.path, after)
    how = ", matched without its indentation" if done.tolerant else ""
    said = "ok" if tool_context.scaffold.terse else f"edited {action.path} at line {done.line}{how}"
    effect = _with_syntax_check(said, action.path, before, after, tool_context.scaffold)
    return replace(effect, observation=effect.observation.model_copy(update={"tolerant": done.tolerant}))


def _write(action: Write, tool_context: ToolContext) -> ToolEffect:
    after = _encode(action.content)
    try:
        before: bytes | None = tool_context.session.read(action.path)
    except FileRefused:
        before = None  # Writing refuses by itself what may not be written.
    shrinks = before is not None and len(after) < len(before) * SHRINK_SHARE
    if (
        shrinks
        and before is not None
        and tool_context.scaffold.guards.confirm_shrink
        and not action.confirm_shrink
    ):
        refused = _refused(
            f"{action.path} has {len(before)} bytes and would have {len(after)}. Change a part of it with <edit>, or "
            f'say that this is meant: <write path="{action.path}" confirm="shrink">'
        )
        return ToolEffect(refused, (Guard.SHRINKING_WRITE,))
    tool_context.session.write(action.path, after)
    said = "ok" if tool_context.scaffold.terse else f"wrote {action.path}, {len(after)} bytes"
    return _with_syntax_check(said, action.path, before, after, tool_context.scaffold)


def _with_syntax_check(
    said: str, path: str, before: bytes | None, after: bytes, scaffold: Scaffold
) -> ToolEffect:
    """Say at once when a Python file that compiled (or is new) does not compile any more."""
    broken = syntax_error(path, after) if scaffold.guards.check_python else None
    if broken is None or (before is not None and syntax_error(path, before) is not None):
        return ToolEffect(Observation(kind=ObservationKind.OK, text=said))
    text = f"{said}\nwarning: {path} no longer compiles: {broken}"
    return ToolEffect(Observation(kind=ObservationKind.OK, text=text), (Guard.BROKEN_PYTHON,))


def syntax_error(path: str, source: bytes) -> str | None:
    """Why a Python file does not parse; None where it does, is no Python file, or too long a one."""
    if not path.endswith(".py") or len(source) > CHECKED_BYTES:
        return None
    try:
        ast.parse(source)
    except SyntaxError as error:
        return f"line {error.lineno}: {error.msg}"
    except (ValueError, RecursionError, MemoryError) as error:
        return str(error) or type(error).__name__
    return None


def numbered_lines(lines: list[str], first: int) -> str:
    return "\n".join(f"{number}\t{line}" for number, line in enumerate(lines, first))


def _capped(text: str, cap_bytes: int) -> tuple[str, int]:
    """Head and tail of a text that is too long, and how many bytes were left out between them."""
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= cap_bytes:
        return text, 0
    half, omitted = cap_bytes // 2, len(data) - cap_bytes // 2 * 2
    head, tail = data[:half].decode("utf-8", "ignore"), data[-half:].decode("utf-8", "ignore")
    return f"{head}\n[... {omitted} bytes left out ...]\n{tail}", omitted


def _refused(why: str) -> Observation:
    if len(why) > MESSAGE_CHARACTERS:
        why = f"{why[:MESSAGE_CHARACTERS]}…"  # A path may be as long as the reply.
    return Observation(kind=ObservationKind.REFUSED, text=f"error: {why}")


def _decode(data: bytes) -> str:
    # Bytes that are no UTF-8 pass through an edit unchanged.
    return data.decode("utf-8", "surrogateescape")


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
