"""Rows in SWE-bench's shape, with or without what they refer to, from local files or the hub."""

from typing import Any

from looper.bench.swe_bench import in_sequences, task_from_row
from looper.edges.datasets.rows import bases_of, made_of, note, read_rows
from looper.errors import BadInput
from looper.records.task import Task

HOW = "Name rows in SWE-bench's shape with --data or LOOPER_SWE_BENCH_DATA: a file, a folder, or hub:princeton-nlp/SWE-bench_Lite."
RELATED, BASE = "related_instance_id", "experience_instance_id"
"""Of SWE-ContextBench's table of relations: a task, and one that its issue or its change refers to."""


def load_swe_bench(source: str) -> tuple[Task, ...]:
    """Tasks of SWE-bench, Lite, Verified, SWE-ContextBench, or whatever has their shape, in sequences. A row with the two ids of a
    relation couples two tasks, wherever it stands among the others.

    Raises BadInput, naming the row where one is broken, stands there twice, relates what is not there, or closes a circle.
    """
    tasks: list[Task] = []
    places: dict[str, str] = {}
    relations: dict[tuple[str, str], str] = {}
    for place, row in read_rows(source, HOW, ("test",)):
        # Tables that were joined say None where a row has no such column.
        if any(row.get(name) is not None for name in (RELATED, BASE)):
            relations.setdefault(made_of(_relation, row, place), place)
            if row.get("instance_id") is None:
                continue
        if "continual_learning" in row:
            raise BadInput(f"{place}: a row of SWE-Bench-CL. Say --suite swe-bench-cl.")
        tasks.append(made_of(task_from_row, row, place))
        note(places, tasks[-1].instance_id, place)
    if not tasks:
        raise BadInput(f"{source} has no rows. {HOW}")
    return in_sequences(tasks, bases_of({task.instance_id: task for task in tasks}, relations))


def _relation(row: dict[str, Any]) -> tuple[str, str]:
    """Raises KeyError or ValueError."""
    if wrong := [name for name in (RELATED, BASE) if not row[name] or not isinstance(row[name], str)]:
        raise ValueError(f"{wrong[0]} is no id of a task")
    return row[RELATED], row[BASE]
