"""Runs git on what the harness owns, deaf to the configuration of user and system. A repository's own is heeded: one that somebody
else made is read as `mirrors.reading` does."""

import errno
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
NETWORK = (
    *("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "CURL_CA_BUNDLE"),
)
"""Variables that say how a machine reaches servers."""
_SETTINGS = (
    "core.hooksPath=/dev/null", "core.fsmonitor=false", "core.autocrlf=false", "core.quotePath=true",
    "safe.directory=*", "diff.external=", "gc.auto=0", "init.defaultBranch=main",
    "protocol.file.allow=always",
)  # fmt: skip
_LACKS = "|".join(
    re.escape(os.strerror(code))
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE)
)
_OF_THE_MACHINE = re.compile(
    r"(fatal|error): ((unable|cannot|could not|failed) to (?!read )|cannot |could not |write error|closing |opening |sha1 file |"
    rf"error when |copy-fd|mmap).*: ({_LACKS})"
)
"""The last line of an error that says nothing of what git was given. Lines of a patch, which git quotes at the end of others of its
words, and paths end as they like."""
_CRASHES = (-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT, -signal.SIGXCPU)
"""How a program ends that gets no more memory or time and does not say so."""


@dataclass(frozen=True)
class Most:
    """What git may take for work whose size whoever made its input has chosen; beyond that it refuses, alone or not."""

    kib: int
    """Of address space, where the system has such a limit."""
    cpu_s: int


def git(
    arguments: Sequence[str],
    *,
    cwd: Path,
    stdin: bytes | None = None,
    accept: Sequence[int] = (0,),
    timeout_s: float = 600,
    variables: Mapping[str, str] | None = None,
    most: Most | None = None,
    inherited: Sequence[str] = (),
) -> bytes:
    """Standard output of one git command; `variables` are added to its environment, as for an index of its own, and of this process's
    those that are named as `inherited`. Raises GitRefused for
    git's own no and where it needs more than `most`, WorkspaceError where it was ended from outside, took too long or the machine
    lacked something, or MissingTool where git is not installed."""
    executable = program("git")
    if executable is None:
        raise MissingTool(
            "git is not installed. Install it (Debian: apt-get install git; macOS: xcode-select --install)."
        )
    settings = [part for setting in _SETTINGS for part in ("-c", setting)]
    try:
        done = subprocess.run(
            [*_limited(most), executable, *settings, *arguments],
            cwd=cwd,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            env={
                **_ENVIRONMENT,
                **{name: os.environ[name] for name in inherited if name in os.environ},
                **(variables or {}),
            },
            timeout=timeout_s,
            # Of what it makes others read: the user whom commands run as.
            umask=0o022,
        )
    except subprocess.TimeoutExpired as error:
        raise WorkspaceError(f"git {arguments[0]} took more than {timeout_s:.0f} s in {cwd}.") from error
    if done.returncode not in accept:
        said = (done.stderr.decode(errors="replace").strip() or _ended(done.returncode)).split("\n")
        crashed = most is not None and done.returncode in _CRASHES
        refused = (done.returncode > 0 or crashed) and not _OF_THE_MACHINE.fullmatch(said[-1])
        kind = GitRefused if refused else WorkspaceError
        raise kind(f"git {arguments[0]} failed in {cwd}: {said[-1]}.")
    return done.stdout


def _ended(code: int) -> str:
    return f"it was ended by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"


def _limited(most: Most | None) -> list[str]:
    if most is None:
        return []
    limits = f"ulimit -v {most.kib} 2>/dev/null; ulimit -S -t {most.cpu_s}"
    return ["/bin/sh", "-c", f'{limits}; exec "$@"', "git"]
