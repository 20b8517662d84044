"""Signals that end a run in order."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from looper.errors import Cancelled, ExitCode, as_called

GRACE_S = 3.0
"""How long running steps may take to end after an interruption; what they would have recorded is repeated next time."""
_REMOVE = f"""trap '' INT TERM HUP
for place; do mv -- "$place" "$place.$$"; rm -rf -- "$place.$$" || {{ chmod -R u+rwx -- "$place.$$"; rm -rf -- "$place.$$"; }}; done 2>/dev/null
exit {int(ExitCode.INTERRUPTED)}
"""
"""Under another name first: the next run may begin at once, and makes its own."""


class Stop(threading.Event):
    """Set when somebody wants this process to end."""

    def __init__(self, said: str, *, heeded: bool) -> None:
        super().__init__()
        self.said = said
        """What whoever asked is told."""
        self.heeded = heeded
        """Whether somebody looks at the event; where nobody does, a signal is raised in the main thread."""
        self.places: list[Path] = []
        """Folders that are removed where the process ends in the middle of a step, which has trees there."""


@contextlib.contextmanager
def interruptible(stop: Stop) -> Iterator[None]:
    """The first signal ends the run in order, within a few seconds; a second one at once. Either way a line says so.

    Leaving in the middle of a step is safe: every record is on the disk when it is made, commands and model processes
    end with the process that started them, and what they worked in is removed, by the next run where not now.
    """

    if threading.current_thread() is not threading.main_thread():
        # Only the main thread may say what a signal does, and where it serves others it has said so.
        yield
        return

    def leave() -> None:
        os.write(
            2, f"\nlooper: {as_called(stop.said)}\n".encode()
        )  # The main thread may be in the middle of a write.
        if stop.places:
            # In this process's place: no thread of it is left that could judge a tree which is being removed.
            with contextlib.suppress(OSError):
                os.execv("/bin/sh", ["/bin/sh", "-c", _REMOVE, "leave", *map(str, stop.places)])
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
        # A process that is ending has no need of a second signal, which by default would end it without a word.
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if stop.is_set() else handler)
