"""What `looper diff`, `status`, `memory` and `questions` print; nothing is written."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from looper.cli.options import json_line, the_run
from looper.errors import LISTED, BadInput
from looper.records.text import counted
from looper.views.diff import arms_data, arms_diff, rollouts_data, rollouts_diff, runs_data, runs_diff
from looper.views.live import Projection, described, go_on_lines, nodes_text
from looper.views.memory import (
    delivery_lines,
    item_lines,
    memory_data,
    why_data,
    why_lines,
)
from looper.views.questions import question_lines, questions, ratings
from looper.views.runs import no_run, run_named
from looper.views.show import duration


def question_texts(runs: Path, run: str | Path | None, *, as_json: bool = False) -> list[str]:
    """What was asked and answered for training, arm by arm. Raises BadInput where nothing was."""
    view = the_run(runs, run)
    lines = question_lines(view.folder)
    if not lines:
        raise BadInput(
            f"In {view.folder.name} no model answered questions to be trained on. exp07 asks: looper run exp07 --profile demo"
        )
    if as_json:
        asked, rated = questions(view.folder).values(), ratings(view.folder)
        people = [
            {"by": person, "question": key, "noise": noise}
            for person, said in rated.items()
            for key, noise in said.items()
        ]
        return [json_line({"run": view.folder.name, "questions": [*asked], "ratings": people})]
    return lines


def diff_lines(
    runs: Path, run: str | Path | None, first: str, second: str, *, as_json: bool = False
) -> Iterator[str]:
    """Two cells or two arms of a run, or two runs. Raises BadInput."""
    names = (first, second)

    def of_runs() -> Iterator[str]:
        two = [the_run(runs, name) for name in names]
        return iter([json_line(runs_data(*two))]) if as_json else runs_diff(*two)

    if all(os.path.isdir(name) or (runs / name).is_dir() for name in names):
        return of_runs()
    cells = [name.count("/") == 2 for name in names]
    if all(cells):
        view = the_run(runs, run)
        return iter([json_line(rollouts_data(view, *names))]) if as_json else rollouts_diff(view, *names)
    # Which run is meant is said where it is one of its arms that are compared, and not of two runs.
    view = run_named(runs, run)
    if any(cells):
        one, other = names if cells[0] else (second, first)
        raise BadInput(
            f'"{one}" is a cell and "{other}" is none. Name two cells (ARM/SEED/TASK), two arms or two runs; cells: '
            f"looper show --run {view.folder.name}"
        )
    arms = [*(arm.name for arm in view.manifest.plan.arms), *view.choice_names]
    if any(name in (*arms, *view.gathering) for name in names):
        view = the_run(runs, run)
        return iter([json_line(arms_data(view, *names))]) if as_json else arms_diff(view, *names)
    try:
        return of_runs()
    except BadInput as error:
        raise BadInput(f"{error}. Arms of {view.folder.name}: {', '.join(arms)}") from error


def memory_lines(runs: Path, run: str | Path | None, *, as_json: bool = False) -> Iterator[str]:
    """What memory gave to the tasks of a run, then every item in a line. Raises BadInput."""
    view = the_run(runs, run)
    if as_json:
        yield json_line({"run": view.folder.name, **memory_data(view)})
        return
    yield from delivery_lines(view)
    yield from item_lines(view)


def memory_why(runs: Path, run: str | Path | None, item: str, *, as_json: bool = False) -> Iterator[str]:
    """Where an item comes from, and whom it was told to. Raises BadInput."""
    view = the_run(runs, run)
    if as_json:
        yield json_line({"run": view.folder.name, **why_data(view, item)})
        return
    yield from why_lines(view, item)


def status_lines(runs: Path, run: str | Path | None, *, as_json: bool) -> Iterator[str]:
    if run is None:
        found = Projection(runs).status()
    else:
        found = {"runs": [described(the_run(runs, run))], "unreadable": []}
    if as_json:
        yield json_line(found)
        return
    yield from found["unreadable"]
    if not found["runs"]:
        yield no_run(runs)
    for one in found["runs"]:
        writer = f" in process {one['writer']}" if one["writer"] else ""
        yield f"{one['run']}: {one['finished']} of {counted(one['planned'], 'cell')}, {one['standing']}{writer}{_left(one['left_s'])}"
        if one["pilot"]:
            yield f"  {one['pilot']}"
        yield from (f"  {line}" for line in one["damage"])
        yield from (f"  {line}" for line in go_on_lines(one))
        told = [f"{each['phase']} {each['done']} of {each['planned']}" for each in one["phases"]]
        if len(told) > 1:
            yield f"  phases: {', '.join(told)}"
        if machines := nodes_text(one, LISTED):
            yield f"  {machines}"
        for arm in one["arms"]:
            yield f"  {arm['arm']}: {_resolved(arm)}, {counted(arm['infra_errors'], 'infra error')}"


def _resolved(arm: Mapping[str, Any]) -> str:
    return f"{arm['resolved']}/{arm['attempted']} resolved" if arm["attempted"] else "no verdict yet"


def _left(seconds: list[float] | None) -> str:
    if seconds is None:
        return ""
    about, low, high = map(duration, seconds)
    return f", about {about} left ({low} to {high})"
