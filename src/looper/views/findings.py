"""What a run says, in rows and sentences, for every kind of view.

Two rules hold for every sentence: nothing is concluded of an unfinished run, and a failed arm has no rate. What was registered is
said by its decision, with the interval that decided it and Looper's claim (`metrics/claim`); what the plan's author wrote for that
outcome is a quotation after it. All else is called exploratory. The wording is kept here alone, and a terminal, a report and a page
show the same lines.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import floor
from statistics import fmean

from looper.metrics.arms import ArmFigures
from looper.metrics.claim import claim_of, margin_of, metric_name
from looper.metrics.design import (
    changes,
    design_of,
    effect_of_interest,
    is_pilot,
    power_at_interest,
    scope_of,
    smallest_visible,
    too_small_for,
)
from looper.metrics.paired import (
    ENOUGH_REPOSITORIES,
    AnalysisUnit,
    PairedDifference,
    rate_interval,
    repository_of,
)
from looper.metrics.power import ENOUGH
from looper.metrics.registered import ALPHA, DECIDED, Decision, Registered
from looper.records.base import grouped
from looper.records.learning import Treatment
from looper.records.plan import Arm, ArmRole, Contrast, Expect, Metric, Plan, arm_of
from looper.records.text import counted, listed
from looper.records.treatment import Consolidation, ProofKind, StoppingGate
from looper.views.memory import told_lines
from looper.views.questions import question_lines
from looper.views.runs import RunView

NOT_MEASURED = "–"
EXPLORATORY = "exploratory"
"""Said of every comparison that no plan registered before the data."""
HYPOTHESIS = "Hypothesis: "
"""Before that of a plan, wherever it is printed."""
UNFINISHED = "unfinished"
"""In place of a finding while cells are to do."""
LISTED = 6
"""So many names of arms that have not begun."""
COLUMNS = (
    "arm", "resolved", "rate, 95 %", "patched", "steps", "tokens in", "tokens out", "agent s",
    "infra errors",
)  # fmt: skip


def percent(share: float) -> str:
    """A share as it is written everywhere, halves up: so that one figure, summed in another order, is never two."""
    return f"{floor(round(100 * share, 6) + 0.5)} %"


def arm_rows(run: RunView) -> list[tuple[str, ...]]:
    figures = [run.figures(arm.name) for arm in run.manifest.plan.arms]
    rows = [_failed_row(found) if found.arm in run.failed_arms else _row(found, run) for found in figures]
    return [*rows, *(_choice_row(run, name) for name in run.choice_names)]


def begun_rows(run: RunView) -> list[tuple[str, ...]]:
    """Those of `arm_rows` in which a cell has an end; all where none has. Which are left out `not_begun` says."""
    left_out = not_begun(run)
    return [row for row in arm_rows(run) if row[0] not in left_out]


def not_begun(run: RunView) -> list[str]:
    """Arms of which no cell has an end, and choices that are made from one, where others have begun."""
    begun = {arm_of(cell) for cell in run.final}
    names = [*(arm.name for arm in run.manifest.plan.arms), *run.choice_names]
    left = [name for name in names if not begun >= {*run.members(name)} and name not in run.failed_arms]
    return left if len(left) < len(names) else []


def _choice_row(run: RunView, name: str) -> tuple[str, ...]:
    """A choice has no rollout of its own; what it cost stands with the arms that it takes from."""
    found = run.chosen(name)
    return (
        name,
        f"{sum(found.values())}/{len(found)}",
        _rate(found, run.unit),
        *[NOT_MEASURED] * 5,
        NOT_MEASURED,
    )


def _row(found: ArmFigures, run: RunView) -> tuple[str, ...]:
    return (
        found.arm,
        f"{found.resolved.numerator}/{found.resolved.denominator}",
        _rate(run.outcomes(found.arm), run.unit),
        percent(found.patched.value) if found.patched.value is not None else NOT_MEASURED,
        number_text(found.steps, 1),
        number_text(found.prompt_tokens, 0),
        number_text(found.completion_tokens, 0),
        number_text(found.seconds, 2),
        str(found.infra_errors),
    )


def _failed_row(found: ArmFigures) -> tuple[str, ...]:
    return (found.arm, "failed arm", *[NOT_MEASURED] * 6, str(found.infra_errors))


def _rate(outcomes: Mapping[str, bool], unit: AnalysisUnit) -> str:
    """With its interval, by the unit that differences have too."""
    if not outcomes:
        return NOT_MEASURED
    low, high = rate_interval(outcomes, unit)
    return f"{percent(sum(outcomes.values()) / len(outcomes))} ({100 * low:.0f} to {100 * high:.0f})"


def number_text(value: float | None, digits: int) -> str:
    """With so many digits; a dash where it was not measured."""
    return NOT_MEASURED if value is None else f"{value:z.{digits}f}"


def hypothesis_text(plan: Plan) -> str:
    """Named as what it is, so that nobody reads it as a finding; empty where a plan has none."""
    said = " ".join(plan.hypothesis.split())
    return f"{HYPOTHESIS}{said}" if said else ""


def registered_lines(run: RunView) -> list[str]:
    """What the plan set out to show, and what came of it. Unfinished runs say nothing yet."""
    return [*before_lines(run), *result_lines(run)]


def before_lines(run: RunView) -> list[str]:
    """What stood before the data: what the plan could show, and what every difference is about. Nothing of an unfinished run, or of
    one that registers nothing."""
    over = run.finished == run.planned and run.manifest.plan.contrasts
    return [*planned_lines(run), scope_line(run)] if over else []


def result_lines(run: RunView) -> list[str]:
    """What came of it: first of what the plan took for granted, then of each contrast that was registered."""
    if run.finished < run.planned:
        return []
    lines = measured_lines(run)
    for number, result in enumerate(run.registered):
        name = "primary" if number == 0 else "secondary"
        lines.append(
            f"{name}: {result.contrast.name}{in_units(result)}, {margin_text(result.contrast)}{p_text(result)}"
            f"{finding_text(run, result)}: {in_words(claim_of(result.contrast, result.finding), result.sentence)}"
        )
    return lines


@dataclass(frozen=True)
class RegisteredRow:
    name: str
    """Primary or Secondary."""
    contrast: str
    finding: str
    said: str
    """The finding, and about what it is, where that is no more than what was run."""
    figures: str
    """Difference, interval, margin and p-value; empty where there are none."""
    claim: str
    """What Looper says of it, as one clause."""
    sentence: str
    """What the plan's author wrote for this outcome; empty where nothing was decided."""
    arms: tuple[str, str]
    """The one that is compared, and what it is held against."""

    @property
    def words(self) -> str:
        return in_words(self.claim, self.sentence)


def in_words(claim: str, sentence: str) -> str:
    """A claim, and after it what the plan's author wrote for the outcome, as the quotation that it is; marks of its own are single."""
    said = " ".join(sentence.split()).translate(str.maketrans("“”", "‘’"))
    return f"{claim}. The plan: “{said}”" if said else f"{claim}."


def registered_rows(run: RunView) -> list[RegisteredRow]:
    """Of every contrast that was registered, the primary one first; nothing of an unfinished run, which concludes nothing."""
    return _rows(run) if run.finished == run.planned else []


def _rows(run: RunView) -> list[RegisteredRow]:
    over = run.finished == run.planned
    return [
        RegisteredRow(
            "Primary" if number == 0 else "Secondary",
            found.contrast.name,
            found.finding.value if over else UNFINISHED,
            finding_text(run, found),
            f"{in_units(found)}, {margin_text(found.contrast)}{p_text(found)}".removeprefix(": ").strip(", ")
            if over
            else "",
            claim_of(found.contrast, found.finding) if over else "nothing is concluded of it yet",
            found.sentence if over else "",
            (found.contrast.arm, found.contrast.against),
        )
        for number, found in enumerate(run.registered)
    ]


def registered_of(run: RunView, first: str, second: str) -> list[RegisteredRow]:
    """What was registered of two arms, as it was registered, whichever way round they are shown; of an unfinished run that it is."""
    pair = {first, second}
    return [
        row for row, found in zip(_rows(run), run.registered, strict=True) if set(found.contrast.arms) == pair
    ]


def unfinished_text(run: RunView) -> str:
    """To stand behind what nothing is concluded of yet; empty for a finished run."""
    return (
        ""
        if run.finished == run.planned
        else f", {UNFINISHED}, {run.finished} of {counted(run.planned, 'cell')}"
    )


def nothing_registered(run: RunView) -> str:
    if run.finished < run.planned:
        return f"The run is unfinished: {run.finished} of {counted(run.planned, 'cell has', 'cells have')} an end. Nothing is concluded from it yet."
    if run.manifest.plan.unasked:
        return f"{unasked_lines(run.manifest.plan)[0]}. Everything below is exploratory."
    return "The plan registers no contrast; everything below is exploratory."


def finding_text(run: RunView, result: Registered) -> str:
    """What was decided, and about what, where that is no more than what was run; of what the plan is too small for that it is a pilot,
    whatever else stands in the way."""
    pilot = too_small_for(run.manifest.plan, run.tasks, result.contrast)
    if run.finished < run.planned:
        return f"{'pilot, ' if pilot else ''}{UNFINISHED}, {run.finished} of {counted(run.planned, 'cell')}"
    if pilot and result.finding is not Decision.PILOT:
        return f"{Decision.PILOT.value}, {result.finding.value}"
    decided = result.finding in (Decision.SHOWN, Decision.REFUTED)
    here = not scope_of(run.manifest.plan, run.tasks).generalises
    return f"{result.finding.value}{' on these repositories' if decided and here else ''}"


def margin_text(contrast: Contrast) -> str:
    """What a contrast of alikeness takes for nothing: its p-value is that of the margin, not of the difference."""
    return "" if contrast.expect is Expect.MORE else f"margin {margin_of(contrast)}, "


def p_text(result: Registered) -> str:
    """The p-value within the family, where one was worked out."""
    said = (*DECIDED, Decision.PILOT, Decision.UNTRUSTED)
    return f"p = {result.p_adjusted:.2g} adjusted, " if result.finding in said else ""


def scope_line(run: RunView) -> str:
    """What every difference of the run is about, its unit, and its family."""
    plan, repositories = run.manifest.plan, len(set(map(repository_of, run.tasks)))
    compared = {name for found in plan.contrasts for name in found.arms}
    seeds = {len(plan.seeds_of(arm)) for arm in plan.arms if arm.name in compared or not compared}
    least, most = min(seeds, default=len(plan.seeds)), max(seeds, default=len(plan.seeds))
    many = counted(most, "seed") if least == most else f"{least} to {counted(most, 'seed')}, by arm"
    scope = scope_of(plan, run.tasks)
    named = plan.selection.repos or plan.selection.tasks
    why = (
        " (a person named them, so they stand for no others)"
        if named
        else f" ({ENOUGH_REPOSITORIES} of them, alike in size, are the fewest to generalise from)"
    )
    about = (
        f"about {scope.value}{why if scope.is_of_these else ''}: {counted(len(run.tasks), 'task')} of "
        f"{counted(repositories, 'repository', 'repositories')}, {many}; the unit is the {run.unit.value}"
    )
    if not plan.contrasts:
        return about
    family = f"{about}; {counted(len(plan.contrasts), 'contrast')} in one family"
    if run.pilot:
        return f"{family} (Holm, {ALPHA} together), each an estimate with its interval"
    return f"{family}, decided at {ALPHA} together (Holm), each by the interval beside it"


def by_themselves(run: RunView) -> str:
    """The head over every arm against base."""
    said = (
        "estimates of a pilot, whose intervals say how far off they may be"
        if run.pilot
        else "nothing is registered, so all is exploratory"
        if not run.manifest.plan.contrasts
        else "what is registered is decided by the interval in brackets, all else is exploratory"
    )
    return f"Every arm against base by itself; {said}"


def stratified_lines(run: RunView) -> list[str]:
    """The registered contrasts again, without the tasks whose issue quotes their fix, where there are such tasks: described, for
    only the whole was registered to decide."""
    leaked = set(run.manifest.leaked) & set(run.tasks)
    if not leaked or run.finished < run.planned or not run.manifest.plan.contrasts:
        return []
    rest = replace(run, tasks=tuple(task for task in run.tasks if task not in leaked))
    if not rest.tasks:
        return ["every task quotes its fix in its issue: nothing is left without such tasks"]
    return [
        f"described and not decided, without the {len(leaked)} of {counted(len(run.tasks), 'task')} whose issue quotes the fix: "
        f"{result.contrast.name}{in_units(result)}, by {rest.unit.value}"
        f"{', pilot' if too_small_for(rest.manifest.plan, rest.tasks, result.contrast) else ''}"
        for result in rest.registered
    ]


def planned_lines(run: RunView) -> list[str]:
    """What the run could have shown, as it was worked out before the data, and which registered contrasts this profile does not ask."""
    plan = run.manifest.plan
    lines = [*unasked_lines(plan)]
    if not plan.contrasts:
        return lines
    head = "a PILOT, which decides nothing" if run.pilot else "power, worked out before the data"
    lines.append(f"{head}: {power_text(plan, run.tasks)}")
    return [*lines, *(estimated_lines(plan, run.tasks) if not run.pilot else [])]


def measured_lines(run: RunView) -> list[str]:
    """What was measured of what the plan's power takes for granted, as one line; none where nothing was, or no power is known."""
    plan = run.manifest.plan
    if not plan.contrasts or power_at_interest(plan, run.tasks) is None:
        return []
    found, measured = [], run.discordance()
    if measured is not None:
        more = (
            ", more often than that, so what it could see is larger"
            if measured > plan.discordance + 0.05
            else ""
        )
        found.append(
            f"equal arms differed in {100 * measured:.0f} % (assumed: {100 * plan.discordance:.0f} %){more}"
        )
    found += _without_room(run)
    return [f"measured of what the power takes for granted: {'; '.join(found)}"] if found else []


def _without_room(run: RunView) -> list[str]:
    """That those who are compared against failed too rarely in this run for what its plan could have shown; empty where they did not."""
    design, primary = design_of(run.manifest.plan, run.tasks), run.manifest.plan.contrasts[0]
    least, resolved = smallest_visible(design), list(run.outcomes(primary.against).values())
    if least is None or not resolved:
        return []
    failed = 1 - fmean(resolved)
    # By what is printed: nobody is told that 37 % is less than 37 %.
    if run.finished < run.planned or round(100 * failed) >= round(100 * _gained(design.discordance, least)):
        return []
    return [
        f"{primary.against} failed in {percent(failed)}, which is too few for the smallest difference that it could show"
    ]


def pilot_text(plan: Plan, tasks: Sequence[str]) -> str | None:
    """That a plan is a pilot, and why, in a few words; None of any other."""
    if not is_pilot(plan, tasks):
        return None
    primary, seen = plan.contrasts[0], power_at_interest(plan, tasks)
    if seen is None:
        return f"pilot, decides nothing: power for {metric_name(primary.metric)} is not known"
    return f"pilot, decides nothing: {100 * seen:.0f} % power for {primary.name}"


def estimated_lines(plan: Plan, tasks: Sequence[str]) -> list[str]:
    """Which contrasts of a plan that is no pilot are not decided."""
    small = [
        found.name if found.metric is Metric.RESOLVED else f"{found.name} ({metric_name(found.metric)})"
        for found in plan.contrasts
        if too_small_for(plan, tasks, found)
    ]
    if not small:
        return []
    return [
        f"estimated and not decided, since the plan is too small for them or nobody can say: {', '.join(small)}"
    ]


def unasked_lines(plan: Plan) -> list[str]:
    if not plan.unasked:
        return []
    return [
        f"registered, and not asked here, where an arm of theirs is left out: {', '.join(plan.unasked)}; primary here is "
        f"{plan.contrasts[0].name if plan.contrasts else 'nothing'}"
    ]


def power_text(plan: Plan, tasks: Sequence[str]) -> str:
    """How likely a plan shows its primary contrast, what it could see, and what was assumed for that before the data."""
    primary, seen, design = plan.contrasts[0], power_at_interest(plan, tasks), design_of(plan, tasks)
    if seen is None:
        return f"how much {metric_name(primary.metric)} varies is not known before the data, so the power is not known either"
    interest, more = effect_of_interest(primary), primary.expect is Expect.MORE
    effect = _in_unit(interest, primary.metric, "+") if more else "0"
    if more and interest < primary.expected:
        effect += f", the largest that a plan may count on (it expects {_in_unit(primary.expected, primary.metric, '+')})"
    takes = f", {_room(primary, design.discordance, interest)} of cells" if more else ""
    text = f"{primary.name} is shown with a chance of {100 * seen:.0f} % where it is {effect}{takes}"
    least = smallest_visible(design)
    could = (
        f"no difference is shown in {100 * ENOUGH:.0f} % of runs"
        if least is None
        else f"the smallest difference that is shown in {100 * ENOUGH:.0f} % of runs is {100 * least:.0f} points, "
        f"{_room(primary, design.discordance, least)}"
    )
    spread = (
        f" and true differences vary by {100 * design.spread:.0f} points between repositories"
        if design.unit is AnalysisUnit.REPOSITORY
        else ""
    )
    return f"{text}, and {could}, if equal arms differ in {100 * design.discordance:.0f} % of cells{spread}"


def _room(contrast: Contrast, discordance: float, difference: float) -> str:
    """What a difference takes of those who are compared against: whoever resolves a task already cannot gain it."""
    return f"for which {contrast.against} has to fail in at least {percent(_gained(discordance, difference))}"


def _gained(discordance: float, difference: float) -> float:
    """Share of the cells that are gained where arms differ by `difference`, as power takes it."""
    return float(changes(discordance, difference)[0])


def in_units(result: Registered) -> str:
    """The difference with the interval that decides it, in the unit of its metric."""
    found, contrast = result.difference, result.contrast
    if found is None:
        return ""
    what = "" if contrast.metric is Metric.RESOLVED else f" of {metric_name(contrast.metric)}"
    return f": {_in_unit(found.difference, contrast.metric, sign='+')}{what}, {interval_text(result)}"


def interval_text(result: Registered) -> str:
    """The interval that decides, with its level; why there is none where a difference has none."""
    interval, found = result.interval, result.difference
    if interval is None:
        return f"no interval, since {'nothing varies' if found is not None and found.units > 1 else 'it is of one unit'}"
    low, high = (_in_unit(end, result.contrast.metric, sign="+", bare=True) for end in interval)
    return f"{share_text(result.confidence)} {low} to {high}"


def share_text(confidence: float) -> str:
    """95 %, 99.3 %: as many digits as a level has that is no round one."""
    return f"{100 * confidence:.3g} %"


def _in_unit(value: float, metric: Metric, sign: str = "", *, bare: bool = False) -> str:
    if metric.is_share:
        return f"{100 * value:{sign}z.1f}" if bare else f"{100 * value:{sign}z.1f} points"
    return f"{value:{sign}z.3f}" if bare else f"{value:{sign}z.3f} nats per token"


def contrast_lines(run: RunView) -> list[str]:
    """Each arm against base, by itself: what is not registered is exploratory; what is says first what came of it, and by which interval."""
    # Whether a control must not gain, or is what a treatment could reach at most, the plan's sentences say.
    labels = {ArmRole.AGAIN: "A/A, expected 0", ArmRole.CONTROL: "control"}
    roles = {arm.name: arm.role for arm in run.manifest.plan.arms}
    failed = run.failed_arms
    contrasts = [found for found in run.contrasts if not failed.keys() & {found[0], found[1]}]
    left = not_begun(run)
    open_ones = [arm for arm, _, found in contrasts if found is None and arm not in left]
    lines = [
        f"{arm} − {base} ({labels.get(roles[arm], 'treatment')}, {standing_of(run, arm, base)}){unfinished_text(run)}: "
        f"{paired_text(run, arm, base, found)}"
        for arm, base, found in contrasts
        if found is not None
    ]
    if open_ones:
        lines.append(f"not measured, no task has a verdict in both arms: {', '.join(open_ones)}")
    return lines


def standing_of(run: RunView, arm: str, against: str) -> str:
    """What was registered of two arms by what they resolve, and what came of it with the interval that decides; else `EXPLORATORY`.

    The same whichever way round they are shown: a contrast that was registered the other way round is named as it was.
    """
    return (
        "; ".join(
            f"registered{'' if found.contrast.arm == arm else f' as {found.contrast.name}'}{asked_text(found.contrast)}"
            f"{_outcome_text(run, found)}"
            for found in _registered_resolved(run, arm, against)
        )
        or EXPLORATORY
    )


def _registered_resolved(run: RunView, arm: str, against: str) -> list[Registered]:
    """What was registered of two arms by what they resolve, either way round."""
    return [
        found
        for found in run.registered
        if found.contrast.metric is Metric.RESOLVED and set(found.contrast.arms) == {arm, against}
    ]


def paired_text(run: RunView, arm: str, against: str, found: PairedDifference) -> str:
    """The difference of two arms of a run. Where its standing has the interval that decides, it has no other beside that, and no other
    p-value: a reader would not know which to read."""
    over = run.finished == run.planned
    decides = over and any(one.interval is not None for one in _registered_resolved(run, arm, against))
    return difference_text(found, alone=not decides)


def _outcome_text(run: RunView, found: Registered) -> str:
    """With a colon before it. That a run is unfinished is said beside it, as of what is exploratory."""
    if run.finished < run.planned:
        return ": pilot" if too_small_for(run.manifest.plan, run.tasks, found.contrast) else ""
    interval = f", {interval_text(found)}" if found.difference is not None else ""
    return f": {finding_text(run, found)}{interval}"


def asked_text(contrast: Contrast) -> str:
    """What a contrast of alikeness asks, with a comma before it: `shown` means that, and no difference."""
    if contrast.expect is Expect.MORE:
        return ""
    how = {Expect.SAME: "the same within", Expect.NOT_MORE: "not more by", Expect.NOT_LESS: "not less by"}
    return f", {how[contrast.expect]} {margin_of(contrast)}"


def difference_text(found: PairedDifference, *, alone: bool = True) -> str:
    """One difference by itself, without the family that a registered one is in; with an interval and a p-value where it is `alone`."""
    low, high = found.interval()
    own = (
        f"95 % {100 * low:+z.1f} to {100 * high:+z.1f}, p = {found.p_value:.2g} unadjusted " if alone else ""
    )
    return (
        f"{100 * found.difference:+z.1f} points, {own}by {found.unit.value} ({found.units}), {counted(found.pairs, 'pair')}, "
        f"{found.gains} gained, {found.losses} lost"
    )


def difference_data(found: PairedDifference | None, standing: str) -> dict[str, object] | None:
    """The same for programs, shares as shares, with 95 % and p-value by itself, which decide nothing of what is registered; None where
    nothing was compared."""
    if found is None:
        return None
    low, high = found.interval()
    return {
        "difference": found.difference,
        "low": low,
        "high": high,
        "p_unadjusted": found.p_value,
        "unit": found.unit.value,
        "units": found.units,
        "pairs": found.pairs,
        "gained": found.gains,
        "lost": found.losses,
        "standing": standing,
    }


def control_lines(run: RunView) -> list[str]:
    """Whether the control arms came out as they must; anything else means that the harness is not to be believed."""
    backends = {arm.name: arm.model.backend for arm in run.manifest.plan.arms}
    roles = {arm.name: arm.role for arm in run.manifest.plan.arms}
    figures = [run.figures(arm.name) for arm in run.manifest.plan.arms]
    lines = []
    for found in figures:
        expected = {"gold": found.resolved.denominator, "noop": 0}.get(backends[found.arm])
        if expected is None or (not found.resolved.denominator and found.arm not in run.failed_controls):
            continue
        must = "resolve every task" if backends[found.arm] == "gold" else "resolve none"
        lines.append(f"control {found.arm} must {must}: {_does(run, found.arm)}")
    for found in figures:
        if found.infra_errors and found.resolved.denominator:
            ended = {verdict.cell for verdict in run.verdicts}
            lost = {cell.partition("/")[2]: False for cell in run.cells(found.arm) if cell in ended}
            whole = {**lost, **run.outcomes(found.arm)}
            lines.append(f"{found.arm} with infra errors counted as unresolved: {_rate(whole, run.unit)}")
    # An arm that hardly changes what the agent does could not have gained: beside the repeat it is seen whether that is so.
    patches = [
        f"{arm.name} {same} of {both}"
        for arm in run.manifest.plan.arms
        if _is_held_against_base(run, arm)
        for same, both in [run.same_as_base(arm.name)]
        if both
    ]
    if patches:
        lines.append(f"cells with the same patch as base: {', '.join(patches)}")
    repeats = [
        max(map(abs, one.interval()))
        for arm, _, one in run.contrasts
        if one is not None and roles[arm] is ArmRole.AGAIN and arm not in run.failed_arms
    ]
    if repeats:
        lines.append(
            f"A/A: by these data equal arms may differ by up to {100 * max(repeats):.1f} points (95 %); take no smaller difference for an effect"
        )
    if run.manifest.plan.selection.suite == "micro" and (
        any(run.consolidations) or any(arm.model.adapter for arm in run.manifest.plan.arms)
    ):
        lines.append(
            "the embedded suite is made so that experience helps: this shows what the harness can detect, not what real "
            "models do"
        )
    missing = run.planned - run.finished
    left = not_begun(run)
    which = f"; nothing has an end of {listed(left, LISTED)}" if left else ""
    return [
        *lines,
        *([f"still to do: {missing} of {counted(run.planned, 'cell')}{which}"] if missing else []),
    ]


def _is_held_against_base(run: RunView, arm: Arm) -> bool:
    """Whether its patches tell how much it changes: not of controls that play a known patch or none, nor of an adapter that must change
    nothing, of which a line of its own tells."""
    itself = arm.name == run.manifest.plan.learners_base.name
    return not (itself or arm.model.is_control or arm.treatment is Treatment.ZERO_ADAPTER)


def _does(run: RunView, arm: str) -> str:
    """Whether a control came out as it must."""
    failed = run.failed_controls.get(arm)
    return "does" if failed is None else f"{failed}: DO NOT TRUST"


def failed_arm_lines(run: RunView, *names: str) -> list[str]:
    """Of every failed arm, or of those that these arms or choices stand on, why it has no rate."""
    named = {arm for name in names for arm in run.members(name)}
    return [
        f"{arm} is a failed arm and has no rate: {why}"
        for arm, why in run.failed_arms.items()
        if not names or arm in named
    ]


def override_lines(run: RunView) -> list[str]:
    return [f"The gate {found.gate.value} was overridden: {found.reason}" for found in run.overrides]


def stop_lines(run: RunView, *names: str) -> list[str]:
    """Of each gate that holds the run up, or one of these arms: what was measured and wanted, of which arms, and what changes it."""
    found = grouped(
        ((stop.gate, stop.least, stop.value, stop.said), stop.arm)
        for stop in run.stopped_by
        if not names or stop.arm in names
    )
    return [
        f"Stopped by the gate {gate.value.replace('_', ' ')}"
        + (
            f": {said.rstrip('.')}"
            if least is None or value is None
            else f" of {listed([*dict.fromkeys(arms)], LISTED)}: {said}, and {_wanted(gate, least)}. {_past(run, gate, value)}"
        )
        for (gate, least, value, said), arms in found.items()
    ]


def _wanted(gate: StoppingGate, least: float) -> str:
    return (
        f"{100 * least:.0f} % are the least (experience.delivered)"
        if gate is StoppingGate.MEMORY_DELIVERED
        else f"{least:g} are the least (experience.selection.minimum_tasks)"
    )


def _past(run: RunView, gate: StoppingGate, value: float) -> str:
    """What passes a gate that answers the same command in the same way again."""
    experience = run.manifest.plan.experience
    memory = gate is StoppingGate.MEMORY_DELIVERED
    key = "experience.delivered" if memory else "experience.selection.minimum_tasks"
    to = floor(100 * value) / 100 if memory else floor(value)
    ways = [
        *(
            [
                f"raise experience.per_repo (now {experience.per_repo}) or experience.samples (now {experience.samples})"
            ]
            if experience
            else []
        ),
        *([f"lower {key} to {to:g} or less"] if to and experience else []),
        "leave the arm out",
    ]
    over = (
        f'Pass it over for a reason, which every report then names, and keep what was gathered: --override {gate.override.value}="…". '
        if gate.override is not None and value and run.stops(gate.override)
        else ""
    )
    return f"The same command would stop there again. {over}Or change the plan, which is a new run and gathers again: {', or '.join(ways)}"


def treatment_lines(run: RunView) -> list[str]:
    """What the learning arms were made of, and whether it reached the model."""
    lines = failed_arm_lines(run)
    for arm in run.manifest.plan.arms:
        made = [found for found in run.consolidations if found.arm == arm.name]
        if arm.learning is None or not made:
            continue
        shown = sum(proof.passed for proof in run.proofs if proof.arm == arm.name)
        last = [found for found in made if found.round == arm.learning.rounds]
        trained = sum(found.trained_tokens for found in made)
        lines.append(
            f"{arm.name}: {counted(sum(found.selection.seen for found in last), 'attempt')} seen, "
            f"{counted(sum(found.selection.taken for found in last), 'success', 'successes')} taken, {sum(found.used for found in last)} used; "
            + (
                f"{counted(sum(len(found.made) for found in made), 'adapter')}, {trained} tokens trained in "
                f"{sum(found.training_s for found in made):.0f} s{_trained_before(made)}; "
                if any(found.made for found in made)
                else ""
            )
            + f"{counted(shown, 'check')} passed{_retention_text(run, arm.name)}"
        )
        if arm.learning.treatment is Treatment.ZERO_ADAPTER:
            same, both = run.same_as_base(arm.name)
            lines.append(
                f"control {arm.name} must make base's patch in every cell: {same} of {both}, {_does(run, arm.name)}"
            )
    return [*lines, *told_lines(run), *question_lines(run.folder)]


def _trained_before(made: Sequence[Consolidation]) -> str:
    """That adapters were taken over which an earlier run, or another arm, had trained: learning took less time than their training."""
    taken_over = sum(len(found.made) for found in made if found.seconds < found.training_s)
    return f" ({taken_over} of them trained before, and taken over)" if taken_over else ""


def _retention_text(run: RunView, arm: str) -> str:
    """How much less likely the successes of other repositories have become, over all adapters."""
    found = [proof for proof in run.proofs if proof.arm == arm and proof.kind is ProofKind.RETENTION]
    pairs = [
        (proof.before, proof.after) for proof in found if proof.before is not None and proof.after is not None
    ]
    if not pairs:
        return ""
    before, after = (fmean(values) for values in zip(*pairs, strict=True))
    return f"; successes elsewhere {before:.2f} → {after:.2f} nats per token"


def damage_lines(run: RunView) -> list[str]:
    return [f"damaged record: {found.file} line {found.line}, {found.reason}" for found in run.damage]
