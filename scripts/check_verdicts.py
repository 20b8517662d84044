"""Other people's patches: whether Looper's verdicts are those that the SWE-bench harness gave them.

    python scripts/check_verdicts.py PREDICTIONS=REPORT ... [--repo R] [--task ID] [--explained FILE] [--workers 1]

PREDICTIONS are patches of one model in any shape that `looper import` reads; REPORT says which of them resolved: SWE-bench's own
(`resolved_ids`), that of its first version and of the leaderboard (`resolved`, beside `generated` or `no_generation`), a
`report.json` of one instance or a folder with one for each, or an object of true and false by instance id. Patches of other tasks, and those
without an official verdict, are counted and left. The others are judged as `looper bench verify` judges them, so nothing is judged
twice and an interrupted check goes on.

Prints how often both agree, by repository and by model, and every disagreement with both verdicts and our cause. FILE is
TOML: a table for each model, in it a sentence for each instance id that is known to differ, and why. The status is 1 where
a disagreement is not explained there, or a patch got no verdict.
"""

import argparse
import json
import shlex
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from looper.cli.grading import grade, suite_named
from looper.cli.settings import Settings, settings
from looper.cli.wiring import every_task, read_foreign
from looper.errors import BadInput, LooperError
from looper.experiment.schedule import select_tasks
from looper.records.plan import TaskSelection
from looper.records.task import Task
from looper.records.verdict import Outcome, Verdict
from looper.views.predictions import prediction_line

NOT_JUDGED = ("no_logs", "install_fail", "reset_failed", "test_errored")
"""Lists in reports of SWE-bench's first version: the harness itself failed."""
COLUMNS = ("both resolve", "both do not", "only the official", "only ours", "no verdict here")


@dataclass(frozen=True)
class Compared:
    """One patch with both verdicts."""

    model: str
    repo: str
    instance_id: str
    official: bool
    ours: bool | None
    """None where Looper came to no verdict."""
    cause: str
    """In Looper's words; empty where it resolves."""

    @property
    def column(self) -> str:
        if self.ours is None:
            return COLUMNS[4]
        if self.ours == self.official:
            return COLUMNS[0 if self.ours else 1]
        return COLUMNS[3 if self.ours else 2]

    @property
    def agrees(self) -> bool:
        return self.ours == self.official


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pairs", nargs="+", metavar="PREDICTIONS=REPORT")
    parser.add_argument("--explained", type=Path, metavar="FILE")
    parser.add_argument("--suite", default="swe-bench-cl")
    parser.add_argument("--repo", action="append", default=[])
    parser.add_argument("--task", action="append", default=[])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--sandbox", default="auto")
    options = parser.parse_args()
    try:
        explained = explanations(options.explained)
        selection = suite_named(options.suite, 0).model_copy(
            update={"repos": tuple(options.repo), "tasks": tuple(options.task)}
        )
        found = compared(options.pairs, selection, settings(), options.workers, options.sandbox)
    except LooperError as error:
        print(error, file=sys.stderr)
        return int(error.exit_code)
    for line in (*table(found, lambda each: each.repo), "", *table(found, lambda each: each.model)):
        print(line)
    different = [each for each in found if not each.agrees]
    for each in different:
        print(told(each, explained.get(each.model, {}).get(each.instance_id, "")))
    return int(any(each.instance_id not in explained.get(each.model, {}) for each in different))


def compared(
    pairs: Sequence[str], selection: TaskSelection, settings: Settings, workers: int, sandbox: str
) -> list[Compared]:
    """Each patch of the selected tasks that has an official verdict. Raises BadInput, and what grading raises."""
    tasks = {task.instance_id: task for task in select_tasks(every_task(selection, settings)[0], selection)}
    said: dict[tuple[str, str], bool] = {}
    lines = []
    for pair in pairs:
        model, patches, verdicts = judged_elsewhere(pair, tasks)
        twice = next((name for name in verdicts if (model, name) in said), None)
        if twice is not None:
            raise BadInput(
                f"{pair}: {twice} of {model} a second time. Give each file a model name of its own."
            )
        said |= {(model, name): resolved for name, resolved in verdicts.items()}
        lines += [prediction_line(name, model, patches[name]) for name in verdicts]
    ours = judged_here(lines, selection, settings, workers, sandbox) if lines else {}
    return [
        beside(model, tasks[name], resolved, ours.get((model, name)))
        for (model, name), resolved in said.items()
    ]


def judged_elsewhere(pair: str, tasks: Mapping[str, Task]) -> tuple[str, dict[str, str], dict[str, bool]]:
    """The model, its patches for these tasks, and which of them the harness found resolved, by instance id. Raises BadInput."""
    name, sign, report = pair.rpartition("=")
    if not sign:
        raise BadInput(f"{pair}: name a report behind the predictions: PREDICTIONS=REPORT.")
    run = read_foreign(name)
    patches = {each.instance_id: each.patch for each in run.attempts if each.instance_id in tasks}
    verdicts = official(Path(report), patches)
    say(
        f"{name}: {len(run.attempts)} patches, {len(patches)} of tasks that were chosen, {len(verdicts)} of them judged officially"
    )
    return run.model or run.name, patches, verdicts


def judged_here(
    lines: Sequence[str], selection: TaskSelection, settings: Settings, workers: int, sandbox: str
) -> dict[tuple[str, str], Verdict]:
    """The last verdict of each prediction, by model and instance id."""
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "predictions.jsonl"
        file.write_text("\n".join(lines) + "\n", "utf-8")
        command = shlex.join(["python", *sys.argv])
        run, _ = grade(
            file,
            selection.suite,
            selection.level,
            selection.isolation,
            workers,
            sandbox,
            settings,
            command,
            say,
        )
    models = {arm.name: arm.model.name for arm in run.manifest.plan.arms}
    return {
        (models[verdict.cell.partition("/")[0]], verdict.instance_id): verdict
        for verdict in run.final.values()
    }


def beside(model: str, task: Task, official: bool, ours: Verdict | None) -> Compared:
    decided = ours is not None and ours.outcome.is_verdict
    return Compared(
        model=model,
        repo=task.repo,
        instance_id=task.instance_id,
        official=official,
        ours=ours.outcome is Outcome.RESOLVED if ours is not None and decided else None,
        cause=ours.cause if ours is not None else "not judged",
    )


def official(report: Path, names: Collection[str]) -> dict[str, bool]:
    """Whether the harness found each of these instances resolved; without those that it could not judge. Raises BadInput."""
    if report.is_dir():
        by_id: dict[str, Any] = {}
        for file in sorted(report.rglob("report.json")):
            by_id |= _object(file)
        if not by_id:
            raise BadInput(f"{report} holds no report.json.")
        return _by_id(by_id, names, report)
    found = _object(report)
    resolved = _names(found, "resolved_ids") if "resolved_ids" in found else None
    if resolved is not None:
        judged = resolved | _names(found, "unresolved_ids") | _names(found, "empty_patch_ids")
    elif isinstance(found.get("resolved"), list):
        resolved = _names(found, "resolved")
        judged = set(names).difference(*(_names(found, each) for each in NOT_JUDGED))
        if "generated" in found:
            judged &= _names(found, "generated") | _names(found, "no_generation")
    else:
        return _by_id(found, names, report)
    return {name: name in resolved for name in names if name in judged}


def _by_id(found: Mapping[str, Any], names: Collection[str], place: Path) -> dict[str, bool]:
    said = {name: row.get("resolved") if isinstance(row, dict) else row for name, row in found.items()}
    wrong = next((name for name, value in said.items() if value not in (True, False)), None)
    if wrong is not None:
        raise BadInput(f"{place}: {wrong} is neither resolved nor not; this is no report of SWE-bench.")
    return {name: bool(said[name]) for name in names if name in said}


def _object(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{file}: no report that can be read: {error}.") from error
    if not isinstance(found, dict):
        raise BadInput(f"{file}: an object is wanted, not {type(found).__name__}.")
    return found


def _names(found: Mapping[str, Any], key: str) -> set[str]:
    names = found.get(key) or []
    if not isinstance(names, list):
        raise BadInput(f"{key} of a report is no list of instance ids.")
    return {str(name) for name in names}


def explanations(file: Path | None) -> dict[str, dict[str, str]]:
    """Sentences by model and instance id. Raises BadInput."""
    if file is None:
        return {}
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{file}: no explanations that can be read: {error}.") from error


def table(found: Sequence[Compared], of: Callable[[Compared], str]) -> Iterator[str]:
    """Markdown: patches, and how their two verdicts stand to each other, by what `of` says."""
    yield "| " + " | ".join(("", "patches", *COLUMNS)) + " |"
    yield "|---|" + "---:|" * (1 + len(COLUMNS))
    for name, chosen in (*((name, name) for name in sorted({of(each) for each in found})), ("all", None)):
        counts = Counter(each.column for each in found if chosen in (None, of(each)))
        yield f"| {name} | {counts.total()} | " + " | ".join(str(counts[each]) for each in COLUMNS) + " |"


def told(each: Compared, why: str) -> str:
    official = "resolved" if each.official else "unresolved"
    ours = {True: "resolved", False: "unresolved", None: "no verdict"}[each.ours]
    return (
        f"{each.model} {each.instance_id}: official {official}, here {ours}"
        f"{f' ({each.cause})' if each.cause else ''}; {f'explained: {why}' if why else 'NOT EXPLAINED'}"
    )


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
