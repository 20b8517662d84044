"""A worker process of a cluster: attempts at cells of a run whose specification is all that it is given."""

import contextlib
import queue
import threading
from collections.abc import Sequence

from looper.cli.settings import settings
from looper.cli.site import run_context_elsewhere
from looper.errors import Cancelled, InfrastructureError, LooperError, named
from looper.experiment.cell import RunContext, run_cell
from looper.records.job import CellJob, Event, RunSpec, Told
from looper.records.trajectory import Step

LOOKED_S = 0.5
"""How often an attempt that waits looks whether this process is to end."""
ENDED_S = 3.0
"""How long an attempt may take to end in order."""


class NodeWorker:
    """One attempt at a time, for a process elsewhere that asks what it tells and writes it."""

    def __init__(self, spec: bytes) -> None:
        """Of the run's specification, as JSON; what its cells need is made with the first attempt, and kept."""
        self._spec = spec
        self._stack = contextlib.ExitStack()
        self._run_context: RunContext | None = None
        self._stop = threading.Event()
        self._told: queue.SimpleQueue[Told | None] = queue.SimpleQueue()
        """None when an attempt is over."""
        self._durable = threading.Event()
        self._waited = False
        """Whether the last that was told is a step."""
        self._attempt: threading.Thread | None = None

    def begin(self, job: bytes) -> tuple[Sequence[Told], bool]:
        """What an attempt tells until the first step, which it acts on when that is durable, or until it has something to say to
        people; and whether it is over."""
        self._attempt = threading.Thread(target=self._make, args=(job,), name="attempt", daemon=True)
        self._attempt.start()
        return self._until()

    def go_on(self) -> tuple[Sequence[Told], bool]:
        """The same from there: whatever it told is durable."""
        if self._waited:
            self._durable.set()
        return self._until()

    def end(self) -> None:
        """End the attempt that is being made, without a verdict, and remove what this process made for its cells."""
        self._stop.set()
        if self._attempt is not None:
            self._attempt.join(ENDED_S)
            if self._attempt.is_alive():
                return  # Its trees are removed by the next process here: it may be judging one.
        self._stack.close()

    def _until(self) -> tuple[Sequence[Told], bool]:
        told = list[Told]()
        while (found := self._told.get()) is not None:
            told.append(found)
            self._waited = found[0] == Step.__name__
            if self._waited or found[0] == "said":
                return told, False
        return told, True

    def _make(self, job: bytes) -> None:
        try:
            if self._run_context is None:
                self._run_context = self._prepared()
        except Exception as error:  # Whatever keeps this machine from running these cells.
            self._told.put(("unfit", named(error).encode()))
            self._told.put(None)
            return
        try:
            run_cell(CellJob.from_json(job), self._run_context, self._tell, self._stop.is_set)
        except Cancelled:
            pass  # This process was told to end, and not by the run: without a verdict the attempt is one that was lost.
        except LooperError as error:
            self._told.put((type(error).__name__, str(error).encode()))
        except Exception as error:  # Else nobody would learn why: Ray drops what a worker prints.
            self._told.put((InfrastructureError.__name__, named(error).encode()))
        finally:
            self._told.put(None)

    def _prepared(self) -> RunContext:
        context = run_context_elsewhere(
            RunSpec.from_json(self._spec), settings(), lambda said: self._told.put(("said", said.encode()))
        )
        return self._stack.enter_context(context)

    def _tell(self, event: Event) -> None:
        if self._stop.is_set():
            raise Cancelled
        self._durable.clear()
        self._told.put((type(event).__name__, event.to_json()))
        # The rollout as a whole is followed by its verdict, and nothing of either is acted on outside of this process.
        while isinstance(event, Step) and not self._durable.wait(LOOKED_S):
            if self._stop.is_set():
                raise Cancelled
