"""Whether a plan can be what it says before any task is looked at: every arm has its purpose, every contrast can be measured,
every adapter that is made from another has that other.

Each check yields the keys that are wrong and a sentence with what to do, and all of them are told at once. What depends on the
tasks is in `feasibility`.
"""

from collections.abc import Iterator

from pydantic import ValidationError

from looper.experiment.toml_positions import Path
from looper.records.base import Record, content_hash
from looper.records.learning import Learning, TrainingChange, Treatment
from looper.records.memory import RetrievalSettings
from looper.records.plan import AS_COMPUTED, Arm, ArmRole, Chooser, Expect, Metric, Plan, Scaffold
from looper.records.training import Format
from looper.records.trajectory import Guard

PLAYED = ("gold", "noop", "predictions", "scripted")
"""Backends that say the same under every seed because they are told to."""
WIDEST = 0.2
"""Margin of a plan that expects no difference: arms that a fifth of all tasks tells apart are not alike to anybody."""


def faults(plan: Plan) -> Iterator[tuple[Path, str]]:
    """Keys of what is wrong, and what is wrong with it."""
    yield from _counted_twice(plan)
    yield from _never_sampled_so(plan)
    yield from _says_nothing(plan)
    yield from _calls_all_alike(plan)
    yield from _without_purpose(plan)
    yield from _never_measured(plan)
    yield from _foregone(plan)
    yield from _never_fires(plan)
    yield from _made_from_nothing(plan)
    yield from _the_same_in_the_end(plan)


def _counted_twice(plan: Plan) -> Iterator[tuple[Path, str]]:
    """Seeds that give the same cells, and contrasts that ask the same."""
    for at, seed in enumerate(plan.seeds):
        if seed in plan.seeds[:at]:
            yield (
                ("seeds",),
                f"the seed {seed} is there twice, and a cell under the same seed is the same cell. Name others",
            )
    for at, arm in enumerate(plan.arms):
        seeds = len(plan.seeds_of(arm))
        samples = (
            arm.model.backend not in PLAYED and arm.learning is None and arm.role is not ArmRole.EXPERIENCE
        )
        if samples and arm.temperature == 0 and seeds > 1:
            yield (
                ("arms", at, "temperature"),
                f"{arm.name} samples nothing at temperature 0, so that its {seeds} seeds are one measurement that is counted {seeds} "
                "times. Give it one seed (only_seeds = 1, or seeds), or a temperature",
            )
    seen: dict[tuple[object, ...], str] = {}
    for at, contrast in enumerate(plan.contrasts):
        # Not less one way is not more the other way; that there is a difference, or none, is the same either way.
        turned = contrast.expect is Expect.NOT_LESS
        arms = tuple(reversed(contrast.arms)) if turned else contrast.arms
        one_sided = contrast.expect in (Expect.NOT_LESS, Expect.NOT_MORE)
        key = (
            arms if one_sided else min(arms, tuple(reversed(arms))),
            Expect.NOT_MORE if turned else contrast.expect,
            contrast.metric,
            contrast.exercised,
        )
        if key in seen:
            yield (
                ("contrasts", at, "arm"),
                f"{contrast.name} asks what {seen[key]} asks already, and each is counted. Leave one of them out",
            )
        seen.setdefault(key, contrast.name)


def _never_sampled_so(plan: Plan) -> Iterator[tuple[Path, str]]:
    """Arms whose model cannot be told how to draw: Anthropic's interface has three words for it, and temperatures up to 1."""
    for at, arm in enumerate(plan.arms):
        if arm.model.backend != "anthropic":
            continue
        if arm.temperature > 1:
            yield (
                ("arms", at, "temperature"),
                f"{arm.name}: Anthropic's interface takes no temperature above 1. Lower it",
            )
        unsaid = [
            name
            for name in sorted((arm.sampling or AS_COMPUTED).model_fields_set)
            if name not in ("top_k", "top_p")
        ]
        if unsaid:
            yield (
                ("arms", at, "sampling"),
                f"{arm.name}: Anthropic's interface cannot be told {', '.join(unsaid)}. Leave it out",
            )


def _says_nothing(plan: Plan) -> Iterator[tuple[Path, str]]:
    """Contrasts whose outcomes are not told apart by what will be said of them."""
    for at, contrast in enumerate(plan.contrasts):
        said = [" ".join(text.split()) for text in (contrast.shown, contrast.refuted, contrast.open)]
        if "" in said:
            key = ("shown", "refuted", "open")[said.index("")]
            yield (
                ("contrasts", at, key),
                f"{contrast.name} has no words for this outcome. Say what it would mean",
            )
        elif len(set(said)) < len(said):
            yield (
                ("contrasts", at, "shown"),
                f"{contrast.name} says the same of two outcomes, so nothing could come of it. Say what each would mean",
            )


def _calls_all_alike(plan: Plan) -> Iterator[tuple[Path, str]]:
    """Margins within which a difference lies that the plan itself calls an effect."""
    for at, contrast in enumerate(plan.contrasts):
        if contrast.expect is Expect.MORE or not contrast.metric.is_share:
            continue
        effects = [
            found.expected
            for found in plan.contrasts
            if found.expect is Expect.MORE and found.metric is contrast.metric
        ]
        most = min((*effects, WIDEST))
        if contrast.margin > most:
            why = (
                "the smallest difference that this plan expects of one"
                if most in effects
                else "the widest that is taken for nothing"
            )
            yield (
                ("contrasts", at, "margin"),
                f"{contrast.name} would call arms alike that differ by {100 * contrast.margin:.3g} points, and {why} is "
                f"{100 * most:.3g} points. Lower the margin",
            )


def _without_purpose(plan: Plan) -> Iterator[tuple[Path, str]]:
    """Arms and choices of a plan with contrasts that no contrast is about and that do not say why they are there."""
    if not plan.contrasts:
        return
    compared = {name for found in plan.contrasts for name in found.arms}
    taken = {
        name for choice in plan.choices if choice.name in compared or choice.reason for name in choice.of
    }
    for at, arm in enumerate(plan.arms):
        if arm.role is not ArmRole.BASE and not arm.reason and arm.name not in compared | taken:
            yield (
                ("arms", at, "name"),
                f'no contrast is about {arm.name}; register one, or say why it is there: reason = "…"',
            )
    for at, choice in enumerate(plan.choices):
        if not choice.reason and choice.name not in compared:
            yield (
                ("choices", at, "name"),
                f'no contrast is about {choice.name}; register one, or say why it is there: reason = "…"',
            )


def _never_measured(plan: Plan) -> Iterator[tuple[Path, str]]:
    """Contrasts in what one of their arms never has."""
    arms = {arm.name: arm for arm in plan.arms}
    for at, contrast in enumerate(plan.contrasts):
        for name in contrast.arms:
            arm = arms.get(name)
            if arm is not None and (why := _lacks(arm, contrast.metric)):
                yield ("contrasts", at, "metric"), f"{name} has no {contrast.metric.value}: {why}"


def _lacks(arm: Arm, metric: Metric) -> str:
    learning = arm.learning
    match metric:
        case Metric.RETENTION | Metric.FORGETTING if learning is None or learning.strategy is None:
            return "that is measured after the batches of a strategy"
        case Metric.ANSWERS if learning is None or learning.format is not Format.SELF_QA:
            return 'it is trained on no questions that a model answered (format = "self_qa")'
        case Metric.INTERVENTIONS if not arm.has_overseer:
            return "it works under no overseer"
    return ""


def _foregone(plan: Plan) -> Iterator[tuple[Path, str]]:
    """Contrasts of the best of several attempts, which hidden tests tell, with one that is taken of the same: it cannot resolve less.
    By how much it resolves more at most can be asked, from either side."""
    best = {choice.name: set(choice.of) for choice in plan.choices if choice.by is Chooser.ANY}
    for at, contrast in enumerate(plan.contrasts):
        tries = len(best.get(contrast.arm, ()))
        if contrast.expect is Expect.MORE and tries > len(best.get(contrast.against, {""})):
            yield (
                ("contrasts", at, "arm"),
                f"{contrast.name} has its answer before the data: {contrast.arm} takes whichever of {tries} attempts hidden tests "
                f"resolve, and {contrast.against} has fewer. Compare it with the best of as many, or ask how much more at most",
            )
    taken = {arm.name: {arm.name} for arm in plan.arms} | {
        choice.name: set(choice.of) for choice in plan.choices
    }
    for at, contrast in enumerate(plan.contrasts):
        sides = (
            (contrast.arm, contrast.against, Expect.NOT_MORE),
            (contrast.against, contrast.arm, Expect.NOT_LESS),
        )
        for ceiling, other, asked in sides:
            if contrast.expect is not asked and ceiling in best and taken.get(other, {""}) <= best[ceiling]:
                yield (
                    ("contrasts", at, "against"),
                    f"{contrast.name} has its answer before the data: {ceiling} takes whichever of {', '.join(sorted(best[ceiling]))} "
                    f"is resolved, so it never resolves less than {other}; by how much more at most is a question, "
                    f'expect = "{asked.value}" with a margin',
                )


def _never_fires(plan: Plan) -> Iterator[tuple[Path, str]]:
    """Contrasts that count only where a guard fires, and whose guards no arm of theirs can reach: switched off, or slower than a rollout
    is long. Each would take a place in the family and could decide nothing."""
    arms = {arm.name: arm for arm in plan.arms}
    for at, contrast in enumerate(plan.contrasts):
        if not contrast.exercised:
            continue
        there = [arms[name] for name in contrast.arms if name in arms]
        names = ", ".join(guard.value for guard in contrast.exercised)
        least = [
            (steps, plan.limits_of(arm).steps)
            for arm in there
            for guard in contrast.exercised
            if (steps := _steps_to_fire(guard, arm.scaffold)) is not None
        ]
        if not least:
            yield (
                ("contrasts", at, "exercised"),
                f"{contrast.name} means nothing unless {names} fires, and that is switched off in all of its arms",
            )
        elif all(steps > limit for steps, limit in least):
            steps, limit = min(least)
            yield (
                ("contrasts", at, "exercised"),
                f"{contrast.name} means nothing unless {names} fires, which takes {steps} steps at least, and a rollout has {limit}. Leave "
                "its arm out of this profile, raise limits.steps, or lower the guard's threshold",
            )


def _steps_to_fire(guard: Guard, scaffold: Scaffold) -> int | None:
    """In which step of a rollout a guard can fire first; None where it is switched off."""
    guards = scaffold.guards
    match guard:
        case Guard.REPEATED_ACTION:
            times = (guards.repeat_nudge, guards.repeat_refuse, guards.repeat_stop)
            return min((found for found in times if found), default=None)
        case Guard.READ_ONLY_STREAK:
            return guards.read_only_nudge
        # These two count from the first change of the tree on, which is a step as well.
        case Guard.NO_PROGRESS:
            return None if guards.no_progress_stop is None else guards.no_progress_stop + 1
        case Guard.VERIFICATION_LOOP:
            return None if guards.verification_nudge is None else guards.verification_nudge + 1
        case Guard.PREMATURE_DONE:
            return 1 if guards.refuse_empty_done else None
        case Guard.SHRINKING_WRITE:
            return 1 if guards.confirm_shrink else None
        case Guard.BROKEN_PYTHON:
            return 1 if guards.check_python else None
        case Guard.CONTEXT_PRUNED:
            # Before a step there are as many observations as steps behind it, and the last ones are kept whole.
            return None if scaffold.pruning.mode == "none" else scaffold.pruning.keep_last + 2
        case Guard.FENCE_REMOVED:
            return 1


def _made_from_nothing(plan: Plan) -> Iterator[tuple[Path, str]]:
    for at, arm in enumerate(plan.arms):
        if arm.learning is None or not arm.learning.made_from_another or plan.made_from(arm) is not None:
            continue
        others = [
            f"{other.name} learns from {other.learning.source.value}"
            for other in plan.arms
            if other.learning
            == Learning(
                treatment=Treatment.ADAPTER,
                source=other.learning.source if other.learning else arm.learning.source,
            )
            and other.learning is not None
        ]
        told = f"; {', '.join(others)}: give it the same source" if others else ""
        yield (
            ("arms", at, "learning"),
            f"{arm.name} is made from the adapter of an arm that is plainly trained on {arm.learning.source.value} experience "
            f'(learning = {{ treatment = "adapter" }}), and there is none{told}',
        )


def _the_same_in_the_end(plan: Plan) -> Iterator[tuple[Path, str]]:
    """Arms whose own settings of training and memory are those of another arm, once they are resolved, or cannot be carried out."""
    if plan.experience is None:
        return
    seen: dict[str, str] = {}
    for at, arm in enumerate(plan.arms):
        if arm.learning is None:
            continue
        same: list[str] = []
        plain = arm.learning.model_copy(update=dict.fromkeys(("training", "memory", "teacher")))
        parts: list[Record | str] = [plain]
        if plan.experience.training is not None and arm.learning.treatment.is_adapter:
            try:
                settings = (arm.learning.training or TrainingChange()).of(plan.experience.training)
            except ValidationError as error:
                (wrong,) = error.errors()
                yield (
                    ("arms", at, "learning", "training"),
                    f"{arm.name} cannot be trained so: {wrong['msg'].removeprefix('Value error, ')}",
                )
                continue
            parts.append(settings)
            same.append(
                f"their training is the same (rank {settings.rank}, multiplier {settings.multiplier:g}, learning rate "
                f"{settings.learning_rate:g}, {settings.iterations} iterations)"
            )
        for how in (arm.learning.remembers, arm.learning.teacher):
            if how is None:
                parts.append("")
                continue
            told = plan.experience.told(how)
            parts += [how.model_copy(update=dict.fromkeys(RetrievalSettings.model_fields)), told]
            same.append(
                f"they are told the same (at most {told.items} item{'s' * (told.items > 1)}, found by {told.retrieval})"
            )
        if (other := seen.setdefault(content_hash(*parts), arm.name)) != arm.name:
            yield (
                ("arms", at, "learning"),
                f"{arm.name} learns what {other} learns: under this profile {', and '.join(same)}",
            )
