"""One issue at one base commit, with its checks."""

from enum import StrEnum

from looper.records.base import Record


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
    def own_tests(self) -> str:
        """Command that runs the repository's own tests, in its root; what to test comes after it."""
        return OWN_TESTS[self.runner]
