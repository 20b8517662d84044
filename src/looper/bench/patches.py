"""How a patch is applied: by SWE-bench's own attempts in their order, then by kinder ones.

The official attempts are those of swebench 2.0 to 4.1, one upon what the other left, as there: an attempt has applied the
patch where its program ends with status 0. Source: `GIT_APPLY_CMDS` and `run_instance` of swebench.harness.run_evaluation.
"""

import errno
import secrets
import signal
from collections.abc import Callable

from looper.errors import BadPatch, RunKilled, VerifierBroken
from looper.protocols import NOTHING, Command, PatchedWorkspace, Sandbox
from looper.untrusted import remove_tree

LARGEST_BYTES = 32 << 20
"""Of a patch; larger ones are refused."""
SECONDS = 60.0
"""For the program `patch`."""
KINDER = "kinder than SWE-bench"
GIT, REJECT, FUZZ, RECOUNT = (
    "git apply",
    "git apply --reject",
    "patch --fuzz=5",
    "git apply --recount --unidiff-zero",
)
_GNU_PATCH = """
for program in gpatch patch; do
    case $("$program" --version 2>/dev/null) in
    "GNU patch"*)
        "$program" --batch --fuzz=5 -p1 -i "$1" >/dev/null 2>&1
        echo "$2 $?"
        exit
        ;;
    esac
done
echo "$2 127"
"""
KILLED = str(128 + signal.SIGKILL)
"""Status that the shell has of a program which SIGKILL ended."""
_PROGRAMS = "/usr/bin:/bin:/usr/local/bin:/opt/homebrew/bin"
"""Where the program `patch` is looked for; macOS has GNU's from Homebrew."""
_LIMITS = {
    "time": f"more than {SECONDS:.0f} s",
    "disk": "more disk space than it is given",
    "memory": "more memory than it is given",
}


def apply(patch: str, workspace: PatchedWorkspace, sandbox: Sandbox) -> str:
    """Apply a patch to a base tree, and say how: the name of the attempt, with what was mended and that SWE-bench would not
    have taken it, where that is so; empty for an empty patch. Raises BadPatch where no attempt takes it, and VerifierBroken
    where a program is missing."""
    if not patch.strip():
        return ""
    _must_be_usable(patch)
    try:
        return _climb(patch, workspace, sandbox)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise BadPatch("it makes a path that is too long") from error


def _climb(patch: str, workspace: PatchedWorkspace, sandbox: Sandbox) -> str:
    try:
        workspace.apply(patch)
        return GIT
    except BadPatch as error:
        refused = error
    # Official attempts are made on what the one before left; kinder ones begin with the base tree.
    for name, attempt in _attempts(patch, workspace, sandbox):
        if attempt():
            workspace.put_back(_leftovers(workspace))
            return name
        if KINDER in name or name == FUZZ:
            workspace.put_back(change.path for change in workspace.changes())
    raise refused


def _must_be_usable(patch: str) -> None:
    try:
        size = len(patch.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError as error:
        raise BadPatch("it holds a lone surrogate, half a character, which no file can hold") from error
    if size > LARGEST_BYTES:
        raise BadPatch(f"it has {size} bytes, and {LARGEST_BYTES} are read")


def _attempts(
    patch: str, workspace: PatchedWorkspace, sandbox: Sandbox
) -> list[tuple[str, Callable[[], bool]]]:
    """All but the first."""

    def git(text: str, *options: str) -> Callable[[], bool]:
        return lambda: _by_git(text, workspace, options)

    mended, mends = _mended(patch)
    found = [
        (REJECT, git(patch, "--reject")),
        (FUZZ, lambda: _by_patch(patch, workspace, sandbox)),
        (_kinder(RECOUNT, mends), git(mended, "--recount", "--unidiff-zero")),
    ]
    if mends:
        found.insert(2, (_kinder(GIT, mends), git(mended)))
        found.append((_kinder(FUZZ, mends), lambda: _by_patch(mended, workspace, sandbox)))
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


def _by_git(patch: str, workspace: PatchedWorkspace, options: tuple[str, ...]) -> bool:
    try:
        workspace.apply(patch, *options)
    except BadPatch:
        return False
    return True


def _by_patch(patch: str, workspace: PatchedWorkspace, sandbox: Sandbox) -> bool:
    """GNU patch follows links and writes wherever a header says, and can be made to run commands, so it runs in the sandbox,
    where it reaches the tree alone, and without git's records in it. Raises VerifierBroken where it is missing."""
    folder = workspace.root.with_name(f"{workspace.root.name}.patch")
    folder.mkdir()
    folder.chmod(0o755)
    file, mark = folder / "patch.diff", secrets.token_hex(8)
    try:
        file.write_bytes(patch.encode("utf-8", "surrogateescape"))
        file.chmod(0o644)
        with workspace.without_git():
            result = sandbox.run(
                Command(
                    argv=("/bin/sh", "-c", _GNU_PATCH, "patch", str(file), mark),
                    root=workspace.root,
                    timeout_s=SECONDS,
                    env={"PATH": _PROGRAMS},
                    readable=(folder,),
                )
            )
    finally:
        remove_tree(folder)
    if result.killed_by:
        raise BadPatch(f"the program patch was ended over it: {_LIMITS[result.killed_by]}")
    # The shell's own end says nothing: a machine that lets it begin no process ends it with the status of a bad patch.
    # It also says there what ended the program, where a signal did.
    said, _, status = result.text().strip().rpartition("\n")[2].rpartition(" ")
    if said != mark:
        raise VerifierBroken(f"The program patch did not run: {result.text()[-300:].strip()}.")
    if status == "127":
        raise VerifierBroken(
            "GNU patch is not installed, and SWE-bench tries it on this patch. "
            "Install it (Debian: apt-get install patch; macOS: brew install gpatch)."
        )
    if status == KILLED:
        raise RunKilled(
            "The program patch was killed (SIGKILL), and not for a limit of its own: the machine ran out of memory, or somebody ended "
            "it. Free memory, then run the same command again."
        )
    return status == "0"


def _leftovers(workspace: PatchedWorkspace) -> list[str]:
    """What attempts leave beside files that they were at: rejected hunks and earlier contents."""
    changes = {change.path: change for change in workspace.changes()}
    base = workspace.base_paths()
    return [
        path
        for path, change in changes.items()
        if change.before == NOTHING
        and path.endswith((".rej", ".orig"))
        and (path.rpartition(".")[0] in base or path.rpartition(".")[0] in changes)
    ]
