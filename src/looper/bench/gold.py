"""The gold patch as actions of the agent: the arm that must resolve everything."""

import base64
import re
import shlex
from collections.abc import Iterator
from difflib import SequenceMatcher

from looper.protocols import Effect, TreeEntry
from looper.records.text import whole_lines
from looper.records.trajectory import Action, Bash, Done, Edit, Write

CONTEXT = 3
"""Unchanged lines around a change, as git shows them."""


def gold_actions(effect: Effect) -> tuple[Action, ...]:
    """Edits, writes and commands that do what the gold patch does to the base tree, and then done.

    Changed text becomes edits that name their occurrence where the text is not unique, new text a write; what no file tool
    makes (deletions, modes, links, bytes) becomes a command. What is removed goes first, as it may stand in the way.
    """
    removed = [
        Bash(command=f"rm -- {shlex.quote(path)}") for path, (_, after) in effect.items() if after is None
    ]
    made = [
        action
        for path, (before, after) in effect.items()
        if after is not None
        for action in _made(path, before, after)
    ]
    return (*removed, *made, Done(message="gold patch applied"))


def _made(path: str, before: TreeEntry | None, after: TreeEntry) -> Iterator[Action]:
    old, new = _text(before), _text(after)
    if new is None or (before is not None and old is None):
        yield Bash(command=_command(path, after))
        return
    if old is None or (not old and new):
        yield Write(path=path, content=new)
    else:
        yield from _edits(path, old, new)
    mode = "100644" if before is None else before.mode
    if mode != after.mode:
        yield Bash(command=f"chmod {'+x' if after.mode == '100755' else '-x'} -- {shlex.quote(path)}")


def _text(entry: TreeEntry | None) -> str | None:
    """Of a file that the file tools can write; None for links and bytes."""
    if entry is None or entry.mode == "120000":
        return None
    try:
        return entry.content.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _command(path: str, entry: TreeEntry) -> str:
    name = shlex.quote(path)
    folder = f"mkdir -p -- {shlex.quote(path.rpartition('/')[0] or '.')} && rm -f -- {name}"
    if entry.mode == "120000":
        return f"{folder} && ln -s -- {shlex.quote(entry.content.decode('utf-8', 'surrogateescape'))} {name}"
    mode = "755" if entry.mode == "100755" else "644"
    content = base64.encodebytes(entry.content).decode()
    return f"{folder} && base64 -d > {name} <<'LOOPER_GOLD' && chmod {mode} -- {name}\n{content}LOOPER_GOLD\n"


def _edits(path: str, old: str, new: str) -> Iterator[Action]:
    """One edit for each group of changed lines, counted in the text as it stands when its turn comes."""
    before, after = whole_lines(old), whole_lines(new)
    text = old
    shift = 0
    for group in SequenceMatcher(None, before, after).get_grouped_opcodes(CONTEXT):
        (_, first, _, start, _), (_, _, last, _, end) = group[0], group[-1]
        was, becomes = "".join(before[first:last]), "".join(after[start:end])
        position = len("".join(before[:first])) + shift
        places = [found.start() for found in re.finditer(f"(?={re.escape(was)})", text)]
        which = places.index(position) + 1 if len(places) > 1 else None
        yield Edit(path=path, old=was, new=becomes, occurrence=which)
        text = text[:position] + becomes + text[position + len(was) :]
        shift += len(becomes) - len(was)
