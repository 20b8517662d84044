"""Rows of SWE-Bench-CL → task records."""

import re
from typing import Any

from looper.records.task import Runner, Task

SUITE = "swe-bench-cl"
OWN_RUNNERS = {"django/django": Runner.DJANGO, "sympy/sympy": Runner.SYMPY}
_TEST_FILE = re.compile(r"^diff --git a/.* b/(.*)$", re.MULTILINE)
_DATA_FILES = (".json", ".png", ".csv", ".txt", ".md", ".jpg", ".jpeg", ".pkl", ".yml", ".yaml", ".toml")


def task_from_row(row: dict[str, Any]) -> Task:
    """One row with the label corrections applied. Raises KeyError or TypeError where a field is missing or of a wrong
    kind, pydantic.ValidationError where a value is."""
    meta, issue, checks = row["metadata"], row["task"], row["evaluation"]
    learning, harness, sequence = row["continual_learning"], row["swebench"], row["sequence"]
    corrections = harness["label_corrections_2026_08"]
    runner = OWN_RUNNERS.get(meta["repo"], Runner.PYTEST)
    return Task(
        instance_id=meta["instance_id"],
        suite=SUITE,
        repo=meta["repo"],
        base_commit=meta["base_commit"],
        created_at=meta["created_at"],
        problem_statement=issue["problem_statement"],
        difficulty=learning["difficulty_score"],
        sequence_id=sequence["id"],
        sequence_position=learning["sequence_position"],
        dependencies=tuple(sequence["dependencies_in_sequence"]),
        modified_files=tuple(learning["modified_files"]),
        environment=f"{meta['repo']}@{harness['version']}",
        runner=runner,
        test_targets=targets_of(checks["test_patch"], runner),
        gold_patch=checks["patch"],
        test_patch=checks["test_patch"],
        fail_to_pass=_corrected(checks["FAIL_TO_PASS"], corrections, "FAIL_TO_PASS"),
        pass_to_pass=_corrected(checks["PASS_TO_PASS"], corrections, "PASS_TO_PASS"),
    )


def _corrected(names: list[str], corrections: dict[str, list[str]] | None, kind: str) -> tuple[str, ...]:
    """Ids after the correction of August 2026, where there is one."""
    found = corrections or {}
    removed = set(found.get(f"{kind}_removed", ()))
    return (*(name for name in names if name not in removed), *found.get(f"{kind}_added", ()))


def targets_of(test_patch: str, runner: Runner) -> tuple[str, ...]:
    """What the official harness runs: every file of the test patch that is no data file; dotted labels for django. Read from the
    text as that harness reads it, since no tree is there yet."""
    files = sorted({path for path in _TEST_FILE.findall(test_patch) if not path.endswith(_DATA_FILES)})
    if runner is Runner.DJANGO:
        return tuple(re.sub(r"\.py$", "", path.removeprefix("tests/")).replace("/", ".") for path in files)
    return tuple(files)
