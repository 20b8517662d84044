"""Runs uv, which comes with Looper, keeps what it says, and names what to do where it fails."""

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from uv import find_uv_bin

from looper.errors import EnvironmentBroken

TIMEOUT_S = 1800
HTTP_TIMEOUT_S = "300"
"""Of one read; a machine that is busy with tests does not read for longer than uv's own 30 s."""
LINE_CHARACTERS = 200
"""Of a line that it said, where it failed."""
FULL = "The disk is full: make room, or name another place with LOOPER_HOME and, for uv's cache, with UV_CACHE_DIR."
_ADVICE = (
    (r"No space left on device|os error 28\b|[Dd]isk quota|os error 122\b", FULL),
    (
        r"[Nn]etwork (was|connectivity is) disabled",
        "uv is told to stay off the network, and its cache does not hold this: unset UV_OFFLINE, or `offline` in uv's own settings.",
    ),
    (
        r"exclude-newer",
        "uv is told to leave out what was published after a day: unset UV_EXCLUDE_NEWER, or `exclude-newer` in uv's own settings.",
    ),
    (
        r"[Ff]ailed to (fetch|download)|error sending request|dns error|tcp connect error|timed out|certificate",
        "The package index does not answer: check the network, or name another with UV_DEFAULT_INDEX (uv does not read pip's settings).",
    ),
    (
        r"not found in the package registry|there is no version of|no versions? of|no wheels with a matching",
        "The package index does not have all of the frozen list: name a complete one with UV_DEFAULT_INDEX.",
    ),
    (
        r"[Ff]ailed to build|[Bb]uild backend failed",
        "It has to be compiled here: looper bench prepare --fix prints what installs a compiler.",
    ),
)
"""By what uv says; the first that fits."""


def run_uv(
    arguments: Sequence[str | Path], log: Path, what: str, variables: dict[str, str] | None = None
) -> str:
    """Standard output; all else is added to `log`. Raises EnvironmentBroken, in one line with what to do and where the log lies."""
    argv = [find_uv_bin(), *map(str, arguments)]
    environment = {
        "UV_HTTP_TIMEOUT": HTTP_TIMEOUT_S,
        **os.environ,
        "NO_COLOR": "1",
        # What it says is read by lines, and it breaks them at the width of a terminal.
        "COLUMNS": "1000",
        "UV_NO_PROGRESS": "1",
        **(variables or {}),
    }
    with log.open("ab") as stream:
        begin = stream.tell()
        try:
            # Beside the log, since uv takes settings from the folder that it is run in.
            done = subprocess.run(
                argv,
                cwd=log.parent,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=stream,
                timeout=TIMEOUT_S,
            )
        except subprocess.TimeoutExpired as error:
            raise EnvironmentBroken(f"{what} took more than {TIMEOUT_S} s. The whole log: {log}.") from error
    if done.returncode != 0:
        said = log.read_bytes()[begin:].decode("utf-8", "replace")
        raise EnvironmentBroken(f"{what} failed: {_told(said)} {advice(said)}The whole log: {log}.")
    return done.stdout.decode("utf-8", "replace")


def _told(said: str) -> str:
    """The first and the last line of an error: what failed, and the cause below all others."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    begin = next((at for at, line in enumerate(lines) if line.startswith(("error", "×"))), 0)
    first, *others = lines[begin:] or ["uv ended without a word"]
    return (
        " / ".join(
            line[:LINE_CHARACTERS].removeprefix("error: ").rstrip(".") for line in (first, *others[-1:])
        )
        + "."
    )


def advice(said: str) -> str:
    """What to do about what uv said, with a blank after it; empty where that is not known."""
    return next((f"{words} " for pattern, words in _ADVICE if re.search(pattern, said)), "")
