"""How many requests are on their way to one model server: what answers thirty at once may answer otherwise than it answers one."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class RequestsInFlight:
    """Requests of one run to one server; shared by everything that asks it, in any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = 0

    @contextmanager
    def one_more(self) -> Iterator[int]:
        """While a request is on its way: how many are, itself among them, at the moment it is asked."""
        with self._lock:
            self._now += 1
            now = self._now
        try:
            yield now
        finally:
            with self._lock:
                self._now -= 1
