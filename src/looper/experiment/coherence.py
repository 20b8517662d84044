"""Whether a plan can be what it says before any task is looked at: every arm has its purpose, every contrast can be measured,
every adapter that is made from another has that other.

Each check yields the keys that are wrong and a sentence with what to do, and all of them are told at once. What depends on the
tasks is in `feasibility`.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from math import log

from pydantic import ValidationError

from looper.experiment import wording
from looper.experiment.claims import PlanSettings, in_metric, plainly
from looper.experiment.toml_positions import Path
from looper.records.base import Record, content_hash
from looper.records.learning import Learning, TrainingChange, Treatment
from looper.records.memory import RetrievalSettings
from looper.records.model import BACKENDS
from looper.records.plan import AS_COMPUTED, Arm, ArmRole, Chooser, Contrast, Expect, Metric, Plan, Scaffold
from looper.records.text import counted
from looper.records.training import AdapterKind, Format
from looper.records.trajectory import TOOL_NAMES, Guard, ToolName

WIDEST = 0.2
"""Margin of a plan that expects no difference: arms that a fifth of all tasks tells apart are not alike to anybody."""
WIDEST_NATS = -log(1 - WIDEST)
"""The same in nats per token: each token of a success loses a fifth of its probability."""
FINEST = 0.001
"""A tenth of a point, or of a hundredth of a nat: one cell of a thousand. Finer differences no plan here resolves."""
LEAST_DISCORDANCE = 0.05
"""The procedure of decisions is simulated from here on (docs/statistics.md); what it does with less is not known."""
LEAST_SPREAD = 0.1
"""The default: no run measures how true differences vary between repositories, so that nothing supports less."""
LEAST_EXAMPLE_TOKENS = 32
"""A system message, an issue and one action, each as short as can be, with what a template puts around them."""
LEAST_WALL_S = 1.0
"""No model here replies, and no command runs and is judged, in less."""
LEAST_TEMPERATURE = 0.05
"""A token whose logit is half a nat above the next one's is drawn in 22,000 of 22,001 cases at this."""
LEAST_CHOICE = 0.05
"""Tokens that make up less than this together are nearly always one alone."""
LEAST_STEPS = 2
"""An edit, and done."""
LEAST_MOVE = 1e-6
"""Adam moves a weight by about its learning rate in an iteration; what is less than this altogether is lost in rounding."""
NANO_WIDTHS = {"small": 64}
"""Of the embedded models by their name; 128 for the others. A change of more ranks than its matrix has is no low-rank change."""
NANO_WIDTH = 128
CHANGING: tuple[ToolName, ...] = ("bash", "edit", "write")
WATCHED: dict[Guard, tuple[ToolName, ...]] = {Guard.SHRINKING_WRITE: ("write",)}
"""Tools without which a guard has nothing to watch."""


def faults(plan: Plan) -> Iterator[tuple[Path, str]]:
    """Keys of what is wrong, and what is wrong with it."""
    yield from _counted_twice(plan)
    yield from _never_sampled_so(plan)
    yield from wording.faults(plan)
    yield from _calls_all_alike(plan)
    yield from _too_fine_or_too_large(plan)
    yield from _taken_for_granted(plan)
    yield from _known_beforehand(plan)
    yield from _no_dose(plan)
    yield from _cannot_work(plan)
    yield from _cannot_be_told_or_trained(plan)
    yield from _without_purpose(plan)
    yield from _never_measured(plan)
    yield from _foregone(plan)
    yield from _never_fires(plan)
    yield from _made_from_nothing(plan)
    yield from _the_same_in_the_end(plan)


def _next_to_greedy(arm: Arm) -> tuple[str, str] | None:
    """The key by which an arm takes the likeliest token as good as always, and in words how; None where it draws."""
    drawn = arm.sampling or AS_COMPUTED
    if arm.temperature < LEAST_TEMPERATURE:
        return "temperature", f"at temperature {arm.temperature:g}"
    if drawn.top_k == 1:
        return "sampling", "with top_k = 1"
    if drawn.top_p < LEAST_CHOICE:
        return "sampling", f"with top_p = {drawn.top_p:g}"
    if drawn.min_p > 1 - LEAST_CHOICE:
        return "sampling", f"with min_p = {drawn.min_p:g}"
    return None


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
        # What an adapter or a memory is made of was sampled before, with another for each seed; what has no items was not. What does not read
        # its prompt says the same under every seed because it is told to.
        remembers = arm.remembers
        of_nothing = arm.learning is None or (remembers is not None and not remembers.kind.traits.has_items)
        samples = arm.model.reads and of_nothing and arm.role is not ArmRole.EXPERIENCE
        if samples and seeds > 1 and (said := _next_to_greedy(arm)):
            yield (
                ("arms", at, said[0]),
                f"{arm.name} samples nothing {said[1]}, so that its {seeds} seeds are one measurement that is counted {seeds} "
                "times. Give it one seed (only_seeds = 1, or seeds), or let it draw",
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
    """Arms whose model cannot be told how to draw."""
    for at, arm in enumerate(plan.arms):
        backend, traits = arm.model.backend, BACKENDS[arm.model.backend]
        if traits.highest_temperature is not None and arm.temperature > traits.highest_temperature:
            yield (
                ("arms", at, "temperature"),
                f"{arm.name}: {backend} takes no temperature above {traits.highest_temperature:g}. Lower it to {traits.highest_temperature:g}",
            )
        told = (arm.sampling or AS_COMPUTED).model_fields_set
        if traits.sampling is not None and (unsaid := sorted(told - {*traits.sampling})):
            yield (
                ("arms", at, "sampling"),
                f"{arm.name}: {backend} cannot be told {', '.join(unsaid)}. Leave {'them' if len(unsaid) > 1 else 'it'} out",
            )


def _calls_all_alike(plan: Plan) -> Iterator[tuple[Path, str]]:
    """Margins within which a difference lies that the plan itself calls an effect."""
    for at, contrast in enumerate(plan.contrasts):
        if contrast.expect is Expect.MORE:
            continue
        # What a plan in nats expects is not worked out before the data, so only a share has a figure of its own.
        effects = [
            found.expected
            for found in plan.contrasts
            if found.expect is Expect.MORE and found.metric is contrast.metric and contrast.metric.is_share
        ]
        most = min((*effects, WIDEST if contrast.metric.is_share else WIDEST_NATS))
        if contrast.margin > most:
            why = (
                "the smallest difference that this plan expects of one"
                if most in effects
                else "the widest that is taken for nothing"
                if contrast.metric.is_share
                else f"the widest that is taken for nothing, a fifth of the probability of every token, {WIDEST_NATS:.3g} nats: it"
            )
            yield (
                ("contrasts", at, "margin"),
                f"{contrast.name} would call arms alike that differ by {_amount(contrast, contrast.margin)}, and {why} is "
                f"{_amount(contrast, most)}. Lower the margin",
            )


def _amount(contrast: Contrast, value: float) -> str:
    return f"{100 * value:.3g} points" if contrast.metric.is_share else f"{value:.3g} nats per token"


def _too_fine_or_too_large(plan: Plan) -> Iterator[tuple[Path, str]]:
    """Differences that no design resolves, or that leave no room for those by chance."""
    for at, contrast in enumerate(plan.contrasts):
        for key in ("margin", "expected"):
            value = getattr(contrast, key)
            if value < FINEST:
                yield (
                    ("contrasts", at, key),
                    f"{contrast.name} asks for {in_metric(contrast, value)}, and nothing finer than {_amount(contrast, FINEST)} is "
                    "resolved: one cell of a thousand. Raise it",
                )
        most = 1 - plan.discordance / 2
        if (
            contrast.expect is Expect.MORE
            and contrast.metric is Metric.RESOLVED
            and contrast.expected > most
            and not contrast.through
        ):
            yield (
                ("contrasts", at, "expected"),
                f"{contrast.name} expects {_amount(contrast, contrast.expected)}, and where equal arms differ in "
                f"{100 * plan.discordance:.3g} % of the cells, half of them gains, no more than {_amount(contrast, most)} can be gained "
                "beside. Lower it",
            )


def _taken_for_granted(plan: Plan) -> Iterator[tuple[Path, str]]:
    """What a plan takes for granted decides whether it is a pilot, so it is not taken for less than anything supports."""
    if not plan.contrasts:
        return
    if plan.discordance < LEAST_DISCORDANCE:
        yield (
            ("discordance",),
            f"takes equal arms to differ in {100 * plan.discordance:.3g} % of the cells, and decisions are simulated from "
            f"{100 * LEAST_DISCORDANCE:.3g} % on. Raise it to {LEAST_DISCORDANCE:g} or more, or leave it out",
        )
    if plan.spread < LEAST_SPREAD:
        yield (
            ("spread",),
            f"takes true differences to vary by {100 * plan.spread:.3g} points between repositories, and no run measures less than the "
            f"{100 * LEAST_SPREAD:.3g} that are taken otherwise. Raise it to {LEAST_SPREAD:g} or more, or leave it out",
        )


def _known_beforehand(plan: Plan) -> Iterator[tuple[Path, str]]:
    """Contrasts with an arm of which it is known by construction what it resolves, and seeds that there are not."""
    known = {
        "gold": "plays the benchmark's own patch, which resolves every task that is eligible",
        "noop": "does nothing, which resolves no task that is eligible",
    }
    why = {arm.name: known[arm.model.backend] for arm in plan.arms if arm.model.backend in known}
    zero = {
        arm.name: "has an adapter that changes nothing, which is proved before the first task"
        for arm in plan.arms
        if arm.treatment is Treatment.ZERO_ADAPTER
    }
    why |= zero
    bases = {arm.name for arm in plan.arms if arm.learning is None}
    for at, contrast in enumerate(plan.contrasts):
        for key, name, other in (
            ("arm", contrast.arm, contrast.against),
            ("against", contrast.against, contrast.arm),
        ):
            # An adapter that changes nothing is base, and what another one is worth against it is as open as against base.
            if name in why and (name not in zero or other in bases):
                yield (
                    ("contrasts", at, key),
                    f"{contrast.name} has its answer before the data: {name} {why[name]}. Leave the contrast out; such an arm is a "
                    "control that a report checks, with a reason",
                )
                break
    for at, arm in enumerate(plan.arms):
        if arm.only_seeds is not None and arm.only_seeds > len(plan.seeds):
            yield (
                ("arms", at, "only_seeds"),
                f"{arm.name} is to run with {counted(arm.only_seeds, 'seed')}, and the plan has {len(plan.seeds)}. Lower it, or name more seeds",
            )


def _no_dose(plan: Plan) -> Iterator[tuple[Path, str]]:
    """Lines through arms in which no setting rises or falls from arm to arm, so that a slope means nothing."""
    settings = PlanSettings(plan)
    arms = {arm.name: arm for arm in plan.arms}
    for at, contrast in enumerate(plan.contrasts):
        if not contrast.through:
            continue
        try:
            each = [settings.of(name) for name in contrast.arms]
        except ValidationError:
            continue  # A training that cannot be computed is told elsewhere.
        names = dict.fromkeys(name for found in each for name in found)
        models = [arms[name].model for name in contrast.arms if name in arms]
        if len(set(models)) == len(each) or any(
            _rises([found.get(name) for found in each]) for name in names
        ):
            continue
        yield (
            ("contrasts", at, "through"),
            f"{contrast.name} draws a line through arms without a dose: no setting rises or falls from {' to '.join(contrast.arms)}. "
            "Name arms that differ in how much of one thing they have, or leave through out",
        )


def _rises(values: list[float | None]) -> bool:
    """Whether numbers rise or fall all the way; an end without the setting has nothing of it, or all."""
    present = [value for value in values[1:-1] if value is not None]
    ends = [values[0], values[-1]]
    if len(present) < len(values) - 2 or ends == [None, None]:
        return False
    dose = [value for value in (ends[0], *present, ends[1]) if value is not None]
    steps = [second - first for first, second in pairwise(dose)]
    return all(step > 0 for step in steps) or all(step < 0 for step in steps)


def _cannot_work(plan: Plan) -> Iterator[tuple[Path, str]]:
    """Limits and tools with which no model can do anything, of the plan or of an arm."""
    told: set[Path] = set()
    for at, arm in enumerate(plan.arms):
        if not arm.model.reads:
            continue
        limits = plan.limits_of(arm)
        wrong = {
            "steps": limits.steps < LEAST_STEPS
            and f"a rollout has {limits.steps} step, and an edit and done take {LEAST_STEPS}. Raise it",
            "output_tokens": limits.output_tokens >= limits.context_tokens
            and f"a reply may have {limits.output_tokens} tokens, and the context holds {limits.context_tokens} with its prompt. Lower "
            "it, or raise context_tokens",
            "total_tokens": limits.total_tokens is not None
            and limits.total_tokens < limits.output_tokens
            and f"a rollout may have {limits.total_tokens} tokens, and one reply {limits.output_tokens}. Raise it, or lower output_tokens",
            "wall_s": limits.wall_s < LEAST_WALL_S
            and f"a rollout has {limits.wall_s:g} s, and nothing is done and judged in less than {LEAST_WALL_S:g} s. Raise it",
        }
        for path, said in _own_or_shared(wrong, arm.limits, ("arms", at, "limits"), ("limits",), told):
            yield path, f"{arm.name}: {said}" if path[0] == "arms" else said
        tools = arm.scaffold.tools
        lacks = [
            *(["a way to change a file (bash, edit or write)"] if not set(tools) & set(CHANGING) else []),
            *(["done, to say that it has finished"] if "done" not in tools else []),
        ]
        if lacks:
            yield (
                ("arms", at, "scaffold", "tools"),
                f"{arm.name} has the tools {', '.join(tools) or 'none'}, and lacks {', and '.join(lacks)}. Add to them",
            )


def _own_or_shared(
    wrong: Mapping[str, str | bool], own: Record | None, mine: Path, shared: Path, told: set[Path]
) -> Iterator[tuple[Path, str]]:
    """What is wrong with settings, by key, at the arm that has its own, and once where all have the same."""
    for key, said in wrong.items():
        path = (*(mine if getattr(own, key, None) is not None else shared), key)
        if said and path not in told:
            told.add(path)
            yield path, str(said)


def _cannot_be_told_or_trained(plan: Plan) -> Iterator[tuple[Path, str]]:
    """Settings of memory and training that leave nothing to tell or to train, of the plan or of an arm."""
    experience = plan.experience
    if experience is None:
        return
    told: set[Path] = set()
    for at, arm in enumerate(plan.arms):
        learning = arm.learning
        if learning is None:
            continue
        for name, how in (("memory", learning.remembers), ("teacher", learning.teacher)):
            if how is None or not how.kind.traits.has_items:
                continue
            most = experience.told(how)
            path: Path = (
                ("arms", at, "learning", name, "bytes") if how.bytes else ("experience", "memory_bytes")
            )
            traits = how.kind.traits
            items = most.items if traits.chooses else 1
            if most.bytes is not None and most.bytes < items * traits.least_bytes and path not in told:
                told.add(path)
                what = f"at most {counted(items, 'item')}" if traits.chooses else "one text"
                shortest = f"the shortest{' that tells code' if traits.tells_code else ''} has {traits.least_bytes} or more"
                change = (
                    f": there is room for {most.bytes // traits.least_bytes}. Raise the bytes, or lower the items"
                    if traits.chooses
                    else ". Raise the bytes"
                )
                yield path, f"{arm.name} is told {what} in {most.bytes} bytes, and {shortest}{change}"
        if learning.treatment is not Treatment.ADAPTER or experience.training is None:
            continue
        own = learning.training or TrainingChange()
        try:
            training = own.of(experience.training)
        except ValidationError:
            continue  # Told elsewhere.
        rank = PlanSettings(plan).of(arm.name).get("rank")
        width = NANO_WIDTHS.get(arm.model.name, NANO_WIDTH) if arm.model.backend == "nano" else None
        wrong = {
            "learning_rate": training.learning_rate * training.iterations < LEAST_MOVE
            and f"at a learning rate of {training.learning_rate:.3g} {counted(training.iterations, 'iteration')} "
            f"move no weight by more than {training.learning_rate * training.iterations:.1g}, which is lost in rounding. Raise it",
            "max_tokens": training.max_tokens < LEAST_EXAMPLE_TOKENS
            and f"an example may have {training.max_tokens} tokens, and the shortest has {LEAST_EXAMPLE_TOKENS} or more: nothing would be "
            "left to train on. Raise it",
            "rank": width is not None
            and rank is not None
            and rank > width
            and training.kind is not AdapterKind.FULL
            and f"a change of rank {plainly(rank)} is wider than the model, whose matrices have {width} rows or columns. Lower it",
        }
        paths: tuple[Path, Path] = ("arms", at, "learning", "training"), ("experience", "training")
        for path, said in _own_or_shared(wrong, own, *paths, told):
            yield path, f"{arm.name}: {said}"


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
        case Metric.RETENTION | Metric.FORGETTING if arm.strategy is None:
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
                f"{contrast.name} has its answer before the data: {contrast.arm} takes whichever of {counted(tries, 'attempt')} hidden tests "
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
    """Contrasts that count only where a guard fires, and whose guards no arm of theirs can reach: switched off, slower than a rollout is
    long, or watching a tool that one of them lacks. Each would take a place in the family and could decide nothing."""
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
                f"{contrast.name} means nothing unless {names} fires, which takes {counted(steps, 'step')} at least, and a rollout has {limit}. Leave "
                "its arm out of this profile, raise limits.steps, or lower the guard's threshold",
            )
        for guard in contrast.exercised:
            tools = WATCHED.get(guard, TOOL_NAMES)
            without = [arm.name for arm in there if not set(tools) & set(arm.scaffold.tools)]
            if without and len(without) < len(there):
                yield (
                    ("contrasts", at, "exercised"),
                    f"{contrast.name} is to exercise {guard.value}, which watches {' and '.join(tools)}, and {without[0]} has no such "
                    "tool: the arms differ in that. Give both the tool, or leave the guard out",
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
            return 1 if guards.confirm_shrink and set(WATCHED[guard]) & set(scaffold.tools) else None
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
            # One text of all items is the same whatever else is said of how they are found.
            parts += (
                [how.kind.value, how.one_text, str(told.bytes)]
                if how.one_text
                else [how.model_copy(update=dict.fromkeys(RetrievalSettings.model_fields)), told]
            )
            found = f"at most {counted(told.items, 'item')}, found by {told.retrieval}"
            what = how.one_text or (found if how.kind.traits.has_items else how.kind.value)
            same.append(f"they are told the same ({what})")
        if (other := seen.setdefault(content_hash(*parts), arm.name)) != arm.name:
            yield (
                ("arms", at, "learning"),
                f"{arm.name} learns what {other} learns: under this profile {', and '.join(same)}",
            )
