"""How a patch is applied: by SWE-bench's own attempts in their order, then by kinder ones.

The official attempts are those of swebench 2.0 to 4.1, one upon what the other left, as there: an attempt has applied the
patch where its program ends with status 0. Source: `GIT_APPLY_CMDS` and `run_instance` of swebench.harness.run_evaluation.
"""

import errno
from collections.abc import Callable

from looper.errors import BadPatch
from looper.protocols import NOTHING, JudgedSession

LARGEST_BYTES = 32 << 20
"""Of a patch; larger ones are refused."""
KINDER = "kinder than SWE-bench"
GIT, REJECT, FUZZ, RECOUNT = (
    "git apply",
    "git apply --reject",
    "patch --fuzz=5",
    "git apply --recount --unidiff-zero",
)


ATTEMPTS = (GIT, REJECT, FUZZ, RECOUNT)
"""What the name of every attempt begins with."""


def apply(patch: str, session: JudgedSession) -> str:
    """Apply a patch to a base tree, and say how: the name of the attempt, with what was mended and that SWE-bench would not
    have taken it, where that is so; empty for an empty patch. Raises BadPatch where no attempt takes it, and VerifierBroken
    where a program is missing."""
    if not patch.strip():
        return ""
    _must_be_usable(patch)
    try:
        return _climb(patch, session)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise BadPatch("it makes a path that is too long") from error


def _climb(patch: str, session: JudgedSession) -> str:
    try:
        session.apply(patch)
        return GIT
    except BadPatch as error:
        refused = error
    # Official attempts are made on what the one before left; kinder ones begin with the base tree.
    for name, attempt in _attempts(patch, session):
        if attempt():
            session.put_back(_leftovers(session))
            return name
        if KINDER in name or name == FUZZ:
            session.put_back(change.path for change in session.changes())
    raise refused


def _must_be_usable(patch: str) -> None:
    try:
        size = len(patch.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError as error:
        raise BadPatch("it holds a lone surrogate, half a character, which no file can hold") from error
    if size > LARGEST_BYTES:
        raise BadPatch(f"it has {size} bytes, and {LARGEST_BYTES} are read")


def _attempts(patch: str, session: JudgedSession) -> list[tuple[str, Callable[[], bool]]]:
    """All but the first."""

    def git(text: str, *options: str) -> Callable[[], bool]:
        return lambda: _by_git(text, session, options)

    mended, mends = _mended(patch)
    found = [
        (REJECT, git(patch, "--reject")),
        (FUZZ, lambda: session.apply_by_gnu_patch(patch)),
        (_kinder(RECOUNT, mends), git(mended, "--recount", "--unidiff-zero")),
    ]
    if mends:
        found.insert(2, (_kinder(GIT, mends), git(mended)))
        found.append((_kinder(FUZZ, mends), lambda: session.apply_by_gnu_patch(mended)))
    return found


def _kinder(name: str, mends: tuple[str, ...]) -> str:
    return f"{name} ({', '.join((*mends, KINDER))})"


def _mended(patch: str) -> tuple[str, tuple[str, ...]]:
    """The patch as its maker's tools should have written it, and what was wrong with it."""
    mends: list[str] = []
    if patch.startswith("\ufeff"):
        patch, mends = patch[1:], [*mends, "byte order mark dropped"]
    if patch.count("\r\n") == patch.count("\n") > 0:
        patch, mends = patch.replace("\r\n", "\n"), [*mends, "line ends made LF"]
    if not patch.endswith("\n"):
        patch, mends = f"{patch}\n", [*mends, "final newline added"]
    return patch, tuple(mends)


def _by_git(patch: str, session: JudgedSession, options: tuple[str, ...]) -> bool:
    try:
        session.apply(patch, *options)
    except BadPatch:
        return False
    return True


def _leftovers(session: JudgedSession) -> list[str]:
    """What attempts leave beside files that they were at: rejected hunks and earlier contents."""
    changes = {change.path: change for change in session.changes()}
    base = session.base_paths()
    return [
        path
        for path, change in changes.items()
        if change.before == NOTHING
        and path.endswith((".rej", ".orig"))
        and (path.rpartition(".")[0] in base or path.rpartition(".")[0] in changes)
    ]
