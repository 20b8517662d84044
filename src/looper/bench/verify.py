"""A patch → a verdict: in a fresh tree and a fresh sandbox, with pristine tests and a runner that the patch cannot reach.

Nothing of the agent's workspace enters but the patch, and of the patch nothing that belongs to the tests: test files,
their configuration, and files that would stand in for the test runner or the standard library. Beside the real tests
lie canaries with random names, one that must pass and one that must fail; a canary with the wrong outcome shows that
the run was interfered with. Limit: code under test runs in the same process as its tests, so a product that looks at
who calls it can still deceive them; only unseen inputs catch that.
"""

import json
import re
import secrets
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path, PurePosixPath

from looper.bench.runners import CanaryFiles, Invocation, invocation, programs
from looper.errors import BadPatch, VerifierBroken
from looper.protocols import Command, CommandResult, Environment, Sandbox, Workspace, Workspaces
from looper.records.plan import Limits
from looper.records.task import Task
from looper.records.verdict import Outcome, TestOutcome

VERSION = "4"
"""Of the rules below; part of every verdict."""

_TEST_CONFIGURATION = frozenset(
    {
        "conftest.py",
        "pytest.ini",
        ".pytest.ini",
        "tox.ini",
        "setup.cfg",
        "sitecustomize.py",
        "usercustomize.py",
    }
)
_RUNNER_PACKAGES = frozenset({"pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments", "py"})
# `django/test` and `sympy/testing` are products, `tests` is nobody's.
_TEST_FILE = re.compile(r"(^|/)tests/|^(test|testing)/|(^|/)(test_[^/]*|[^/]*_tests?)\.py$|(^|/)tests?\.py$")
_SECTION = re.compile(r"^diff --git ", re.MULTILINE)
_NEW_PATH = re.compile(r'^\+\+\+ (?:"b/(?P<quoted>(?:[^"\\]|\\.)*)"|b/(?P<plain>[^\t\n]*))', re.MULTILINE)
_OLD_PATH = re.compile(r'^--- (?:"a/(?P<quoted>(?:[^"\\]|\\.)*)"|a/(?P<plain>[^\t\n]*))', re.MULTILINE)
_PLAIN_HEADER = re.compile(r"^--- (\S+).*\n\+\+\+ (?:b/)?(\S+).*$", re.MULTILINE)
_HEADER = re.compile(
    r'^diff --git (?:"a/(?P<quoted>(?:[^"\\]|\\.)*)"|a/(?P<plain>.*?)) (?:"b/|b/)', re.MULTILINE
)


@dataclass(frozen=True)
class Judgement:
    """A verdict's findings, before it is tied to a cell."""

    outcome: Outcome
    cause: str
    f2p_only: bool
    fail_to_pass: dict[str, TestOutcome]
    pass_to_pass: dict[str, TestOutcome]
    stripped_paths: tuple[str, ...]
    tampering: tuple[str, ...]
    wall_s: float
    log: str = ""
    """What the test run printed, where the court keeps it."""


@dataclass(frozen=True)
class Court:
    """What verification works with."""

    workspaces: Workspaces
    sandbox: Sandbox
    limits: Limits
    clock: Callable[[], float] = time.monotonic
    log_bytes: int = 0
    """Of what test runs print, kept with the judgement; 0 for nothing."""


def verify(task: Task, patch: str, environment: Environment, court: Court, name: str) -> Judgement:
    """Judge a patch. Raises VerifierBroken and other InfrastructureErrors, which are no verdicts."""
    begun = court.clock()
    patch = with_git_headers(patch)
    kept, stripped = strip_protected(patch, gold_paths=patch_paths(task.gold_patch))
    if patch.strip() and not kept and not stripped:
        cause = "the patch does not apply: it changes no file"
        return without_tests(task, Outcome.UNRESOLVED, cause, wall_s=court.clock() - begun)
    workspace = court.workspaces.create(task, name)
    try:
        try:
            workspace.apply(kept)
        except BadPatch as error:
            return without_tests(
                task,
                Outcome.UNRESOLVED,
                f"the patch does not apply: {error}",
                stripped,
                court.clock() - begun,
            )
        _bring_tests(workspace, task, court.workspaces)
        return _run_and_judge(task, workspace, environment, court, stripped, begun)
    finally:
        workspace.close()


def _bring_tests(workspace: Workspace, task: Task, workspaces: Workspaces) -> None:
    """Put the test files back to the base commit, then apply the test patch."""
    for path in patch_paths(task.test_patch):
        pristine = workspaces.base_file(task, path)
        if pristine is not None:
            workspace.write_file(path, pristine)
    try:
        workspace.apply(task.test_patch)
    except BadPatch as error:
        raise VerifierBroken(f"The test patch of {task.instance_id} does not apply: {error}") from error


def passing(task: Task, environment: Environment, court: Court, name: str) -> tuple[str, ...]:
    """Ids of all tests of the base tree that pass, whatever the task names. Raises VerifierBroken where they cannot be run."""
    workspace = court.workspaces.create(task, name)
    try:
        ran = _run_tests(task, workspace, environment, court)
    finally:
        workspace.close()
    if ran.result.killed_by or ran.finished is None:
        said = ran.failure or ran.result.text()[-300:].strip() or "no report"
        raise VerifierBroken(
            f"The tests of {task.repo} at {task.base_commit[:12]} do not run to their end: {ran.result.killed_by or said}."
        )
    canary = ran.canaries.module
    return tuple(
        sorted(key for key, found in ran.seen.items() if canary not in key and _outcome(found).passes)
    )


@dataclass(frozen=True)
class _Ran:
    """One run of a task's tests."""

    result: CommandResult
    canaries: CanaryFiles
    seen: "Seen"
    finished: int | None
    """Exit status that the runner announced."""
    failure: str
    started: bool


def _run_tests(task: Task, workspace: Workspace, environment: Environment, court: Court) -> _Ran:
    canaries = CanaryFiles.draw(secrets.token_hex(6))
    call = invocation(task, canaries)
    for path, source in call.files.items():
        workspace.write_file(path, source.encode())
    results = workspace.root.parent / f"{workspace.root.name}.results"
    results.mkdir(mode=0o777)
    results.chmod(0o777)
    try:
        report = results / f"{secrets.token_hex(8)}.jsonl"
        result = court.sandbox.run(_command(call, workspace, environment, court, report))
        lines = report.read_text("utf-8", "replace").splitlines() if report.exists() else []
    finally:
        for leftover in results.iterdir():
            leftover.unlink()
        results.rmdir()
    return _Ran(result, canaries, *_read_report(lines), any(lines))


def _run_and_judge(
    task: Task,
    workspace: Workspace,
    environment: Environment,
    court: Court,
    stripped: tuple[str, ...],
    begun: float,
) -> Judgement:
    ran = _run_tests(task, workspace, environment, court)
    seconds = court.clock() - begun
    if ran.result.killed_by == "time":
        return without_tests(
            task,
            Outcome.UNRESOLVED,
            f"the tests took more than {court.limits.verify_s:.0f} s",
            stripped,
            seconds,
        )
    if ran.result.killed_by:
        raise VerifierBroken(f"The test run of {task.instance_id} was killed: {ran.result.killed_by}.")
    if not ran.started:
        raise VerifierBroken(
            f"The test runner of {task.instance_id} did not start: {ran.result.text()[-500:].strip()}"
        )
    tampering = ran.canaries.lies(ran.seen, ran.finished)
    if ran.finished is None:
        tampering = ()  # Without an end of the report the run is simply not over; nothing in it counts as passed.
    found = judge(
        task, ran.seen, ran.finished, ran.result.exit_code, tampering, stripped, ran.failure, seconds
    )
    return replace(found, log=ran.result.text()) if court.log_bytes else found


def _command(
    call: Invocation, workspace: Workspace, environment: Environment, court: Court, report: Path
) -> Command:
    runners = programs(workspace.root.parent)
    return Command(
        argv=(str(environment.python), "-B", str(runners / call.program), str(report), *call.arguments),
        root=workspace.root,
        timeout_s=court.limits.verify_s,
        env={
            "PYTHONHASHSEED": "0",
            "TZ": "UTC",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONIOENCODING": "utf-8",
            "PATH": f"{environment.python.parent}:/usr/bin:/bin",
            **environment.variables_in(workspace.root),
            **call.variables,
        },
        readable=(*environment.readable, runners),
        writable=(report.parent,),
        memory_mb=max(court.limits.memory_mb, 2048),
        image=environment.image,
        **({"output_cap_bytes": court.log_bytes} if court.log_bytes else {}),
    )


Seen = dict[str, list[TestOutcome]]
"""Test id → the outcomes of every test with that id."""


def _read_report(lines: list[str]) -> tuple[Seen, int | None, str]:
    """Outcomes by id, the exit status that the runner announced (None where it never came to its end), and what it
    said went wrong outside of any test."""
    seen: Seen = {}
    finished, failure = None, ""
    for line in lines:
        try:
            entry = json.loads(line)
            if "id" in entry:
                for name in entry["id"]:
                    seen.setdefault(name, []).append(TestOutcome(entry["outcome"]))
            elif "exit" in entry:
                finished = int(entry["exit"])
            elif "error" in entry:
                failure = str(entry["error"])
        except (ValueError, KeyError, TypeError):
            return {}, None, "the report is damaged"
    return seen, finished, failure


def judge(
    task: Task,
    seen: Seen,
    finished: int | None,
    exit_code: int | None,
    tampering: tuple[str, ...],
    stripped: tuple[str, ...],
    failure: str,
    wall_s: float,
) -> Judgement:
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
    return Judgement(
        outcome, cause, fixed and not resolved, fail_to_pass, pass_to_pass, stripped, tampering, wall_s
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
            return (
                f"{len(bad)} of {len(outcomes)} {label} tests did not pass: {bad[0]} {outcomes[bad[0]].value}"
            )
    return "no FAIL_TO_PASS test is named"


def without_tests(
    task: Task, outcome: Outcome, cause: str, stripped: tuple[str, ...] = (), wall_s: float = 0.0
) -> Judgement:
    """A judgement for which no test was run to its end."""
    return Judgement(
        outcome=outcome,
        cause=cause,
        f2p_only=False,
        fail_to_pass=dict.fromkeys(task.fail_to_pass, TestOutcome.MISSING),
        pass_to_pass=dict.fromkeys(task.pass_to_pass, TestOutcome.MISSING),
        stripped_paths=stripped,
        tampering=(),
        wall_s=wall_s,
    )


def with_git_headers(patch: str) -> str:
    """A plain unified diff, as `diff -u` makes it, in git's form; a git patch as it is."""
    if _SECTION.search(patch):
        return patch
    return _PLAIN_HEADER.sub(lambda found: f"diff --git a/{found[2]} b/{found[2]}\n{found[0]}", patch)


def file_recall(patch: str, gold_patch: str) -> float | None:
    """Share of the files that gold changes which the patch changes too; None where gold changes none."""
    wanted = patch_paths(gold_patch)
    return len(patch_paths(with_git_headers(patch)) & wanted) / len(wanted) if wanted else None


def strip_protected(patch: str, gold_paths: frozenset[str]) -> tuple[str, tuple[str, ...]]:
    """The patch without its changes to protected files, and their paths. What gold touches is never protected."""
    kept, stripped = [], []
    for section in _sections(patch):
        paths = _paths_of(section)
        if any(is_protected(path) and path not in gold_paths for path in paths):
            stripped += sorted(paths)
        else:
            kept.append(section)
    return "".join(kept), tuple(stripped)


def is_protected(path: str) -> bool:
    """Whether a file decides how tests run rather than what the product does."""
    parts = PurePosixPath(path).parts
    name = parts[-1]
    if (
        name in _TEST_CONFIGURATION
        or path.endswith((".pth", ".pyc", ".pyo", ".so", ".pyd"))
        or _TEST_FILE.search(path)
    ):
        return True
    # Files at an import root that would be found in place of the standard library or the runner.
    roots = parts[1:] if parts[0] in ("src", "lib") and len(parts) > 1 else parts
    top = roots[0].removesuffix(".py")
    return top in _RUNNER_PACKAGES or (
        top in sys.stdlib_module_names and (len(roots) > 1 or roots[0].endswith(".py"))
    )


def patch_paths(patch: str) -> frozenset[str]:
    """Every path that a git patch names, old and new."""
    return frozenset(path for section in _sections(patch) for path in _paths_of(section))


def _sections(patch: str) -> list[str]:
    starts = [found.start() for found in _SECTION.finditer(patch)] + [len(patch)]
    return [patch[begin:end] for begin, end in pairwise(starts)]


def _paths_of(section: str) -> set[str]:
    head = section.split("\n@@", 1)[0].split("\nGIT binary patch", 1)[0]
    found = [match for pattern in (_NEW_PATH, _OLD_PATH) if (match := pattern.search(head))]
    found = found or [match for match in (_HEADER.search(head),) if match]
    return {_unquoted(match["quoted"]) if match["quoted"] is not None else match["plain"] for match in found}


def _unquoted(name: str) -> str:
    """A path as git quotes it: C escapes, bytes above 127 in octal."""
    data = re.sub(
        rb"\\([abtnvfr\"\\]|[0-7]{3})",
        lambda found: (
            bytes([int(found[1], 8)])
            if found[1].isdigit()
            else b'\a\b\t\n\v\f\r"\\'[b'abtnvfr"\\'.index(found[1]) :][:1]
        ),
        name.encode("utf-8", "surrogateescape"),
    )
    return data.decode("utf-8", "surrogateescape")
