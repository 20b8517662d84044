"""How long a model server has been waited for in vain, over all requests of a run: ten minutes in all are no ten minutes each."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Outage:
    """The outage of one server, shared by everything that asks it, in any thread.

    Its clock runs while anybody waits, however many do, and stands still while nobody asks. It is over when each kind of question
    that failed has been answered again: a server that lists its models and completes nothing is still out.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failing: set[str] = set()
        self._waiting = 0
        self._before_s, self._resumed = 0.0, 0.0

    @contextmanager
    def waited_for(self, clock: Callable[[], float]) -> Iterator[None]:
        """While somebody asks again. The clock gives seconds."""
        with self._lock:
            if not self._waiting:
                self._resumed = clock()
            self._waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1
                if not self._waiting:
                    self._before_s += clock() - self._resumed

    def failed(self, kind: str, now: float) -> float:
        """Seconds of this outage so far, in which a question of this kind was not answered; it is being waited for."""
        with self._lock:
            self._failing.add(kind)
            return self._before_s + now - self._resumed

    def answered(self, kind: str, now: float) -> None:
        with self._lock:
            self._failing.discard(kind)
            if not self._failing:
                self._before_s, self._resumed = 0.0, now
