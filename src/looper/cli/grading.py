"""What `looper bench verify` does."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from looper.bench.validate import eligible
from looper.cli.preparing import validations_of
from looper.cli.progress import RunProgress
from looper.cli.settings import Settings
from looper.cli.wiring import (
    Site,
    code_version,
    engine,
    every_task,
    judged_before,
    read_predictions,
    unserved,
)
from looper.errors import BadInput, EnvironmentBroken, possible
from looper.experiment.grading import GRADING, grading_plan, identity_of, trajectories
from looper.experiment.ledger import Ledger
from looper.experiment.run import run_plan
from looper.experiment.schedule import difficulties, of_your_own, select_tasks
from looper.protocols import ChatModel
from looper.records.base import content_hash
from looper.records.plan import SUITES, Arm, Cell, Isolation, RunManifest, TaskSelection
from looper.records.task import Task
from looper.views.runs import RunView, read_run
from looper.views.suites import unserved_lines

STEM_BYTES = 100
"""Of a predictions file's name, in that of the folder with its verdicts."""


def grade(
    path: Path,
    suite: str,
    level: int,
    isolation: str,
    workers: int,
    sandbox: str,
    settings: Settings,
    command: str,
    say: Callable[[str], None],
) -> tuple[RunView, dict[str, list[str]]]:
    """Everything behind `looper bench verify`: a run whose rollouts were made elsewhere, and by model the tasks of predictions that are
    not judged, since they are not eligible. `command` goes on with it."""
    selection = suite_named(suite, level, isolation)
    every, mirrors = every_task(selection, settings)
    tasks, unfit = eligible(every, validations_of(selection, every, settings))
    by_id = {task.instance_id: task for task in tasks}
    judged, unjudged = [], dict[str, list[str]]()
    for prediction in read_predictions(path, {task.instance_id: task for task in every}):
        if why := unfit.get(prediction.instance_id):
            say(
                f"{prediction.instance_id} of {prediction.model} is not judged, the task is not eligible: {why}"
            )
            unjudged.setdefault(prediction.model, []).append(prediction.instance_id)
        else:
            judged.append(prediction)
    if not judged:
        raise BadInput(f"{path}: none of its tasks is eligible here; looper bench validate says why.")
    plan = grading_plan(path, judged, suite, level, GRADING, selection.isolation)
    chosen = select_tasks(tasks, plan.selection)
    for line in unserved_lines(chosen, unserved):
        say(f"no verdict, {line}")
    with contextlib.ExitStack() as stack:
        site = Site(mirrors, settings, sandbox, say, selection.isolation)
        found = {task.instance_id: _environment(task, site) for task in chosen}
        site.environments_of(task for task in chosen if found[task.instance_id])
        manifest = RunManifest(
            plan=plan,
            code_version=code_version(),
            tasks=tuple(task.instance_id for task in chosen),
            difficulty=difficulties(chosen),
            tasks_hash=content_hash(*chosen),
            models={arm.name: identity_of(arm) for arm in plan.arms},
            environments=tuple(sorted({*found.values()} - {""})),
            sandbox=site.sessions.sandbox_name,
        )
        # A file may be called as long as a name can be.
        stem = os.fsdecode(os.fsencode(path.stem)[:STEM_BYTES])
        folder = settings.runs / f"grade-{stem}-{manifest.run_hash()}"
        ends = trajectories(plan, judged, code_version(), site.sessions.sandbox_name, found)
        ledger = Ledger(folder, manifest)
        stack.callback(ledger.close)
        ledger.begin(workers, command)
        stop = stack.enter_context(site.occupied(folder))
        lanes = [(Cell(arm=end.arm, seed=0, instance_id=end.instance_id),) for end in ends]
        todo = sum(ledger.resume(cell) is not None for lane in lanes for cell in lane)
        with RunProgress(folder, "verifications:", total=len(lanes), todo=todo) as shown:
            run_plan(
                plan,
                plan.arms,
                by_id,
                lanes,
                ledger,
                engine(workers, site.run_context(_no_model, judged_before(plan, folder, settings)), stop),
                stop,
                shown,
                made={end.cell: end for end in ends},
            )
        if todo or not ledger.sealed:
            ledger.seal({})
    return read_run(folder), unjudged


def _environment(task: Task, site: Site) -> str:
    """Its id; empty where it cannot be made, which ends the cells of its tasks and no others."""
    try:
        return site.sessions.environment_id(task)
    except EnvironmentBroken:
        return ""


def suite_named(suite: str, level: int, isolation: str = "shared") -> TaskSelection:
    """All of a suite. Raises BadInput."""
    if suite not in SUITES:
        raise BadInput(
            f'There is no suite "{suite}". {possible(suite, SUITES, "There are")}{of_your_own(suite)}'
        )
    if isolation not in list(Isolation):
        raise BadInput(f'There is no isolation "{isolation}". There are: {", ".join(Isolation)}.')
    if isolation == Isolation.PROCESS and suite != "micro":
        raise BadInput(
            f"Tests of {suite} call more of a product than its functions with plain data, so they cannot run in a process of their "
            "own. Leave --isolation at shared."
        )
    return TaskSelection.model_validate({"suite": suite, "level": level, "isolation": isolation})


def _no_model(arm: Arm, task: Task, adapter: str = "", server: int = 0) -> ChatModel:
    raise BadInput(f"{task.instance_id}: a prediction has no model to ask.")
