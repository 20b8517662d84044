"""One issue at one base commit, with its checks."""

import json
from enum import StrEnum

from looper.records.base import Record, content_hash


class Runner(StrEnum):
    """The test runner that a task's repository uses."""

    PYTEST = "pytest"
    DJANGO = "django"
    SYMPY = "sympy"


OWN_TESTS = {
    Runner.PYTEST: "python -m pytest",
    Runner.DJANGO: "python tests/runtests.py",
    Runner.SYMPY: "python bin/test",
}


class Task(Record):
    """What an agent is asked to do, and what decides whether it did.

    Only `problem_statement` and the base tree are for the agent; everything below `gold_patch` judges.
    """

    instance_id: str
    """The repository's name, a hyphen and a number."""
    suite: str
    """Where the task comes from: `micro-0`, `micro-1`, `micro-2`, `swe-bench-cl`, `swe-bench`, `humaneval`, `mbpp`."""
    repo: str
    base_commit: str
    created_at: str
    problem_statement: str
    difficulty: int | None
    """1 to 4, as in SWE-Bench-CL: under 15 minutes, under 1 hour, under 4 hours, longer; None where nobody said."""
    sequence_id: str
    sequence_position: int
    """From 1, within its sequence."""
    dependencies: tuple[str, ...]
    """Earlier-created tasks of the repository that touch a file which the gold patch touches; of coupled rows the tasks that their
    issues and changes refer to."""
    modified_files: tuple[str, ...]
    environment: str
    """Key of the environment that runs the repository: `harness`, or repository@version."""
    runner: Runner
    test_targets: tuple[str, ...]
    """What the runner is given: test files for pytest, dotted modules for django; empty means all."""
    gold_patch: str
    test_patch: str
    fail_to_pass: tuple[str, ...]
    pass_to_pass: tuple[str, ...]

    @property
    def labels_hash(self) -> str:
        """Of everything that decides whether a patch resolves this task. Its issue, its place in a sequence, the suite that lists it and
        the order of its ids are no part of that."""
        return content_hash(
            self.instance_id,
            self.repo,
            self.base_commit,
            self.environment,
            self.runner,
            json.dumps(self.test_targets),
            self.gold_patch,
            self.test_patch,
            *(json.dumps(sorted(set(ids))) for ids in (self.fail_to_pass, self.pass_to_pass)),
        )

    @property
    def own_tests(self) -> str:
        """Command that runs the repository's own tests, in its root; what to test comes after it."""
        return OWN_TESTS[self.runner]
