"""Cells on this machine, a few at a time."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator

from looper.protocols import Item, Result
from looper.records.job import CellJob, Event


class Threads:
    """Worker threads. A rollout waits for processes nearly all of its time: model, sandbox, tests are all outside."""

    def __init__(self, workers: int) -> None:
        self._workers = workers

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """The first exception ends the iteration at once; work that has begun is not waited for."""
        waiting: queue.SimpleQueue[Item] = queue.SimpleQueue()
        count = 0
        for item in items:
            waiting.put(item)
            count += 1
        done: queue.SimpleQueue[tuple[Result | None, BaseException | None]] = queue.SimpleQueue()
        ended = threading.Event()

        def worker() -> None:
            while not ended.is_set():
                try:
                    item = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    done.put((work(item), None))
                except BaseException as error:  # Carried to the caller, who decides.
                    done.put((None, error))

        for number in range(min(self._workers, count)):
            threading.Thread(target=worker, name=f"worker-{number}", daemon=True).start()
        try:
            for _ in range(count):
                result, error = done.get()
                if error is not None:
                    raise error
                yield result  # type: ignore[misc]  # None only beside an error.
        finally:
            ended.set()


class LocalEngine:
    """Each lane in one of the threads of this process, whose jobs share their models."""

    def __init__(self, threads: Threads, work: Callable[[CellJob, Callable[[Event], None]], object]) -> None:
        """`work` makes one attempt and tells its events."""
        self._threads, self._work = threads, work

    def run(self, lanes: Iterable[Iterable[CellJob]], record: Callable[[Event], None]) -> None:
        def one(lane: Iterable[CellJob]) -> None:
            for job in lane:
                self._work(job, record)

        for _ in self._threads.map(one, lanes):
            pass
