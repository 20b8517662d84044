"""Text ↔ action: the one parser and the one renderer, inverse to each other.

A reply holds one action, as its last block, with the opening tag at the start of a line:

    <bash>command</bash>
    <read>path</read>                <read>path:START-END</read>
    <edit path="p"><old>…</old><new>…</new></edit>
    <write path="p">…</write>
    <done>message</done>

What stands between the tags is taken byte for byte, with two exceptions that models need: one line break right after
an opening tag is layout, and a code fence around the whole of a command or a content is taken off (and said so). Marks
that end a turn, which some servers leave in the text, may stand behind the action.
A body that would be misread is written with a mark, `<write path="p" mark="1">…</write:1>`; a marked body is verbatim
and may hold anything but its own closing tag. The renderer uses marks where they are needed; a model never has to.
"""

import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from looper.records.trajectory import (
    TOOL_NAMES,
    Action,
    Bash,
    Done,
    Edit,
    FinishReason,
    Read,
    ReplyProblem,
    Write,
)


@dataclass(frozen=True)
class Parsed:
    """What was read from a reply: an action, or the problem that kept it from being one."""

    action: Action | None
    problem: ReplyProblem | None = None
    detail: str = ""
    """What exactly is wrong, for the model to read."""
    fence_removed: bool = False


class _Unparsable(Exception):
    def __init__(self, problem: ReplyProblem, detail: str) -> None:
        super().__init__(detail)
        self.problem = problem
        self.detail = detail


DETAIL_CHARACTERS = 300
_NAMES = "|".join(TOOL_NAMES)
_BLANKS = r"(?:[^\S\n]|[\u200b-\u200f\u2060\ufeff])*"
"""What may stand before a tag in its line, invisible blanks too."""
_OPENING = re.compile(rf"^{_BLANKS}<({_NAMES})((?:\s+[a-z]+=\"[^\"<>]*\")*)\s*(/?)>", re.MULTILINE)
_NEARLY_OPENING = re.compile(rf"^{_BLANKS}(<({_NAMES})(?=[\s>/])[^\n]*)", re.MULTILINE | re.IGNORECASE)
_TURN_ENDS = re.compile(r"(?:\s*(?:<[|｜][^\s<>|｜]+[|｜]>|</s>|<(?:eos|eot|end_of_turn)>))+\s*\Z")
"""Of ChatML, Llama, Mistral, Gemma, Phi, DeepSeek and others."""
_TAG_ANYWHERE = re.compile(rf"<({_NAMES})[\s>/]")
_ANY_OF_OURS = re.compile(r"</?(?:bash|read|write|edit|old|new|done|think|thinking)\b")
_ATTRIBUTE = re.compile(r"([a-z]+)=\"([^\"]*)\"")
_FENCE_LINE = re.compile(r"^[ \t]*(`{3,}|~{3,})[^\n]*$", re.MULTILINE)
_WHOLE_FENCE = re.compile(r"\A\s*(`{3,}|~{3,})[^\n`]*\n(.*?)(?:(?<=\n)|\A)[ \t]*\1\s*\Z", re.DOTALL)
_THINK = re.compile(r"<think(?:ing)?>")
_THINK_END = re.compile(r"</think(?:ing)?>")
_NUMBER = "[0-9]{1,9}"
"""Python refuses to read numbers of thousands of digits; no file has so many lines."""
_RANGE = re.compile(rf"\A(.*):({_NUMBER})-({_NUMBER})\Z", re.DOTALL)

# Attributes hold what XML forbids in them as entities; nothing else is an entity, so that `&copy;` stays itself.
_ENTITIES = {
    "&": "&amp;",
    '"': "&quot;",
    "<": "&lt;",
    ">": "&gt;",
    "\n": "&#10;",
    "\r": "&#13;",
    "\t": "&#9;",
}
_TO_ENTITY = str.maketrans(_ENTITIES)
_FROM_ENTITY = {entity: char for char, entity in _ENTITIES.items()}


def parse(reply: str, finish_reason: FinishReason = FinishReason.STOP) -> Parsed:
    """Read the one action of a reply. Never raises; what cannot be executed comes back as a named problem."""
    if finish_reason is FinishReason.LENGTH:
        return Parsed(None, ReplyProblem.TRUNCATED, "the reply reached the output limit before it ended")
    text = _without_thinking(reply)
    try:
        return _parse_visible(text)
    except _Unparsable as problem:
        return Parsed(None, problem.problem, problem.detail[:DETAIL_CHARACTERS])


def render(action: Action) -> str:
    """The text that `parse` reads back as exactly this action."""
    match action:
        case Bash():
            return _element("bash", {}, action.command)
        case Read():
            return _render_read(action)
        case Write():
            confirm = {"confirm": "shrink"} if action.confirm_shrink else {}
            return _element("write", {"path": action.path, **confirm}, action.content)
        case Edit():
            which = {} if action.occurrence is None else {"occurrence": str(action.occurrence)}
            return _render_edit({"path": action.path, **which}, action.old, action.new)
        case Done():
            return _element("done", {}, action.message)


def _without_thinking(text: str) -> str:
    """The reply without its reasoning, which is looked for before the action only: a body may hold such tags."""
    at = 0
    while begin := _THINK.search(text, at):
        line = text.rfind("\n", 0, at) + 1
        # Only from the beginning of a line on, or what was looked at before would be looked at again.
        if _OPENING.search(text, at if text[line:at].strip() else line, begin.start()):
            break
        end = _THINK_END.search(text, begin.end())
        if not end:
            return text[: begin.start()]
        at = begin.start()
        text = text[:at] + text[end.end() :]
    return _without_headless_thinking(text)


def _without_headless_thinking(text: str) -> str:
    """The reply after reasoning whose opening tag stood in the prompt, as some chat templates have it."""
    end, action = _THINK_END.search(text), _OPENING.search(text)
    if not end:
        return text
    if not action or end.start() < action.start():
        return text[end.end() :]
    # The tag stands behind an action: either reasoning that tried one out, with the real one after it, or a part of that action's
    # body. A body with a mark says itself where it ends, so there the tag is its own; where nothing follows it is too.
    body_is_marked = "mark" in _attributes(action[2])
    return text[end.end() :] if not body_is_marked and _OPENING.search(text, end.end()) else text


def _parse_visible(text: str) -> Parsed:
    openings = list(_OPENING.finditer(text))
    first = _first_outside_fence(text, openings)
    if first is None:
        if openings:
            raise _Unparsable(ReplyProblem.FENCED_ACTION, "the action stands inside a code fence")
        if nearly := _NEARLY_OPENING.search(text):
            raise _Unparsable(ReplyProblem.MALFORMED, _why_no_opening(*nearly.groups()))
        inline = _TAG_ANYWHERE.search(text)
        hint = f"<{inline[1]}> is not at the start of a line" if inline else "no action tag was found"
        raise _Unparsable(ReplyProblem.NO_ACTION, hint)
    tool, attributes = first[1], _attributes(first[2])
    if first[3]:
        body, rest = "", text[first.end() :]
        verbatim = True
    else:
        body, rest, verbatim = _body(text[first.end() :], tool, attributes.pop("mark", None))
    if rest.strip() and not _TURN_ENDS.match(rest):
        raise _after_action(rest, tool)
    return _BUILDERS[tool](body, attributes, verbatim)


def _why_no_opening(tag: str, tool: str) -> str:
    if tool != tool.lower():
        return f"<{tool}> is no tag; tags are in lower case: <{tool.lower()}>"
    return f'{tag[:60]} cannot be read; attributes are written name="value", in double quotes'


def _first_outside_fence(text: str, openings: Sequence[re.Match[str]]) -> re.Match[str] | None:
    """A fence closes with its own character, at least as long."""
    fence, lines = "", deque(_FENCE_LINE.finditer(text))
    for opening in openings:
        while lines and lines[0].start() < opening.start():
            mark = lines.popleft()[1]
            if not fence:
                fence = mark
            elif mark[0] == fence[0] and len(mark) >= len(fence):
                fence = ""
        if not fence:
            return opening
    return None


def _attributes(text: str) -> dict[str, str]:
    return {name: _unescape(value) for name, value in _ATTRIBUTE.findall(text)}


def _body(text: str, tag: str, mark: str | None) -> tuple[str, str, bool]:
    """The body up to its closing tag, what follows it, and whether it is verbatim.

    Without a mark the last closing tag counts, so that a body may hold the tag itself; a body in which the tag is
    closed and another action begins is two actions and not a choice of ours.
    """
    closings = list(_closing(tag, mark).finditer(text))
    if not closings:
        raise _Unparsable(ReplyProblem.UNCLOSED, _unclosed(tag, mark))
    first, last = closings[0], closings[-1]
    if mark is not None:
        return _without_layout_break(text[: first.start()]), text[first.end() :], True
    following = _OPENING.search(text, first.end(), last.start())
    if following:
        raise _Unparsable(ReplyProblem.SEVERAL_ACTIONS, f"<{tag}> is followed by <{following[1]}>")
    return _without_layout_break(text[: last.start()]), text[last.end() :], False


def _closing(tag: str, mark: str | None) -> re.Pattern[str]:
    return re.compile(rf"</{tag}\s*>" if mark is None else re.escape(f"</{tag}:{mark}>"))


def _unclosed(tag: str, mark: str | None) -> str:
    return f"<{tag}> has no </{tag}>" if mark is None else f"<{tag}> has no </{tag}:{mark}>"


def _after_action(rest: str, tool: str) -> _Unparsable:
    following = _OPENING.search(rest)
    if following:
        return _Unparsable(ReplyProblem.SEVERAL_ACTIONS, f"<{tool}> is followed by <{following[1]}>")
    return _Unparsable(ReplyProblem.TEXT_AFTER_ACTION, f"text follows </{tool}>")


def _without_layout_break(body: str) -> str:
    if body.startswith("\r\n"):
        return body[2:]
    return body[1:] if body.startswith("\n") else body


def _without_fence(content: str, verbatim: bool) -> tuple[str, bool]:
    """Content without the code fence around the whole of it, and whether there was one."""
    fenced = None if verbatim else _WHOLE_FENCE.match(content)
    return (fenced[2], True) if fenced else (content, False)


def _build_bash(body: str, attributes: dict[str, str], verbatim: bool) -> Parsed:
    _only(attributes, "bash")
    # Left in place, a fence would be run: to a shell it is a command substitution.
    command, fenced = _without_fence(body, verbatim)
    if not command.strip():
        raise _Unparsable(ReplyProblem.MALFORMED, "<bash> is empty")
    return Parsed(Bash(command=command), fence_removed=fenced)


def _build_read(body: str, attributes: dict[str, str], verbatim: bool) -> Parsed:
    _only(attributes, "read", "path", "lines")
    if "path" in attributes:
        path, lines = attributes["path"], attributes.get("lines")
        ranged = re.fullmatch(f"({_NUMBER})-({_NUMBER})", lines) if lines else None
        if lines and not ranged:
            raise _Unparsable(ReplyProblem.MALFORMED, f'<read>: lines="{lines[:20]}" is not START-END')
        start, end = (int(ranged[1]), int(ranged[2])) if ranged else (None, None)
    else:
        path = body.strip()
        found = _RANGE.match(path)
        path, start, end = (found[1], int(found[2]), int(found[3])) if found else (path, None, None)
    if not path:
        raise _Unparsable(ReplyProblem.MALFORMED, "<read> names no file")
    return Parsed(Read(path=path, start=start, end=end))


def _build_write(body: str, attributes: dict[str, str], verbatim: bool) -> Parsed:
    _only(attributes, "write", "path", "confirm")
    content, fenced = _without_fence(body, verbatim)
    confirm = attributes.get("confirm") == "shrink"
    return Parsed(
        Write(path=_path(attributes, "write"), content=content, confirm_shrink=confirm), fence_removed=fenced
    )


def _build_edit(body: str, attributes: dict[str, str], verbatim: bool) -> Parsed:
    _only(attributes, "edit", "path", "occurrence")
    path = _path(attributes, "edit")
    old, new, fenced = _old_and_new(body)
    if not old:
        raise _Unparsable(ReplyProblem.MALFORMED, "<old> is empty; use <write> to make a file")
    occurrence = attributes.get("occurrence")
    if occurrence is not None and not (re.fullmatch(_NUMBER, occurrence) and int(occurrence) > 0):
        raise _Unparsable(
            ReplyProblem.MALFORMED, f'<edit>: occurrence="{occurrence[:20]}" is not a number from 1'
        )
    which = int(occurrence) if occurrence else None
    return Parsed(Edit(path=path, old=old, new=new, occurrence=which), fence_removed=fenced)


def _build_done(body: str, attributes: dict[str, str], verbatim: bool) -> Parsed:
    _only(attributes, "done")
    return Parsed(Done(message=body))


_BUILDERS: dict[str, Callable[[str, dict[str, str], bool], Parsed]] = {
    "bash": _build_bash,
    "read": _build_read,
    "write": _build_write,
    "edit": _build_edit,
    "done": _build_done,
}

_PART_TAG = re.compile(r"</?(?:old|new)\b")
_OLD_OPENING = re.compile(r'\A\s*<old(?:\s+mark="([^"]*)")?>')
_NEW_OPENING = re.compile(r'\A\s*<new(?:\s+mark="([^"]*)")?>')


def _old_and_new(body: str) -> tuple[str, str, bool]:
    """The two texts of an edit. Without marks each tag must stand once, or the split would be a guess."""
    opening = _OLD_OPENING.match(body)
    if not opening:
        raise _Unparsable(ReplyProblem.MALFORMED, "<edit> needs <old>…</old> and then <new>…</new>")
    old, rest, old_verbatim = _inner(body[opening.end() :], "old", opening[1])
    opening = _NEW_OPENING.match(rest)
    if not opening:
        raise _Unparsable(ReplyProblem.MALFORMED, "<edit> needs <new>…</new> right after </old>")
    new, rest, new_verbatim = _inner(rest[opening.end() :], "new", opening[1])
    if rest.strip():
        raise _Unparsable(ReplyProblem.MALFORMED, "<edit> holds text after </new>")
    old, old_fenced = _without_fence(old, old_verbatim)
    new, new_fenced = _without_fence(new, new_verbatim)
    return old, new, old_fenced or new_fenced


def _inner(text: str, tag: str, mark: str | None) -> tuple[str, str, bool]:
    closing = _closing(tag, mark).search(text)
    if closing is None:
        raise _Unparsable(ReplyProblem.UNCLOSED, _unclosed(tag, mark))
    if mark is None and _PART_TAG.search(text, 0, closing.start()):
        raise _Unparsable(
            ReplyProblem.MALFORMED, f"<{tag}> holds another <old> or <new>; one edit replaces one text"
        )
    return _without_layout_break(text[: closing.start()]), text[closing.end() :], mark is not None


def _only(attributes: dict[str, str], tool: str, *known: str) -> None:
    for name in attributes:
        if name not in known:
            raise _Unparsable(ReplyProblem.MALFORMED, f"<{tool}> has no attribute {name}")


def _path(attributes: dict[str, str], tool: str) -> str:
    if not attributes.get("path"):
        raise _Unparsable(ReplyProblem.MALFORMED, f'<{tool}> names no file: <{tool} path="…">')
    return attributes["path"]


def _escape(value: str) -> str:
    return value.translate(_TO_ENTITY)


def _unescape(value: str) -> str:
    return re.sub("|".join(map(re.escape, _FROM_ENTITY)), lambda found: _FROM_ENTITY[found[0]], value)


def _render_read(action: Read) -> str:
    lines = "" if action.start is None else f"{action.start}-{action.end}"
    short = f"{action.path}:{lines}" if lines else action.path
    read_back = _RANGE.match(short)
    plain = (
        short == short.strip()
        and not re.search(r"[<>]", short)
        and bool(read_back) == bool(lines)
        and (not read_back or read_back[1] == action.path)
    )
    if plain:
        return f"<read>{short}</read>"
    return _element("read", {"path": action.path, **({"lines": lines} if lines else {})}, "")


def _render_edit(attributes: dict[str, str], old: str, new: str) -> str:
    inner = _element("old", {}, old) + _element("new", {}, new)
    mark = _free_mark("edit", inner) if _ANY_OF_OURS.search(old + new) else None
    return _enclose("edit", attributes, inner, mark)


def _element(tag: str, attributes: dict[str, str], body: str) -> str:
    """One tag with its body; a body of several lines gets a layout break, one that would be misread gets a mark."""
    mark = _free_mark(tag, body) if _needs_mark(tag, body) else None
    return _enclose(tag, attributes, "\n" + body if "\n" in body else body, mark)


def _enclose(tag: str, attributes: dict[str, str], inner: str, mark: str | None) -> str:
    rendered = "".join(f' {name}="{_escape(value)}"' for name, value in attributes.items())
    if mark is None:
        return f"<{tag}{rendered}>{inner}</{tag}>"
    return f'<{tag}{rendered} mark="{mark}">{inner}</{tag}:{mark}>'


def _needs_mark(tag: str, body: str) -> bool:
    return bool(_ANY_OF_OURS.search(body)) or (
        tag in ("bash", "write", "old", "new") and bool(_WHOLE_FENCE.match(body))
    )


def _free_mark(tag: str, body: str) -> str:
    number = 1
    while f"</{tag}:{number}>" in body:
        number += 1
    return str(number)
