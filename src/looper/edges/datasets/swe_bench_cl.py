"""SWE-Bench-CL from local files, or from the hub through the `datasets` package."""

from collections.abc import Iterator
from typing import Any

from looper.bench.swe_bench_cl import task_from_row
from looper.edges.datasets.rows import Placed, bases_of, made_of, note, read_rows
from looper.errors import BadInput
from looper.records.task import Task


def load_swe_bench_cl(source: str) -> tuple[Task, ...]:
    """Tasks in sequence order, whatever the order of the rows; the sequences in that of their first rows. `source` is a file or folder
    of rows, packed by gzip or not, or `hub:NAME` of a dataset with the same rows.

    Raises BadInput, naming the row where one is broken, stands there twice, has the position of another, depends on what is not
    there, or closes a circle.
    """
    tasks: list[Task] = []
    places: dict[str, str] = {}
    positions: dict[tuple[str, int], str] = {}
    relations: dict[tuple[str, str], str] = {}
    for place, row in _rows(source):
        if "instance_id" in row:
            raise BadInput(f"{place}: a row in SWE-bench's own shape. Say --suite swe-bench.")
        task = made_of(task_from_row, row, place)
        note(places, task.instance_id, place)
        other = positions.setdefault((task.sequence_id, task.sequence_position), task.instance_id)
        if other != task.instance_id:
            raise BadInput(
                f"{place}: sequence_position {task.sequence_position} is that of {other} already. Correct one of the two."
            )
        relations.update(((task.instance_id, base), place) for base in task.dependencies)
        tasks.append(task)
    bases_of({task.instance_id: task for task in tasks}, relations)
    order = list(dict.fromkeys(task.sequence_id for task in tasks))
    return tuple(sorted(tasks, key=lambda task: (order.index(task.sequence_id), task.sequence_position)))


def load_hints(source: str) -> dict[str, str]:
    """What people said below each issue, by task; empty where nobody did. No task record holds it and no agent sees it: much of
    it was written when the fix was known. Raises BadInput."""
    return dict(made_of(_hint, row, place) for place, row in _rows(source))


def _hint(row: dict[str, Any]) -> tuple[str, str]:
    return row["metadata"]["instance_id"], row["task"].get("hints_text") or ""


def _rows(source: str) -> Iterator[Placed]:
    return read_rows(source, "Name the rows of SWE-Bench-CL with --data or LOOPER_SWE_DATA.", ("train",))
