"""This machine as a whole: keeping it awake, and one inference at a time."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from looper.errors import AcceleratorBusy, RunBusy
from looper.journal import RunLock


@contextmanager
def awake() -> Iterator[None]:
    """The machine does not fall asleep inside, where the system has a way to ask for that."""
    program = _inhibitor()
    process = (
        subprocess.Popen(
            program, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        if program
        else None
    )
    try:
        yield
    finally:
        if process is not None:
            process.terminate()
            process.wait()


def _inhibitor() -> list[str] | None:
    """A command that keeps the machine awake for as long as it and this process live."""
    if sys.platform == "darwin":
        return ["caffeinate", "-i", "-w", str(os.getpid())]
    if shutil.which("systemd-inhibit") and Path("/run/systemd/system").exists():
        waiting = ["tail", f"--pid={os.getpid()}", "-f", "/dev/null"]
        return [
            "systemd-inhibit",
            "--what=idle:sleep",
            "--who=looper",
            "--why=an experiment is running",
            *waiting,
        ]
    return None


@contextmanager
def inference_lock(state: Path) -> Iterator[None]:
    """The right to run a large model on this machine. Raises AcceleratorBusy, naming the holder.

    Two at once run out of memory or time each other out, and a timeout would be counted as a slow model.
    """
    try:
        lock = RunLock(state / "inference", "inference of this machine")
    except RunBusy as error:
        raise AcceleratorBusy(
            f"{error} Two models at once on one machine slow each other down; --share-machine runs them anyway."
        ) from error
    try:
        yield
    finally:
        lock.close()
