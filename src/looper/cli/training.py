"""What `looper train` does.

Also where `looper export` gets its examples: a run's verified successes, in the text that each arm was asked with. The trainer is
the one that experiments use.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from looper.agent.actions import render
from looper.agent.prompt import opening
from looper.cli.preparing import FEW_TASKS, load_experience, load_tasks
from looper.cli.progress import TrainingProgress
from looper.cli.settings import Settings
from looper.cli.wiring import mlx_model, supervision_of, trainer_of
from looper.errors import BadInput, possible
from looper.experiment.plan_errors import plain_words
from looper.experiment.plans import parse_model
from looper.experiment.pools import read_attempts
from looper.experiment.schedule import split_tasks
from looper.records.plan import Arm, Plan
from looper.records.task import Task
from looper.records.training import (
    AdapterRecord,
    Example,
    Make,
    Selection,
    SelectionSettings,
    TrainingRequest,
    TrainingSettings,
)
from looper.training.examples import trajectory_examples
from looper.training.select import Attempt, preference_pairs, select
from looper.views.runs import run_named


@dataclass(frozen=True)
class TrainOptions:
    """What `looper train` was asked for."""

    run: str | Path | None
    """As a person names it; None for the newest."""
    arms: tuple[str, ...]
    model: str
    selection: SelectionSettings
    training: TrainingSettings


def train_options(
    run: str | Path | None,
    arms: tuple[str, ...],
    model: str,
    selection: dict[str, Any],
    training: dict[str, Any],
) -> TrainOptions:
    """Raises BadInput for a value that cannot be used."""
    try:
        return TrainOptions(
            run,
            arms,
            model,
            SelectionSettings.model_validate(selection),
            TrainingSettings.model_validate(training),
        )
    except ValidationError as error:
        problem = error.errors()[0]
        option = f"--{str(problem['loc'][0]).replace('_', '-')}: " if problem["loc"] else ""
        raise BadInput(f"{option}{plain_words(problem, TrainingSettings)}.") from error


@dataclass(frozen=True)
class _Gathered:
    """What a run has to learn from."""

    run: str
    tasks: dict[str, Task]
    arms: dict[str, Arm]
    attempts: list[Attempt]
    """Of the wanted arms."""
    split: set[str]

    def examples(self, attempts: Sequence[Attempt]) -> tuple[Example, ...]:
        """In the text that each attempt's own arm was asked with."""
        return tuple(
            example
            for attempt in attempts
            for example in trajectory_examples(
                [attempt],
                self.tasks,
                partial(opening, scaffold=self.arms[attempt.trajectory.arm].scaffold),
                render,
            )
        )


def _worth_learning_from(plan: Plan) -> tuple[str, ...]:
    """Arms that a model drives; where nothing was gathered but with the gold patch, what that gathered too."""
    gathered = [arm for _, arm in plan.all_experience()]
    driven = [arm for arm in (*plan.arms, *gathered) if not arm.model.is_control]
    only_gold = not any(arm in driven for arm in gathered)
    return tuple(arm.name for arm in (*driven, *(gathered if only_gold else ())))


def _gathered(options: TrainOptions, settings: Settings) -> _Gathered:
    view = run_named(settings.runs, options.run)
    plan = view.manifest.plan
    own, _ = load_tasks(plan.selection, settings)
    _, learning = split_tasks(own, plan.selection, plan.experience if plan.sources else None)
    experience, _ = load_experience(plan, learning, settings)
    tasks = {
        task.instance_id: task for task in (*own, *(task for found in experience.values() for task in found))
    }
    arms = {arm.name: arm for arm in (*plan.arms, *(arm for _, arm in plan.all_experience()))}
    unknown = [name for name in options.arms if name not in arms]
    if unknown:
        raise BadInput(f"The run has no arm {', '.join(unknown)}. {possible(unknown[0], arms)}")
    wanted = options.arms or _worth_learning_from(plan)
    # Where the run set tasks aside to learn from, nothing else is learned from.
    split = {name for found in view.manifest.experience_tasks.values() for name in found} or set(tasks)
    attempts = [attempt for attempt in read_attempts(view.folder) if attempt.trajectory.arm in wanted]
    return _Gathered(view.folder.name, tasks, arms, attempts, split)


def examples_of(options: TrainOptions, settings: Settings) -> tuple[tuple[Example, ...], Selection]:
    """Examples from the verified successes of a run. Raises BadInput where there are too few."""
    found = _gathered(options, settings)
    taken, selection = select(found.attempts, found.split, options.selection)
    if len(selection.tasks) < options.selection.minimum_tasks:
        raise BadInput(
            f"{found.run} has {len(selection.tasks)} resolved tasks to learn from, of {selection.seen} attempts "
            f"({selection.unresolved} unresolved, {selection.without_verdict} without a verdict, {selection.without_steps} without a step, {selection.outside} at "
            f"evaluated tasks). {_what_to_do(options.selection.minimum_tasks)}"
        )
    return found.examples(taken), selection


def _what_to_do(least: int) -> str:
    """With too few tasks to learn from; only `looper train` asks for more than one."""
    if least == 1:
        return "Name another run or arm, or run more tasks; all runs: looper runs list"
    return f"At least {least} are needed: run more tasks, or lower --minimum-tasks."


def pairs_of(options: TrainOptions, settings: Settings) -> list[tuple[Example, Example]]:
    """A success and a failure at the same task, each failure once. Raises BadInput where there is none."""
    found = _gathered(options, settings)
    taken, _ = select(found.attempts, found.split, options.selection)
    pairs = preference_pairs(
        taken, [item for item in found.attempts if item.trajectory.instance_id in found.split]
    )
    if not pairs:
        raise BadInput(f"{found.run} has no task that was both resolved and failed.")
    return [(good, bad) for pair in pairs for good, bad in [found.examples(pair)]]


def train(
    options: TrainOptions, settings: Settings, say: Callable[[str], None]
) -> tuple[AdapterRecord, Path]:
    """Everything behind `looper train`: the card of the adapter, and the folder where it lies."""
    examples, selection = examples_of(options, settings)
    say(
        f"{selection.seen} attempts: {selection.taken} taken, {selection.unresolved} unresolved, {selection.duplicates} "
        f"the same again, {selection.over_cap} over the cap, {selection.outside} at evaluated tasks, "
        f"{selection.without_verdict} without a verdict, {selection.without_steps} without a step; {selection.dropped_steps} steps without effect left out"
    )
    if len(selection.tasks) < FEW_TASKS:
        say(f"{len(selection.tasks)} tasks are few: what is learned may be those tasks and nothing else")
    spec = parse_model(options.model)
    base, trainer = mlx_model(spec, settings, options.training.max_tokens), trainer_of(spec, settings)
    request = TrainingRequest(
        base=base.identity().model_copy(update={"context_tokens": None}),
        make=Make.TRAINED,
        settings=options.training,
        examples=examples,
    )
    card = trainer.train(request, partial(TrainingProgress(say), options.model))
    return card, trainer.folder(card.id)


def masks(options: TrainOptions, settings: Settings) -> Iterator[tuple[Example, str, list[tuple[int, int]]]]:
    """Each example as the model reads it, and the spans that the loss counts."""
    examples, _ = examples_of(options, settings)
    supervision = supervision_of(parse_model(options.model), settings)
    for example in examples:
        yield (example, *supervision(example.turns))
