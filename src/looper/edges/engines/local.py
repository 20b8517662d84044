"""Cells on this machine, a few at a time."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator

from looper.errors import Cancelled
from looper.protocols import Item, Result
from looper.records.job import CellJob, Event

NOTICED_S = 0.5
"""So soon does work that is under way notice that nobody asks for what it tells."""


class Threads:
    """Worker threads. A rollout waits for processes nearly all of its time: model, sandbox, tests are all outside."""

    def __init__(self, workers: int) -> None:
        self._workers = workers

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """The first exception ends the iteration at once; work that has begun is not waited for."""
        return self.told(lambda item, tell: tell(work(item)), items)

    def told(
        self, work: Callable[[Item, Callable[[Result], None]], None], items: Iterable[Item]
    ) -> Iterator[Result]:
        """All that `work` tells of each item, as it comes: `tell` returns when the next result is asked for, or raises Cancelled where
        none will be. Exceptions as in `map`."""
        todo = list(items)
        waiting, left = iter(todo), len(todo)
        said: queue.SimpleQueue[tuple[Result, threading.Lock] | BaseException | None] = queue.SimpleQueue()
        ended = threading.Event()

        def tell(result: Result) -> None:
            heard = threading.Lock()  # An event takes twice as long.
            heard.acquire()
            said.put((result, heard))
            while not heard.acquire(timeout=NOTICED_S):
                if ended.is_set():
                    raise Cancelled

        def worker() -> None:
            for item in waiting:  # Shared by all: each item goes to one of them.
                if ended.is_set():
                    return
                try:
                    work(item, tell)
                    said.put(None)
                except BaseException as error:  # Carried to the caller, who decides.
                    said.put(error)

        for number in range(min(self._workers, left)):
            threading.Thread(target=worker, name=f"worker-{number}", daemon=True).start()
        try:
            while left:
                match said.get():
                    case None:
                        left -= 1
                    case BaseException() as error:
                        raise error
                    case result, heard:
                        yield result
                        heard.release()
        finally:
            ended.set()


class LocalEngine:
    """Each lane in one of the threads of this process, whose jobs share their models."""

    def __init__(self, threads: Threads, work: Callable[[CellJob, Callable[[Event], None]], object]) -> None:
        """`work` makes one attempt and tells its events."""
        self._threads, self._work = threads, work

    def run(self, lanes: Iterable[Iterable[CellJob]]) -> Iterator[Event]:
        def one(lane: Iterable[CellJob], tell: Callable[[Event], None]) -> None:
            for job in lane:
                self._work(job, tell)

        return self._threads.told(one, lanes)
