"""Runs git on what the harness owns, deaf to every configuration but its own."""

import errno
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from looper.edges.sandboxes.process import program
from looper.errors import GitRefused, MissingTool, WorkspaceError

_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin:/usr/local/bin:/opt/homebrew/bin",
    "HOME": "/nonexistent",
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "looper",
    "GIT_AUTHOR_EMAIL": "looper@localhost",
    "GIT_AUTHOR_DATE": "2000-01-01T00:00:00Z",
    "GIT_COMMITTER_NAME": "looper",
    "GIT_COMMITTER_EMAIL": "looper@localhost",
    "GIT_COMMITTER_DATE": "2000-01-01T00:00:00Z",
}
_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.autocrlf=false",
    "core.quotePath=true",
    "safe.directory=*",
    "diff.external=",
    "gc.auto=0",
    "init.defaultBranch=main",
    "protocol.file.allow=always",
)
_OF_THE_MACHINE = tuple(
    f": {os.strerror(code)}"
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE)
)
"""How the last line of an error ends that says nothing of what git was given; a path of a patch stands before it."""
_CRASHES = (-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT)
"""How a program ends that gets no more memory and does not say so."""


def git(
    arguments: Sequence[str],
    *,
    cwd: Path,
    stdin: bytes | None = None,
    accept: Sequence[int] = (0,),
    timeout_s: float = 600,
    variables: Mapping[str, str] | None = None,
    most_kib: int | None = None,
) -> bytes:
    """Standard output of one git command; `variables` are added to its environment, as for an index of its own, and `most_kib` is
    its address space, where the system has such a limit. Raises GitRefused for git's own no, WorkspaceError where it was ended from
    outside, took too long or the machine lacked something, or MissingTool where git is not installed."""
    executable = program("git")
    if executable is None:
        raise MissingTool(
            "git is not installed. Install it (Debian: apt-get install git; macOS: xcode-select --install)."
        )
    settings = [part for setting in _SETTINGS for part in ("-c", setting)]
    try:
        done = subprocess.run(
            [*_limited(most_kib), executable, *settings, *arguments],
            cwd=cwd,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            env={**_ENVIRONMENT, **(variables or {})},
            timeout=timeout_s,
            # Of what it makes others read: the user whom commands run as.
            umask=0o022,
        )
    except subprocess.TimeoutExpired as error:
        raise WorkspaceError(f"git {arguments[0]} took more than {timeout_s:.0f} s in {cwd}.") from error
    if done.returncode not in accept:
        said = done.stderr.decode(errors="replace").strip().splitlines() or [str(done.returncode)]
        crashed = most_kib is not None and done.returncode in _CRASHES
        refused = (done.returncode > 0 or crashed) and not said[-1].endswith(_OF_THE_MACHINE)
        kind = GitRefused if refused else WorkspaceError
        raise kind(f"git {arguments[0]} failed in {cwd}: {said[-1]}.")
    return done.stdout


def _limited(most_kib: int | None) -> list[str]:
    return (
        [] if most_kib is None else ["/bin/sh", "-c", f'ulimit -v {most_kib} 2>/dev/null; exec "$@"', "git"]
    )
