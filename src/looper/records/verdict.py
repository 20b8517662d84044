"""Whether a patch resolves its task, and how we know."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from looper.records.base import Positive, Record, Seconds, Share, unsaid


class Outcome(StrEnum):
    """How an attempt ended. Only the first three are verdicts; the others never enter a rate."""

    RESOLVED = "resolved"
    UNRESOLVED = "unresolved"
    TAMPERED = "tampered"
    INFRA_ERROR = "infra_error"
    CANCELLED = "cancelled"

    @property
    def is_verdict(self) -> bool:
        return self in (Outcome.RESOLVED, Outcome.UNRESOLVED, Outcome.TAMPERED)


class TestOutcome(StrEnum):
    """What the trusted runner saw of one test."""

    __test__ = False

    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    SKIPPED = "skipped"
    XFAILED = "xfailed"
    MISSING = "missing"
    """The test did not run, or has no outcome."""

    @property
    def passes(self) -> bool:
        return self in (TestOutcome.PASSED, TestOutcome.XFAILED)


class Verdict(Record):
    """The end of one attempt, with the outcome of every test that the task names."""

    cell: str
    attempt: Positive
    instance_id: str
    outcome: Outcome
    cause: str
    """Why it is not resolved, in one line; empty where it is."""
    f2p_only: bool
    """All FAIL_TO_PASS tests pass while a PASS_TO_PASS test is broken."""
    fail_to_pass: dict[str, TestOutcome]
    pass_to_pass: dict[str, TestOutcome]
    stripped_paths: tuple[str, ...]
    """Changed files that were put back: tests, their configuration, what shadows the runner, what stood in their way."""
    applied: str = ""
    """How the patch was applied: the first of SWE-bench's attempts that took it, or one that is kinder, which says so; empty
    where none did, nothing was to be applied, or an earlier version judged."""
    tampering: tuple[str, ...]
    """What showed that the test run was interfered with."""
    patch_hash: str
    environment: str
    sandbox: str
    verifier: str
    """Version of the rules and the runner that judged."""
    wall_s: Seconds
    canaries: str = ""
    """What stood beside the tests and told that the run was honest: `varied`, with the tests of which a copy with another
    expectation failed as it must, or `plain`, with why there was none; empty where the tests did not run to
    their end."""
    fault: str = ""
    """Traceback of a fault of Looper's own that ended this attempt and nothing else; empty for every other end."""
    output: str = ""
    """What the failing tests printed, as much as is kept (`bench/failures`), each below its id; empty where all passed, where nothing
    was printed, and in records of earlier versions."""
    file_recall: Share | None = None
    """Share of the files that gold changes which the patch changes too; None where nothing was judged."""
    same_as: str = ""
    """Cell and attempt whose test run this verdict takes over, since task, patch, environment and rules are the same;
    empty where the tests ran for this one. With the name of its run before a colon where that is another."""
    node: Annotated[str | None, Field(exclude_if=unsaid)] = None
    """The node of a cluster on which the attempt was made, as nodes.jsonl calls it (`address`); None for the machine of the run."""


def final_verdicts(verdicts: Iterable[Verdict]) -> dict[str, Verdict]:
    """The end of each cell, by its name: its first record that is a verdict, since nothing is tried after one; while it has none,
    its last record."""
    found: dict[str, Verdict] = {}
    for verdict in verdicts:
        known = found.get(verdict.cell)
        if known is None or not known.outcome.is_verdict:
            found[verdict.cell] = verdict
    return found
