"""Rows of a data set from local files, or from the hub through the `datasets` package."""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from looper.errors import NOT_PYTHON, BadInput, MissingTool

HUB = "hub:"
SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
"""Of the files that are read where a folder is named."""
HUB_SUFFIXES = (".parquet", ".json", ".jsonl", ".csv")

T = TypeVar("T")
Placed = tuple[str, dict[str, Any]]
"""Where a row stands, `FILE, row N` with N from 1, and its content."""


def read_rows(source: str, how_to_name: str, splits: Sequence[str]) -> Iterator[Placed]:
    """Every row. `source` is a file of JSON lines, a JSON list or one JSON object, plain or `.gz`; a folder of such files, in the
    order of their names; or `hub:NAME` of a data set with those `splits`, where `#` comes before the name of a configuration or of
    files with commas between. `how_to_name` says how a person names another source. Raises BadInput or MissingTool."""
    if source.startswith(HUB):
        yield from _from_hub(source, splits)
        return
    path = Path(source).expanduser()
    for file in _files(path) if path.is_dir() else [path]:
        yield from _from_file(file, how_to_name)


def made_of(make: Callable[[dict[str, Any]], T], row: dict[str, Any], place: str) -> T:
    """What a row says. Raises BadInput with its place and what is wrong with it."""
    try:
        return make(row)
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise BadInput(f"{place}: {what}. Take the file anew.") from error
    except (LookupError, TypeError, AttributeError, ArithmeticError, *NOT_PYTHON) as error:
        if isinstance(error, RecursionError | MemoryError):
            what = "it is nested too deeply to be read"
        else:
            what = f"field {error} is missing" if isinstance(error, KeyError) else _first_line(error)
        raise BadInput(f"{place}: {what}. Take the file anew.") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def note(places: dict[str, str], name: str, place: str) -> None:
    """Remember where a name stands. Raises BadInput where it stood elsewhere before."""
    if name in places:
        raise BadInput(f"{place}: {name} stands in {places[name]} already. Take one of them away.")
    places[name] = place


def _files(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.iterdir() if path.name.endswith(SUFFIXES))
    if not found:
        raise BadInput(f"The folder {folder} holds no rows: no file ends with {', '.join(SUFFIXES)}.")
    return found


def _from_file(path: Path, how_to_name: str) -> Iterator[Placed]:
    if not path.is_file():
        raise BadInput(f"The dataset file {path} does not exist. {how_to_name}")
    number, begun = 0, False
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
        try:
            for number, line in enumerate(stream, 1):
                if not begun and (line.lstrip().startswith(b"[") or line.strip() == b"{"):
                    whole = json.loads(line + stream.read())
                    entries = whole if isinstance(whole, list) else [whole]
                    yield from (_placed(path, at, entry) for at, entry in enumerate(entries, 1))
                    return
                if line.strip():
                    begun = True
                    yield _placed(path, number, json.loads(line))
        except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
            cut_off = isinstance(error, OSError | EOFError | zlib.error)
            raise BadInput(f"{path}, row {number + cut_off}: {error}. Take the file anew.") from error


def _placed(path: Path, number: int, row: Any) -> Placed:
    if not isinstance(row, dict):
        raise BadInput(f"{path}, row {number}: no JSON object. Take the file anew.")
    return f"{path}, row {number}", row


def _from_hub(source: str, splits: Sequence[str]) -> Iterator[Placed]:
    try:
        import datasets
    except ImportError as error:
        raise MissingTool('The hub needs the datasets package: pip install "looper[datasets]".') from error
    name, _, what = source.removeprefix(HUB).partition("#")
    try:
        if what.endswith(HUB_SUFFIXES):
            # One by one: files that differ in their columns make no configuration.
            parts = [datasets.load_dataset(name, data_files=file, split="train") for file in what.split(",")]
        else:
            parts = [datasets.load_dataset(name, what or None, split=split) for split in splits]
        found = [row for part in parts for row in part]
    except Exception as error:  # The package raises many kinds, and none of its own.
        raise BadInput(f"The hub did not give {name}: {error}.") from error
    yield from ((f"{source}, row {number}", row) for number, row in enumerate(found, 1))
