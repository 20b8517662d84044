"""What `looper plan` prints.

A plan is loaded and prepared as a run would do it, and nothing is run. Each `_…_lines` is one paragraph of the output; with --json the
same figures come as one object.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from looper.cli.options import json_line
from looper.cli.plans import RunOptions, how_to_train, load_written
from looper.cli.preparing import PreparedPlan, adapters_that_fit, memory_gates, prepare, refuse_impossible
from looper.cli.running import workers_for
from looper.cli.settings import Settings
from looper.cli.wiring import training_memory
from looper.errors import BadInput
from looper.experiment.claims import in_metric, plainly
from looper.experiment.schedule import leaking_tasks
from looper.experiment.stages import learners_of
from looper.metrics.claim import metric_name
from looper.metrics.design import effect_of_interest, is_pilot, scope_of, unit_of
from looper.metrics.registered import ALPHA
from looper.records.learning import Experience, Learning, Source, TrainingChange, Treatment
from looper.records.memory import Remembering
from looper.records.model import ModelSpec
from looper.records.plan import AS_COMPUTED, Arm, Expect, LimitsChange, Metric, Override, Plan, Sampling
from looper.records.task import Task
from looper.records.text import counted, listed
from looper.records.training import AdapterRecord, TrainingSettings
from looper.views.findings import estimated_lines, unasked_lines
from looper.views.forecast import discordance, measured, power_data, power_lines, time_data, time_lines

LISTED = 5
"""So many repositories, or tasks, are named."""


def plan_lines(options: RunOptions, settings: Settings, *, as_json: bool = False) -> Iterator[str]:
    """Cells, time, memory, what could be seen, what will be asked before the tasks."""
    written = load_written(options, settings, whole=False)
    plan = written.plan
    prepared = prepare(plan, settings)
    schedule = prepared.schedule(options.arms)
    refuse_impossible(prepared, written, options.overrides, settings, options.arms)
    adapters = adapters_that_fit(prepared, written, settings)
    wanted = plan.named_arms(options.arms)
    gathers = plan.all_experience(learners_of(plan, wanted))
    gathering = sum(len(plan.seeds_of(arm)) * len(prepared.experience[source]) for source, arm in gathers)
    learned_from = {source: prepared.experience[source] for source in dict(gathers)}
    cells = sum(map(len, schedule))
    arms = len({cell.arm for lane in schedule for cell in lane})
    tasks = [task.instance_id for task in prepared.tasks]
    workers = workers_for(plan, options.workers)
    asked = [*wanted, *(arm for _, arm in gathers)]
    equal, known = discordance(settings.runs, plan), measured(settings.runs, plan, asked)
    if as_json:
        yield json_line(
            {
                "plan": plan,
                "tasks": tasks,
                "experience": {
                    source: [task.instance_id for task in found] for source, found in learned_from.items()
                },
                "arms": [arm.name for arm in wanted],
                "without_adapter": written.without_adapter,
                "left_out": prepared.left_out,
                "not_evaluated": prepared.unserved,
                "cells": cells,
                "experience_cells": gathering,
                "workers": workers,
                "pilot": bool(plan.contrasts) and is_pilot(plan, tasks),
                **power_data(plan, tasks, equal),
                **time_data(cells + gathering, workers, known),
            }
        )
        return
    power = list(power_lines(plan, tasks, equal))
    # Whoever reads one line must not take a pilot for more.
    pilot = (
        " (a PILOT: too few to see its own smallest effect of interest)" if "PILOT" in " ".join(power) else ""
    )
    yield f"{plan.experiment} {plan.profile}: {plan.title}{pilot}"
    if written.without_adapter and not options.arms:
        lacking = " and ".join(written.without_adapter)
        yield f"left out: {lacking}, to carry an adapter, of which none is named. {how_to_train(options, written)}"
    yield from unasked_lines(plan)
    yield from _other_arm_lines(plan, wanted)
    yield f"factor: {plan.factor}"
    yield from _interest_lines(plan)
    yield from power
    yield (
        f"cells: {cells} ({counted(len(prepared.tasks), 'task')}, {counted(arms, 'arm')}, {counted(len(plan.seeds), 'seed')})"
        + (f" and {gathering} to gather experience" if gathering else "")
        + f", {plan.order}"
    )
    yield from _arm_lines(plan, wanted)
    yield from _adapter_lines(adapters, wanted)
    yield from _task_lines(prepared, learned_from)
    yield from time_lines(plan, wanted, len(tasks), cells + gathering, workers, known)
    yield from _memory_lines(prepared, settings, wanted)
    yield from _decision_lines(prepared)
    yield from _gate_lines(prepared, wanted, settings.runs, options.overrides)


def _other_arm_lines(plan: Plan, wanted: Sequence[Arm]) -> Iterator[str]:
    """Which arms of the plan are not asked about."""
    others = [arm.name for arm in plan.arms if arm not in wanted]
    if others:
        yield (
            f"of the plan's arms {', '.join(arm.name for arm in wanted)} alone, without {', '.join(others)}: cells, time and arms below are "
            "of these, power and what is decided of the whole plan"
        )


def _interest_lines(plan: Plan) -> Iterator[str]:
    """The smallest effect of interest of the primary contrast: what the power is asked for."""
    if not plan.contrasts:
        return
    primary = plan.contrasts[0]
    effect = effect_of_interest(primary) or primary.margin
    what = "tasks resolved" if primary.metric is Metric.RESOLVED else metric_name(primary.metric)
    yield (
        f"smallest effect of interest: {in_metric(primary, effect)} of {what} "
        f"(primary: {primary.name}, {primary.expect.value.replace('_', ' ')})"
    )


def _arm_lines(plan: Plan, wanted: Sequence[Arm]) -> Iterator[str]:
    """The settings of every arm as they are resolved: base's, and of the others those that differ, with what they learn."""
    base = _settings(plan, plan.base) if plan.base is not None else {}
    for arm in wanted:
        said = [
            f"{name} {value}"
            for name, value in _settings(plan, arm).items()
            if arm == plan.base or base.get(name) != value
        ]
        if plan.base is not None and arm.scaffold.name == plan.base.scaffold.name:
            usual = dict(plan.base.scaffold)
            said += [f"its own scaffold.{name}" for name, value in arm.scaffold if value != usual[name]]
        if arm.learning is not None:
            said += _learning(plan, arm.learning)
        yield f"arm {arm.name}: {', '.join(said) or 'as base'}"
    experience = plan.experience
    if experience is not None and experience.training is not None and _trained(wanted):
        shown = _shown(experience.training)
        yield f"training, where an arm has no other: {', '.join(f'{name} {value}' for name, value in shown.items())}"


def _trained(arms: Sequence[Arm]) -> list[Learning]:
    """What those that are trained learn."""
    return [arm.learning for arm in arms if arm.learning and arm.learning.treatment.is_adapter]


def _settings(plan: Plan, arm: Arm) -> dict[str, str]:
    limits = plan.limits_of(arm)
    settings = {
        "model": _model(arm.model),
        "scaffold": arm.scaffold.name,
        "temperature": plainly(arm.temperature),
        "repetition": str(arm.repetition),
    }
    for name in Sampling.model_fields:
        if any(
            getattr(each.sampling or AS_COMPUTED, name) != getattr(AS_COMPUTED, name) for each in plan.arms
        ):
            settings[f"sampling.{name}"] = plainly(getattr(arm.sampling or AS_COMPUTED, name))
    return settings | {
        f"limits.{name}": plainly(value)
        for name in LimitsChange.model_fields
        if (value := getattr(limits, name)) is not None
    }


def _model(model: ModelSpec) -> str:
    adapter = f" with the adapter {model.adapter}" if model.adapter else ""
    return f"{model.backend}{':' * bool(model.name)}{model.name}{adapter}"


def _learning(plan: Plan, learning: Learning) -> Iterator[str]:
    """As it is written; of training and memory as both are resolved."""
    experience = plan.experience
    written = learning.model_dump(
        mode="json",
        exclude_unset=True,
        exclude={"treatment", "overseer", "training", "memory", "teacher"},
    )
    if learning.treatment is not Treatment.MEMORY:
        yield learning.treatment.value
    if learning.treatment is Treatment.OVERSIGHT:
        yield f"overseer {_model(learning.overseer) if learning.overseer else 'its own model'}"
    yield from _flat(written)
    if learning.training is not None and experience is not None and experience.training is not None:
        usual = _shown(experience.training)
        own = _shown(learning.training.of(experience.training))
        yield from (f"training.{name} {value}" for name, value in own.items() if value != usual[name])
    for name, how in (("memory", learning.remembers), ("teacher told", learning.teacher)):
        if how is not None:
            yield f"{name} {_memory(how, experience)}"


def _memory(how: Remembering, experience: Experience | None) -> str:
    if experience is None or not how.kind.traits.has_items:
        return how.kind.value
    told = experience.told(how)
    if how.one_text:
        size = f", at most {told.bytes} bytes" if told.bytes is not None else ""
        return f"{how.kind.value} ({how.one_text}, at {how.moment.value}{size})"
    size = f", {told.bytes} bytes together" if told.bytes is not None else ""
    return f"{how.kind.value} ({how.draw.value} by {told.retrieval}, at {how.moment.value}, at most {counted(told.items, 'item')}{size})"


def _flat(found: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for name, value in found.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name} {str(value).lower() if isinstance(value, bool) else value}"


def _shown(settings: TrainingSettings) -> dict[str, str]:
    """Of the settings of a training those that an arm may have for itself."""
    return {
        name: plainly(value) if isinstance(value, int | float) else value
        for name, value in settings.model_dump(mode="json").items()
        if name in TrainingChange.model_fields
    }


def _adapter_lines(adapters: Mapping[str, AdapterRecord], wanted: Sequence[Arm]) -> Iterator[str]:
    """What the adapters are that arms bring along."""
    for card in [adapters[arm.name] for arm in wanted if arm.name in adapters]:
        yield (
            f"adapter {card.id}: {card.make.value} on {card.base.name}, from {counted(len(card.tasks), 'task')}, none of them "
            "evaluated here"
        )


def _task_lines(prepared: PreparedPlan, learned_from: Mapping[Source, Sequence[Task]]) -> Iterator[str]:
    yield from (f"not evaluated: {line}" for line in prepared.unserved)
    repositories = len({task.repo for task in prepared.tasks})
    yield (
        f"tasks: {len(prepared.tasks)} of {counted(repositories, 'repository', 'repositories')} to evaluate, "
        f"{len(leaking_tasks(prepared.tasks))} of them quote their fix in the issue"
    )
    about = scope_of(prepared.plan, [task.instance_id for task in prepared.tasks])
    yield f"what differences will be about: {about.value}"
    for source, tasks in learned_from.items():
        yield f"experience, {source.value}: {counted(len(tasks), 'task')} to learn from"
    if prepared.left_out and learned_from:
        yield f"left out of learning: {len(prepared.left_out)}, {', '.join(list(prepared.left_out)[:LISTED])}"


def _memory_lines(prepared: PreparedPlan, settings: Settings, wanted: Sequence[Arm]) -> Iterator[str]:
    experience, trained = prepared.plan.experience, _trained(wanted)
    if experience is None or experience.training is None or not trained:
        return
    trainings = {(each.training or TrainingChange()).of(experience.training) for each in trained}
    base = prepared.plan.learners_base
    try:
        needed, free = max(training_memory(base.model, settings, each) for each in trainings)
    except BadInput as error:
        yield f"machine memory: not estimated; {error}"
        return
    yield f"machine memory: training takes up to {needed / 2**20:.0f} MiB, {free / 2**20:.0f} MiB are free"


def _decision_lines(prepared: PreparedPlan) -> Iterator[str]:
    """How and when it is decided what the plan shows."""
    contrasts = prepared.plan.contrasts
    if not contrasts:
        return
    tested = sum(found.expect is Expect.MORE for found in contrasts)
    plan, tasks = prepared.plan, [task.instance_id for task in prepared.tasks]
    pilot = is_pilot(plan, tasks)
    verb = "estimated and, as a pilot, not decided" if pilot else "decided"
    yield from estimated_lines(plan, tasks) if not pilot else ()
    yield (
        f"{verb}: once, when every cell has its end, by {unit_of(plan, tasks).value}; "
        f"{counted(tested, 'difference')} and {counted(len(contrasts) - tested, 'margin')} in one family at {ALPHA} (Holm), each by its interval"
    )


def _gate_lines(
    prepared: PreparedPlan, wanted: Sequence[Arm], runs: Path, overrides: Sequence[Override]
) -> Iterator[str]:
    """What is asked before an arm's first task, or while it works."""
    yield "gates: a prompt of full length is read whole; no arm answers without actions"
    plan = prepared.plan
    learners = [arm for arm in wanted if arm.learning is not None]
    if not learners or plan.experience is None or not prepared.experience:
        return
    yield (
        f"gates: at least {plan.experience.selection.minimum_tasks} resolved tasks of each repository to learn from; there are "
        f"{_to_learn_from(prepared)}"
    )
    if _trained(learners):
        yield (
            "gates: every adapter is in the model that is served and has seen no evaluated task; those of an arm leave valid "
            "actions within 5 points of base's, on the average"
        )
    for gate in memory_gates(prepared, learners, runs, overrides):
        yield f"gates: {gate.warning if gate.may_stop else gate.said}"


def _to_learn_from(prepared: PreparedPlan) -> str:
    """How many tasks each repository has for the gate of data, in the poorest source."""
    repos = sorted({task.repo for task in prepared.tasks})
    counts = {
        repo: min(sum(task.repo == repo for task in tasks) for tasks in prepared.experience.values())
        for repo in repos
    }
    least, most = min(counts.values()), max(counts.values())
    if least == most:
        return f"{least} to try"
    fewest = [repo for repo, count in counts.items() if count == least]
    return f"{least} to {most} to try, fewest of {listed(fewest, LISTED)}"
