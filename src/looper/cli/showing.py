"""What `looper show` prints: the cells of a run, or one of them from what the model was asked to the verdict; nothing is written.

`prompt_of` makes a rollout's opening again from plan, task and memory, since records hold only its hash; the pages ask it too.
"""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from looper.cli.options import json_line, the_run
from looper.cli.settings import Settings
from looper.errors import BadInput, LooperError
from looper.records.memory import Delivery
from looper.records.plan import arm_of, task_id_of
from looper.records.text import counted
from looper.records.trajectory import Step, Trajectory
from looper.records.verdict import Outcome
from looper.views.board import as_failures, why_text
from looper.views.index import steps_of
from looper.views.memory import memory_items, reverted_items, why_nothing
from looper.views.runs import RunView, find_run
from looper.views.show import Prompt, ending_text, harmless, prompt_text, step_text
from looper.views.trajectory import adapters_for, went_wrong


@dataclass(frozen=True)
class ShowOptions:
    arm: str | None = None
    step: int | None = None
    failed: bool = False
    """Cells that are not resolved; of one cell, steps that went wrong."""
    whole: bool = False
    """Long texts to their end."""


def show_cell(
    settings: Settings,
    run: str | Path | None,
    wanted: str | None,
    options: ShowOptions = ShowOptions(),
    *,
    as_json: bool = False,
) -> Iterator[str]:
    """The texts of one cell, or a list of all cells with their ends, those that gather experience at the end."""
    view = the_run(settings.runs, run)
    arms = [arm.name for arm in view.manifest.plan.every_arm]
    if options.arm is not None and options.arm not in arms:
        raise view.without_arm(options.arm, arms)
    cells = [cell for arm in arms if options.arm in (None, arm) for cell in view.cells(arm)]
    if wanted is None:
        cells = as_failures(view, cells) if options.failed else cells
        if options.step is not None:
            raise BadInput(
                f"--step is a step of one cell: name the cell too. List them with: looper show --run {view.folder.name}"
            )
        yield from _cell_lines(view, cells, failed=options.failed, as_json=as_json)
        return
    cell = _one_cell(view, cells, wanted)
    every = steps_of(view.folder, cell)
    steps = [step for step in every if options.step in (None, step.index)]
    if not steps and options.step is not None:
        raise BadInput(f"{cell} has {counted(len(every), 'step')}; there is no step {options.step}.")
    if options.failed:
        steps = [step for step in steps if went_wrong(step)]
    ends = [end for end in view.trajectories if end.cell == cell]
    end, verdict = ends[-1] if ends else None, view.final.get(cell)
    prompt = prompt_of(settings, view, cell, end, every) if options.step is None else None
    adapters = adapters_for(view, cell)
    nothing = why_nothing(view, end) if end is not None and options.step is None else ""
    if as_json:
        yield json_line(
            {
                "run": view.folder.name,
                "cell": cell,
                "prompt": prompt,
                "told_nothing": nothing or None,
                "adapters": adapters,
                "steps": steps,
                "end": end,
                "verdict": verdict,
            }
        )
        return
    if prompt is not None:
        yield prompt_text(prompt, whole=options.whole)
    if options.step is None:
        yield from (f"── with adapter {name} ──" for name in adapters)
    if nothing:
        yield f"── memory told nothing: {nothing} ──"
    yield from map(step_text, steps)
    if options.step is None:
        if options.failed and not steps:
            yield f"none of {counted(len(every), 'step')} went wrong" if every else "no step is on record"
        yield ending_text(end, verdict, whole=options.whole)


def _cell_lines(view: RunView, cells: Sequence[str], *, failed: bool, as_json: bool) -> Iterator[str]:
    """Cells with their ends; where there are some that gather experience, how many of both kinds there are."""
    ends = {cell: view.final.get(cell) for cell in cells}
    gathers = {cell for cell in cells if arm_of(cell) in view.gathering}
    shown = {
        cell: found
        for cell, found in ends.items()
        if not failed or (found is not None and found.outcome is not Outcome.RESOLVED)
    }
    if as_json:
        rows = [
            {
                "cell": cell,
                "gathers": cell in gathers,
                "outcome": found.outcome if found else None,
                "cause": found.cause if found else None,
                "stop_reason": end.stop_reason
                if found and (end := view.ends.get((cell, found.attempt)))
                else None,
            }
            for cell, found in shown.items()
        ]
        yield json_line({"run": view.folder.name, "cells": rows})
        return
    for cell, found in shown.items():
        why = harmless(why_text(view, found)) if failed and found is not None else ""
        yield f"{cell}  {found.outcome.value if found else 'to do'}{': ' if why else ''}{why}"
    if shown and gathers:
        learning = len(gathers & shown.keys())
        yield f"{counted(len(shown) - learning, 'cell')} to evaluate, {counted(learning, 'cell')} to gather experience"
    if not shown:
        ended = sum(found is not None for found in ends.values())
        yield f"{view.folder.name}: none of {counted(ended, 'cell')} with an end failed, of {len(cells)} in all"


def _one_cell(view: RunView, cells: Sequence[str], wanted: str) -> str:
    found = [cell for cell in cells if cell == wanted] or [cell for cell in cells if cell.endswith(wanted)]
    if len(found) == 1:
        return found[0]
    if not found and (run := _also_a_run(view, wanted)):
        raise BadInput(f"{wanted} is a run, and a cell is asked for. Its cells: looper show --run {run}")
    if (
        not found
        and wanted.partition("/")[0] in {cell.partition("/")[0] for cell in cells}
        and wanted.count("/") < 2
    ):
        arm = wanted.partition("/")[0]
        raise BadInput(
            f"{wanted} is no cell but an arm of {view.folder.name}. Its cells: looper show --arm {arm} --run {view.folder.name}"
        )
    what = f"{len(found)} cells end in" if found else "No cell is called"
    names = [*cells, *dict.fromkeys(task_id_of(cell) for cell in cells)]
    near = difflib.get_close_matches(wanted, found or names, n=3, cutoff=0.6) or found[:3]
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    raise BadInput(
        f'{what} "{wanted}" in {view.folder.name}. {hint}List them with: looper show --run {view.folder.name}'
    )


def _also_a_run(view: RunView, wanted: str) -> str:
    """The name of the run that is called so; empty where none is."""
    try:
        return find_run(view.folder.parent, wanted).name
    except BadInput:
        return ""


def prompt_of(
    settings: Settings, view: RunView, cell: str, end: Trajectory | None, steps: Sequence[Step]
) -> Prompt | None:
    """The messages that a rollout began with, made again from plan, task and memory, and held against their hash; None for patches
    that came from a file. Where the task is not here the system prompt alone."""
    # What loads suites takes longer than all else here, and a list of cells has no need of it.
    from looper.agent.prompt import hash_of, opening
    from looper.cli.preparing import tasks_as_they_are
    from looper.experiment.consolidate import Treatments

    plan = view.manifest.plan
    if plan.is_grading:
        return None
    name, seed, task_id = cell.split("/", 2)
    arm = next(arm for arm in plan.every_arm if arm.name == name)
    scaffold = arm.scaffold
    system = (("system", scaffold.system.strip("\n")),)
    try:
        tasks = {task.instance_id: task for task in tasks_as_they_are(view.manifest, settings)}
    except LooperError as error:
        return Prompt(system, f"the issue is not shown. {error}")
    if task_id not in tasks:
        return Prompt(system, "the issue is not shown. Its task is not in the suite as it is here")
    task = tasks[task_id]
    plain = opening(task, scaffold)
    if end is None:
        stands = "the rollout has no end yet" if steps else "no step is on record; a rollout begins so"
        return Prompt(plain, f"{stands}; what memory tells is not shown" if arm.remembers else stands)
    later = {item for step in steps for item in step.memory}
    items = memory_items(view)
    told = [items[key] for key in end.memory if key in items and key not in later]
    learned = [one for one in view.consolidations if items.keys() >= {*one.items}]
    gone = [*reverted_items(view)]
    as_made = (
        # What was taken back later was told then.
        Treatments(plan, learned, tuple(items.values()), reverted=gone[:many]).memory(arm, int(seed), task)
        for many in range(len(gone), -1, -1)
    )
    as_they_are = (
        None,
        Delivery(candidates=0, text="\n".join(item.text for item in told)),
        Delivery(candidates=0, earlier=tuple(turn for item in told for turn in item.turns)),
    )
    for memory in chain(as_they_are, as_made if arm.remembers else ()):
        messages = opening(task, scaffold, memory)
        if hash_of(messages) == end.prompt_hash:
            return Prompt(messages)
    if told:
        names = ", ".join(item.id[:12] for item in told)
        return Prompt(
            plain,
            f"before the issue memory told {names}; read them with: looper memory why ITEM --run {view.folder.name}",
        )
    return Prompt(plain, "as plan and task are here now; the rollout was asked in other words")
