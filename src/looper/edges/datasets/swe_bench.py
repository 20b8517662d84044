"""Rows in SWE-bench's shape, with or without what they refer to, from local files or the hub."""

from graphlib import CycleError
from typing import Any

from looper.bench.swe_bench import in_sequences, task_from_row
from looper.edges.datasets.rows import made_of, note, read_rows
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
        if RELATED in row and "instance_id" not in row:
            relations.setdefault(made_of(_relation, row, place), place)
            continue
        if "continual_learning" in row:
            raise BadInput(f"{place}: a row of SWE-Bench-CL. Say --suite swe-bench-cl.")
        tasks.append(made_of(task_from_row, row, place))
        note(places, tasks[-1].instance_id, place)
    if not tasks:
        raise BadInput(f"{source} has no rows. {HOW}")
    bases = _bases({task.instance_id: task for task in tasks}, relations)
    try:
        return in_sequences(tasks, bases)
    except CycleError as error:
        circle = error.args[1]
        place = relations[circle[1], circle[0]]
        raise BadInput(
            f"{place}: {' → '.join(reversed(circle))} is a circle, and none of them can come first. Take one of its relations away."
        ) from error


def _relation(row: dict[str, Any]) -> tuple[str, str]:
    return str(row[RELATED]), str(row[BASE])


def _bases(tasks: dict[str, Task], relations: dict[tuple[str, str], str]) -> dict[str, list[str]]:
    """What each task refers to. Raises BadInput."""
    found: dict[str, list[str]] = {}
    for (related, base), place in relations.items():
        absent = [name for name in (related, base) if name not in tasks]
        if absent:
            raise BadInput(
                f"{place}: {absent[0]} is related to another task and is not among the rows. Add its row, or take the relation away."
            )
        if tasks[related].repo != tasks[base].repo:
            raise BadInput(
                f"{place}: {related} is of {tasks[related].repo} and {base} of {tasks[base].repo}, and a sequence is of one "
                "repository. Take the relation away."
            )
        found.setdefault(related, []).append(base)
    return found
