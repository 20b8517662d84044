"""A worker process of a cluster: attempts at cells of a run whose specification is all that it is given.

An attempt is made in a thread of its own, which waits wherever it told a step or asked for something; the calls of `NodeWorker`, made
from the run's process, take what it told and let it go on.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence

from looper.cli.settings import Settings, settings
from looper.cli.site import Elsewhere, run_context_elsewhere
from looper.cli.wiring import content_cache, shared_folder
from looper.errors import Cancelled, InfrastructureError, LooperError, named
from looper.experiment.cell import run_cell
from looper.experiment.control import control_failure
from looper.experiment.run import must_have_space
from looper.records.content import Wanted
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
        self._site: Elsewhere | None = None
        self._stop = threading.Event()
        self._told: queue.SimpleQueue[Told | None] = queue.SimpleQueue()
        """None when an attempt is over."""
        self._durable = threading.Event()
        self._waited = False
        """Whether the last that was told is a step."""
        self._given: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        """What was wanted."""
        self._beside = 0
        """Other attempts under way at the server of this one's model."""
        self._attempt: threading.Thread | None = None

    def prove(self) -> tuple[Sequence[Told], bool]:
        """Make the control cells of this machine, which no record of the run has; as `begin`."""
        return self._begun(self._make_controls)

    def begin(self, job: bytes, beside: int = 0) -> tuple[Sequence[Told], bool]:
        """What an attempt tells until the first step, which it acts on when that is durable, or until it has something to say to
        people or wants something; and whether it is over."""
        self._beside = beside
        return self._begun(lambda site: self._make(CellJob.from_json(job), site))

    def go_on(self, given: bytes | None = None, beside: int = 0) -> tuple[Sequence[Told], bool]:
        """The same from there: whatever it told is durable, and what it wanted is given."""
        self._beside = beside
        if given is not None:
            self._given.put(given)
        elif self._waited:
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
            if self._waited or found[0] in ("said", "wanted"):
                return told, False
        return told, True

    def _begun(self, work: Callable[[Elsewhere], None]) -> tuple[Sequence[Told], bool]:
        self._attempt = threading.Thread(target=self._at_work, args=(work,), name="attempt", daemon=True)
        self._attempt.start()
        return self._until()

    def _at_work(self, work: Callable[[Elsewhere], None]) -> None:
        try:
            found = settings()
            for place in (found.state, found.workspaces):
                must_have_space(shared_folder(place))
            if self._site is None:
                self._site = self._prepared(found)
            work(self._site)
        except Cancelled:
            pass  # This process was told to end, and not by the run: without a verdict the attempt is one that was lost.
        except Exception as error:  # Whatever keeps this machine from running these cells.
            self._told.put(("unfit", named(error).encode()))
        finally:
            self._told.put(None)

    def _make_controls(self, site: Elsewhere) -> None:
        begun = time.monotonic()
        if why := control_failure(site.control, site.run_context, self._stop.is_set):
            self._told.put(("unfit", why.encode()))
            return
        took = time.monotonic() - begun
        said = f"gold resolves {site.control.instance_id} and noop does not, {took:.1f} s"
        self._told.put(("control", said.encode()))

    def _make(self, job: CellJob, site: Elsewhere) -> None:
        """Raises what keeps this machine from making the attempt, before it begins."""
        if job.treatment.adapter:
            site.adapter(job.treatment.adapter)
        try:
            run_cell(job, site.run_context, self._tell, self._stop.is_set)
        except Cancelled:
            raise
        except LooperError as error:
            self._told.put((type(error).__name__, str(error).encode()))
        except Exception as error:  # Else nobody would learn why: Ray drops what a worker prints.
            self._told.put((InfrastructureError.__name__, named(error).encode()))

    def _prepared(self, found: Settings) -> Elsewhere:
        cache = content_cache(found, self._ask, self._stop.is_set, self._say)
        self._stack.callback(cache.close)
        spec = RunSpec.from_json(self._spec)
        context = run_context_elsewhere(spec, found, self._say, cache.place, lambda: self._beside)
        return self._stack.enter_context(context)

    def _say(self, said: str) -> None:
        self._told.put(("said", said.encode()))

    def _ask(self, wanted: Wanted) -> bytes:
        """Of the run's process."""
        self._told.put(("wanted", wanted.to_json()))
        while True:
            with contextlib.suppress(queue.Empty):
                return self._given.get(timeout=LOOKED_S)
            if self._stop.is_set():
                raise Cancelled

    def _tell(self, event: Event) -> None:
        if self._stop.is_set():
            raise Cancelled
        self._durable.clear()
        self._told.put((type(event).__name__, event.to_json()))
        # The rollout as a whole is followed by its verdict, and nothing of either is acted on outside of this process.
        while isinstance(event, Step) and not self._durable.wait(LOOKED_S):
            if self._stop.is_set():
                raise Cancelled
