"""Rows of SWE-Bench-CL → task records."""

import ast
import io
import json
import re
import tokenize
from typing import Any

from looper.records.task import Runner, Task

SUITE = "swe-bench-cl"
OWN_RUNNERS = {"django/django": Runner.DJANGO, "sympy/sympy": Runner.SYMPY}
_ID = re.compile(r"\S.*\S")
_PYTEST_ID = re.compile(r".+(\.py|::.+)|\[ *\d+%\]", re.DOTALL)
"""Two ids of the benchmark are a mark of progress, as the official parser took it for a test's name."""
_FILE = re.compile(r"^diff --git a/.* b/(.*)$", re.MULTILINE)
_DATA_FILES = (".json", ".png", ".csv", ".txt", ".md", ".jpg", ".jpeg", ".pkl", ".yml", ".yaml", ".toml")


def task_from_row(row: dict[str, Any]) -> Task:
    """One row with the label corrections applied. Raises KeyError, TypeError or ValueError where a field is missing, of a wrong
    kind, or no list of what it should list."""
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
        dependencies=listed(sequence, "dependencies_in_sequence"),
        modified_files=listed(learning, "modified_files"),
        environment=f"{meta['repo']}@{harness['version']}",
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


def listed(fields: dict[str, Any], name: str) -> tuple[str, ...]:
    """A list of texts, as such or written as text: JSON, as SWE-bench has it, Python, or numpy. Raises KeyError, or ValueError
    for anything else."""
    value = fields[name]
    if isinstance(value, str):
        for read in (json.loads, _python_list):
            try:
                value = read(value)
                break
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                continue
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{name} is no list of texts")
    return tuple(value)


def _python_list(text: str) -> Any:
    """As Python reads it; numpy prints no commas, and Python makes one text of two that have none between them."""
    value = ast.literal_eval(text)
    if not isinstance(value, list):
        return value
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    texts = [ast.literal_eval(token.string) for token in tokens if token.type == tokenize.STRING]
    return texts if all(isinstance(item, str) for item in value) else value


def files_of_patch(patch: str) -> tuple[str, ...]:
    """Files that a patch of git's names, as they are called after it."""
    return tuple(sorted(set(_FILE.findall(patch))))


def targets_of(test_patch: str, runner: Runner) -> tuple[str, ...]:
    """What the official harness runs: every file of the test patch that is no data file; dotted labels for django. Read from the
    text as that harness reads it, since no tree is there yet."""
    files = [path for path in files_of_patch(test_patch) if not path.endswith(_DATA_FILES)]
    if runner is Runner.DJANGO:
        return tuple(re.sub(r"\.py$", "", path.removeprefix("tests/")).replace("/", ".") for path in files)
    return tuple(files)
