"""Gates that run a candidate: trusted tests, the contract's own commands, a start; each in a fresh tree inside the sandbox.

Whose fault a broken run is, the parent decides: what works with it in the same sandbox and does not with the candidate is the
candidate's.
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from looper.bench.verify import TestReport, VerifierContext, passing, verify_again
from looper.errors import VerifierBroken
from looper.protocols import CommandResult, Sources
from looper.records.gate import GateOutcome, GateResult
from looper.records.generation import Cause, Contract
from looper.records.task import Runner, Task
from looper.records.text import counted
from looper.records.verdict import Outcome

COMMAND_S = 120.0
SUITE = "evolve"
"""Under which the repository's trees are known to those who make workspaces."""


@dataclass(frozen=True)
class Candidate:
    """What the gates look at: two commits, both fixed."""

    number: int
    base: str
    commit: str
    contract: Contract


Found = tuple[GateResult, Cause]
"""What a gate says, and what that makes of the candidate where it says no."""
Gate = Callable[[Candidate], Found]


@dataclass(frozen=True)
class CandidateBench:
    sources: Sources
    repository: str
    verifier_context: VerifierContext
    tests: tuple[str, ...]
    """Trusted test files; empty where the repository has none, so that a reviewer and a benchmark decide alone."""

    def task(self, commit: str, text: str = "", expected: tuple[str, ...] = ()) -> Task:
        """The repository at a commit, as those who make trees and run tests want it."""
        return Task(
            instance_id=f"{SUITE}-{commit[:12]}",
            suite=SUITE,
            repo=self.repository,
            base_commit=commit,
            created_at="",
            problem_statement=text,
            difficulty=1,
            sequence_id=SUITE,
            sequence_position=1,
            dependencies=(),
            modified_files=(),
            environment="harness",
            runner=Runner.PYTEST,
            test_targets=self.tests,
            gold_patch="",
            test_patch="",
            fail_to_pass=expected,
            pass_to_pass=(),
        )

    def tests_gate(self, candidate: Candidate) -> Found:
        """Every test that passes with the parent passes with the candidate: run from the trusted tree, by a runner outside of it, with
        canaries. What the candidate changed in tests is left out. Raises VerifierBroken where the parent does not pass either."""
        expected = passing(self.task(candidate.base), self.verifier_context, "parent")
        if not expected:
            return self._says(
                candidate, "tests", GateOutcome.UNDECIDED, "no trusted test passes with the parent"
            ), Cause.GATE
        try:
            found = self._judged(candidate, expected)
        except VerifierBroken as error:
            self._control(candidate)
            return self._says(
                candidate, "tests", GateOutcome.FAIL, f"the tests do not start: {error}"
            ), Cause.GATE
        if found.outcome is Outcome.TAMPERED:
            return self._says(candidate, "tests", GateOutcome.FAIL, found.cause), Cause.TAMPERED
        if found.outcome is not Outcome.RESOLVED:
            slow = found.cause.startswith("the tests took")
            if slow:
                self._control(candidate)
            return self._says(
                candidate, "tests", GateOutcome.FAIL, found.cause
            ), Cause.TESTS_TIMEOUT if slow else Cause.GATE
        left_out = (
            f"; changes of {', '.join(found.stripped_paths[:5])} left out" if found.stripped_paths else ""
        )
        said = f"{len(expected)} of {len(expected)} trusted tests pass{left_out}"
        return self._says(candidate, "tests", GateOutcome.PASS, said), Cause.NONE

    def _judged(self, candidate: Candidate, expected: tuple[str, ...]) -> TestReport:
        patch = self.sources.diff(candidate.base, candidate.commit)
        return verify_again(
            self.task(candidate.base, "", expected),
            patch,
            self.verifier_context,
            "candidate",
        )

    def _control(self, candidate: Candidate) -> None:
        """Raises VerifierBroken where the parent's tests do not run now."""
        passing(self.task(candidate.base), self.verifier_context, "control")

    def contract_gate(self, candidate: Candidate) -> Found:
        """Every criterion with a command exits with 0."""
        wanted = [found for found in candidate.contract.criteria if found.command]
        for criterion in wanted:
            with closing(
                self.verifier_context.sessions.open(self.task(candidate.commit), "contract")
            ) as session:
                done = session.exec(criterion.command, COMMAND_S)
            if done.exit_code != 0:
                why = f"{criterion.id}, `{criterion.command}`: {said_of(done)}"
                return self._says(candidate, "contract", GateOutcome.FAIL, why), Cause.GATE
        return self._says(
            candidate,
            "contract",
            GateOutcome.PASS,
            f"{counted(len(wanted), 'command exits', 'commands exit')} with 0",
        ), Cause.NONE

    def _says(self, candidate: Candidate, gate: str, outcome: GateOutcome, evidence: str) -> GateResult:
        return GateResult(
            gate=gate,
            outcome=outcome,
            evidence=evidence,
            candidate_hash=self.sources.tree_of(candidate.commit),
        )


def said_of(done: CommandResult) -> str:
    if done.killed_by:
        return f"killed, {done.killed_by}"
    last = done.text().strip().splitlines()[-1:] or ["no output"]
    return f"exit code {done.exit_code}: {last[0][:300]}"
