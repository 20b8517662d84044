"""What `looper bench verify` does."""

import contextlib
from collections.abc import Callable
from pathlib import Path

from looper.cli.preparing import load_tasks
from looper.cli.progress import RunProgress
from looper.cli.settings import Settings
from looper.cli.wiring import Site, code_version, engine, judged_before, predictions
from looper.errors import BadInput
from looper.experiment.grading import grading_plan, identity_of, trajectories
from looper.experiment.ledger import Ledger
from looper.experiment.run import run_plan
from looper.experiment.schedule import select_tasks
from looper.protocols import ChatModel
from looper.records.base import content_hash
from looper.records.plan import SUITES, Arm, Cell, Limits, RunManifest, TaskSelection
from looper.records.task import Task
from looper.views.runs import RunView, read_run

GRADING = Limits(
    steps=1,
    output_tokens=1,
    context_tokens=2,
    wall_s=1.0,
    command_s=1.0,
    verify_s=1800.0,
    memory_mb=4096,
)
"""Of a run that only verifies; the last two count."""


def grade(
    path: Path,
    suite: str,
    level: int,
    workers: int,
    sandbox: str,
    settings: Settings,
    say: Callable[[str], None],
) -> RunView:
    """Everything behind `looper bench verify`: a run whose rollouts were made elsewhere."""
    selection = suite_named(suite, level)
    tasks, mirrors = load_tasks(selection, settings)
    by_id = {task.instance_id: task for task in tasks}
    judged = predictions(path, by_id)
    plan = grading_plan(path, judged, suite, level, GRADING)
    chosen = select_tasks(tasks, plan.selection)
    with contextlib.ExitStack() as stack:
        site = Site(mirrors, settings, sandbox, say)
        found = {task.instance_id: site.environments.of(task).id for task in chosen}
        site.must_start(chosen)
        manifest = RunManifest(
            plan=plan,
            code_version=code_version(),
            tasks=tuple(task.instance_id for task in chosen),
            difficulty={task.instance_id: task.difficulty for task in chosen},
            tasks_hash=content_hash(*chosen),
            models={arm.name: identity_of(arm) for arm in plan.arms},
            environments=tuple(sorted(set(found.values()))),
            sandbox=site.sandbox.name,
        )
        folder = settings.runs / f"grade-{path.stem}-{manifest.run_hash()}"
        with contextlib.closing(Ledger(folder, manifest)) as begun:
            known = {end.cell for end in begun.trajectories.recovered}
            ends = trajectories(plan, judged, code_version(), site.sandbox.name, found)
            for end in ends:
                if end.cell not in known:
                    begun.trajectories.append(end)
        ledger = Ledger(folder, manifest)
        stack.callback(ledger.close)
        stop = stack.enter_context(site.occupied(folder))
        lanes = [(Cell(arm=end.arm, seed=0, instance_id=end.instance_id),) for end in ends]
        todo = sum(ledger.past(cell) is not None for lane in lanes for cell in lane)
        with RunProgress(folder, "verifications:", total=len(lanes), todo=todo) as shown:
            run_plan(
                plan,
                plan.arms,
                by_id,
                lanes,
                site.world(_no_model, judged_before(plan, folder, settings)),
                ledger,
                engine(workers),
                stop,
                shown,
            )
    return read_run(folder)


def suite_named(suite: str, level: int) -> TaskSelection:
    """All of a suite. Raises BadInput."""
    if suite not in SUITES:
        raise BadInput(f'There is no suite "{suite}". There are: {", ".join(SUITES)}.')
    return TaskSelection.model_validate({"suite": suite, "level": level})


def _no_model(arm: Arm, seed: int, task: Task) -> ChatModel:
    raise BadInput(f"{task.instance_id}: a prediction has no model to ask.")
