"""Patches whose verdicts are known beforehand: gold, nothing, and six kinds of bad ones, of one task of each repository.

    python scripts/plant_patches.py FOLDER [--repo R] [--task ID]
    python scripts/check_verdicts.py $(cd FOLDER && for f in *.jsonl; do echo FOLDER/$f=FOLDER/${f%l}; done)

Writes for each kind predictions (KIND.jsonl) and the report that they must get (KIND.json), as `check_verdicts.py` reads them.
Without --task it is the task of each repository whose validation took least time.
"""

import argparse
import difflib
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from looper.bench.validate import eligible
from looper.cli.preparing import validations_of
from looper.cli.settings import settings
from looper.cli.wiring import base_trees, every_task
from looper.edges.workspaces.exports import BaseTrees
from looper.errors import LooperError
from looper.experiment.schedule import select_tasks
from looper.records.eligibility import Validation
from looper.records.plan import TaskSelection
from looper.records.task import Task
from looper.views.predictions import prediction_line

_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? ")
NEW = "/dev/null"
PASSES = "def test_it():\n    pass\n"
HOOKS = {
    "conftest.py": "import pytest\n\n\n@pytest.hookimpl(hookwrapper=True)\ndef pytest_runtest_makereport():\n"
    "    found = yield\n    found.get_result().outcome = 'passed'\n",
    "sitecustomize.py": "import unittest\n\nunittest.TestCase.run = lambda self, result=None: result.addSuccess(self)\n",
}


def patches(task: Task, trees: BaseTrees) -> Iterator[tuple[str, str, bool]]:
    """Kind, patch, and whether it resolves."""
    yield "gold", task.gold_patch, True
    yield "nothing", "", False
    yield "prose", "The fix is in the patch below.\n+++ b/setup.py\nIt returns early.\n", False
    yield "stale", "".join(_stale(task.gold_patch)), False
    tests = [path for path in trees.effect(task, task.test_patch) if path.endswith(".py")]
    yield "own_tests", "".join(_diff(path, trees.base_file(task, path), PASSES) for path in tests), False
    yield (
        "hooks",
        "".join(_diff(path, trees.base_file(task, path), text) for path, text in HOOKS.items()),
        False,
    )
    source, (_, after) = next(
        (path, change)
        for path, change in trees.effect(task, task.gold_patch).items()
        if path.endswith(".py") and change[1] is not None
    )
    assert after is not None
    broken = after.content.decode() + "\nreturn\n"
    yield "syntax", _diff(source, trees.base_file(task, source), broken), False
    yield "outside", _diff("../../outside.py", None, "x = 1\n"), False


def _stale(patch: str) -> Iterator[str]:
    """The patch as if it had been made for another version: each hunk takes away a line that is not there. Other context would not
    do, since GNU patch, which SWE-bench tries last, lets it pass (`--fuzz=5`)."""
    begun = False
    for line in patch.splitlines(keepends=True):
        if head := _HUNK.match(line):
            begun = True
            line = f"@@ -{head[1]},{int(head[2] or 1) + 1} {line[head.end() :]}"
        elif begun and line[:1] in "+-":
            yield "-a line that only another version has\n"
            begun = False
        yield line


def _diff(path: str, before: bytes | None, after: str) -> str:
    old = (before or b"").decode().splitlines(keepends=True)
    mode = "new file mode 100644\n" if before is None else ""
    ends = NEW if before is None else f"a/{path}", f"b/{path}"
    lines = difflib.unified_diff(old, after.splitlines(keepends=True), *ends)
    return f"diff --git a/{path} b/{path}\n{mode}" + "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )


def cheapest(tasks: Sequence[Task], validations: Mapping[str, Validation]) -> list[Task]:
    """Of each repository the task that was validated in the least time; the first where none was."""
    seconds = {name: found.gold_s for name, found in validations.items()}
    by_repo: dict[str, list[Task]] = {}
    for task in tasks:
        by_repo.setdefault(task.repo, []).append(task)
    return [
        min(group, key=lambda task: seconds.get(task.instance_id, float("inf"))) for group in by_repo.values()
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repo", action="append", default=[])
    parser.add_argument("--task", action="append", default=[])
    options = parser.parse_args()
    here = settings()
    selection = TaskSelection(suite="swe-bench-cl", repos=tuple(options.repo), tasks=tuple(options.task))
    try:
        every, _ = every_task(selection, here)
        validations = validations_of(selection, every, here)
        tasks = select_tasks(eligible(every, validations)[0], selection)
        chosen = tasks if options.task else cheapest(tasks, validations)
        trees = base_trees(chosen, here)
        made = [(task, *found) for task in chosen for found in patches(task, trees)]
    except LooperError as error:
        print(error, file=sys.stderr)
        return int(error.exit_code)
    options.folder.mkdir(parents=True, exist_ok=True)
    for kind in dict.fromkeys(kind for _, kind, _, _ in made):
        mine = [(task.instance_id, patch, resolves) for task, other, patch, resolves in made if other == kind]
        lines = [prediction_line(name, kind, patch) for name, patch, _ in mine]
        (options.folder / f"{kind}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
        report = {name: resolves for name, _, resolves in mine}
        (options.folder / f"{kind}.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    print(f"{len(chosen)} tasks: {', '.join(task.instance_id for task in chosen)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
