"""What `looper bench validate` does.

`run_validations` judges each task with its gold patch and with none, side by side, and keeps every result at once, so that it can be
interrupted; what is printed of time goes by what tasks took before.
"""

import contextlib
import math
import os
import platform
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median

from looper.bench.validate import difference, shipped, validate
from looper.bench.verify import VERSION, TestReport, VerifierContext, verify
from looper.cli.preparing import with_environment
from looper.cli.settings import Settings
from looper.cli.wiring import Site, every_task, found_elsewhere, missing_programs, threads
from looper.errors import BadInput, InfrastructureError, TaskBroken, ends_everything, named, one_line
from looper.experiment.grading import GRADING
from looper.experiment.schedule import select_tasks
from looper.journal import RunLock, Stream, must_be_replaceable, replace_file
from looper.records.eligibility import Validation
from looper.records.plan import TaskSelection
from looper.records.task import Task
from looper.records.text import counted
from looper.untrusted import named_text
from looper.views.blocks import with_block
from looper.views.eligibility import table_lines
from looper.views.show import duration

LOG_BYTES = 64 << 20
"""Of a test run's log, to be read as the official harness does."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Validated:
    """What is known of the chosen tasks in the end."""

    counts: dict[str, int]
    """How many tasks were chosen of each repository."""
    found: list[Validation]
    """By today's rules, in the order of the suite; without tasks that could not be tried now, whatever was found of them before."""
    differences: dict[str, str]
    """From what Looper ships, by id."""
    stopped: bool
    """By somebody, before all were tried."""
    unserved: int
    """Chosen ones that no environment is known for."""
    broken: int
    """Chosen ones whose own rows say what cannot be carried out."""


def run_validations(
    selection: TaskSelection, settings: Settings, workers: int, sandbox: str, say: Say, *, fresh: bool = False
) -> Validated:
    """Validate what is not validated yet, with `fresh` all again, what takes longest first. Safe to interrupt: each task is on record when it is done.
    Raises BadInput for names that do not exist and for mirrors that are not there."""
    every, mirrors = every_task(selection, settings)
    chosen = select_tasks(every, selection, partial(found_elsewhere, selection, settings))
    tasks, unserved = with_environment(chosen, selection)
    for line in unserved:
        say(f"not runnable, {line}")
    absent = sorted({task.repo for task in tasks if f"{task.suite}:{task.repo}" not in mirrors})
    if absent:
        raise BadInput(
            f"There is no mirror of {', '.join(absent)} below {settings.mirrors}. Get it: looper bench fetch "
            f"--repo {absent[0]}; or name a folder with --mirrors."
        )
    missing = {repo: missing_programs(repo) for repo in {task.repo for task in tasks}}
    for repo, programs in sorted(missing.items()):
        if programs:
            say(
                f"{repo}: {', '.join(programs)} is not installed, and tests call it; looper bench prepare says how to get it"
            )
    folder, machine = settings.validations, described_machine()
    with contextlib.ExitStack() as stack:
        lock = RunLock(folder, "folder of validations")
        stack.callback(lock.close)
        stream = Stream(folder, "validations", Validation)
        stack.callback(stream.close)
        site = Site(mirrors, settings, sandbox, say)
        stop = stack.enter_context(site.occupied(folder))
        kept = {} if fresh else {found.key: found for found in stream.recovered}
        latest = dict[str, Validation]()

        # A task has two judgements side by side, and no more than `workers` of all run at once.
        slots = threading.BoundedSemaphore(workers)

        def judge(task: Task, patch: str) -> TestReport:
            verifier_context = VerifierContext(site.sessions, GRADING, log_bytes=LOG_BYTES)
            with slots:
                return verify(task, patch, verifier_context, "validate")

        def one(task: Task) -> tuple[Task, Validation | str]:
            return task, validation_or_why(task)

        def validation_or_why(task: Task) -> Validation | str:
            if stop.is_set():
                return f"{task.instance_id}: not tried, stopped"
            begun = time.monotonic()
            try:
                environment = site.sessions.environment_id(task)
                waited = time.monotonic() - begun
                key = task.instance_id, task.labels_hash, environment, VERSION, missing[task.repo]
                if key in kept:
                    return kept[key]
                found = validate(task, environment, judge, missing[task.repo])
            except Exception as error:
                # A commit or an environment that is not there is one task's lack.
                of_task = isinstance(error, BadInput | InfrastructureError)
                if ends_everything(error) and not isinstance(error, BadInput):
                    raise
                if isinstance(error, TaskBroken):
                    broken.add(task.instance_id)
                    return f"{task.instance_id}: cannot be validated, {error}"
                return f"{task.instance_id}: not tried, {error if of_task else named(error)}"
            day = datetime.now(UTC).date().isoformat()
            return found.model_copy(
                update={"environment_s": round(waited, 1), "machine": machine, "day": day}
            )

        broken: set[str] = set()
        left = ValidationEta(tasks, shipped())
        begun, before = time.monotonic(), 0
        # Those first that were judged before, in whatever environment: they take no time as a rule.
        judged = {name for name, *_ in kept}
        order = sorted(left.longest_first(), key=lambda task: task.instance_id not in judged)
        say(
            f"validating {counted(len(order), 'task')} with {counted(workers, 'worker')}, the longest first; each is told when it is done"
        )
        for number, (task, found) in enumerate(threads(workers).map(one, order), 1):
            if isinstance(found, str):
                left.without(task)
                say(found)
                continue
            latest[task.instance_id] = found
            if found.key in kept:
                left.without(task)
                before += 1
            else:
                stream.append(found)
                state = "valid" if found.valid else f"INVALID, {one_line(found.cause)}"
                less = f", {len(found.excluded)} PASS_TO_PASS ids left out" if found.excluded else ""
                say(
                    f"{number}/{len(tasks)} {found.instance_id}: {state}{less}, {found.gold_s:.1f} s"
                    f"{left.after(found, time.monotonic() - begun)}"
                )
        say(f"{before} of {counted(len(tasks), 'task')} had been validated before")
    elsewhere = {found.instance_id: found for found in shipped()}
    differing = {
        name: difference(found, elsewhere[name])
        for name, found in latest.items()
        if name in elsewhere and elsewhere[name].task_hash == found.task_hash
    }
    return Validated(
        dict(Counter(task.repo for task in chosen)),
        [latest[task.instance_id] for task in tasks if task.instance_id in latest],
        {name: how for name, how in differing.items() if how},
        stop.is_set(),
        len(chosen) - len(tasks),
        len(broken - latest.keys()),
    )


def described_machine() -> str:
    return f"{platform.system()} {platform.release()}, {platform.machine()}, {os.cpu_count()} processors"


class ValidationEta:
    """What validating tasks takes, by what it took where Looper was made and how much faster or slower the tasks of this command are. An
    environment or a tree that was ready here and not there says nothing of the tests, so each has a ratio of its own."""

    def __init__(self, tasks: Sequence[Task], timed: Iterable[Validation]) -> None:
        names = {task.instance_id for task in tasks}
        self._there = {found.instance_id: found for found in timed if found.instance_id in names}
        self._tasks = tasks
        self._never_timed = names - self._there.keys()
        self._done = list[tuple[Validation, Validation]]()
        """Here and there."""

    def longest_first(self) -> list[Task]:
        """Those that nobody timed before all others."""

        def took(task: Task) -> float:
            found = self._there.get(task.instance_id)
            return found.environment_s + _tests_s(found) if found else math.inf

        return sorted(self._tasks, key=took, reverse=True)

    def without(self, task: Task) -> None:
        """Leave out one that took no time: it was judged before, or could not be."""
        self._there.pop(task.instance_id, None)
        self._never_timed.discard(task.instance_id)

    def after(self, found: Validation, elapsed_s: float) -> str:
        """To be added to what is said of a task that is done; nothing where a task was never timed."""
        if (there := self._there.pop(found.instance_id, None)) is not None:
            self._done.append((found, there))
        if not self._done or self._never_timed:
            return ""
        tests = median(_tests_s(here) / max(_tests_s(there), 0.01) for here, there in self._done)
        waited, built = (sum(each[side].environment_s for each in self._done) for side in (0, 1))
        rest = self._there.values()
        left_s = tests * sum(map(_tests_s, rest))
        left_s += (waited / built if built else 1.0) * sum(each.environment_s for each in rest)
        side_by_side = elapsed_s / max(
            sum(here.environment_s + _tests_s(here) for here, _ in self._done), 0.01
        )
        return f", about {duration(left_s * side_by_side)} left"


def _tests_s(found: Validation) -> float:
    return found.repeats * found.gold_s + found.empty_s


def write_table(
    file: Path, selection: TaskSelection, settings: Settings, found: Sequence[Validation]
) -> Iterator[str]:
    """Put the table over a whole suite between the marks of a Markdown file. Raises BadInput where it has none."""
    every = Counter(task.repo for task in every_task(selection, settings)[0])
    replace_file(file, _with_table(file, table_lines(every, found)).encode())
    yield f"{file}: {counted(len(found), 'validation')}"


def _with_table(file: Path, lines: Sequence[str]) -> str:
    """Raises BadInput where the file has no marks."""
    text = named_text(file) if file.is_file() else ""
    return with_block(text, "looper bench validate", lines, str(file))


def must_be_writable(table: Path | None, records: Path | None) -> None:
    """That the table and the records can be written, before hours of work for them. Raises BadInput."""
    for file in (table, records):
        if file is not None:
            must_be_replaceable(file)
    if table is not None:
        _with_table(table, ())


def save(file: Path, found: Sequence[Validation]) -> str:
    """As lines of JSON, to be shipped or compared elsewhere."""
    replace_file(file, b"".join(each.to_json() + b"\n" for each in found))
    return f"{file}: {counted(len(found), 'validation')}"
