"""How far a run is, on a terminal or in a log.

`RunProgress` counts the cells of a stage, `TrainingProgress` the iterations of each training, `Spoken` says what goes on where neither has said
anything for ten seconds, and `Waits` why a rollout waits. All but the first get what they say through the run's own `say`.
"""

import contextlib
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from looper.records.plan import Cell
from looper.records.text import counted
from looper.records.training import TrainingEvent
from looper.records.verdict import Outcome, Verdict
from looper.views.show import duration

LOG_EVERY_S = 10.0


class RunProgress:
    """A bar where there is a terminal, else a line every few seconds; both on standard error, both with an estimate."""

    def __init__(self, folder: Path, name: str, *, total: int, todo: int, later: int | None = None) -> None:
        """`name` of the phase; empty where there is one alone. `later` counts the cells of phases after it, where it is known that there
        are some, and is 0 in the last of several."""
        self._total, self._todo, self._done, self._name = total, todo, 0, f"{name}{' ' * bool(name)}"
        self._of_what = " of this phase" if later is not None else ""
        self._counts: Counter[str] = Counter()
        self._begun = self._logged = self._ended = time.monotonic()
        self._lock, self._over = threading.Lock(), threading.Event()
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        console = Console(stderr=True)
        after = f"; after this phase {counted(later, 'cell')} to evaluate" if later else ""
        if todo:
            # Not by the console, which would break the line somewhere in a long path.
            print(
                f"{folder}: {self._name}{counted(total, 'cell')}, {total - todo} done before, {todo} to do"
                f"{after}",
                file=sys.stderr,
                flush=True,
            )
        if todo and console.is_terminal:
            columns = (
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.description}"),
            )
            self._bar = Bar(*columns, console=console, transient=True)
            self._task = self._bar.add_task(name, total=total, completed=total - todo)

    def finished(self, cell: Cell, verdict: Verdict) -> None:
        with self._lock:
            self._done += 1
            self._counts[verdict.outcome.value] += 1
            self._ended = now = time.monotonic()
            if self._bar is not None and self._task is not None:
                self._bar.update(self._task, advance=1, description=f"{self._name}{self._state(now)}")
            elif now - self._logged >= LOG_EVERY_S or self._done == self._todo:
                self._log(now)

    def _log(self, now: float) -> None:
        self._logged = now
        before = self._total - self._todo
        print(
            f"{self._name}{before + self._done}/{counted(self._total, 'cell')}, {self._state(now)}",
            file=sys.stderr,
            flush=True,
        )

    def _state(self, now: float) -> str:
        words = [f"{self._counts[outcome]} {outcome}" for outcome in Outcome if self._counts[outcome]]
        if words and self._todo < self._total:
            words[0] = f"since it was resumed {words[0]}"
        if now - self._ended >= LOG_EVERY_S:
            words.append(f"none ended for {duration(now - self._ended)}")
        if self._done:
            left = (now - self._begun) / self._done * (self._todo - self._done)
            words.append(f"about {duration(left)} left{self._of_what}")
        return ", ".join(words)

    def _keep_saying(self) -> None:
        """A cell may take minutes; whoever looks at the lines sees that somebody is at it."""
        while not self._over.wait(1.0):
            with self._lock:
                now = time.monotonic()
                if now - self._logged >= LOG_EVERY_S:
                    self._log(now)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        elif self._todo:
            threading.Thread(target=self._keep_saying, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._bar is not None:
            self._bar.stop()


class Spoken:
    """What is said of a run. While something is `during`, no silence is longer than ten seconds. Safe for several threads."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._said = say, time.monotonic()

    def __call__(self, line: str) -> None:
        self._said = time.monotonic()
        self._say(line)

    @contextlib.contextmanager
    def during(self, what: str) -> Iterator[None]:
        """`what` is going on, and is said with its seconds wherever nothing else was."""
        over, begun = threading.Event(), time.monotonic()

        def keep_saying() -> None:
            while not over.wait(0.1 * LOG_EVERY_S):
                if (now := time.monotonic()) - self._said >= 0.75 * LOG_EVERY_S:
                    self(f"{what}, for {duration(now - begun)}")

        self._said = begun
        threading.Thread(target=keep_saying, daemon=True).start()
        try:
            yield
        finally:
            over.set()


class Waits:
    """Says what a run waits for, once in a while however many rollouts wait for the same. Safe for several threads."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock = say, clock
        self._due: dict[str, float] = {}
        self._lock = threading.Lock()

    def __call__(self, why: str, seconds: float) -> None:
        now = self._clock()
        with self._lock:
            if now < self._due.get(why, now):
                return
            self._due[why] = (
                now + 0.75 * LOG_EVERY_S
            )  # Waits tell every few seconds, and no silence may be longer.
        self._say(f"{why} Asking again in {seconds:.0f} s.")


class TrainingProgress:
    """A line every few seconds for each training, and one at its end."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._begun: dict[str, tuple[float, int]] = {}
        self._logged: dict[str, float] = {}
        self._loss: dict[str, float] = {}

    def __call__(self, what: str, event: TrainingEvent) -> None:
        now = time.monotonic()
        if event.event == "loaded":
            self._begun[what], self._logged[what] = (now, event.iteration), now
        elif event.event == "loss" and event.loss is not None:
            self._loss[what] = event.loss
            if now - self._logged.get(what, now) >= LOG_EVERY_S:
                self._logged[what] = now
                begun, first = self._begun[what]
                left = (now - begun) / (event.iteration - first) * (event.iterations - event.iteration)
                self._say(
                    f"training {what}: {event.iteration}/{event.iterations}, loss {event.loss:.3f}, "
                    f"about {duration(left)} of training left"
                )
        elif event.event == "less_memory":
            self._say(f"training {what} with less memory: {event.said}")
        elif event.event == "finished" and what in self._loss:
            self._say(
                f"trained {what}: loss {self._loss[what]:.3f}, {duration(now - self._begun[what][0])} of training"
            )
