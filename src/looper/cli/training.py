"""What `looper train` does.

Also where `looper export` gets its examples: a run's verified successes, in the text that each arm was asked with. The trainer is
the one that experiments use.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from looper.agent.actions import render
from looper.agent.prompt import opening
from looper.cli.options import say as say_line
from looper.cli.options import the_run
from looper.cli.preparing import FEW_TASKS, load_experience, load_tasks
from looper.cli.progress import TrainingProgress
from looper.cli.settings import Settings
from looper.cli.wiring import mlx_model, trained_folder, trainer_of, windows_of
from looper.errors import BadInput, possible, quoted
from looper.experiment.plan_errors import plain_words
from looper.experiment.plans import parse_model
from looper.experiment.pools import read_attempts
from looper.experiment.schedule import split_tasks
from looper.records.model import BACKENDS, ModelSpec
from looper.records.plan import Arm, Plan, arm_of, task_id_of
from looper.records.task import Task
from looper.records.text import counted
from looper.records.training import (
    AdapterRecord,
    Example,
    Make,
    Objective,
    Selection,
    SelectionSettings,
    TrainingRequest,
    TrainingSettings,
    Windows,
)
from looper.training.examples import trajectory_examples
from looper.training.select import Attempt, preference_pairs, select
from looper.views.live import goes_on_with, resume_command
from looper.views.runs import RunView


@dataclass(frozen=True)
class TrainOptions:
    run: str | Path | None
    """As a person names it; None for the newest."""
    arms: tuple[str, ...]
    model: str | None
    """None for the run's own where that can be trained, else the embedded one."""
    selection: SelectionSettings
    training: Mapping[str, Any]
    """Settings that are not those of the run's own plan."""

    def settings(self, usual: TrainingSettings | None) -> TrainingSettings:
        """What is trained with; `usual` are the plan's settings, None where it has none. Raises BadInput."""
        of_plan = usual.model_copy(update={"objective": Objective.IMITATION}).model_dump() if usual else USUAL
        with _named_as_options():
            return TrainingSettings.model_validate({**of_plan, **self.training})


USUAL = {"learning_rate": 3e-4, "iterations": 60, "batch_size": 8, "max_tokens": 2048}
"""Settings for the successes of a plan that has none."""
NAMED = {"multiplier": "multiplier (alpha / rank)"}
"""Settings that others call something else."""
USUAL_LEAST = SelectionSettings().minimum_tasks
TRAINABLE = tuple(name for name, traits in BACKENDS.items() if traits.shows_losses)


def train_options(
    run: str | Path | None,
    arms: tuple[str, ...],
    model: str | None,
    selection: dict[str, Any],
    training: dict[str, Any],
) -> TrainOptions:
    """`selection` and `training` have None for what was not asked for. Raises BadInput for a value that cannot be used."""
    if model is not None and model.partition(":")[0] not in TRAINABLE:
        raise BadInput(f"--model {model}: only nano and mlx:FOLDER can be trained here.")
    with _named_as_options():
        given = {name: value for name, value in training.items() if value is not None}
        asked = {name: value for name, value in selection.items() if value is not None}
        options = TrainOptions(run, arms, model, SelectionSettings.model_validate(asked), given)
        options.settings(None)
    return options


@contextmanager
def _named_as_options() -> Iterator[None]:
    """A value that cannot be used is named by its option, in a BadInput."""
    try:
        yield
    except ValidationError as error:
        problem = error.errors()[0]
        option = f"--{str(problem['loc'][0]).replace('_', '-')}: " if problem["loc"] else ""
        said = plain_words(problem, TrainingSettings)
        raise BadInput(f"{option}{said}{'' if said.endswith('?') else '.'}") from error


@dataclass(frozen=True)
class _Gathered:
    run: str
    tasks: dict[str, Task]
    arms: dict[str, Arm]
    attempts: list[Attempt]
    """Of the wanted arms."""
    split: set[str]
    usual: TrainingSettings | None
    """Of the run's own plan; None where it has none."""
    least: int
    """Resolved tasks that an adapter is trained on at least, by the run's own plan."""
    model: ModelSpec
    """To be trained."""
    unfinished: str
    """That cells to learn from have no end yet, and how to go on with them; empty where all have."""
    kinds: dict[str, str]
    """By arm: where what it worked on comes from, `own`, `redrawn` …, or `evaluated` for the tasks that arms are compared on."""

    @property
    def warning(self) -> str:
        """That it is unfinished, as it follows a sentence."""
        return f" {self.unfinished}" if self.unfinished else ""

    def least_for(self, selection: SelectionSettings) -> int:
        """Resolved tasks that are needed: as many as are asked for, else the plan's."""
        return selection.minimum_tasks if "minimum_tasks" in selection.model_fields_set else self.least

    def told(self, sources: Sequence[str]) -> str:
        """How many examples there are of each kind, and from which arms. `sources` has the cell and attempt of each."""
        by_kind: dict[str, Counter[str]] = {}
        for arm in (arm_of(source) for source in sources):
            by_kind.setdefault(self.kinds.get(arm, "of unknown origin"), Counter())[arm] += 1
        return ", ".join(
            f"{found.total()} {kind} ({', '.join(f'{arm} {count}' for arm, count in sorted(found.items()))})"
            for kind, found in sorted(by_kind.items())
        )

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
    view = the_run(settings.runs, options.run)
    plan = view.manifest.plan
    own, _ = load_tasks(plan.selection, settings)
    _, learning = split_tasks(own, plan.selection, plan.experience if plan.sources else None)
    experience, _ = load_experience(plan, learning, settings)
    tasks = {
        task.instance_id: task for task in (*own, *(task for found in experience.values() for task in found))
    }
    arms = {arm.name: arm for arm in plan.every_arm}
    unknown = [name for name in options.arms if name not in arms]
    if unknown:
        raise BadInput(f"The run has no arm {quoted(unknown)}. {possible(unknown[0], arms)}")
    wanted = options.arms or _worth_learning_from(plan)
    # Where the run set tasks aside to learn from, nothing else is learned from.
    split = {name for found in view.manifest.experience_tasks.values() for name in found} or set(tasks)
    attempts = [attempt for attempt in read_attempts(view.folder) if attempt.trajectory.arm in wanted]
    kinds = {arm: "evaluated" for arm in arms} | {
        arm.name: str(source) for source, arm in plan.all_experience()
    }
    experienced = plan.experience
    return _Gathered(
        view.folder.name,
        tasks,
        arms,
        attempts,
        split,
        experienced.training if experienced is not None else None,
        max(1, experienced.selection.minimum_tasks if experienced is not None else USUAL_LEAST),
        _model_of(options, plan),
        _unfinished(view, wanted, split),
        kinds,
    )


def _model_of(options: TrainOptions, plan: Plan) -> ModelSpec:
    own = plan.base.model.model_copy(update={"adapter": ""}) if plan.base is not None else None
    if options.model is None and own is not None and own.shows_losses:
        return own
    return parse_model(options.model or "nano")


def _unfinished(view: RunView, arms: Sequence[str], split: Collection[str]) -> str:
    # What a failed arm left undone nobody goes on with.
    owed = view.planned_cells
    cells = [cell for arm in arms for cell in view.cells(arm) if task_id_of(cell) in split and cell in owed]
    left = sum(cell not in view.final for cell in cells)
    if not left:
        return ""
    how = (
        "It is running"
        if view.writer is not None
        else f"Go on with it first: {goes_on_with(view) or resume_command(view)}"
    )
    return f"{view.folder.name} is unfinished: {left} of {counted(len(cells), 'cell')} to learn from have no end yet. {how}"


def examples_of(options: TrainOptions, settings: Settings) -> tuple[tuple[Example, ...], Selection]:
    """Examples from the verified successes of a run. Raises BadInput where there are too few."""
    return _examples_from(_gathered(options, settings), options)


def _examples_from(found: _Gathered, options: TrainOptions) -> tuple[tuple[Example, ...], Selection]:
    taken, selection = select(found.attempts, found.split, options.selection)
    least = found.least_for(options.selection)
    if len(selection.tasks) < least:
        raise BadInput(
            f"{found.run} has {len(selection.tasks)} resolved tasks to learn from, of {counted(selection.seen, 'attempt')} "
            f"({selection.unresolved} unresolved, {selection.without_verdict} without a verdict, {selection.without_steps} without a step, "
            f"{selection.duplicates} duplicates, {selection.over_cap} beyond --per-task, {selection.outside} at evaluated tasks). "
            f"{_what_to_do(least, evaluated=bool(options.arms) and selection.outside == selection.seen)}{found.warning}"
        )
    _say_unfinished(found)
    return found.examples(taken), selection


def _say_unfinished(found: _Gathered) -> None:
    if found.unfinished:
        say_line(found.unfinished)


def _what_to_do(least: int, *, evaluated: bool = False) -> str:
    """With too few tasks to learn from; only `looper train` asks for more than one. `evaluated` where all attempts were at tasks that
    arms are judged on, which nobody learns from."""
    if evaluated:
        return "Learn from the arms that gathered experience: leave --arm out."
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
        raise BadInput(f"{found.run} has no task that was both resolved and failed.{found.warning}")
    _say_unfinished(found)
    return [(good, bad) for pair in pairs for good, bad in [found.examples(pair)]]


def _chosen(
    options: TrainOptions, settings: Settings, say: Callable[[str], None]
) -> tuple[_Gathered, TrainingSettings, tuple[Example, ...]]:
    """What is trained on and with, and everything about the choice in words: before anything is computed."""
    found = _gathered(options, settings)
    training = options.settings(found.usual)
    trained_folder(found.model, settings)  # Said before anything is counted where there is none.
    examples, selection = _examples_from(found, options)
    say(
        f"{found.run}: {counted(selection.seen, 'attempt')}, {selection.taken} taken, {selection.unresolved} unresolved, "
        f"{counted(selection.duplicates, 'duplicate')}, {selection.over_cap} beyond --per-task {options.selection.per_task}, "
        f"{selection.outside} at evaluated tasks, {selection.without_verdict} without a verdict, {selection.without_steps} without a "
        f"step; {counted(selection.dropped_steps, 'step')} without effect left out"
    )
    sources = [example.source for example in examples]
    say(f"examples: {found.told(sources)}")
    arms = dict.fromkeys(arm_of(source) for source in sources)
    if len({found.kinds[arm] for arm in arms}) > 1:
        each = dict.fromkeys(found.kinds[arm] for arm in arms)
        ways = (" ".join(f"--arm {arm}" for arm in arms if found.kinds[arm] == kind) for kind in each)
        say(f"several kinds of experience; for one alone: {', or '.join(ways)}")
    if len(selection.tasks) < FEW_TASKS:
        say(
            f"{counted(len(selection.tasks), 'task is', 'tasks are')} few: what is learned may be no more than that"
        )
    say(_settings_told(training, found.usual))
    return found, training, examples


def _settings_told(training: TrainingSettings, usual: TrainingSettings | None) -> str:
    """With those that the run's own plan has otherwise."""
    names = ("kind", "rank", "multiplier", "learning_rate", "iterations", "batch_size", "max_tokens")

    def text(settings: TrainingSettings, only: Sequence[str]) -> str:
        values = settings.model_dump(mode="json")
        return ", ".join(
            f"{NAMED.get(name, name)} {values[name]:g}"
            if isinstance(values[name], float)
            else f"{name} {values[name]}"
            for name in only
        )

    own = [name for name in names if usual is not None and getattr(usual, name) != getattr(training, name)]
    other = (
        ""
        if usual is None
        else f"; the run's plan has {text(usual, own)}"
        if own
        else ", as the run's plan has it"
    )
    return f"training: {text(training, names)}{other}"


def train(
    options: TrainOptions, settings: Settings, say: Callable[[str], None]
) -> tuple[AdapterRecord, Path, str]:
    """Everything behind `looper train`: the card of the adapter, the folder where it lies, and what it was made of in words."""
    found, training, examples = _chosen(options, settings, say)
    base = mlx_model(found.model, settings, training.max_tokens)
    trainer = trainer_of(found.model, settings)
    request = TrainingRequest(
        base=base.identity().model_copy(update={"context_tokens": None}),
        make=Make.TRAINED,
        settings=training,
        examples=examples,
    )
    card = trainer.train(
        request,
        partial(TrainingProgress(say), ":".join(filter(None, (found.model.backend, found.model.name)))),
        run=found.run,
    )
    return card, trainer.folder(card.id), found.told(card.sources)


def masks(
    options: TrainOptions, settings: Settings, say: Callable[[str], None]
) -> tuple[TrainingSettings, Iterator[Windows]]:
    """The settings of a training, and each example in the pieces that it reads, with the spans that the loss counts."""
    found, training, examples = _chosen(options, settings, say)
    return training, windows_of(found.model, settings, examples, training)
