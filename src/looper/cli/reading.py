"""What `looper show`, `diff`, `status`, `memory` and `questions` print; nothing is written."""

import difflib
import json
import os
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
from looper.views.runs import run_named
from looper.views.show import duration, ending_text, step_text


def show_cell(runs: Path, run: str | Path | None, wanted: str | None, step: int | None) -> Iterator[str]:
    """The texts of one cell, or a list of all cells with their ends."""
    view = run_named(runs, run)
    final = {verdict.cell: verdict for verdict in view.verdicts}
    cells = [cell for arm in view.manifest.plan.arms for cell in view.cells(arm.name)]
    if wanted is None:
        for cell in cells:
            yield f"{cell}  {final[cell].outcome.value if cell in final else 'to do'}"
        return
    found = [cell for cell in cells if cell == wanted] or [cell for cell in cells if cell.endswith(wanted)]
    if len(found) != 1:
        what = f"{len(found)} cells end in" if found else "No cell is called"
        names = [*cells, *dict.fromkeys(cell.rpartition("/")[2] for cell in cells)]
        near = difflib.get_close_matches(wanted, found or names, n=3, cutoff=0.6) or found[:3]
        hint = f"Did you mean {' or '.join(near)}? " if near else ""
        raise BadInput(
            f'{what} "{wanted}" in {view.folder.name}. {hint}List them with: looper show --run {view.folder.name}'
        )
    steps = steps_of(view.folder, found[0])
    for entry in steps:
        if step is None or entry.index == step:
            yield step_text(entry)
    if step is not None and not any(entry.index == step for entry in steps):
        raise BadInput(f"{found[0]} has {len(steps)} steps; there is no step {step}.")
    if step is None:
        ends = [end for end in view.trajectories if end.cell == found[0]]
        yield ending_text(ends[-1] if ends else None, final.get(found[0]))


def question_texts(runs: Path, run: str | Path | None) -> list[str]:
    """What was asked and answered for training, arm by arm. Raises BadInput where nothing was."""
    view = run_named(runs, run)
    lines = question_lines(view.folder)
    if not lines:
        raise BadInput(
            f"In {view.folder.name} no model answered questions to be trained on. exp07 asks: looper run exp07 --profile micro"
        )
    return lines


def diff_lines(runs: Path, run: str | Path | None, first: str, second: str) -> Iterator[str]:
    """Two cells or two arms of a run, or two runs."""
    names = (first, second)
    if all(os.path.isdir(name) for name in names):
        return runs_diff(*(run_named(runs, name) for name in names))
    view = run_named(runs, run)
    cells = [name.count("/") == 2 for name in names]
    if all(cells):
        return rollouts_diff(view, first, second)
    if any(cells):
        raise BadInput("Name two cells, two arms or two runs, not one of each.")
    arms = [*(arm.name for arm in view.manifest.plan.arms), *view.choice_names]
    if any(name in arms for name in names):
        return arms_diff(view, first, second)
    try:
        return runs_diff(*(run_named(runs, name) for name in names))
    except BadInput as error:
        raise BadInput(f"{error}. Arms of {view.folder.name}: {', '.join(arms)}") from error


def memory_lines(runs: Path, run: str | Path | None) -> Iterator[str]:
    """What memory gave to the tasks of a run, then every item in a line."""
    view = run_named(runs, run)
    yield from delivery_lines(view)
    yield from item_lines(view)


def memory_why(runs: Path, run: str | Path | None, item: str) -> Iterator[str]:
    yield from why_lines(run_named(runs, run), item)


def status_lines(runs: Path, run: str | Path | None, *, as_json: bool) -> Iterator[str]:
    if run is None:
        found = Projection(runs).status()
    else:
        found = {"runs": [described(run_named(runs, run))], "unreadable": []}
    if as_json:
        yield json.dumps(found)
        return
    yield from found["unreadable"]
    if not found["runs"]:
        yield f"no runs below {runs}"
    for one in found["runs"]:
        writer = f"process {one['writer']} is at it" if one["writer"] else "nobody is at it"
        yield f"{one['run']}: {one['finished']} of {one['planned']} cells, {one['standing']}, {writer}{_left(one['left_s'])}"
        if one["goes_on_with"]:
            yield f"  go on with: {one['goes_on_with']}"
        for arm in one["arms"]:
            yield f"  {arm['arm']}: {arm['resolved']}/{arm['attempted']} resolved, {arm['infra_errors']} infra errors"


def _left(seconds: list[float] | None) -> str:
    if seconds is None:
        return ""
    about, low, high = map(duration, seconds)
    return f", about {about} left ({low} to {high})"
