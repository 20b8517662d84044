"""SWE-Bench-CL from a local file, or from the hub through the `datasets` package."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from looper.bench.swe_bench_cl import task_from_row
from looper.errors import BadInput, MissingTool
from looper.records.task import Task

HUB = "hub:"


def load_swe_bench_cl(source: str) -> tuple[Task, ...]:
    """Tasks in sequence order. `source` is a JSONL file, plain or `.gz`, or `hub:NAME` of a dataset with the same rows.

    Raises BadInput, naming the row where one is broken.
    """
    tasks: list[Task] = []
    for number, row in _rows(source):
        try:
            tasks.append(task_from_row(row))
        except (KeyError, TypeError, AttributeError, ValidationError) as error:
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
    return _from_hub(source.removeprefix(HUB)) if source.startswith(HUB) else _from_file(Path(source))


def _from_file(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if not path.is_file():
        raise BadInput(
            f"The dataset file {path} does not exist. Name the JSONL file of SWE-Bench-CL with --data or LOOPER_SWE_DATA."
        )
    number = 0
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
        try:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield number, json.loads(line)
        except (OSError, EOFError, ValueError) as error:
            raise BadInput(
                f"{path}, row {number + isinstance(error, OSError)}: {error}. Take the file anew."
            ) from error


def _from_hub(name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        import datasets
    except ImportError as error:
        raise MissingTool('The hub needs the datasets package: pip install "looper[datasets]".') from error
    try:
        found = datasets.load_dataset(name, split="train")
    except Exception as error:  # The package raises many kinds, and none of its own.
        raise BadInput(f"The hub did not give {name}: {error}.") from error
    yield from enumerate(found, 1)
