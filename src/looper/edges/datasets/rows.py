"""Rows of a data set from a local file, or from the hub through the `datasets` package."""

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from looper.errors import BadInput, MissingTool

HUB = "hub:"


def read_rows(source: str, how_to_name: str, splits: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number, from 1, and content of every row. `source` is a JSONL file, plain or `.gz`, or `hub:NAME` of a data set with those
    `splits`; `how_to_name` says how a person names another one. Raises BadInput or MissingTool."""
    if source.startswith(HUB):
        return _from_hub(source.removeprefix(HUB), splits)
    return _from_file(Path(source).expanduser(), how_to_name)


def _from_file(path: Path, how_to_name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    if not path.is_file():
        raise BadInput(f"The dataset file {path} does not exist. {how_to_name}")
    number = 0
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
        try:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield number, json.loads(line)
        except (OSError, EOFError, ValueError, RecursionError) as error:
            raise BadInput(
                f"{path}, row {number + isinstance(error, OSError)}: {error}. Take the file anew."
            ) from error


def _from_hub(name: str, splits: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        import datasets
    except ImportError as error:
        raise MissingTool('The hub needs the datasets package: pip install "looper[datasets]".') from error
    name, _, configuration = name.partition("#")
    try:
        found = [
            row for split in splits for row in datasets.load_dataset(name, configuration or None, split=split)
        ]
    except Exception as error:  # The package raises many kinds, and none of its own.
        raise BadInput(f"The hub did not give {name}: {error}.") from error
    yield from enumerate(found, 1)
