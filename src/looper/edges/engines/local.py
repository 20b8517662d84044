"""Cells on this machine, a few at a time."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator

from looper.errors import Cancelled
from looper.protocols import Item, Result
from looper.records.job import CellJob, Event


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
        waiting: queue.SimpleQueue[Item] = queue.SimpleQueue()
        count = 0
        for item in items:
            waiting.put(item)
            count += 1
        said: queue.SimpleQueue[tuple[Result, threading.Event] | BaseException | None] = queue.SimpleQueue()
        ended = threading.Event()

        def tell(result: Result) -> None:
            heard = threading.Event()
            said.put((result, heard))
            # Looked at after it was put: what comes too late for the last look at the queue is not waited for.
            if not ended.is_set():
                heard.wait()
            if ended.is_set():
                raise Cancelled

        def worker() -> None:
            while not ended.is_set():
                try:
                    item = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    work(item, tell)
                    said.put(None)
                except BaseException as error:  # Carried to the caller, who decides.
                    said.put(error)

        for number in range(min(self._workers, count)):
            threading.Thread(target=worker, name=f"worker-{number}", daemon=True).start()
        heard = threading.Event()
        try:
            while count:
                match said.get():
                    case None:
                        count -= 1
                    case BaseException() as error:
                        raise error
                    case result, heard:
                        yield result
                        heard.set()
        finally:
            ended.set()
            heard.set()
            while not said.empty():
                if isinstance(left := said.get(), tuple):
                    left[1].set()


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
