"""One look at all runs and campaigns for everybody who watches; none where nobody does."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from looper.serve.streams import Event
from looper.views.live import Projection

LOOK_S = 1.0
SHARE = 0.01
"""Of one core: looking takes no more, however much there is to look at, so nobody's run is slower for being watched."""
BEHIND = 100
"""Events that wait for a slow reader; in their place it is told everything anew after that."""
CLOCKS = ("quiet_s", "left_s", "phases_left_s")
"""What changes by itself as time goes by."""


class Watcher:
    """Tells its listeners which runs have changed."""

    def __init__(self, projection: Projection) -> None:
        self._projection = projection
        self._listeners: set[asyncio.Queue[Event | None]] = set()
        self._task: asyncio.Task[None] | None = None

    async def listen(self) -> AsyncIterator[Event]:
        """`status` with everything first, then `changed` with each run that is different."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        # Listening comes first, or what changes in between would never be told.
        self._listeners.add(queue)
        try:
            status = await asyncio.to_thread(self._projection.status)
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._look(_by_name(status)))
                self._task.add_done_callback(_said)
            yield "", "status", status
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self._listeners.discard(queue)

    async def _look(self, before: dict[str, Any]) -> None:
        took = 0.0
        try:
            while self._listeners:
                await asyncio.sleep(max(LOOK_S, took / SHARE))
                status, took = await asyncio.to_thread(self._timed)
                now = _by_name(status)
                changed = [run for name, run in now.items() if not _alike(run, before.get(name))]
                gone = sorted(before.keys() - now.keys())
                if changed or gone:
                    self._tell(("", "changed", {"runs": changed, "gone": gone}), status)
                before = now
        finally:
            # Whatever ended looking: streams end too, and browsers come back to a new look.
            for queue in self._listeners:
                queue.put_nowait(None)

    def _timed(self) -> tuple[dict[str, Any], float]:
        """Every run, and the processor's seconds that looking took."""
        begun = time.thread_time()
        found = self._projection.status()
        return found, time.thread_time() - begun

    def _tell(self, event: Event, status: dict[str, Any]) -> None:
        everything: Event = ("", "status", status)
        for queue in self._listeners:
            behind = queue.qsize() > BEHIND
            while behind and not queue.empty():
                queue.get_nowait()
            queue.put_nowait(everything if behind else event)


def _said(task: asyncio.Task[None]) -> None:
    """Say what ended looking, once and here: asyncio would do so whenever the task is collected."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logging.getLogger("looper.serve").error(
            "Looking at the runs failed: %s: %s", type(error).__name__, error
        )


def _by_name(status: dict[str, Any]) -> dict[str, Any]:
    return {run["run"]: run for run in status["runs"]}


def _alike(now: dict[str, Any], before: dict[str, Any] | None) -> bool:
    return before is not None and all(now[key] == before.get(key) for key in now if key not in CLOCKS)


class EventBuffer:
    """Events of a conversation, for those who listen now and those who come back."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._more = asyncio.Event()

    def tell(self, name: str, data: dict[str, Any]) -> None:
        """On the event loop's own thread."""
        self._events.append((str(len(self._events) + 1), name, data))
        self._more.set()
        self._more = asyncio.Event()

    async def since(self, seen: int) -> AsyncIterator[Event]:
        yield "", "connected", {}
        while True:
            more = self._more
            for event in self._events[seen:]:
                seen += 1
                yield event
            if len(self._events) == seen:
                await more.wait()


async def growing(read: Callable[[], list[Event]], seen: int) -> AsyncIterator[Event]:
    """What `read` gives, from the event after number `seen` on, without end; it gives all events so far, each time."""
    yield "", "connected", {}
    while True:
        events = await asyncio.to_thread(read)
        for event in events[seen:]:
            yield event
        seen = max(seen, len(events))
        await asyncio.sleep(LOOK_S)
