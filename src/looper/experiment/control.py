"""Whether a machine judges as it must, before a cell that counts is run there."""

from collections.abc import Callable
from dataclasses import replace

from looper.agent.scaffold import packaged_scaffold
from looper.experiment.cell import ProcessVerdicts, RunContext, run_cell
from looper.experiment.grading import GRADING
from looper.records.job import CellJob
from looper.records.model import ModelSpec
from looper.records.plan import Arm, ArmRole, Cell
from looper.records.task import Task
from looper.records.verdict import Outcome

LIMITS = GRADING.model_copy(
    update={
        "steps": 1000,
        "output_tokens": 1 << 20,
        "context_tokens": 1 << 24,
        "wall_s": 600.0,
        "command_s": 60.0,
    }
)
"""Of a control cell: a gold patch takes a step for every file."""
MUST = {"gold": Outcome.RESOLVED, "noop": Outcome.UNRESOLVED}


def control_failure(task: Task, run_context: RunContext, cancelled: Callable[[], bool]) -> str:
    """Run gold and noop on a task, and say what did not come out as it must; empty where both did. Nothing of it is recorded, and no
    verdict of it is taken over. Raises as `run_cell`."""
    apart = replace(run_context, judged=ProcessVerdicts())
    for name, must in MUST.items():
        arm = Arm(
            name=name,
            role=ArmRole.CONTROL,
            model=ModelSpec.model_validate({"backend": name}),
            scaffold=packaged_scaffold("full"),
            temperature=0.0,
        )
        cell = Cell(arm=name, seed=0, instance_id=task.instance_id)
        job = CellJob(cell=cell, arm=arm, task=task, limits=LIMITS)
        found = run_cell(job, apart, lambda event: None, cancelled)
        if found.outcome is not must:
            why = f": {found.cause.rstrip('.')}" if found.cause else ""
            told = f"the control cell {name} came out as {found.outcome.value} on {task.instance_id}, and must be {must.value}{why}."
            validate = f" If it is so on every node, the task may be to blame: looper bench validate --task {task.instance_id}"
            return told + (validate if found.outcome.is_verdict else "")
    return ""
