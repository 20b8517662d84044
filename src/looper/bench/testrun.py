"""One run of a task's tests in a sandbox, and what their runner reported of it.

Beside the real tests lie canaries, of names like theirs. Where a test of the task can be varied it is: a copy that is as it was
must end as the original does, and a copy with another expectation must fail wherever the original passes. Otherwise there are two
tests that need no product, one to pass and one to fail.
"""

import contextlib
import json
import os
import re
import secrets
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from hashlib import blake2b
from itertools import chain, count
from pathlib import Path
from random import Random, SystemRandom

from looper.bench.canaries import WORDS, Module
from looper.bench.official import PARSERS, pytest_log_with_xpass
from looper.bench.runners import (
    TestPlace,
    beside,
    files_of,
    invocation,
    places,
    plain_place,
    programs,
    written_here,
)
from looper.errors import NOT_PYTHON, FileRefused, RunKilled, VerifierBroken
from looper.protocols import CommandResult, JudgedSession
from looper.records.plan import Limits
from looper.records.task import Runner, Task
from looper.records.verdict import TestOutcome
from looper.untrusted import read_descriptor

MODULE_PATH = "LOOPER_MODULE_PATH"
"""PYTHONPATH as the environment says it, for the runner."""
REPORT_BYTES = 64 << 20
"""Of a report, some 400,000 tests; what is larger was not written by the runner alone."""
NOT_ITS_OWN = "the report holds what its runner did not write"
KEY_BYTES = 32
"""Of the digits that a report's lines are signed with."""
LOG_BYTES = 4 << 20
"""Of what a test run prints, to be held against its report: half from the head, half from the tail."""
WHOLE_SUITE = 4
"""Times the limit of a verification, for a task that names no test files: all of the repository's tests are run."""
VARIED_AT_MOST = 2
"""Tests of one run that are varied: a copy costs what its original costs."""
KILLED = 128 + signal.SIGKILL
"""Exit status of what SIGKILL ended."""
_TRIES = 12
_XFAIL = re.compile("xfail|expectedFailure", re.IGNORECASE)
_SKIP = re.compile("skip", re.IGNORECASE)

Seen = dict[str, list[TestOutcome]]
"""Test id → the outcomes of every test with that id."""


@dataclass(frozen=True)
class Canary:
    """Two tests in a module of their own, and what their ends tell."""

    copy: TestPlace
    source: bytes
    same: str
    """Name of the test that must end as its original; of one without an original: that must pass."""
    changed: str
    """Name of the test that must fail where the other passes."""
    original: TestPlace | None = None
    before: bool = False
    """Whether it runs before the tests, or after them."""
    many_values: bool = False
    """As of `canaries.MutatedTests`."""

    def holds(self, entry: "ReportedTest") -> bool:
        return entry.where == self.copy.where

    def check(
        self, report: "Report", strict: bool, beside: "Report | None" = None
    ) -> tuple[tuple[str, ...], bool]:
        """What is wrong with a run that came to its end, and whether the canary tells that nothing is. Its original ran in the same run,
        or `beside` it, in another one, whose own copies may have the same names.

        Where not strict, a copy that does not run as its original does tells nothing: a file's own name can matter to a test. But
        what is held against one other value, and equals that, is no honest value whatever its neighbour does.
        """
        same = report.outcomes(self.copy.where, self.same)
        changed = report.outcomes(self.copy.where, self.changed)
        if self.original is None:
            originals = {"": TestOutcome.PASSED}
        else:
            originals = (beside or report).outcomes(self.original.where, self.original.name)
        conclusive, lies = False, []
        for parameters, outcome in originals.items():
            if outcome is not TestOutcome.PASSED:
                continue
            pair = same.get(parameters), changed.get(parameters)
            if pair[0] is TestOutcome.PASSED and pair[1] in (TestOutcome.FAILED, TestOutcome.ERROR):
                conclusive = True
            elif (pair[0] is TestOutcome.PASSED and pair[1] is not None) or (
                self.many_values and pair[1] is TestOutcome.PASSED
            ):
                lies.append(f"a canary that must fail was {pair[1].value}")
            elif strict and pair[0] not in (None, TestOutcome.PASSED):
                lies.append(f"a canary that must pass was {pair[0].value}")
            elif strict:
                lies.append("a canary did not run")
        return tuple(dict.fromkeys(lies)), conclusive


@dataclass(frozen=True)
class ReportedTest:
    outcome: TestOutcome
    where: str
    name: str
    ids: tuple[str, ...]


@dataclass
class Report:
    """What the runner of one test run said."""

    tests: list[ReportedTest] = field(default_factory=list)
    started: bool = False
    finished: int | None = None
    """Exit status that the runner announced; None where it never came to its end."""
    failure: str = ""
    """The last that went wrong outside of any test."""
    tampering: list[str] = field(default_factory=list)
    refused: str = ""
    """What the tests handed over that cannot cross to another process."""

    def outcomes(self, where: str, name: str) -> dict[str, TestOutcome]:
        """Of one test, by its parameters in brackets; the worst where it was reported more than once."""
        found: dict[str, TestOutcome] = {}
        for entry in self.tests:
            if entry.where == where and (entry.name == name or entry.name.startswith(f"{name}[")):
                parameters = entry.name[len(name) :]
                if parameters not in found or found[parameters].passes:
                    found[parameters] = entry.outcome
        return found


@dataclass(frozen=True)
class TestRun:
    __test__ = False

    result: CommandResult
    seen: Seen
    """Without the canaries."""
    finished: int | None
    failure: str
    started: bool
    tampering: tuple[str, ...]
    canaries: str
    """What stood beside the tests, and what it told, in one line."""
    limit_s: float
    report: Report
    early: tuple[Canary, ...]

    @property
    def early_copy_disagrees(self) -> bool:
        """Whether a copy that came before its original ended otherwise, which a fork can do to honest code: it shares files, locks and
        children with the process that it was forked from."""
        for canary in self.early:
            assert canary.original is not None
            same = self.report.outcomes(canary.copy.where, canary.same)
            originals = self.report.outcomes(canary.original.where, canary.original.name)
            if any(name in same and same[name].passes != found.passes for name, found in originals.items()):
                return True
        return False


def combined(alone: TestRun, tests: TestRun) -> TestRun:
    """What a run of the early copies alone and one of the tests say together, each in a fresh process and a fresh tree."""
    lies = [lie for canary in alone.early for lie in canary.check(alone.report, True, beside=tests.report)[0]]
    return replace(tests, tampering=tuple(dict.fromkeys((*tests.tampering, *alone.tampering, *lies))))


def run_tests(
    task: Task,
    session: JudgedSession,
    limits: Limits,
    log_bytes: int = 0,
    product: JudgedSession | None = None,
    early: bool = True,
    alone: tuple[Canary, ...] = (),
) -> TestRun:
    """With a product's own tree, tests run apart from it. Unless `early`, all copies come after the tests; where copies are to run
    `alone`, nothing else does. Raises VerifierBroken where the runner did not get as far as anything of the tree, or where what the
    tests hand over cannot cross, RunKilled where something else than its limits killed the run, and DiskNearlyFull."""
    read = _reader(session)
    pristine = {path: source for path in files_of(task) if (source := read(path)) is not None}
    canaries, why = _canaries(task, pristine, session, SystemRandom(), apart=product is not None)
    canaries = alone or tuple(replace(canary, before=canary.before and early) for canary in canaries)
    for canary in canaries:
        session.write(canary.copy.path, canary.source)
        if canary.copy.package:
            session.write(f"{canary.copy.package}/__init__.py", b"")
    before, after = (
        tuple(canary.copy.where for canary in canaries if canary.before is side) for side in (True, False)
    )
    call = invocation(task, before, after)
    if alone:
        call = replace(call, arguments=(*(word for word in call.arguments if word.startswith("--")), *before))
    limit_s = limits.verify_s * (WHOLE_SUITE if call.whole_suite else 1)
    key = f"key-{secrets.token_hex(KEY_BYTES // 2)}"
    # The runner forks for copies that come first.
    known = () if alone else tuple(canary.copy.where for canary in canaries)
    head = "\n".join((key, *known)).encode()
    with contextlib.ExitStack() as stack:
        place, descriptor = stack.enter_context(_open_report(session.results(), head))
        laid_ns = os.fstat(descriptor).st_ctime_ns
        words: tuple[str, ...] = (str(place), *call.arguments)
        places: tuple[Path, ...] = (place.parent,)
        if product is not None:
            pipes = product.results()
            serving = _program(product, limits, limit_s, "serve_product.py", (str(pipes),), (pipes,))
            stack.enter_context(_product_served(task, serving, pipes, descriptor))
            words = (str(place), "--apart", str(pipes), *call.arguments)
            places = (place.parent, pipes)
        run = _program(session, limits, limit_s, call.program, words, places, call.variables)
        result = run(output_cap_bytes=max(log_bytes, LOG_BYTES))
        report = _read_report(descriptor, key, head, laid_ns, apart=product is not None)
    _must_not_be_killed(task, result)
    if not report.started and not result.killed_by:
        raise VerifierBroken(
            f"The test runner of {task.instance_id} did not start: {result.text()[-500:].strip()}"
        )
    if report.refused:
        raise VerifierBroken(
            f"The tests of {task.instance_id} cannot run in a process of their own: {report.refused}. Judge it with the isolation "
            '"shared".'
        )
    changed = [
        path
        for path, source in (*pristine.items(), *((canary.copy.path, canary.source) for canary in canaries))
        if read(path) != source
    ]
    if changed:
        report.tampering.append(f"{changed[0]} was changed while the tests ran")
    return _ran(task, report, result, canaries, why, pristine, limit_s)


def _must_not_be_killed(task: Task, result: CommandResult) -> None:
    """Who sent a signal is seen by no one: whoever asks for the run tries again, and may take a patch whose tests are killed each time
    for one that kills them."""
    if result.exit_code == KILLED and not result.killed_by:
        raise RunKilled(
            f"The test run of {task.instance_id} was killed (SIGKILL), and not for a limit of its own: the machine ran out of memory, "
            "or another process ended it. Free memory or run with fewer workers, then run the same command again."
        )


def _program(
    session: JudgedSession,
    limits: Limits,
    limit_s: float,
    program: str,
    words: tuple[str, ...],
    writable: tuple[Path, ...],
    variables: Mapping[str, str] = {},
) -> Callable[..., CommandResult]:
    """A runner program in a tree, to be begun."""
    runners = session.provide(programs())
    # Nothing of the tree may be found by the interpreter as it starts: its runner puts the path together, once it has begun.
    whole = session.variables.get("PYTHONPATH", "")
    outside = [part for part in whole.split(":") if not _within(part, session.root)]
    return partial(
        session.exec,
        ("-B", str(runners / program), *words),
        limit_s,
        env={
            "PYTHONHASHSEED": "0",
            "TZ": "UTC",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONIOENCODING": "utf-8",
            **session.variables,
            "PYTHONPATH": ":".join(outside),
            MODULE_PATH: whole,
            **variables,
        },
        readable=(runners,),
        writable=writable,
        memory_mb=max(limits.memory_mb, 2048),
    )


def _within(part: str, root: Path) -> bool:
    return not part or Path(os.path.normpath(part)).is_relative_to(root)


@contextlib.contextmanager
def _product_served(
    task: Task, serving: Callable[..., CommandResult], pipes: Path, report: int
) -> Iterator[None]:
    """The product in a sandbox of its own, from when the tests have opened the pipes on; at its end they are told."""
    for name in ("ask", "answer"):
        os.mkfifo(pipes / name)
        (pipes / name).chmod(0o666)
    answer = os.open(pipes / "answer", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    over, failed = threading.Event(), list[Exception]()

    def serve() -> None:
        while not os.pread(report, 1, 0).isdigit():
            if over.wait(0.005):
                return
        try:
            result = serving(over=over)
            if not over.is_set():
                _must_not_be_killed(task, result)
        except Exception as error:  # Raised again by the thread that waits for this one.
            failed.append(error)
        finally:
            with contextlib.suppress(BlockingIOError):
                os.write(answer, b'\n["gone"]\n')

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        over.set()
        # The tests held the other end of the pipe that it reads; what it still writes is for nobody.
        while thread.is_alive():
            with contextlib.suppress(BlockingIOError):
                while os.read(answer, 1 << 20):
                    pass
            thread.join(0.01)
        os.close(answer)
    if failed:
        raise failed[0]


@contextlib.contextmanager
def _open_report(folder: Path, head: bytes) -> Iterator[tuple[Path, int]]:
    """A file with what its runner must know in it, opened before anything of the tree runs and never again by its name, which the product can give to
    something else."""
    place = folder / "report"
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(place, flags, 0o666)
    try:
        os.fchmod(descriptor, 0o666)
        os.write(descriptor, head)
        yield place, descriptor
    finally:
        os.close(descriptor)
        # Whatever has its name now; an empty folder is removed without starting a program.
        with contextlib.suppress(OSError):
            place.unlink()


def _reader(session: JudgedSession) -> Callable[[str], bytes | None]:
    def read(path: str) -> bytes | None:
        try:
            return session.read(path)
        except FileRefused:
            return None

    return read


def _canaries(
    task: Task, pristine: dict[str, bytes], session: JudgedSession, random: Random, *, apart: bool
) -> tuple[tuple[Canary, ...], str]:
    """Of tests that must be fixed, or else of such as must stay; plain ones where none can be varied, and why then."""
    found: list[Canary] = []
    taken: set[str] = set()
    for ids in (task.fail_to_pass, task.pass_to_pass):
        known = list(dict.fromkeys(place for place in places(task, ids) if place.path in pristine))
        for place in random.sample(known, min(len(known), _TRIES)):
            module = _parsed(pristine[place.path])
            if module is None or module.says(place.name, _XFAIL):
                continue
            found += _copies(task, module, place, session, taken, random, first=not found, apart=apart)
            if len(found) >= VARIED_AT_MOST:
                break
        if found:
            break
    if found and written_here(task) and len(found) < VARIED_AT_MOST and found[0].original is not None:
        original = found[0].original
        module = _parsed(pristine[original.path])
        assert module is not None
        found += _copies(task, module, original, session, taken, random, first=False, apart=apart)
    why = "" if found else "no assertion of the task's tests can be changed for certain"
    if not found or not written_here(task):
        found.append(_plain(task, session, taken, random))
    # The first copy comes before all others: its changed test is what a product meets first.
    before, after = ([each for each in found if each.before is side] for side in (True, False))
    return (*before, *random.sample(after, len(after))), why


def _copies(
    task: Task,
    module: Module,
    place: TestPlace,
    session: JudgedSession,
    taken: set[str],
    random: Random,
    *,
    first: bool,
    apart: bool,
) -> list[Canary]:
    """A copy of a test, where it can be varied.

    What fails a test once and forgives it later, or equals what it is first compared with, is told by which comes first: so the
    first copy runs before its original, with its changed test before the other, and any more at either side. Before means in a
    process of its own, or the copy would warm what its original must meet cold. Only where the tests were written here, for what a
    test of a repository leaves behind can decide how it ends the next time; and not where the product is `apart`, which sees no
    comparison.
    """
    before = written_here(task) and not apart and (first or random.random() < 0.5)
    varied = module.varied(place.name, random, changed_first=before and first)
    if varied is None:
        return []
    copy = _free(partial(beside, task, place), session, taken, random)
    taken.add(copy.path)
    return [Canary(copy, varied.source, varied.same, varied.changed, place, before, varied.many_values)]


@lru_cache(maxsize=8)
def _parsed(source: bytes) -> Module | None:
    try:
        return Module(source)
    except NOT_PYTHON:
        return None


def _free(
    at: Callable[[str], TestPlace], session: JudgedSession, taken: set[str], random: Random
) -> TestPlace:
    """A place for a copy where nothing is: no file, and nothing else that a patch may have put there."""
    words = chain(random.sample(WORDS, len(WORDS)), (f"part_{number}" for number in count(1)))
    return next(
        place
        for place in map(at, words)
        if place.path not in taken and not session.exists(place.package or place.path)
    )


def _plain(task: Task, session: JudgedSession, taken: set[str], random: Random) -> Canary:
    place = _free(partial(plain_place, task), session, taken, random)
    same, changed = random.sample(("test_sums", "test_totals"), 2)
    tests = random.sample(((same, 3), (changed, 4)), 2)
    if task.runner is Runner.DJANGO:
        methods = "\n".join(
            f"    def {name}(self):\n        self.assertEqual(sum([1, 2]), {value})\n"
            for name, value in tests
        )
        text = f"import unittest\n\n\nclass SumTests(unittest.TestCase):\n{methods}"
        return Canary(place, text.encode(), f"SumTests::{same}", f"SumTests::{changed}")
    text = "\n\n".join(f"def {name}():\n    assert sum([1, 2]) == {value}\n" for name, value in tests)
    return Canary(place, text.encode(), same, changed)


def _read_report(descriptor: int, key: str, head: bytes, laid_ns: int, *, apart: bool) -> Report:
    """By lines that have their number and a hash by the key. What the runner did not write shows that somebody else wrote, and so
    does what was laid down for it where the file has changed since then."""
    try:
        data = read_descriptor(descriptor, REPORT_BYTES, "the report")
    except FileRefused as error:
        return Report(started=True, tampering=[str(error)])
    report = Report()
    if data == head:
        if os.fstat(descriptor).st_ctime_ns != laid_ns:
            return Report(started=True, tampering=[NOT_ITS_OWN])
        return report
    # A last line without its end is one that the run was ended in.
    for number, line in enumerate(data.split(b"\n")[:-1]):
        try:
            at, mark, said = line.decode("ascii").split(" ", 2)
            if (at, mark) != (str(number), _signed(key, number, said)):
                raise ValueError
            _enter(report, apart, *json.loads(said))
        except (ValueError, TypeError, IndexError, RecursionError):
            report.started = True
            report.tampering.append(NOT_ITS_OWN)
            break
    return report


def _signed(key: str, number: int, said: str) -> str:
    return blake2b(f"{number} {said}".encode(), key=key.encode(), digest_size=16).hexdigest()


def _enter(report: Report, apart: bool, kind: str, *words: str) -> None:
    """Raises what a line raises that the runner does not write: ValueError, TypeError or IndexError."""
    if kind == "begun":
        report.started = True
    elif kind == "test":
        report.tests.append(ReportedTest(TestOutcome(words[0]), words[1], words[2], words[3:]))
    elif kind == "error":
        report.failure = words[0]
    elif kind == "tampered":
        report.tampering.append(words[0])
    elif kind == "refused" and apart:
        report.refused = words[0]
    elif kind == "exit":
        report.finished = int(words[0])
    else:
        raise ValueError(kind)


def _ran(
    task: Task,
    report: Report,
    result: CommandResult,
    canaries: tuple[Canary, ...],
    why: str,
    pristine: dict[str, bytes],
    limit_s: float,
) -> TestRun:
    tampering = list(report.tampering)
    told = []
    # Where no test at all has an outcome none passed; a runner that is itself the product may be too broken to run any.
    if report.finished is not None and report.tests:
        for canary in canaries:
            strict = canary.original is None or written_here(task)
            lies, conclusive = canary.check(report, strict)
            tampering += lies
            if conclusive and canary.original is not None:
                told.append(canary.original.name)
        failed = any(
            entry.outcome in (TestOutcome.FAILED, TestOutcome.ERROR)
            for entry in report.tests
            if any(canary.holds(entry) for canary in canaries)
        )
        if failed and report.finished == 0:
            tampering.append("the run ended with status 0, although tests failed")
    real = [entry for entry in report.tests if not any(canary.holds(entry) for canary in canaries)]
    seen = _DeclaredOutcomes(task, pristine).believed(real)
    if report.finished is not None:
        tampering += _log_says_otherwise(task, result, seen)
    if report.finished is None:
        said_of = ""
    elif told:
        said_of = f"varied: {', '.join(sorted(set(told)))}"
    else:
        said_of = f"plain: {why or 'no varied copy ran beside an original that passed'}"
    return TestRun(
        result,
        seen,
        report.finished,
        report.failure,
        report.started,
        tuple(dict.fromkeys(tampering)),
        said_of,
        limit_s,
        report,
        tuple(canary for canary in canaries if canary.before),
    )


class _DeclaredOutcomes:
    """What the pristine source says of expected failures and skips: such outcomes are believed where it does."""

    def __init__(self, task: Task, pristine: dict[str, bytes]) -> None:
        self._task, self._pristine = task, pristine

    def believed(self, entries: list[ReportedTest]) -> Seen:
        """Outcomes by id. An expected failure that the source does not call for is a failure; a skip that it does not call for
        is no reason to pass over a test that shares its id with others."""
        by_id: dict[str, list[ReportedTest]] = {}
        for entry in entries:
            for name in entry.ids:
                by_id.setdefault(name, []).append(entry)
        return {
            name: [self._of(entry, alone=len(found) == 1) for entry in found] for name, found in by_id.items()
        }

    def _of(self, entry: ReportedTest, *, alone: bool) -> TestOutcome:
        if entry.outcome is TestOutcome.XFAILED and not self._says(entry, _XFAIL):
            return TestOutcome.FAILED
        if entry.outcome is TestOutcome.SKIPPED and not alone and not self._says(entry, _SKIP):
            return TestOutcome.MISSING
        return entry.outcome

    def _says(self, entry: ReportedTest, pattern: re.Pattern[str]) -> bool:
        path = entry.where
        if self._task.runner is Runner.DJANGO:
            path = f"tests/{path.replace('.', '/')}.py"
        source = self._pristine.get(path)
        module = None if source is None else _parsed(source)
        return module is not None and module.says(entry.name.partition("[")[0], pattern)


def _log_says_otherwise(task: Task, result: CommandResult, seen: Seen) -> list[str]:
    """Tests that passed by the report, and not by the official reading of what the same run printed.

    Where the options are the harness's own, each has a line there; elsewhere, as a repository configures its runner, a line may
    be broken by other output, and only one that says the opposite counts.
    """
    own = task.environment == "harness" and task.runner is Runner.PYTEST
    parser = pytest_log_with_xpass if own else PARSERS.get(task.repo)
    if parser is None:
        return []
    said = parser(result.text())
    whole = own and not result.omitted_bytes
    for name in (*task.fail_to_pass, *task.pass_to_pass):
        outcomes = seen.get(name, [])
        # The official ids end at the first blank, and of several tests the last one counts.
        if len(outcomes) != 1 or not outcomes[0].passes or (own and " " in name):
            continue
        there = said.get(name, "nothing" if whole else "PASSED")
        if there not in ("PASSED", "XFAIL", "XPASS"):
            return [f"the report says {outcomes[0].value} of {name}, the printed log {there}"]
    return []
