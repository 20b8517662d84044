"""An author at work in a process of its own, which can die without taking anybody along."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

POLL_S = 0.05
GRACE_S = 10.0
"""From asking a process to end to ending it."""
TAIL_BYTES = 2_000


class LabProcess:
    """One run of this very program with other arguments, in a process group of its own; what it says goes to a file."""

    def __init__(self, arguments: Sequence[str], log: Path, variables: Mapping[str, str]) -> None:
        """`variables` are added to this process's own environment."""
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        with log.open("ab") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "looper.cli.main", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
                env={**os.environ, **variables},
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait(self, longest_s: float, cancelled: Callable[[], bool]) -> int | None:
        """Its exit code, negative for a signal; None where it took too long. It is ended then, and where somebody cancels."""
        until = time.monotonic() + longest_s
        while (code := self._process.poll()) is None:
            if cancelled() or time.monotonic() > until:
                end_group(self.pid)
                self._process.wait()
                return None
            time.sleep(POLL_S)
        return code

    def tail(self) -> str:
        """The end of what it said, in one line."""
        if not self._log.is_file():
            return ""
        return " ".join(self._log.read_bytes()[-TAIL_BYTES:].decode(errors="replace").split())


def end_group(pid: int) -> None:
    """Ask a process group to end, and end it where it does not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            return
        until = time.monotonic() + GRACE_S
        while time.monotonic() < until:
            try:
                # A child of ours is gone only once it was waited for.
                if os.waitpid(pid, os.WNOHANG)[0] == pid:
                    return
            except ChildProcessError:
                pass
            try:
                os.killpg(pid, 0)
            except ProcessLookupError:
                return
            time.sleep(POLL_S / 4)
