"""SWE-Bench-CL from a local file, or from the hub through the `datasets` package."""

from collections.abc import Iterator
from typing import Any

from looper.bench.swe_bench_cl import task_from_row
from looper.edges.datasets.rows import read_rows
from looper.errors import BadInput
from looper.records.task import Task


def load_swe_bench_cl(source: str) -> tuple[Task, ...]:
    """Tasks in sequence order. `source` is a JSONL file, plain or `.gz`, or `hub:NAME` of a dataset with the same rows.

    Raises BadInput, naming the row where one is broken.
    """
    tasks: list[Task] = []
    for number, row in _rows(source):
        try:
            tasks.append(task_from_row(row))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            what = f"field {error} is missing" if isinstance(error, KeyError) else str(error).splitlines()[0]
            raise BadInput(f"{source}, row {number}: {what}. Take the file anew.") from error
    seen: dict[str, int] = {}
    for number, task in enumerate(tasks, 1):
        if task.instance_id in seen:
            raise BadInput(
                f"{source}, row {number}: {task.instance_id} stands in row {seen[task.instance_id]} already."
            )
        seen[task.instance_id] = number
    return tuple(tasks)


def load_hints(source: str) -> dict[str, str]:
    """What people said below each issue, by task; empty where nobody did. No task record holds it and no agent sees it: much of
    it was written when the fix was known. Raises BadInput."""
    return {row["metadata"]["instance_id"]: row["task"].get("hints_text") or "" for _, row in _rows(source)}


def _rows(source: str) -> Iterator[tuple[int, dict[str, Any]]]:
    return read_rows(
        source, "Name the JSONL file of SWE-Bench-CL with --data or LOOPER_SWE_DATA.", ("train",)
    )
