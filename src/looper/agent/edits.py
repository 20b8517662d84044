"""Replacing text in a file: exact first, then indifferent to indentation, never a guess.

Models misremember indentation more than words. An edit that fits exactly is taken; one that fits but for indentation is taken where
the scaffold allows it and it fits at one place only; everything else is refused with what stands there.
"""

import bisect
import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, count, islice

from looper.records.text import bare_lines, whole_lines

NEAREST_LINES = 2_000
NEAREST_CHARS = 200
"""Bounds of the search for a similar line: comparing long texts takes minutes."""
MOST_PLACES = 1_000
"""That are counted."""
NAMED = 20
"""Places that a refusal names."""
_CRLF = re.compile(r"\r\n")
_LINE_END = re.compile(r"\r?\n")
_LINE_END_AT_END = re.compile(r"\r?\n\Z")


class EditRefused(Exception):
    """The edit does not say unmistakably what to replace."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.hint = hint


@dataclass(frozen=True)
class Replaced:
    """A text after an edit."""

    text: str
    line: int
    """Where the change begins, from 1."""
    tolerant: bool
    """Whether indentation had to be ignored."""


def replace_text(text: str, old: str, new: str, occurrence: int | None, *, tolerant: bool = True) -> Replaced:
    """`text` with one place of `old` replaced by `new`, in the line ends that the place has; only where it stands exactly so unless
    `tolerant`. Raises EditRefused, with what to do."""
    if starts := _places(text, old):
        start = _choose(text, starts, occurrence)
        return _replaced(text, start, start + len(old), new)
    if tolerant:
        old, new = _without_tag_indentation(old), _without_tag_indentation(new)
    as_seen = _AsSeen(text, old)
    if starts := _places(as_seen.text, as_seen.old):
        start = _choose(as_seen.text, starts, occurrence)
        return as_seen.replaced(start, start + len(as_seen.old), new)
    found = _match_without_indentation(as_seen.text, as_seen.old, new) if tolerant else []
    if not found:
        raise EditRefused("old text not found", _nearest(text, old))
    if len(found) > 1:
        places = ", ".join(str(_line_of(as_seen.text, start)) for start, _, _ in found)
        raise EditRefused(
            f"old text not found exactly, and {len(found)} times with other indentation, at lines {places}"
        )
    start, end, rebased = found[0]
    return replace(as_seen.replaced(start, end, rebased), tolerant=True)


class _AsSeen:
    """A file as a model sees it: every line ends with a line feed alone, and the last one may be said to."""

    def __init__(self, text: str, old: str) -> None:
        self._file = text
        # For each carriage return that is left out: where the line feed stands from then on.
        self._left_out = [found.start() - number for number, found in enumerate(_CRLF.finditer(text))]
        self.text, self.old = _CRLF.sub("\n", text), _CRLF.sub("\n", old)
        self._open_end = self.old.endswith("\n") and not self.text.endswith("\n")
        if self._open_end:
            self.text += "\n"

    def _in_file(self, at: int) -> int:
        return min(len(self._file), at + bisect.bisect_left(self._left_out, at))

    def replaced(self, start: int, end: int, new: str) -> Replaced:
        if self._open_end and end == len(self.text):
            new = _LINE_END_AT_END.sub("", new)
        return _replaced(self._file, self._in_file(start), self._in_file(end), new)


def _without_tag_indentation(part: str) -> str:
    """A closing tag on a line of its own may be indented; its blanks are no text."""
    return re.sub(r"(?<=\n)[ \t]+\Z", "", part)


def _replaced(text: str, start: int, end: int, new: str) -> Replaced:
    ends = _line_ends(text, start, end)
    if ends:
        number = count()
        new = _LINE_END.sub(lambda _: ends[min(next(number), len(ends) - 1)], new)
    return Replaced(_splice(text, start, end, new), _line_of(text, start), tolerant=False)


def _line_ends(text: str, start: int, end: int) -> list[str]:
    """Those of a place; of the line that it is a part of; else of the file's first line, and none where there is but one line."""
    near = _LINE_END.search(text, end) or _LINE_END.search(text)
    return _LINE_END.findall(text, start, end) or ([near[0]] if near else [])


def _places(text: str, old: str) -> list[int]:
    """Where `old` stands, the first that count: looking for more of them in one long run of a letter would take minutes."""
    places, at = list[int](), text.find(old)
    while at >= 0 and len(places) < MOST_PLACES:
        places.append(at)
        at = text.find(old, at + 1)
    return places


def _choose(text: str, starts: list[int], occurrence: int | None) -> int:
    lines = ", ".join(str(_line_of(text, start)) for start in starts[:NAMED])
    lines += ", …" if len(starts) > NAMED else ""
    times = f"{len(starts)} times" + (" or more" if len(starts) == MOST_PLACES else "")
    if occurrence is not None:
        if occurrence > len(starts):
            raise EditRefused(
                f"occurrence {occurrence} does not exist: old text found {times}, at lines {lines}"
            )
        return starts[occurrence - 1]
    if len(starts) > 1:
        raise EditRefused(f'old text found {times}, at lines {lines}; give more of it, or occurrence="n"')
    return starts[0]


def _splice(text: str, start: int, end: int, new: str) -> str:
    """Put `new` in place of text[start:end]; a deletion that leaves an empty line takes the line along."""
    if not new:
        line_start = text.rfind("\n", 0, start) + 1
        rest = re.compile(r"[ \t]*(?:\r?\n|\Z)").match(text, end)
        alone = not text[line_start:start].strip(" \t") and rest is not None
        if alone and rest is not None and not text[start:end].endswith("\n"):
            start, end = line_start, rest.end()
    return text[:start] + new + text[end:]


def _line_of(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip(" \t"))]


def _match_without_indentation(text: str, old: str, new: str) -> list[tuple[int, int, str]]:
    """Places where the lines of `old` stand with other indentation: start, end, and `new` re-based to it.

    Whole lines only, in the same order, equal but for leading blanks, so that line structure cannot break.
    """
    wanted, have = whole_lines(old), whole_lines(text)
    if not old.strip():
        return []
    starts = list(accumulate(map(len, have), initial=0))
    found = []
    for first in islice(_same_but_indentation(have, wanted), NAMED):
        window = have[first : first + len(wanted)]
        end = starts[first + len(wanted)] - (not old.endswith("\n") and window[-1].endswith("\n"))
        rebased = _rebase(new, wanted, window)
        if rebased is not None:
            found.append((starts[first], end, rebased))
    return found


def _same_but_indentation(have: list[str], wanted: list[str]) -> Iterator[int]:
    """Numbers of the lines from which on the wanted ones stand. One search in one text: to compare line by line takes minutes where
    many lines are equal."""
    bare, sought = _unindented(have), "".join(_unindented(wanted))
    text, starts = "".join(bare), list(accumulate(map(len, bare), initial=0))
    at = text.find(sought)
    while at >= 0:
        first = bisect.bisect_left(starts, at)
        if starts[first] == at and (
            sought.endswith("\n") or text[at + len(sought) : at + len(sought) + 1] in ("", "\n")
        ):
            yield first
        at = text.find(sought, at + 1)


def _unindented(lines: list[str]) -> list[str]:
    return [line.lstrip(" \t") for line in lines]


def _rebase(new: str, wanted: list[str], window: list[str]) -> str | None:
    """`new` with the indentation that the file uses where `wanted` uses its own; None where that is ambiguous."""
    known: dict[str, str] = {}
    for ours, theirs in zip(wanted, window, strict=True):
        if ours.strip() and known.setdefault(_indent(ours), _indent(theirs)) != _indent(theirs):
            return None
    lines = []
    for line in whole_lines(new):
        indent = _indent(line)
        if not line.strip():
            lines.append(line)
            continue
        base = max((key for key in known if indent.startswith(key)), key=len, default=None)
        if base is None:
            # Less indented than anything in `wanted`: what the shallowest line lost or gained is lost or gained here.
            base = min(known, key=len)
            shift = len(known[base]) - len(base)
            lines.append(known[base][: max(0, len(indent) + shift)] + line.lstrip(" \t"))
            continue
        lines.append(known[base] + _converted(indent[len(base) :], known) + line.lstrip(" \t"))
    return "".join(lines)


def _converted(extra: str, known: dict[str, str]) -> str:
    """Deeper indentation in the file's own character, where the matched lines show how one becomes the other."""
    for ours, theirs in known.items():
        if ours and theirs and set(ours) == {" "} and set(theirs) == {"\t"} and set(extra) == {" "}:
            per_tab = max(1, len(ours) // len(theirs))
            return "\t" * (len(extra) // per_tab)
        if ours and theirs and set(ours) == {"\t"} and set(theirs) == {" "} and set(extra) == {"\t"}:
            return " " * (len(extra) * (len(theirs) // len(ours)))
    return extra


def _nearest(text: str, old: str) -> str:
    """Where a line like the first line of `old` stands, as a hint; empty where nothing is near."""
    first = next((line.strip() for line in bare_lines(old) if line.strip()), "")[:NEAREST_CHARS]
    lines = [line.strip()[:NEAREST_CHARS] for line in bare_lines(text)[:NEAREST_LINES]]
    near = difflib.get_close_matches(first, [line for line in lines if line], n=1, cutoff=0.7)
    return f"line {lines.index(near[0]) + 1} is similar: {near[0]}" if near else ""
