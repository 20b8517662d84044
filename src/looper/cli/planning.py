"""What `looper plan` prints."""

from collections.abc import Iterator

from looper.cli.plans import RunOptions, load_plan
from looper.cli.preparing import Prepared, prepare
from looper.cli.running import workers_for
from looper.cli.settings import Settings
from looper.cli.wiring import training_memory
from looper.errors import BadInput
from looper.experiment.schedule import quoting
from looper.metrics.design import unit_of
from looper.metrics.paired import repository_of
from looper.metrics.registered import ALPHA
from looper.records.plan import Expect
from looper.views.forecast import discordance, measured, power_lines, time_lines


def plan_lines(options: RunOptions, settings: Settings) -> Iterator[str]:
    """Cells, time, memory, what could be seen, what will be asked before the tasks."""
    plan = load_plan(options, settings)
    prepared = prepare(plan, settings)
    schedule = prepared.schedule(options.arms)
    gathering = sum(
        len(plan.seeds_of(arm)) * len(prepared.experience[source]) for source, arm in plan.all_experience()
    )
    cells = sum(map(len, schedule))
    arms = len({cell.arm for lane in schedule for cell in lane})
    yield f"{plan.experiment} {plan.profile}: {plan.title}"
    yield f"factor: {plan.factor}"
    yield (
        f"cells: {cells} ({len(prepared.tasks)} tasks, {arms} arms, {len(plan.seeds)} seeds)"
        + (f" and {gathering} to gather experience" if gathering else "")
        + f", {plan.order}"
    )
    yield from _task_lines(prepared)
    yield from time_lines(
        plan, cells + gathering, workers_for(plan, options.workers), measured(settings.runs, plan)
    )
    yield from _memory_lines(prepared, settings)
    yield from power_lines(
        plan, [task.instance_id for task in prepared.tasks], discordance(settings.runs, plan)
    )
    yield from _decision_lines(prepared)
    yield from _gate_lines(prepared)


def _task_lines(prepared: Prepared) -> Iterator[str]:
    yield f"tasks: {len(prepared.tasks)} to evaluate, {len(quoting(prepared.tasks))} of them quote their fix in the issue"
    for source, tasks in prepared.experience.items():
        yield f"experience, {source.value}: {len(tasks)} tasks to learn from"
    if prepared.left_out:
        yield f"left out of learning: {len(prepared.left_out)}, {', '.join(list(prepared.left_out)[:5])}"


def _memory_lines(prepared: Prepared, settings: Settings) -> Iterator[str]:
    experience = prepared.plan.experience
    trained = any(arm.learning and arm.learning.treatment.is_adapter for arm in prepared.plan.arms)
    if experience is None or experience.training is None or not trained:
        return
    base = prepared.plan.learners_base
    try:
        wanted, free = training_memory(base.model, settings, experience.training)
    except BadInput as error:
        yield f"memory: not estimated; {error}"
        return
    yield f"memory: training takes up to {wanted / 2**20:.0f} MiB, {free / 2**20:.0f} MiB are free"


def _decision_lines(prepared: Prepared) -> Iterator[str]:
    """How and when it is decided what the plan shows."""
    contrasts = prepared.plan.contrasts
    if not contrasts:
        return
    tested = sum(found.expect is Expect.MORE for found in contrasts)
    repositories = len({repository_of(task.instance_id) for task in prepared.tasks})
    yield (
        f"decided: once, when every cell has its end, by {unit_of(prepared.plan, repositories).value}; "
        f"{tested} differences and {len(contrasts) - tested} margins in one family at {ALPHA} (Holm), each by its interval"
    )


def _gate_lines(prepared: Prepared) -> Iterator[str]:
    """What is asked before an arm's first task, or while it works."""
    yield "gates: a prompt of full length is read whole; no arm answers without actions"
    plan = prepared.plan
    learners = [arm for arm in plan.arms if arm.learning is not None]
    if not learners or plan.experience is None:
        return
    yield f"gates: at least {plan.experience.selection.minimum_tasks} resolved tasks of each repository to learn from"
    if any(arm.learning and arm.learning.treatment.is_adapter for arm in learners):
        yield (
            "gates: every adapter is in the model that is served, has seen no evaluated task and leaves valid actions "
            "within 5 points of base's"
        )
    if any(arm.learning and arm.learning.remembers for arm in learners):
        yield "gates: every memory has something to say"
