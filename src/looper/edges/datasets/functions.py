"""HumanEval and MBPP from a local file or the hub, written as tasks once for each content."""

from pathlib import Path

from looper.bench.functions import human_eval_change, mbpp_change
from looper.bench.micro.project import Project
from looper.edges.datasets.json_files import ANEW
from looper.edges.datasets.projects import written
from looper.edges.datasets.rows import made_of, read_rows
from looper.errors import BadInput, one_line
from looper.records.base import content_hash
from looper.records.task import Task

KINDS = {
    "humaneval": (
        "HumanEval",
        "hub:openai/openai_humaneval",
        ("test",),
        human_eval_change,
    ),
    "mbpp": (
        "MBPP",
        "hub:google-research-datasets/mbpp#sanitized",
        ("prompt", "train", "validation", "test"),
        mbpp_change,
    ),
}


def load_functions(suite: str, source: str, folder: Path) -> tuple[tuple[Task, ...], dict[str, Path]]:
    """Tasks and mirrors under `folder`. Raises BadInput, naming the row where one is broken."""
    name, hub, splits, change_of = KINDS[suite]
    how = f"Set LOOPER_{suite.upper()} to its JSONL file, or to {hub}."
    if not source:
        raise BadInput(f"{name} is not configured. {how}")
    changes = [made_of(change_of, row, place) for place, row in read_rows(source, how, splits)]
    titles = [change.title for change in changes]
    if again := {title for title in titles if titles.count(title) > 1}:
        raise BadInput(f"{source} has {one_line(', '.join(sorted(again)))} more than once. {ANEW}")
    if not changes:
        raise BadInput(f"{source} has no rows. {how}")
    project = Project(name, tuple(changes))
    identity = content_hash(repr(project.changes))[:12]
    return written(
        folder / f"{suite}-{identity}", suite, [project], lambda of, number: of.changes[number - 1].title
    )
