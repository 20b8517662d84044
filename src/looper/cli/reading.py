"""What `looper show`, `diff`, `status`, `memory` and `questions` print; nothing is written."""

import json
from collections.abc import Iterator
from pathlib import Path

from looper.errors import BadInput
from looper.views.diff import arms_diff, rollouts_diff, runs_diff
from looper.views.index import steps_of
from looper.views.live import Projection, described
from looper.views.memory import (
    delivery_lines,
    item_lines,
    why_lines,
)
from looper.views.questions import question_lines
from looper.views.runs import RunView, read_run, run_folders, run_named
from looper.views.show import duration, ending_text, step_text


def chosen_run(runs: Path, folder: Path | None) -> RunView:
    if folder is not None:
        return run_named(runs, folder)
    found = run_folders(runs)
    if not found:
        raise BadInput(f"There is no run below {runs} yet. Begin with: looper run exp00")
    return read_run(found[-1])


def show_cell(runs: Path, folder: Path | None, wanted: str | None, step: int | None) -> Iterator[str]:
    """The texts of one cell, or a list of all cells with their ends."""
    view = chosen_run(runs, folder)
    final = {verdict.cell: verdict for verdict in view.verdicts}
    cells = [cell for arm in view.manifest.plan.arms for cell in view.cells(arm.name)]
    if wanted is None:
        for cell in cells:
            yield f"{cell}  {final[cell].outcome.value if cell in final else 'to do'}"
        return
    found = [cell for cell in cells if cell == wanted] or [cell for cell in cells if cell.endswith(wanted)]
    if len(found) != 1:
        what = f"{len(found)} cells end in" if found else "No cell is called"
        raise BadInput(f'{what} "{wanted}" in {view.folder.name}. List them with: looper show')
    steps = steps_of(view.folder, found[0])
    for entry in steps:
        if step is None or entry.index == step:
            yield step_text(entry)
    if step is not None and not any(entry.index == step for entry in steps):
        raise BadInput(f"{found[0]} has {len(steps)} steps; there is no step {step}.")
    if step is None:
        ends = [end for end in view.trajectories if end.cell == found[0]]
        yield ending_text(ends[-1] if ends else None, final.get(found[0]))


def question_texts(runs: Path, folder: Path | None) -> list[str]:
    """What was asked and answered for training, arm by arm. Raises BadInput where nothing was."""
    view = chosen_run(runs, folder)
    lines = question_lines(view.folder)
    if not lines:
        raise BadInput(
            f"In {view.folder.name} no model answered questions to be trained on. exp07 asks: looper run exp07 --profile micro"
        )
    return lines


def diff_lines(runs: Path, folder: Path | None, first: str, second: str) -> Iterator[str]:
    """Two run folders, two cells or two arms."""
    folders = [path if path.is_dir() else runs / path for path in map(Path, (first, second))]
    if all((path / "manifest.jsonl").exists() for path in folders):
        return runs_diff(*map(read_run, folders))
    view = chosen_run(runs, folder)
    cells = [name.count("/") == 2 for name in (first, second)]
    if all(cells):
        return rollouts_diff(view, first, second)
    if any(cells):
        raise BadInput("Name two cells, two arms or two run folders, not one of each.")
    return arms_diff(view, first, second)


def memory_lines(runs: Path, folder: Path | None) -> Iterator[str]:
    """What memory gave to the tasks of a run, then every item in a line."""
    view = chosen_run(runs, folder)
    yield from delivery_lines(view)
    yield from item_lines(view)


def memory_why(runs: Path, folder: Path | None, item: str) -> Iterator[str]:
    yield from why_lines(chosen_run(runs, folder), item)


def status_lines(runs: Path, folder: Path | None, *, as_json: bool) -> Iterator[str]:
    if folder is None:
        found = Projection(runs).status()
    else:
        found = {"runs": [described(chosen_run(runs, folder))], "unreadable": []}
    if as_json:
        yield json.dumps(found)
        return
    yield from found["unreadable"]
    if not found["runs"]:
        yield f"no runs below {runs}"
    for run in found["runs"]:
        writer = f"process {run['writer']} is at it" if run["writer"] else "nobody is at it"
        yield f"{run['run']}: {run['finished']} of {run['planned']} cells, {run['standing']}, {writer}{_left(run['left_s'])}"
        if run["goes_on_with"]:
            yield f"  go on with: {run['goes_on_with']}"
        for arm in run["arms"]:
            yield f"  {arm['arm']}: {arm['resolved']}/{arm['attempted']} resolved, {arm['infra_errors']} infra errors"


def _left(seconds: list[float] | None) -> str:
    if seconds is None:
        return ""
    about, low, high = map(duration, seconds)
    return f", about {about} left ({low} to {high})"
