"""Files of predictions, in every shape that the field writes."""

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from looper.edges.datasets.json_files import (
    NAME_CHARACTERS,
    parsed,
    quoted,
    read_entries,
    read_folder,
    read_text,
)
from looper.errors import BadInput, one_line
from looper.records.foreign import Prediction
from looper.records.task import Task

NAMES = ("preds.json", "all_preds.jsonl")
"""Of the one file in a folder that holds all: mini-swe-agent's and SWE-agent's."""
FIELDS = ("instance_id", "model_patch", "model_name_or_path")
FIX = f"Name a file of predictions, or a folder with {', '.join(NAMES)} or *.pred files."
NO_MODEL = "None"
"""As SWE-bench calls the model of a prediction that names none."""


def read_predictions(path: Path, tasks: Mapping[str, Task]) -> tuple[Prediction, ...]:
    """From a JSONL file, a JSON list, an object by instance id, or a folder of `.pred` files.

    Raises BadInput that names every place that cannot be used; nothing is graded then.
    """
    found: dict[tuple[str, str], tuple[str, Prediction]] = {}
    problems = []
    for place, row in _of_folder(path, tasks) if os.path.isdir(path) else _of_file(path):
        try:
            prediction = _prediction(row, tasks)
        except ValueError as error:
            problems.append(f"{place}: {error}")
            continue
        key = (prediction.model, prediction.instance_id)
        if key in found:
            problems.append(
                f"{place}: {prediction.instance_id} of {one_line(prediction.model, NAME_CHARACTERS)} a second time, after {found[key][0]}"
            )
        found.setdefault(key, (place, prediction))
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise BadInput(f"{path}: {'; '.join(problems[:5])}{more}. Correct it and run again.")
    if not found:
        raise BadInput(f"{path} holds no predictions. {FIX}")
    return tuple(prediction for _, prediction in found.values())


def _of_folder(folder: Path, tasks: Mapping[str, Task]) -> list[tuple[str, Any]]:
    """Of the file that holds all, or of those of each task. Raises BadInput where both are there and do not say the same."""
    there = {path.name for path in read_folder(folder, FIX)}
    found = {name: list(_of_file(folder / name)) for name in NAMES if name in there}
    if apart := sorted(folder.rglob("*.pred")):
        names = [str(file.relative_to(folder)) for file in apart]
        shown = f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0]
        found[shown] = [(name, _of_its_file(file, tasks)) for name, file in zip(names, apart, strict=True)]
    first, *others = found.values() or [[]]
    if any(_said(other) != _said(first) for other in others):
        raise BadInput(
            f"{folder} holds {' beside '.join(found)}, and these are not the same predictions. Name the one file that is meant, "
            "or a folder that holds no others."
        )
    return first


def _said(rows: Sequence[tuple[str, Any]]) -> list[str]:
    """What rows predict, whatever their order and their other fields, so that they can be compared."""
    return sorted(
        repr([_plain(row.get(name)) for name in FIELDS] if isinstance(row, dict) else _plain(row))
        for _, row in rows
    )


def _plain(value: Any) -> Any:
    """Nothing is as good as an empty text; what is no text at all cannot be used, and says only what it is."""
    return value or None if isinstance(value, str | int | ValueError | None) else type(value).__name__


def _of_its_file(file: Path, tasks: Mapping[str, Task]) -> Any:
    """Of a file that is called as a task it must be the prediction for that one."""
    row = parsed(read_text(file, FIX, any_text=True))
    if file.stem in tasks and isinstance(row, dict) and row.get("instance_id", file.stem) != file.stem:
        return _of_another(row["instance_id"])
    return row


def _of_another(instance: Any) -> ValueError:
    return ValueError(f"what stands there is for {quoted(str(instance))}; one of the two names is wrong")


def _of_file(path: Path) -> Iterator[tuple[str, Any]]:
    whole, entries = read_entries(path, FIX, any_text=True)
    if isinstance(whole, dict) and isinstance(whole.get("instance_id", {}), dict):
        yield from ((quoted(name), _by_id(name, row)) for name, row in whole.items())
    else:
        kind = "entry" if isinstance(whole, list) else "line"
        yield from ((f"{kind} {number}", row) for number, row in entries)


def _by_id(name: str, row: Any) -> Any:
    if not isinstance(row, dict):
        return row
    instance = row.get("instance_id", name)
    return {"instance_id": name, **row} if str(instance) == name else _of_another(instance)


def _prediction(row: Any, tasks: Mapping[str, Task]) -> Prediction:
    """Raises ValueError with what is wrong."""
    if isinstance(row, ValueError):
        raise row
    if not isinstance(row, dict):
        raise ValueError("no object with instance_id and model_patch")
    missing = [name for name in ("instance_id", "model_patch") if name not in row]
    if missing:
        raise ValueError(f"without {', '.join(missing)}")
    instance, patch, model = (row.get(name) for name in FIELDS)
    if not isinstance(instance, str | int):
        raise ValueError("instance_id is no text")
    instance = str(instance)
    if instance not in tasks:
        near = difflib.get_close_matches(instance, tasks, n=1)
        raise ValueError(f"unknown task {quoted(instance)}{f' (did you mean {near[0]}?)' if near else ''}")
    if patch is not None and not isinstance(patch, str):
        raise ValueError("model_patch is no text")
    if model is not None and not isinstance(model, str):
        raise ValueError("model_name_or_path is no text")
    return Prediction(instance_id=instance, model=model or NO_MODEL, patch=patch or "")
