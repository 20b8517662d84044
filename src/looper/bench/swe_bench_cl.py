"""Rows of SWE-Bench-CL → task records."""

import re
from typing import Any

from looper.bench.rows import OWN_RUNNERS, environment_of, listed, moment, must_have_its_shapes, targets_of
from looper.records.task import Runner, Task

SUITE = "swe-bench-cl"
_ID = re.compile(r"\S.*\S")
_PYTEST_ID = re.compile(r".+(\.py|::.+)|\[ *\d+%\]", re.DOTALL)
"""Two ids of the benchmark are a mark of progress, as the official parser took it for a test's name."""


def task_from_row(row: dict[str, Any]) -> Task:
    """One row with the label corrections applied. Raises KeyError, TypeError or ValueError where a field is missing, of a wrong
    kind, or no list of what it should list."""
    meta, issue, checks = row["metadata"], row["task"], row["evaluation"]
    learning, harness, sequence = row["continual_learning"], row["swebench"], row["sequence"]
    must_have_its_shapes({**checks, **issue, **meta})
    corrections = harness["label_corrections_2026_08"]
    if corrections is not None and not isinstance(corrections, dict):
        raise ValueError("label_corrections_2026_08 is no object")
    position = learning["sequence_position"]
    if isinstance(position, int) and position < 1:
        raise ValueError(f"sequence_position is {position}, and the first is 1")
    runner = OWN_RUNNERS.get(meta["repo"], Runner.PYTEST)
    return Task(
        instance_id=meta["instance_id"],
        suite=SUITE,
        repo=meta["repo"],
        base_commit=meta["base_commit"],
        created_at=moment(meta["created_at"]).isoformat(timespec="seconds"),
        problem_statement=issue["problem_statement"],
        difficulty=learning["difficulty_score"],
        sequence_id=sequence["id"],
        sequence_position=position,
        dependencies=listed(sequence, "dependencies_in_sequence"),
        modified_files=listed(learning, "modified_files"),
        environment=environment_of(meta["repo"], harness["version"]),
        runner=runner,
        test_targets=targets_of(checks["test_patch"], runner),
        gold_patch=checks["patch"],
        test_patch=checks["test_patch"],
        fail_to_pass=_ids(checks, "FAIL_TO_PASS", corrections or {}, runner),
        pass_to_pass=_ids(checks, "PASS_TO_PASS", corrections or {}, runner),
    )


def _ids(checks: dict[str, Any], kind: str, corrections: dict[str, Any], runner: Runner) -> tuple[str, ...]:
    """Ids after the correction of August 2026, where there is one. Raises ValueError for what is no id of a test."""
    names = listed(checks, kind)
    removed, added = (
        listed(corrections, f"{kind}_{how}") if f"{kind}_{how}" in corrections else ()
        for how in ("removed", "added")
    )
    found = (*(name for name in names if name not in set(removed)), *added)
    shape = _PYTEST_ID if runner is Runner.PYTEST else _ID
    strange = next((name for name in found if not shape.fullmatch(name)), None)
    if strange is not None:
        raise ValueError(f"{kind} holds {strange!r}, which is no id of a test")
    return found
