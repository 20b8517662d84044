"""A campaign's events on the disk: written one at a time by whoever holds the lock, read by anybody."""

import contextlib
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from looper.errors import JournalError, RunBusy
from looper.evolution.state import State, after, folded
from looper.journal import Damage, RunLock, Stream, read_stream
from looper.records.generation import Event, Happened

WAIT_S = 30.0
"""For the lock: it is held for as long as one event takes to write."""
NAME = "events"


class EventLog:
    """The events of one repository. Several processes may write; each event is decided on what all others have written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def events(self) -> list[Event]:
        """Takes no lock. Raises JournalError where a line before the last is damaged: what follows would be folded on a lie."""
        damage: list[Damage] = []
        found = list(read_stream(self.folder, NAME, Event, damage))
        if damage:
            raise JournalError(
                f"{self.folder / f'{NAME}.jsonl'} line {damage[0].line} is damaged ({damage[0].reason}). Put the line back from a "
                "copy, or move the folder away and begin a new campaign."
            )
        return found

    def state(self) -> State:
        return folded(self.events())

    def record(self, decide: Callable[[State], Happened]) -> Event:
        """Let `decide` see where everything stands and say what happens; on the disk when this returns, and nobody else has written
        in between. Raises what `decide` raises, NotAllowed for what cannot follow, RunBusy where the lock cannot be had."""
        with contextlib.closing(self._locked()):
            state = self.state()
            event = Event(happened=decide(state), at=datetime.now(UTC).isoformat(timespec="seconds"))
            after(state, event)
            with contextlib.closing(Stream(self.folder, NAME, Event)) as stream:
                stream.append(event)
            return event

    def _locked(self) -> RunLock:
        until = time.monotonic() + WAIT_S
        while True:
            try:
                return RunLock(self.folder, "ledger")
            except RunBusy:
                if time.monotonic() > until:
                    raise
                time.sleep(0.01)
