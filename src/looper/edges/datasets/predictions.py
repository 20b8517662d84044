"""Predictions files, as SWE-bench defines them."""

import difflib
import json
from collections.abc import Mapping
from pathlib import Path

from looper.errors import BadInput
from looper.records.foreign import Prediction
from looper.records.task import Task

FIELDS = ("instance_id", "model_name_or_path", "model_patch")


def read_predictions(path: Path, tasks: Mapping[str, Task]) -> tuple[Prediction, ...]:
    """Raises BadInput that names every line that cannot be used; nothing is graded then."""
    if not path.is_file():
        raise BadInput(f"There is no predictions file {path}.")
    found: dict[tuple[str, str], Prediction] = {}
    problems = []
    for number, line in enumerate(path.read_text("utf-8", "surrogateescape").splitlines(), 1):
        if not line.strip():
            continue
        try:
            prediction = _prediction(line, tasks)
        except ValueError as error:
            problems.append(f"line {number}: {error}")
            continue
        if (prediction.model, prediction.instance_id) in found:
            problems.append(f"line {number}: {prediction.instance_id} of {prediction.model} a second time")
        found[prediction.model, prediction.instance_id] = prediction
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise BadInput(f"{path}: {'; '.join(problems[:5])}{more}. Correct it and run again.")
    if not found:
        raise BadInput(f"{path} holds no predictions.")
    return tuple(found.values())


def _prediction(line: str, tasks: Mapping[str, Task]) -> Prediction:
    """Raises ValueError with what is wrong."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError("not JSON") from error
    missing = [name for name in FIELDS if not isinstance(row, dict) or name not in row]
    if missing:
        raise ValueError(f"without {', '.join(missing)}")
    instance, patch = str(row["instance_id"]), row["model_patch"]
    if instance not in tasks:
        near = difflib.get_close_matches(instance, tasks, n=1)
        raise ValueError(f'unknown task "{instance}"{f", did you mean {near[0]}?" if near else ""}')
    if patch is not None and not isinstance(patch, str):
        raise ValueError("model_patch is no text")
    return Prediction(instance_id=instance, model=str(row["model_name_or_path"]), patch=patch or "")
