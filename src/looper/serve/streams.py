"""Server-sent events: few streams at a time, each with ids that a browser comes back with."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from looper.errors import LooperError

STREAMS = 8
"""At a time. A browser holds six connections to one server, and a page needs one."""
HEARTBEAT_S = 15.0
"""So that both sides notice a connection that is gone."""
LIFE_S = 3600.0
"""After so long a stream ends; a browser that still looks comes back by itself."""

Event = tuple[str, str, Any]
"""Id, empty for none; name; data."""


class StreamSlots:
    def __init__(self) -> None:
        self._free = STREAMS

    def take(self) -> bool:
        if not self._free:
            return False
        self._free -= 1
        return True

    def give_back(self) -> None:
        self._free += 1


def encoded(event: Event) -> bytes:
    number, name, data = event
    head = f"id: {number}\n" if number else ""
    return f"{head}event: {name}\ndata: {json.dumps(data)}\n\n".encode()


class EventStream(StreamingResponse):
    """Holds a place in `slots`, which has been taken for it, and gives it back at its end, however that comes."""

    def __init__(self, slots: StreamSlots, events: AsyncIterator[Event]) -> None:
        super().__init__(_lines(events), media_type="text/event-stream")
        self._slots = slots

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._slots.give_back()


async def _lines(events: AsyncIterator[Event]) -> AsyncIterator[bytes]:
    now = asyncio.get_running_loop().time
    until = now() + LIFE_S
    yield b"retry: 2000\n\n"
    pending = asyncio.ensure_future(anext(events))
    try:
        while now() < until:
            done, _ = await asyncio.wait({pending}, timeout=HEARTBEAT_S)
            if not done:
                yield b": still here\n\n"
                continue
            try:
                event = pending.result()
            except StopAsyncIteration:
                return
            except LooperError as error:
                yield encoded(("", "fault", {"message": str(error)}))
                return
            pending = asyncio.ensure_future(anext(events))
            yield encoded(event)
    finally:
        pending.cancel()
