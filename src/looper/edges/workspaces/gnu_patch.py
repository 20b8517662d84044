"""GNU patch at work in a tree: it follows links, writes wherever a header says, and can be made to run commands."""

import secrets
import shlex
import signal
from pathlib import Path

from looper.edges.sandboxes.shell import LocalShell
from looper.errors import BadPatch, RunKilled, VerifierBroken
from looper.protocols import Environment, Sandbox
from looper.untrusted import remove_tree

SECONDS = 60.0
_SCRIPT = """
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
_BARE = Environment("", Path("/usr/bin/python3"), (), {})
"""Nothing of a task's: the program is the machine's."""
_LIMITS = {
    "time": f"more than {SECONDS:.0f} s",
    "disk": "more disk space than it is given",
    "memory": "more memory than it is given",
}


def takes(patch: str, root: Path, sandbox: Sandbox) -> bool:
    """Whether it applies a patch to the tree, in the sandbox, where it reaches the tree alone. Raises as `apply_by_gnu_patch` does."""
    folder = root.with_name(f"{root.name}.patch")
    folder.mkdir()
    folder.chmod(0o755)
    file, mark = folder / "patch.diff", secrets.token_hex(8)
    try:
        file.write_bytes(patch.encode("utf-8", "surrogateescape"))
        file.chmod(0o644)
        result = LocalShell(root, sandbox, _BARE).exec(
            f"set -- {shlex.join([str(file), mark])}{_SCRIPT}",
            SECONDS,
            memory_mb=1024,
            env={"PATH": _PROGRAMS},
            readable=(folder,),
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
            "The program patch was killed (SIGKILL), and not for a limit of its own: the machine ran out of memory, or another process ended "
            "it. Free memory, then run the same command again."
        )
    return status == "0"
