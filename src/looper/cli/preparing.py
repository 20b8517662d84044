"""A plan with its tasks, before anything is run.

Tasks are loaded, those that are not eligible or have no environment are left out, and those to learn from are set aside; then the
gates that these tasks cannot pass are refused. Everything that loads a plan comes through `prepare`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from pathlib import Path

from looper.bench.validate import eligible, in_force, shipped
from looper.cli.settings import Settings
from looper.cli.wiring import (
    adapter_store,
    base_of,
    code_version,
    every_task,
    found_elsewhere,
    missing_programs,
    mlx_model,
    taught,
    unserved,
    variant_tasks,
)
from looper.errors import LISTED, BadInput
from looper.experiment.checks import seen_text
from looper.experiment.feasibility import (
    Attempted,
    Selected,
    data_stops,
    impossible,
    told_at_most,
    told_forecast,
)
from looper.experiment.plans import Written
from looper.experiment.schedule import (
    by_age,
    exhausted_repositories,
    first_of_each,
    lanes,
    learnable,
    named_tasks,
    split_tasks,
)
from looper.experiment.stages import learners_of
from looper.experiment.toml_positions import Path as Keys
from looper.journal import read_stream
from looper.records.base import grouped
from looper.records.eligibility import Validation
from looper.records.learning import AGES, Source
from looper.records.plan import (
    Arm,
    ArmRole,
    Cell,
    Expect,
    Gate,
    Metric,
    Override,
    Plan,
    RunManifest,
    TaskSelection,
)
from looper.records.task import Task
from looper.records.text import counted
from looper.records.training import AdapterRecord
from looper.views.forecast import MeasuredShare, equal_arms, gathered_at, resolved_by_base, runs_alike
from looper.views.runs import RunView
from looper.views.suites import unserved_lines

FEW_TASKS = 100
"""Fewer tasks than this to learn from are worth a warning."""
OF_THE_SUITE = (Source.OWN, Source.GOLD, Source.GUIDED)
"""Experience at the very tasks that were set aside."""
STALE = AGES[:-1]
"""Experience that is older than the tasks it is to help with."""


@dataclass(frozen=True)
class PreparedPlan:
    plan: Plan
    tasks: tuple[Task, ...]
    """To evaluate."""
    experience: dict[Source, tuple[Task, ...]]
    """To learn from."""
    left_out: dict[str, str]
    """Tasks that could have been learned from and are not, and why."""
    validations: dict[str, Validation]
    """Of all real tasks of the suite that were validated, here or where Looper was made, by id."""
    mirrors: dict[str, Path]
    unserved: tuple[str, ...] = ()
    """What of the suite is not evaluated, and why, in lines: no environment is known for it, or all of it is learned from."""
    set_aside: dict[Source, tuple[Task, ...]] = field(default_factory=dict)
    """To learn from, before any was left out."""

    @property
    def every_task(self) -> tuple[Task, ...]:
        return (*self.tasks, *(task for found in self.experience.values() for task in found))

    def schedule(self, arms: Sequence[str] = ()) -> tuple[tuple[Cell, ...], ...]:
        """Raises BadInput for arms that the plan does not have."""
        return lanes(self.plan, self.tasks, arms)


def prepare(plan: Plan, settings: Settings) -> PreparedPlan:
    """Raises BadInput for what cannot be run."""
    every, mirrors = every_task(plan.selection, settings)
    validations = validations_of(plan.selection, every, settings)
    fit, unfit = eligible(every, validations)
    _some_are_fit(plan.selection, every, fit, unfit)
    every, unserved = with_environment(fit, plan.selection)
    # Nothing is set aside for nobody.
    split = plan.experience if plan.sources else None
    tasks, learning = split_tasks(
        every, plan.selection, split, partial(found_elsewhere, plan.selection, settings)
    )
    if not plan.selection.repos:
        unserved += tuple(exhausted_repositories(every, split).values())
    experience, more_mirrors = load_experience(plan, learning, settings)
    kept: dict[Source, tuple[Task, ...]] = {}
    left_out: dict[str, str] = {}
    for source, found in experience.items():
        assert plan.experience is not None
        kept[source], why = learnable(found, tasks, plan.experience.selection)
        left_out |= why
    return PreparedPlan(
        plan, tasks, kept, left_out, validations, mirrors | more_mirrors, unserved, experience
    )


def _some_are_fit(
    selection: TaskSelection, every: Sequence[Task], fit: Sequence[Task], unfit: Mapping[str, str]
) -> None:
    """Raises BadInput where a task is named, or a repository all of whose tasks, cannot tell right from wrong here."""
    for name in selection.tasks:
        if name in unfit:
            raise BadInput(
                f"{name} is not eligible here: {unfit[name]}. Name others (tasks.tasks), or see: looper bench validate."
            )
    for repo in selection.repos:
        mine = [task.instance_id for task in every if task.repo == repo]
        if mine and not any(task.repo == repo for task in fit):
            raise BadInput(
                f"{repo} has {counted(len(mine), 'task')}, and none of them is eligible here: {mine[0]}, {unfit.get(mine[0], 'not known why')}. "
                "Leave the repository out (tasks.repos), or see: looper bench validate."
            )


def refuse_impossible(
    prepared: PreparedPlan,
    written: Written,
    overrides: Sequence[Override],
    settings: Settings,
    arms: Sequence[str] = (),
) -> None:
    """Raises BadInput, in one line, for every gate of a plan that its tasks cannot pass, and for what it takes for granted where no
    run here supports it."""
    plan = written.plan
    wanted = plan.named_arms(arms)
    selected = Selected(
        plan,
        learners_of(plan, wanted),
        prepared.tasks,
        prepared.experience,
        prepared.left_out,
        prepared.set_aside,
        data_stops(plan, [found.gate for found in overrides]),
        all(found.gate is not Gate.MEMORY for found in overrides),
    )
    if found := written.all_said([*impossible(selected), *_unsupported(plan, settings.runs)]):
        raise BadInput(f"{'; '.join(found)}.")
    _refuse_taught(plan, settings)


def _refuse_taught(plan: Plan, settings: Settings) -> None:
    """Raises BadInput where a model was taught in the repositories that it would be judged in."""
    for spec in plan.model_specs:
        found = taught(spec, settings)
        if found is None or found.tasks.suite != plan.selection.suite:
            continue
        mine = (plan.selection.level, plan.selection.suite_seed)
        if mine == (found.tasks.level, found.tasks.suite_seed):
            raise BadInput(
                f"mlx:{spec.name} was taught in the repositories of level {mine[0]} and suite seed {mine[1]}, and the plan evaluates it "
                "there. Set another tasks.suite_seed."
            )


def adapters_that_fit(
    prepared: PreparedPlan, written: Written, settings: Settings
) -> dict[str, AdapterRecord]:
    """The cards of the adapters that arms bring along from elsewhere, by arm. Raises BadInput for one that is damaged, that was trained on
    another model than its arm's, or on a task to evaluate."""
    plan = prepared.plan
    found: dict[str, AdapterRecord] = {}
    for arm in plan.arms:
        if not arm.model.adapter:
            continue
        card = found[arm.name] = adapter_store(settings).load(arm.model.adapter)
        if seen := seen_text(card, [task.instance_id for task in prepared.tasks], arm.name):
            raise BadInput(f"{seen}. {_unseen(card, prepared, written, settings)}")
        if not arm.model.carries_adapters:
            raise BadInput(
                f"{arm.name}: {arm.model.backend} carries no adapter beside its base. Serve the base with mlx:FOLDER, vLLM, llama.cpp's server or Ollama."
            )
        # On somebody else's server it is compared with what it was trained on, before anything is asked.
        base = (
            mlx_model(arm.model, settings, plan.limits.context_tokens)
            if arm.model.shows_losses
            else base_of(card, settings)
        ).identity()
        if card.base.digest != base.digest:
            raise BadInput(
                f"{arm.name}: the adapter {card.id} was trained on {card.base.name} {card.base.digest[:12]}, and the model "
                f"is {base.name} {base.digest[:12]}. Name the one that it was trained on with --model."
            )
    return found


def _unseen(card: AdapterRecord, prepared: PreparedPlan, written: Written, settings: Settings) -> str:
    """Which tasks of the evaluated repositories an adapter can be judged on, and the key of the plan that takes them."""
    plan = prepared.plan
    every, _ = load_tasks(plan.selection, settings)
    aside = {task.instance_id for tasks in prepared.set_aside.values() for task in tasks}
    by_repo = grouped((task.repo, task.instance_id) for task in every if task.instance_id not in aside)
    mine = [by_repo[repo] for repo in dict.fromkeys(task.repo for task in prepared.tasks)]
    seen = {*card.tasks}
    skip = max(at + 1 for ids in mine for at, name in enumerate(ids) if name in seen)
    left = min(len(ids) for ids in mine) - skip
    free = [name for ids in mine for name in ids if name not in seen]
    own, *_ = written.profile.texts
    table = own.table(("tasks",))
    trained = f"what it was trained on: looper adapter show {card.id}"
    if left > 0 and not plan.selection.tasks:
        return f"Evaluate later ones: skip = {skip} in {table} leaves {left} of each repository; {trained}"
    if free:
        names = ", ".join(f'"{name}"' for name in free[:LISTED])
        more = f" and {len(free) - LISTED} more" if len(free) > LISTED else ""
        return f"Evaluate others: tasks = [{names}]{more} in {table}; {trained}"
    return f"It has seen every task there; name other repositories by repos in {table}; {trained}"


def _unsupported(plan: Plan, runs: Path) -> Iterator[tuple[Keys, str]]:
    """What a plan takes for granted, how often equal arms differ and room to gain in, where no run here supports it or one contradicts
    it. What counts is what was measured, whatever runs and plans are called."""
    if not plan.contrasts:
        return
    views = runs_alike(runs, plan)
    # Who goes on with a run is not held to what it has found so far.
    if any((v.manifest.plan, v.manifest.code_version) == (plan, code_version()) for v in views):
        return
    finished = [view for view in views if view.finished == view.planned]
    yield from _differ_more(plan, equal_arms(views), equal_arms(finished))
    yield from _without_room(plan, resolved_by_base(finished, plan))


def _differ_more(
    plan: Plan, known: Sequence[MeasuredShare], finished: Sequence[MeasuredShare]
) -> Iterator[tuple[Keys, str]]:
    """Equal arms that are taken to differ less often than a finished run shows, or less than by default where none shows that."""
    default = Plan.model_fields["discordance"].default
    taken = f"takes equal arms to differ in {100 * plan.discordance:.3g} % of the cells"
    largest = max(known, key=lambda one: one.cells, default=None)
    # The largest alone: of many runs one lies above the truth by chance.
    most = max(finished, key=lambda one: one.cells, default=None)
    more = most if most is not None and most.low > plan.discordance else None
    supported = largest is not None and largest.high < default
    if more is None and plan.discordance < default:
        if largest is None:
            yield (
                ("discordance",),
                f"{taken}, and {100 * default:.3g} % are taken otherwise; no run here shows with this model, sampling, limits and these repositories that they "
                "differ less. Leave it out, or first run base and an arm with the role again",
            )
            return
        more = largest if not supported or plan.discordance < largest.share else None
    if more is not None:
        least = (
            f"{ceil(100 * more.share) / 100:g} or more"
            if supported or more.share > default
            else f"{default:g}, or leave it out"
        )
        yield ("discordance",), f"{taken}; {_measured(more)}. Raise it to {least}"


def _measured(found: MeasuredShare) -> str:
    return (
        f"they differed in {100 * found.share:.0f} % of {counted(found.cells, 'cell')} ({100 * found.low:.0f} to {100 * found.high:.0f}, 95 %) in "
        f"{found.run}"
    )


def _without_room(plan: Plan, known: MeasuredShare | None) -> Iterator[tuple[Keys, str]]:
    """Differences that are expected to be larger than what base leaves, or has to lose, where a run shows what it resolves."""
    if known is None:
        return
    alike = {arm.name for arm in plan.arms if arm.role in (ArmRole.BASE, ArmRole.AGAIN)}
    for at, found in enumerate(plan.contrasts):
        if found.expect is not Expect.MORE or found.metric is not Metric.RESOLVED or found.through:
            continue
        room = 1 - known.low if found.against in alike else known.high if found.arm in alike else 1.0
        if found.expected > room:
            yield (
                ("contrasts", at, "expected"),
                f"{found.name} expects {100 * found.expected:.3g} points, and base resolved {100 * known.share:.0f} % of {counted(known.cells, 'cell')} "
                f"({100 * known.low:.0f} to {100 * known.high:.0f}, 95 %) in {known.run}, which leaves {100 * room:.0f} at most. "
                "Lower it",
            )


@dataclass(frozen=True)
class MemoryGate:
    """What an arm's memory must have something to say to, which is known only after its experience was gathered."""

    arm: str
    said: str
    """At how many tasks it has to, at most can, and probably will, between which numbers, from which run, where there is one."""
    may_stop: bool
    """Whether what is wanted lies above the lower end of the forecast, or above its only number."""
    advice: str

    @property
    def warning(self) -> str:
        return f"{self.said}. {self.advice}"


def memory_gates(
    prepared: PreparedPlan, arms: Sequence[Arm], runs: Path, overrides: Sequence[Override] = ()
) -> Iterator[MemoryGate]:
    """Of each arm that is told what it gathers. What is known of attempts is what a run gathered at these tasks, else how often base
    resolved others in a run here; nothing stops where the gate is overridden."""
    plan, total, experience = prepared.plan, len(prepared.tasks), prepared.plan.experience
    learners = [
        (arm, how)
        for arm in arms
        if (how := arm.remembers) is not None and arm.learning is not None and arm.learning.needs_experience
    ]
    if experience is None or not learners:
        return
    views = runs_alike(runs, plan)
    passed_over = any(found.gate is Gate.MEMORY for found in overrides)
    for arm, how in learners:
        source = arm.own_learning.source
        tasks = prepared.experience.get(source, ())
        most = told_at_most(experience, how, prepared.tasks, tasks)
        least = ceil(round(experience.delivered * total, 9))
        has_to = (
            f"{arm.name} has to be told something at {least} of {counted(total, 'task')}, "
            f"{'as the plan has it, which is passed over' if passed_over else 'or the run stops before it'}; "
            f"it can be at {most} if every task to learn from is resolved"
        )
        if source is Source.GOLD:
            yield MemoryGate(arm.name, has_to, may_stop=False, advice="")
            continue
        known, from_what = _known_attempts(views, plan, source, tasks)
        found = told_forecast(experience, how, prepared.tasks, tasks, known, len(plan.seeds_of(arm)))
        # Of an interval nothing can be said where no attempt is known.
        low = found.low if known.attempts else found.tasks
        fails = low < least and not passed_over
        how_sure = "" if not fails else ": it will probably fail" if found.tasks < least else ": it may fail"
        spread = f" ({found.low:.3g} to {found.high:.3g}, 95 %), as" if known.attempts else ""
        yield MemoryGate(
            arm.name,
            f"{has_to}, and will be at about {found.tasks:.3g}{spread} {from_what}{how_sure}",
            fails,
            "That is known once the experience is gathered, and another plan gathers again: better change "
            f"experience.per_repo (now {experience.per_repo}), experience.samples (now {experience.samples}) or experience.delivered (now "
            f'{experience.delivered:g}) before. With what it has gathered the run goes on by --override memory="…" alone',
        )


def _known_attempts(
    views: Sequence[RunView], plan: Plan, source: Source, tasks: Sequence[Task]
) -> tuple[Attempted, str]:
    """What is known of attempts at the tasks to learn from, and from where, in words."""
    own = gathered_at(views, plan, source, [task.instance_id for task in tasks])
    if own is not None:
        of = "" if len(own.of_task) == len(tasks) else f"{len(own.of_task)} of "
        at = f"{of}the {counted(len(tasks), 'task')} to learn from"
        stopped = ", which a gate stopped" if own.stopped else ""
        return (
            Attempted(own.resolved, own.attempts, own.of_task),
            f"{own.resolved} of {counted(own.attempts, 'attempt')} at {at} succeeded in {own.run}{stopped}",
        )
    known = resolved_by_base(views, plan)
    if known is None:
        return Attempted(0, 0), "where half of the attempts succeed; how many do is shown by no run here"
    resolved = round(known.share * known.cells)
    return (
        Attempted(resolved, known.cells),
        f"base resolved {resolved} of {counted(known.cells, 'cell')} at other tasks in {known.run}",
    )


def with_environment(
    tasks: Sequence[Task], selection: TaskSelection
) -> tuple[tuple[Task, ...], tuple[str, ...]]:
    """Tasks that an environment is known for, and lines that say which of the chosen ones are none of them. Raises BadInput where a
    task was chosen by its name, or where no chosen one is left."""
    chosen = named_tasks(tasks, selection)
    without = [task for task in chosen if unserved(task)]
    lines = tuple(unserved_lines(without, unserved))
    if without and (selection.tasks or len(without) == len(chosen)):
        names = ", ".join(task.instance_id for task in without[:5]) + (" …" if len(without) > 5 else "")
        raise BadInput(f"{names} cannot be run here. {'; '.join(lines)}. Choose others.")
    return tuple(task for task in tasks if not unserved(task)), lines


def tasks_as_they_are(manifest: RunManifest, settings: Settings) -> tuple[Task, ...]:
    """The tasks of a run, loaded again, as far as they are there. Raises BadInput where the suite cannot be had."""
    plan = manifest.plan
    own, _ = load_tasks(plan.selection, settings)
    known = {task.instance_id: task for task in own}
    found = [known[name] for name in manifest.tasks if name in known]
    for source, names in manifest.experience_tasks.items():
        there = known
        if plan.selection.suite == "micro" and source not in OF_THE_SUITE:
            others, _ = variant_tasks(plan.selection, source, settings)
            there = {task.instance_id: task for task in others}
        found += [there[name] for name in names if name in there]
    return tuple(found)


def load_tasks(selection: TaskSelection, settings: Settings) -> tuple[tuple[Task, ...], dict[str, Path]]:
    """All tasks of the selection's suite that nobody found to be no tasks here, and the mirrors of their repositories."""
    tasks, mirrors = every_task(selection, settings)
    return eligible(tasks, validations_of(selection, tasks, settings))[0], mirrors


def validations_of(
    selection: TaskSelection, tasks: Sequence[Task], settings: Settings
) -> dict[str, Validation]:
    """The validation that counts for each task, by id. Tasks of the embedded suite are made so that they can be told."""
    if selection.suite == "micro":
        return {}
    own = read_stream(settings.validations, "validations", Validation)
    return in_force(tasks, own, shipped(), missing_programs)


def load_experience(
    plan: Plan, learning: Sequence[Task], settings: Settings
) -> tuple[dict[Source, tuple[Task, ...]], dict[str, Path]]:
    """The tasks that arms learn from, by source, and mirrors that only these need."""
    found: dict[Source, tuple[Task, ...]] = {}
    mirrors: dict[str, Path] = {}
    aged = plan.selection.suite != "micro" and any(source in STALE for source in plan.sources)
    ages = by_age(learning) if aged else {}
    for source in plan.sources:
        if source in ages:
            found[source] = ages[source]
            continue
        if source in OF_THE_SUITE:
            found[source] = tuple(learning)
            continue
        if plan.selection.suite != "micro":
            raise BadInput(f"{source.value} experience exists for the embedded suite (micro) only.")
        if source in STALE and plan.selection.level != 0:
            raise BadInput(
                f"{source.value} experience exists for level 0 of the embedded suite (micro) only."
            )
        tasks, more = variant_tasks(plan.selection, source, settings)
        mirrors |= more
        repos = {task.repo for task in learning}
        assert plan.experience is not None
        found[source] = first_of_each(
            [task for task in tasks if task.repo in repos], plan.experience.per_repo
        )
    return found, mirrors
