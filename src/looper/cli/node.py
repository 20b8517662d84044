"""A worker process of a cluster: attempts at cells of a run whose specification is all that it is given."""

import atexit
import contextlib
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from looper.cli.settings import settings
from looper.cli.site import run_context_elsewhere
from looper.errors import Cancelled, InfrastructureError, LooperError, named
from looper.experiment.cell import RunContext, run_cell
from looper.records.job import CellJob, Event, RunSpec, Told

LOOKED_S = 0.5
"""How often an attempt that waits looks whether this process is to end."""


@dataclass(frozen=True)
class _Place:
    """What this process runs cells of one run with; it makes one attempt at a time."""

    run_context: RunContext
    stop: threading.Event
    """Set when this process is to end."""
    told: "queue.SimpleQueue[tuple[Told, threading.Event] | None]"
    """With each an event that is set when it is durable; None when the attempt is over."""


@cache
def _place(spec: bytes) -> _Place:
    """Raises whatever keeps this machine from running these cells."""
    told: queue.SimpleQueue[tuple[Told, threading.Event] | None] = queue.SimpleQueue()
    stack = contextlib.ExitStack()
    run_context, stop = stack.enter_context(
        run_context_elsewhere(
            RunSpec.from_json(spec),
            settings(),
            lambda said: told.put((("said", said.encode()), threading.Event())),
        )
    )
    atexit.register(stack.close)
    return _Place(run_context, stop, told)


def attempt(spec: bytes, job: bytes) -> Iterator[Told | None]:
    """What one attempt tells, each followed by None, whose taking says that what it told is durable."""
    try:
        place = _place(spec)
    except Exception as error:
        yield "unfit", named(error).encode()
        yield None
        return

    def tell(event: Event) -> None:
        durable = threading.Event()
        place.told.put(((type(event).__name__, event.to_json()), durable))
        while not durable.wait(LOOKED_S):
            if place.stop.is_set():
                raise Cancelled

    def make() -> None:
        try:
            run_cell(CellJob.from_json(job), place.run_context, tell, place.stop.is_set)
        except Cancelled:
            pass  # This process was told to end, and not by the run: without a verdict the attempt is one that was lost.
        except LooperError as error:
            place.told.put(((type(error).__name__, str(error).encode()), threading.Event()))
        except Exception as error:  # Else nobody would learn why: Ray drops what a worker prints.
            place.told.put(((InfrastructureError.__name__, named(error).encode()), threading.Event()))
        finally:
            place.told.put(None)

    threading.Thread(target=make, name="attempt", daemon=True).start()
    while (found := place.told.get()) is not None:
        told, durable = found
        yield told
        yield None
        durable.set()
