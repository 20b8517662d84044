"""A scripted expert for level 1: looks at the function that the issue names, guesses what its repository wants, checks, guesses again.

It knows what sorts of functions there are and what a repository may want of each, and nothing of the repository at hand: its guesses
come in the same order everywhere. So a model can learn from it how to work, and not what holds in a repository.
"""

import re
from collections.abc import Sequence

from looper.bench.micro.level1 import KINDS, NEUTRAL, Kind
from looper.records.trajectory import Action, Bash, Done, Edit

CHECK = "python check.py"
LINES = 4
"""Of a function below its first one, that are looked at; the longest has as many."""
_NAMED = re.compile(r"`(\w+)\.(\w+)\.(\w+)`")


def next_action(told: Sequence[str]) -> Action:
    """What it does after the issue and the results so far: `told` has what the agent was told, in order."""
    issue, *results = told
    named = _NAMED.search(issue)
    kind = _kind_of(named[2], named[3]) if named else None
    if named is None or kind is None:
        return Done(message="the issue names no function that I know")
    path, function = f"{named[1]}/{named[2]}.py", named[3]
    if not results:
        return Bash(command=f'grep -A{LINES} "def {function}" {path}')
    if len(results) % 2 == 0:
        return Bash(command=CHECK)
    failed = len(results) // 2
    if failed and results[-1].startswith("PASS"):
        return Done(message="fixed")
    now = [_standing(kind, function, results[0]), *kind.choices][failed]
    if now is None or failed >= len(kind.choices):
        return Done(message="not found")
    old, new = _change(kind, now, kind.choices[failed])
    return Edit(path=path, old=old, new=new)


def _kind_of(module: str, function: str) -> Kind | None:
    for kind in KINDS.values():
        if kind.module == module and re.fullmatch(kind.name.replace("NOUN", r"\w+"), function):
            return kind
    return None


def _standing(kind: Kind, function: str, source: str) -> str | None:
    """What stands in the place that may be wrong; None where nothing known does."""
    head = f"def {function}({kind.parameters}):\n"
    found = [text for text in kind.mistakes if head + kind.body.replace("@", text).rstrip() in source]
    # The longest: one may begin like another.
    return max(found, key=len, default=None)


def _change(kind: Kind, now: str, then: str) -> tuple[str, str]:
    """Old and new text of the edit: the line in question, with the one before it where the file may hold it a second time."""
    lines = kind.body.splitlines()
    at = next(number for number, line in enumerate(lines) if "@" in line)
    line = lines[at].strip().replace("@", now)
    twice = kind.body.replace("@", now).count(line) > 1 or any(line in other for other in NEUTRAL)
    text = "\n".join(lines[max(0, at - twice) : at + 1]).strip()
    return text.replace("@", now), text.replace("@", then)
