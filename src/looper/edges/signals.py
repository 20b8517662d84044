"""Signals that end a run in order."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

from looper.errors import Cancelled, ExitCode

GRACE_S = 3.0
"""How long running steps may take to end after an interruption; what they would have recorded is repeated next time."""


@contextlib.contextmanager
def interruptible(stop: threading.Event) -> Iterator[None]:
    """The first signal ends the run in order, within a few seconds; a second one at once.

    Leaving in the middle of a step is safe: every record is on the disk when it is made, commands and model processes
    end with the process that started them, and workspaces are swept by the next run.
    """

    if threading.current_thread() is not threading.main_thread():
        # Only the main thread may say what a signal does, and where it serves others it has said so.
        yield
        return

    def later() -> None:
        time.sleep(GRACE_S)
        sys.stderr.write(f"\n{Cancelled()}\n")
        sys.stderr.flush()
        os._exit(ExitCode.INTERRUPTED)

    def handle(number: int, frame: object) -> None:
        if stop.is_set():
            os._exit(ExitCode.INTERRUPTED)
        stop.set()
        threading.Thread(target=later, daemon=True).start()

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
