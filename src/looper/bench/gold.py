"""The gold patch as actions of the agent: the arm that must resolve everything."""

import re
from collections.abc import Callable

from looper.bench.verify import patch_paths
from looper.records.trajectory import Action, Bash, Done, Edit, Write

BaseFile = Callable[[str], bytes | None]
_SECTION = re.compile(r"^diff --git .*?(?=^diff --git |\Z)", re.MULTILINE | re.DOTALL)
_HUNK = re.compile(r"^@@ -(\d+)(?:,(\d+))? \+\d+(?:,\d+)? @@[^\n]*\n", re.MULTILINE)


def gold_actions(patch: str, base_file: BaseFile) -> tuple[Action, ...]:
    """Edits, writes and commands that make the gold patch's change, and then done.

    Text hunks become edits that name their occurrence where the text is not unique; new files become writes; what is
    deleted, renamed or binary goes through git in a command.
    """
    actions: list[Action] = []
    for section in _SECTION.findall(patch):
        actions += _section_actions(section, base_file)
    return (*actions, Done(message="gold patch applied"))


def _section_actions(section: str, base_file: BaseFile) -> list[Action]:
    head = section.split("\n@@", 1)[0]
    paths = patch_paths(section)
    special = re.search(r"^(deleted file|rename |copy |old mode|GIT binary|Binary )", head, re.MULTILINE)
    if special or len(paths) != 1:
        return [_through_git(section)]
    path = next(iter(paths))
    hunks = _hunks(section)
    if re.search(r"^new file", head, re.MULTILINE):
        if re.search(r"^new file mode 100755", head, re.MULTILINE):
            return [_through_git(section)]
        return [Write(path=path, content="".join(new for _, _, new in hunks))]
    data = base_file(path)
    if data is None:
        return [_through_git(section)]
    return _edits(path, hunks, data.decode("utf-8", "surrogateescape"))


def _through_git(section: str) -> Bash:
    return Bash(
        command=f"git apply --whitespace=nowarn - <<'LOOPER_GOLD_PATCH'\n{section}LOOPER_GOLD_PATCH\n"
    )


def _hunks(section: str) -> list[tuple[int, str, str]]:
    """Start line in the old file, old text and new text of each hunk."""
    found = []
    starts = list(_HUNK.finditer(section))
    for at, hunk in enumerate(starts):
        end = starts[at + 1].start() if at + 1 < len(starts) else len(section)
        old, new = _sides(section[hunk.end() : end])
        found.append((int(hunk[1]), old, new))
    return found


def _sides(body: str) -> tuple[str, str]:
    old: list[str] = []
    new: list[str] = []
    last: list[list[str]] = []
    for line in body.split("\n")[:-1] if body.endswith("\n") else body.split("\n"):
        if line.startswith("\\"):
            for side in last:
                side[-1] = side[-1].removesuffix("\n")
            continue
        last = {"-": [old], "+": [new]}.get(line[:1], [old, new])
        for side in last:
            side.append(line[1:] + "\n")
    return "".join(old), "".join(new)


def _edits(path: str, hunks: list[tuple[int, str, str]], text: str) -> list[Action]:
    """One edit per hunk, counted in the text as it stands when its turn comes."""
    actions: list[Action] = []
    shift = 0
    for start, old, new in hunks:
        if not old:
            # Nothing to hold on to: an empty file that gets its first lines.
            return [Write(path=path, content=new)]
        position = _offset_of_line(text, start + shift)
        places = [found.start() for found in re.finditer(f"(?={re.escape(old)})", text)]
        which = places.index(position) + 1 if len(places) > 1 else None
        actions.append(Edit(path=path, old=old, new=new, occurrence=which))
        text = text[:position] + new + text[position + len(old) :]
        shift += new.count("\n") - old.count("\n")
    return actions


def _offset_of_line(text: str, line: int) -> int:
    offset = 0
    for _ in range(line - 1):
        offset = text.index("\n", offset) + 1
    return offset
