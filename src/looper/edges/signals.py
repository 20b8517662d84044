"""Signals that end a run in order."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

from looper.errors import Cancelled, ExitCode

GRACE_S = 3.0
"""How long running steps may take to end after an interruption; what they would have recorded is repeated next time."""


class Stop(threading.Event):
    """Set when somebody wants this process to end."""

    def __init__(self, said: str, *, heeded: bool) -> None:
        super().__init__()
        self.said = said
        """What whoever asked is told."""
        self.heeded = heeded
        """Whether somebody looks at the event; where nobody does, a signal is raised in the main thread."""


@contextlib.contextmanager
def interruptible(stop: Stop) -> Iterator[None]:
    """The first signal ends the run in order, within a few seconds; a second one at once. Either way a line says so.

    Leaving in the middle of a step is safe: every record is on the disk when it is made, commands and model processes
    end with the process that started them, and workspaces are swept by the next run.
    """

    if threading.current_thread() is not threading.main_thread():
        # Only the main thread may say what a signal does, and where it serves others it has said so.
        yield
        return

    def leave() -> None:
        os.write(2, f"\nlooper: {stop.said}\n".encode())  # The main thread may be in the middle of a write.
        os._exit(ExitCode.INTERRUPTED)

    def later() -> None:
        time.sleep(GRACE_S)
        leave()

    def handle(number: int, frame: object) -> None:
        if stop.is_set():
            leave()
        stop.set()
        threading.Thread(target=later, daemon=True).start()
        if not stop.heeded:
            raise Cancelled(stop.said)

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in signals}
    try:
        yield
    finally:
        # A process that was told to end stays with it: a second signal may come at any moment until it has.
        if not stop.is_set():
            for number, handler in before.items():
                signal.signal(number, handler)
