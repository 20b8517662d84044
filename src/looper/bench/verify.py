"""A patch → a verdict: in a fresh tree and a fresh sandbox, with pristine tests and a runner that the patch cannot reach.

Nothing of the agent's workspace enters but the patch, and of what it changes nothing that belongs to the tests: test files,
their configuration, and files that would stand in for the test runner or the standard library. What it changes is what
differs in the tree once it is applied, whatever its text looks like. Beside the real tests lie canaries, copies of them
with another expectation (`testrun`); one with the wrong outcome shows that the run was interfered with. Limit: code under
test runs in the same process as its tests, so a product that looks at who calls it can still deceive them; only unseen
inputs, or tests in a process of their own, catch that.
"""

import contextlib
import re
import time
from collections.abc import Callable, Sequence, Set
from contextlib import closing
from dataclasses import dataclass, replace

from looper.bench import patches
from looper.bench.failures import end_of_log, failing_output
from looper.bench.protection import Protection, left_out, pytest_settings
from looper.bench.testrun import Canary, Seen, TestRun, combined, run_tests
from looper.errors import (
    BadPatch,
    FileRefused,
    RunKilled,
    TaskBroken,
    TreeUnreadable,
    VerifierBroken,
    is_of_what_was_made,
    named,
    one_line,
)
from looper.protocols import (
    NOTHING,
    CommandResult,
    Effect,
    JudgedSession,
    PathChange,
    Sessions,
)
from looper.records.plan import Isolation, Limits
from looper.records.task import Task
from looper.records.verdict import Outcome, TestOutcome

VERSION = "13"
"""Of the rules below; part of every verdict."""


_PROGRESS = re.compile(r"\[ *\d+%\]")
"""A mark of a runner's progress, which the official parser of logs takes for a test's name where a line breaks before it."""


KILLED_AT_MOST = 3
"""Runs of one patch's tests, where each is killed and not for a limit of its own."""


def rules(isolation: Isolation) -> str:
    """What a verdict names as its verifier."""
    return (
        VERSION if isolation is Isolation.SHARED else f"{VERSION}, tests in a {isolation.value} of their own"
    )


@dataclass(frozen=True)
class TestReport:
    """A verdict's findings, before it is tied to a cell."""

    __test__ = False

    outcome: Outcome
    cause: str
    f2p_only: bool
    fail_to_pass: dict[str, TestOutcome]
    pass_to_pass: dict[str, TestOutcome]
    stripped_paths: tuple[str, ...]
    tampering: tuple[str, ...]
    wall_s: float
    canaries: str = ""
    """As in the verdict."""
    log: str = ""
    """What the test run printed, where whoever asked keeps it."""
    output: str = ""
    """As in the verdict."""
    applied: str = ""
    """The attempt that applied the patch; empty where none did, or nothing was to be applied."""
    file_recall: float | None = None
    """Share of the files that gold changes which the patch changed too; None where gold changes none."""
    complete: bool = True
    """Whether the test run came to its end."""
    reached: str = ""
    """The limit that ended it: time, disk or memory."""


@dataclass(frozen=True)
class VerifierContext:
    sessions: Sessions
    limits: Limits
    clock: Callable[[], float] = time.monotonic
    log_bytes: int = 0
    """Of what test runs print, kept with the judgement; 0 for nothing."""
    isolation: Isolation = Isolation.SHARED


def verify_again(task: Task, patch: str, verifier_context: VerifierContext, purpose: str) -> TestReport:
    """As `verify`, again where the tests were killed from outside. Who sends a signal cannot be seen: a patch whose tests are killed each
    time is unresolved where those of the base tree are not, as one that kills them itself. Raises RunKilled where they are too."""
    for _ in range(KILLED_AT_MOST):
        try:
            return verify(task, patch, verifier_context, purpose)
        except RunKilled:
            continue
    verify(task, "", verifier_context, purpose)
    cause = f"the tests were killed (SIGKILL) in each of {KILLED_AT_MOST} runs, for no limit of theirs, and without the patch they were not"
    return without_tests(task, Outcome.UNRESOLVED, cause)


def verify(task: Task, patch: str, verifier_context: VerifierContext, purpose: str) -> TestReport:
    """Judge a patch. What is raised is no verdict: only while the patch is entered can an error be the patch's."""
    begun = verifier_context.clock()
    tests = effect_of_tests(task, verifier_context.sessions)
    with contextlib.closing(verifier_context.sessions.open(task, purpose)) as session:
        try:
            entered = apply_candidate(task, patch, session, verifier_context, tests)
        except Exception as error:
            if not is_of_what_was_made(error):
                raise
            applies = not isinstance(error, BadPatch)
            cause = (
                f"the patch cannot be judged: {_fault_of_patch(error)}"
                if applies
                else f"the patch does not apply: {error}"
            )
            found = without_tests(task, Outcome.UNRESOLVED, cause, wall_s=verifier_context.clock() - begun)
            return replace(found, file_recall=_recall(task, verifier_context.sessions, ()))

        def again(*alone: Canary) -> TestRun:
            with closing(verifier_context.sessions.open(task, purpose)) as tree:
                apply_candidate(task, patch, tree, verifier_context, tests)
                return run_tests(
                    task, tree, verifier_context.limits, verifier_context.log_bytes, early=False, alone=alone
                )

        judged = _run_and_judge(task, session, verifier_context, entered.stripped, begun, again)
        return replace(judged, applied=entered.applied, file_recall=entered.file_recall)


def _fault_of_patch(error: Exception) -> str:
    match error:
        case TreeUnreadable():
            return str(error)
        case RecursionError():
            return "its folders lie too deeply in one another"
        case MemoryError():
            return "it needs too much memory"
        case _:
            return named(error)


@dataclass(frozen=True)
class AppliedPatch:
    applied: str
    stripped: tuple[str, ...]
    file_recall: float | None


def effect_of_tests(task: Task, sessions: Sessions) -> Effect:
    """What the test patch does to the base tree. Raises TaskBroken."""
    return _effect(task, task.test_patch, "test", sessions)


def apply_candidate(
    task: Task, patch: str, session: JudgedSession, verifier_context: VerifierContext, tests: Effect
) -> AppliedPatch:
    """Apply a patch to a base tree, put back what must not count, and bring the pristine tests, where they run in this tree: of
    tests in a tree of their own the product sees none. Raises BadPatch."""
    applied = patches.apply(patch, session)
    changes = session.changes() if applied else ()
    protection = Protection(
        task,
        session.base_paths(),
        lambda change: _tells_pytest(change, task, session, verifier_context.sessions),
    )
    # What decides how tests run is put back, but not where the known fix itself changes it: there it is a part of the solution.
    gold = _gold(task, verifier_context.sessions) if changes else frozenset[str]()
    stripped = left_out(changes, protection.covers, gold, tests, _places_of_tests(task, tests))
    session.put_back(stripped)
    if verifier_context.isolation is Isolation.SHARED:
        _bring(tests, session)
    return AppliedPatch(applied, stripped, _recall(task, verifier_context.sessions, changes))


def _bring(tests: Effect, session: JudgedSession) -> None:
    # What the test patch removes may stand where it writes.
    for path, (_, pristine) in sorted(tests.items(), key=lambda found: found[1][1] is not None):
        session.place(path, pristine)


def _gold(task: Task, sessions: Sessions) -> Set[str]:
    """Paths that the gold patch changes. Raises TaskBroken."""
    return _effect(task, task.gold_patch, "gold", sessions).keys()


def _recall(task: Task, sessions: Sessions, changes: Sequence[PathChange]) -> float | None:
    if not changes:
        return 0.0 if task.gold_patch.strip() else None
    gold = _gold(task, sessions)
    return len(gold & {change.path for change in changes}) / len(gold) if gold else None


def _effect(task: Task, patch: str, whose: str, sessions: Sessions) -> Effect:
    try:
        return sessions.effect(task, patch)
    except BadPatch as error:
        said = one_line(str(error)).rstrip(".")
        raise TaskBroken(f"The {whose} patch of {task.instance_id} does not apply: {said}.") from error


def _tells_pytest(change: PathChange, task: Task, session: JudgedSession, sessions: Sessions) -> bool:
    """Whether a file that holds settings of pytest beside others holds other ones than in the base tree."""
    try:
        now = None if change.after == NOTHING else session.read(change.path)
    except FileRefused:
        return True
    return pytest_settings(now) != pytest_settings(sessions.base_file(task, change.path))


def _places_of_tests(task: Task, tests: Effect) -> set[str]:
    """Where tests lie, and canaries beside them."""
    named = (name.partition("::")[0] for name in (*task.fail_to_pass, *task.pass_to_pass) if "::" in name)
    return {*tests, *task.test_targets, *named}


def passing(task: Task, verifier_context: VerifierContext, purpose: str) -> tuple[str, ...]:
    """Ids of all tests of the base tree that pass, whatever the task names. Raises VerifierBroken where they cannot be run."""
    with closing(verifier_context.sessions.open(task, purpose)) as session:
        ran = run_tests(task, session, verifier_context.limits, verifier_context.log_bytes)
    if ran.result.killed_by or ran.finished is None:
        said = ran.failure or ran.result.text()[-300:].strip() or "no report"
        raise VerifierBroken(
            f"The tests of {task.repo} at {task.base_commit[:12]} do not run to their end: {ran.result.killed_by or said}."
        )
    return tuple(sorted(key for key, found in ran.seen.items() if _outcome(found).passes))


def _run_and_judge(
    task: Task,
    session: JudgedSession,
    verifier_context: VerifierContext,
    stripped: tuple[str, ...],
    begun: float,
    again: Callable[..., TestRun],
) -> TestReport:
    ran = (
        _ran_apart(task, session, verifier_context)
        if verifier_context.isolation is Isolation.PROCESS
        else run_tests(task, session, verifier_context.limits, verifier_context.log_bytes)
    )
    if ran.early_copy_disagrees:
        # Copies that reach a limit when they are alone have told nothing: the limit is what is said.
        alone = again(*ran.early)
        if alone.result.killed_by:
            ran = alone
        elif alone.finished is not None:
            ran = combined(alone, again())
    seconds = verifier_context.clock() - begun
    if ran.result.killed_by:
        cause = {
            "time": f"the tests took more than {ran.limit_s:.0f} s",
            "disk": "the tests filled the disk space that they are given",
            "memory": "the tests took more memory than they are given",
        }[ran.result.killed_by]
        found = without_tests(task, Outcome.UNRESOLVED, cause, stripped, seconds)
    else:
        # Without an end of the report the run is simply not over; nothing in it counts as passed.
        found = judge(
            task, ran.seen, ran.finished, ran.result.exit_code, ran.tampering, stripped, ran.failure, seconds
        )
    kept = replace(
        found,
        canaries=ran.canaries,
        output=_output(task, found, ran.result),
        reached=ran.result.killed_by or "",
    )
    return replace(kept, log=ran.result.text()) if verifier_context.log_bytes else kept


def _output(task: Task, found: TestReport, result: CommandResult) -> str:
    """What a person reads first of a patch that does not resolve its task."""
    if found.outcome is Outcome.RESOLVED:
        return ""
    outcomes = (*found.fail_to_pass.items(), *found.pass_to_pass.items())
    failing = [name for name, outcome in outcomes if not outcome.passes]
    log = result.text()
    return failing_output(task, log, failing) or ("" if found.complete else end_of_log(log))


def _ran_apart(task: Task, product: JudgedSession, verifier_context: VerifierContext) -> TestRun:
    """In a second tree, of which nothing but the tests is run."""
    with closing(verifier_context.sessions.open(task, "tests")) as tests:
        _bring(effect_of_tests(task, verifier_context.sessions), tests)
        return run_tests(task, tests, verifier_context.limits, verifier_context.log_bytes, product)


def judge(
    task: Task,
    seen: Seen,
    finished: int | None,
    exit_code: int | None,
    tampering: tuple[str, ...],
    stripped: tuple[str, ...],
    failure: str,
    wall_s: float,
) -> TestReport:
    """The rule: every FAIL_TO_PASS and every PASS_TO_PASS id ran and passed, in a run that came to its end, whose exit
    status agrees with its report, and whose canaries behaved."""
    if finished is not None and exit_code != finished:
        tampering += (f"the report ends with status {finished}, the process with {exit_code}",)
    fail_to_pass = {name: _outcome(seen.get(name, [])) for name in task.fail_to_pass}
    pass_to_pass = {name: _outcome(seen.get(name, [])) for name in task.pass_to_pass}
    complete = finished is not None and not tampering
    fixed = complete and bool(fail_to_pass) and _all_passed(fail_to_pass)
    resolved = fixed and _all_passed(pass_to_pass)
    if tampering:
        outcome, cause = Outcome.TAMPERED, tampering[0]
    elif resolved:
        outcome, cause = Outcome.RESOLVED, ""
    else:
        outcome = Outcome.UNRESOLVED
        cause = failure if finished is None and failure else _why(finished, fail_to_pass, pass_to_pass)
    return TestReport(
        outcome,
        cause,
        fixed and not resolved,
        fail_to_pass,
        pass_to_pass,
        stripped,
        tampering,
        wall_s,
        complete=finished is not None,
    )


def _outcome(outcomes: list[TestOutcome]) -> TestOutcome:
    """Tests that share an id (docstrings, parameters with blanks) pass together or not at all.

    One that was skipped says nothing beside one that ran: django runs the same tests for each cache server, and skips
    those whose server is not there.
    """
    ran = [outcome for outcome in outcomes if outcome is not TestOutcome.SKIPPED] or outcomes
    if not ran:
        return TestOutcome.MISSING
    return next((outcome for outcome in ran if not outcome.passes), ran[0])


def _all_passed(outcomes: dict[str, TestOutcome]) -> bool:
    return all(outcome.passes for outcome in outcomes.values())


def _why(
    finished: int | None, fail_to_pass: dict[str, TestOutcome], pass_to_pass: dict[str, TestOutcome]
) -> str:
    if finished is None:
        return "the test run ended before its report did"
    for label, outcomes in (("FAIL_TO_PASS", fail_to_pass), ("PASS_TO_PASS", pass_to_pass)):
        bad = [name for name, outcome in outcomes.items() if not outcome.passes]
        if bad:
            # No test can be called so, and so it says the least.
            first = min(bad, key=lambda name: _PROGRESS.fullmatch(name) is not None)
            said = (
                f"{len(bad)} of {len(outcomes)} {label} tests did not pass: {first} {outcomes[first].value}"
            )
            if _PROGRESS.fullmatch(first):
                said += ", which is no test's name; looper bench validate leaves out what gold does not pass"
            return said
    return "no FAIL_TO_PASS test is named"


def without_tests(
    task: Task, outcome: Outcome, cause: str, stripped: tuple[str, ...] = (), wall_s: float = 0.0
) -> TestReport:
    """A judgement for which no test was run to its end."""
    return TestReport(
        outcome=outcome,
        cause=cause,
        f2p_only=False,
        fail_to_pass=dict.fromkeys(task.fail_to_pass, TestOutcome.MISSING),
        pass_to_pass=dict.fromkeys(task.pass_to_pass, TestOutcome.MISSING),
        stripped_paths=stripped,
        tampering=(),
        wall_s=wall_s,
        complete=False,
    )
