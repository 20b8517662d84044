"""One run of a task's tests in a sandbox, and what their runner reported of it."""

import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from looper.bench.runners import CanaryFiles, Invocation, invocation
from looper.protocols import Command, CommandResult, Environment, Sandbox, Workspace
from looper.records.plan import Limits
from looper.records.task import Task
from looper.records.verdict import TestOutcome

Seen = dict[str, list[TestOutcome]]
"""Test id → the outcomes of every test with that id."""


@dataclass(frozen=True)
class Ran:
    """One run of a task's tests."""

    result: CommandResult
    canaries: CanaryFiles
    seen: Seen
    finished: int | None
    """Exit status that the runner announced."""
    failure: str
    started: bool


def run_tests(
    task: Task,
    workspace: Workspace,
    environment: Environment,
    sandbox: Sandbox,
    limits: Limits,
    log_bytes: int,
) -> Ran:
    canaries = CanaryFiles.draw(secrets.token_hex(6))
    call = invocation(task, canaries)
    for path, source in call.files.items():
        workspace.write_file(path, source.encode())
    results = workspace.root.parent / f"{workspace.root.name}.results"
    results.mkdir(mode=0o777)
    results.chmod(0o777)
    try:
        report = results / f"{secrets.token_hex(8)}.jsonl"
        result = sandbox.run(_command(call, workspace, environment, limits, log_bytes, report))
        lines = report.read_text("utf-8", "replace").splitlines() if report.exists() else []
    finally:
        for leftover in results.iterdir():
            leftover.unlink()
        results.rmdir()
    return Ran(result, canaries, *_read_report(lines), any(lines))


def _command(
    call: Invocation,
    workspace: Workspace,
    environment: Environment,
    limits: Limits,
    log_bytes: int,
    report: Path,
) -> Command:
    runners = Path(__file__).with_name("runners").resolve()
    return Command(
        argv=(str(environment.python), "-B", str(runners / call.program), str(report), *call.arguments),
        root=workspace.root,
        timeout_s=limits.verify_s,
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
        memory_mb=max(limits.memory_mb, 2048),
        image=environment.image,
        **({"output_cap_bytes": log_bytes} if log_bytes else {}),
    )


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
