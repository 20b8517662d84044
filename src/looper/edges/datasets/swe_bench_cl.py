"""SWE-Bench-CL from local files, or from the hub through the `datasets` package."""

from collections.abc import Iterator

from looper.bench.swe_bench_cl import task_from_row
from looper.edges.datasets.rows import Placed, made_of, note, read_rows
from looper.errors import BadInput
from looper.records.task import Task


def load_swe_bench_cl(source: str) -> tuple[Task, ...]:
    """Tasks in sequence order. `source` is a JSONL file, plain or `.gz`, or `hub:NAME` of a dataset with the same rows.

    Raises BadInput, naming the row where one is broken.
    """
    tasks: list[Task] = []
    places: dict[str, str] = {}
    for place, row in _rows(source):
        if "instance_id" in row:
            raise BadInput(f"{place}: a row in SWE-bench's own shape. Say --suite swe-bench.")
        tasks.append(made_of(task_from_row, row, place))
        note(places, tasks[-1].instance_id, place)
    return tuple(tasks)


def load_hints(source: str) -> dict[str, str]:
    """What people said below each issue, by task; empty where nobody did. No task record holds it and no agent sees it: much of
    it was written when the fix was known. Raises BadInput."""
    return {row["metadata"]["instance_id"]: row["task"].get("hints_text") or "" for _, row in _rows(source)}


def _rows(source: str) -> Iterator[Placed]:
    return read_rows(
        source, "Name the JSONL file of SWE-Bench-CL with --data or LOOPER_SWE_DATA.", ("train",)
    )
