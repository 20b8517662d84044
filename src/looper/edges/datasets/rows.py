"""Rows of a data set from local files, or from the hub through the `datasets` package."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from looper.edges.datasets.json_files import ANEW, quoted, read_entries, read_folder
from looper.errors import NOT_PYTHON, BadInput, MissingTool, named, one_line, pip_install
from looper.records.task import Task
from looper.records.text import counted

HUB = "hub:"
SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
"""Of the files that are read where a folder is named."""
HUB_SUFFIXES = (".parquet", ".json", ".jsonl", ".csv")

CIRCLE_SHOWN = 5
"""Tasks of a circle that an error names."""

T = TypeVar("T")
Placed = tuple[str, dict[str, Any]]
"""Where a row stands, `FILE, row N` with N from 1, of its line where the file is no list, and its content."""


def read_rows(source: str, how_to_name: str, splits: Sequence[str]) -> Iterator[Placed]:
    """Every row. `source` is a file of JSON lines, a JSON list or one JSON object, packed by gzip or not; a folder of such files, in the
    order of their names; or `hub:NAME` of a data set with those `splits`, where `#` comes before the name of a configuration or of
    files with commas between. `how_to_name` says how a person names another source. Raises BadInput or MissingTool."""
    if source.startswith(HUB):
        yield from _from_hub(source, splits)
        return
    path = Path(os.path.expanduser(source))
    for file in _files(path, how_to_name) if os.path.isdir(path) else [path]:
        _, entries = read_entries(file, how_to_name)
        yield from (_placed(f"{file}, row {number}", row) for number, row in entries)


def made_of(make: Callable[[dict[str, Any]], T], row: dict[str, Any], place: str) -> T:
    """What a row says. Raises BadInput with its place and what is wrong with it."""
    try:
        return make(row)
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise BadInput(f"{place}: {one_line(what)}. {ANEW}") from error
    except (LookupError, TypeError, AttributeError, ArithmeticError, *NOT_PYTHON) as error:
        if isinstance(error, RecursionError | MemoryError):
            what = "it is nested too deeply to be read"
        else:
            what = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
        raise BadInput(f"{place}: {one_line(what) or type(error).__name__}. {ANEW}") from error


def note(places: dict[str, str], name: str, place: str) -> None:
    """Remember where a name stands. Raises BadInput where it stood elsewhere before."""
    if name in places:
        raise BadInput(f"{place}: {name} stands in {places[name]} already. Take one of them away.")
    places[name] = place


def bases_of(tasks: Mapping[str, Task], relations: Mapping[tuple[str, str], str]) -> dict[str, list[str]]:
    """What each task builds on, by id. `relations` are the ids of a task and of one that it builds on, with the place that says so.
    Raises BadInput where one is not among the rows or of another repository, and where none of them can come first."""
    found: dict[str, list[str]] = {}
    for (related, base), place in relations.items():
        absent = [name for name in (related, base) if name not in tasks]
        if absent:
            raise BadInput(
                f"{place}: {quoted(absent[0])} is related to another task and is not among the rows. Add its row, "
                "or take the relation away."
            )
        if tasks[related].repo != tasks[base].repo:
            raise BadInput(
                f"{place}: {related} is of {tasks[related].repo} and {base} of {tasks[base].repo}, and a sequence is of one "
                "repository. Take the relation away."
            )
        found.setdefault(related, []).append(base)
    try:
        TopologicalSorter(found).prepare()
    except CycleError as error:
        circle = error.args[1]
        names = [
            *circle[::-1][:CIRCLE_SHOWN],
            *([f"… ({counted(len(circle) - 1, 'task')})"] if len(circle) > CIRCLE_SHOWN else ()),
        ]
        raise BadInput(
            f"{relations[circle[1], circle[0]]}: {' → '.join(names)} is a circle, and none of them can come first. Take one of its "
            "relations away."
        ) from error
    return found


def _files(folder: Path, how_to_name: str) -> list[Path]:
    found = [path for path in read_folder(folder, how_to_name) if path.name.endswith(SUFFIXES)]
    if not found:
        raise BadInput(
            f"The folder {folder} holds no rows: no file ends with {', '.join(SUFFIXES)}. {how_to_name}"
        )
    return found


def _placed(place: str, row: Any) -> Placed:
    if isinstance(row, dict):
        return place, row
    what = row if isinstance(row, ValueError) else "no JSON object"
    raise BadInput(f"{place}: {what}. {ANEW}")


def _from_hub(source: str, splits: Sequence[str]) -> Iterator[Placed]:
    name, _, what = source.removeprefix(HUB).partition("#")
    if not name:
        raise BadInput(f"{source} names no data set. Write hub:OWNER/NAME.")
    try:
        import datasets
    except ImportError as error:
        raise MissingTool(f"The hub needs the datasets package: {pip_install(extra='datasets')}") from error
    except Exception as error:
        raise MissingTool(
            f"The datasets package cannot be imported: {named(error).rstrip('.')}. Install it anew, with what it needs: "
            f"{pip_install('--force-reinstall', extra='datasets')}"
        ) from error
    try:
        if what.endswith(HUB_SUFFIXES):
            # One by one: files that differ in their columns make no configuration.
            parts = [datasets.load_dataset(name, data_files=file, split="train") for file in what.split(",")]
        else:
            parts = [datasets.load_dataset(name, what or None, split=split) for split in splits]
        found = [row for part in parts for row in part]
    except Exception as error:  # The package raises many kinds, and none of its own.
        raise BadInput(
            f"The hub did not give {name}: {named(error).rstrip('.')}. Check the name and the network, or name a file with its rows."
        ) from error
    yield from (_placed(f"{source}, row {number}", row) for number, row in enumerate(found, 1))
