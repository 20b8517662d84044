"""What a design could see, by drawing runs of it and deciding them as they will be decided.

Power is not taken from a formula: runs are drawn under the design's assumptions and decided by the very rule that will decide the
real one, with the family's correction.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from looper.metrics.paired import (
    ENOUGH_REPOSITORIES,
    AnalysisUnit,
    PairedDifference,
    effective_pairs,
    repository_of,
)
from looper.metrics.power import ENOUGH, least
from looper.metrics.registered import ALPHA
from looper.records.plan import Arm, Contrast, Expect, Metric, Plan

if TYPE_CHECKING:
    import numpy as np

DRAWS = 2000
STEP = 0.01
"""Of the differences that are tried, in shares."""
LARGEST_EFFECT = 0.3
"""A difference of resolve rates, of which no plan has to see a larger one: what is expected costs nothing to write, and whoever expects
more is not excused from seeing this much."""
MORE = Contrast(arm="a", against="b", shown="", refuted="", open="")
"""Any contrast that expects a difference."""


class Scope(StrEnum):
    """What the differences of a plan can be about."""

    REPOSITORIES = "repositories like these"
    THESE = "these repositories as they were learned here, and no others"
    BROUGHT = "these repositories with what the arms had learned, among it an adapter that was trained before, and no others"
    ONE = "these tasks with what was learned once for all repositories, and no other learning of it"
    TASKS = "tasks like these of these repositories"
    BOTH = "repositories like these, and of what was learned once for all of them that learning alone"

    @property
    def generalises(self) -> bool:
        """Whether the repositories stand for others, so that they are the unit."""
        return self in (Scope.REPOSITORIES, Scope.BOTH)

    @property
    def is_of_these(self) -> bool:
        """Whether it is about the repositories, and no others."""
        return self in (Scope.THESE, Scope.BROUGHT)


@dataclass(frozen=True)
class Design:
    """As much of a plan as its power depends on."""

    tasks: int
    seeds: int
    """Of the arms of the contrast."""
    worth: int
    """So many repositories of one size would say as much as those of the plan."""
    unit: AnalysisUnit
    family: float
    """Contrasts that are registered. A difference is counted at the first step of Holm's order, the hardest."""
    discordance: float
    spread: float = 0.1

    @property
    def units(self) -> int:
        return self.worth if self.unit is AnalysisUnit.REPOSITORY else self.tasks


def scope_of(plan: Plan, tasks: Sequence[str], arms: Sequence[Arm] = ()) -> Scope:
    """`tasks` are ids; `arms` are those that are compared, by default all that a contrast of the plan is about.

    What is learned for each repository, whether an agent or its overseer is given it, is drawn once for all tasks of it; with too few
    repositories to carry that, or with most tasks in a few of them (Kish's effective number), or with repositories that a person
    named, the plan speaks of these alone. What was learned once for all repositories, or before, was tried once.
    """
    compared = arms or plan.compared_arms or plan.arms
    learned = [arm.learning for arm in compared if arm.learning is not None]
    models = [*(arm.model for arm in compared), *(found.overseer for found in learned if found.overseer)]
    brought = any(model.adapter for model in models)
    once = brought or any(found.strategy is not None for found in learned)
    if all(found.strategy is not None for found in learned):
        return Scope.ONE if once else Scope.TASKS
    # What a person picked by name was not drawn, so it stands for nothing but itself.
    named = plan.selection.repos or plan.selection.tasks
    if named or worth_repositories(tasks) < ENOUGH_REPOSITORIES:
        return Scope.BROUGHT if brought else Scope.THESE
    return Scope.BOTH if once else Scope.REPOSITORIES


def worth_repositories(tasks: Sequence[str]) -> float:
    """Kish's effective number: so many repositories of one size would say as much. `tasks` are ids."""
    sizes = Counter(map(repository_of, tasks)).values()
    return sum(sizes) ** 2 / sum(size * size for size in sizes) if sizes else 0.0


def unit_of(plan: Plan, tasks: Sequence[str], arms: Sequence[Arm] = ()) -> AnalysisUnit:
    """The unit of all that a plan decides; of what is not registered, that of the arms that are compared."""
    return AnalysisUnit.REPOSITORY if scope_of(plan, tasks, arms).generalises else AnalysisUnit.TASK


def effect_of_interest(contrast: Contrast) -> float:
    """What a contrast is registered to tell from the rest: the difference that is expected, no larger than the largest that is taken
    for granted, or that there is none."""
    if contrast.expect is not Expect.MORE:
        return 0.0
    return min(contrast.expected, LARGEST_EFFECT) if contrast.metric is Metric.RESOLVED else contrast.expected


def changes(
    discordance: float, difference: "float | np.ndarray[Any, Any]"
) -> "tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]":
    """Chances of a gain and of a loss in a cell where equal arms differ in `discordance` of the cells and the arms by `difference`.

    What differs by chance is gained and lost alike, and a difference adds to one of them, up to all cells: beyond that it takes the
    place of what differs by chance, so that the chances always differ by exactly `difference`.
    """
    import numpy as np

    differing = np.minimum(1.0, discordance + np.abs(difference))
    return (differing + difference) / 2, (differing - difference) / 2


def design_of(plan: Plan, tasks: Sequence[str], contrast: Contrast | None = None) -> Design:
    """Of a contrast, the primary one unless another is given; `tasks` are ids. All of it is known before the data, so that no data
    decide what they may say."""
    arms = {arm.name: arm for arm in plan.arms}
    contrast = contrast or next(iter(plan.contrasts), None)
    chosen = {choice.name: choice.of for choice in plan.choices}
    compared = [
        arms[one] for name in (contrast.arms if contrast else ()) for one in chosen.get(name, (name,))
    ]
    return Design(
        tasks=len(tasks),
        seeds=min((len(plan.seeds_of(arm)) for arm in compared), default=len(plan.seeds)),
        worth=round(worth_repositories(tasks)),
        unit=unit_of(plan, tasks),
        family=max(1, len(plan.contrasts)),
        discordance=plan.discordance,
        spread=plan.spread,
    )


def power_at_interest(plan: Plan, tasks: Sequence[str], contrast: Contrast | None = None) -> float | None:
    """Chance that a plan shows a contrast, the primary one unless another is given, were the difference as large as it expects, or,
    of a margin, were there none; None where how the metric varies is not known before the data, or where nothing is registered."""
    contrast = contrast or next(iter(plan.contrasts), None)
    if contrast is None or contrast.metric is not Metric.RESOLVED or not tasks:
        return None
    return power_of(design_of(plan, tasks, contrast), contrast, effect_of_interest(contrast))


def is_pilot(plan: Plan, tasks: Sequence[str]) -> bool:
    """Whether a plan is too small for what it is about, or cannot know it: then nothing that it registers is decided."""
    found = power_at_interest(plan, tasks)
    return bool(plan.contrasts) and (found is None or found < ENOUGH)


def too_small_for(plan: Plan, tasks: Sequence[str], contrast: Contrast) -> bool:
    """Whether a contrast is estimated and not decided: all of a pilot are, and each difference that the plan could not see where it is
    as large as that contrast expects, however easily it sees its primary one, and each whose power nobody can state. A margin of rates
    that holds needs no power to be true."""
    if is_pilot(plan, tasks):
        return True
    found = power_at_interest(plan, tasks, contrast)
    return found is None or (contrast.expect is Expect.MORE and found < ENOUGH)


@cache
def power_of(design: Design, contrast: Contrast, effect: float) -> float:
    """Chance that a run shows what `contrast` registers, where the true difference is `effect`; with a standard error of 0.011 at most.

    Cells change as `changes` says; the difference varies between repositories by `spread` where these are the unit. Seeds of a task are independent.
    """
    import numpy as np

    if design.units < 2:
        return 0.0
    rng = np.random.default_rng(0)
    repository = design.unit is AnalysisUnit.REPOSITORY
    members = max(1, round(design.tasks * design.seeds / design.units))
    # What is equal everywhere does not vary.
    between = design.spread if repository and contrast.expect is not Expect.SAME else 0.0
    true = np.clip(effect + between * rng.standard_normal((DRAWS, design.units, 1)), -1, 1)
    gain, loss = changes(design.discordance, true)
    drawn = rng.random((DRAWS, design.units, members))
    gains, losses = drawn < gain, drawn > 1 - loss
    sums = (gains.astype(int) - losses).sum(axis=2)
    varies = (sums / members).var(axis=1, ddof=1) / design.units
    ups, downs = gains.sum(axis=(1, 2)), losses.sum(axis=(1, 2))
    shown = 0
    for flip, variance, up, down in zip(sign_flips(sums), varies, ups, downs, strict=True):
        found = _found(design, members, float(variance), int(up), int(down), float(flip))
        shown += _shown(contrast, found, design.family)
    return shown / DRAWS


def sign_flips(sums: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """As `clustered.sign_flip` of each row of whole numbers, all at once: the chance of each sum of signs is read from its
    characteristic function, a product of cosines."""
    import numpy as np

    sizes, seen = np.abs(sums), np.abs(sums.sum(axis=1))
    span = int(sizes.sum(axis=1).max())
    points = 2 * span + 1
    waves = np.cos(2 * np.pi / points * np.outer(np.arange(sizes.max() + 1), np.arange(span + 1)))
    product = np.ones((len(sums), span + 1))
    for column in sizes.T:
        product *= waves[column]
    chances = np.fft.irfft(product, points)[:, : span + 1]
    at_least = chances[:, ::-1].cumsum(axis=1)[:, ::-1]
    return np.where(seen == 0, 1.0, 2 * at_least[np.arange(len(sums)), seen])


def _found(
    design: Design, members: int, varies: float, gains: int, losses: int, p_flip: float
) -> PairedDifference:
    pairs = design.units * members
    same = pairs - gains - losses
    return PairedDifference(
        both=same // 2,
        gains=gains,
        losses=losses,
        neither=same - same // 2,
        unit=design.unit,
        units=design.units,
        effective=effective_pairs(pairs, gains, losses, design.units, varies),
        degrees=design.units - 1,
        p_flip=p_flip,
    )


def _shown(contrast: Contrast, found: PairedDifference, family: float) -> bool:
    alpha = ALPHA / family
    confidence = 1 - alpha if contrast.expect is Expect.MORE else 1 - 2 * alpha
    if contrast.expect is Expect.MORE and found.p_flip > 1 - confidence:
        return False  # The interval holds 0 then, whatever else it would be: most of what a search for the power computes.
    low, high = found.interval(confidence)
    match contrast.expect:
        case Expect.MORE:
            return low > 0
        case Expect.SAME:
            return -contrast.margin < low and high < contrast.margin
        case Expect.NOT_MORE:
            return high < contrast.margin
        case Expect.NOT_LESS:
            return low > -contrast.margin


@cache
def smallest_visible(design: Design) -> float | None:
    """Smallest true difference that a run shows with a chance of 80 %, to a point; None where not even 100 points are."""
    return least(range(1, round(1 / STEP) + 1), STEP, partial(power_of, design, MORE))


def power_of_tasks(tasks: int, discordance: float, effect: float, alpha: float) -> float:
    """As `power_of`, of one difference by itself, two-sided at `alpha`, whose tasks were tried once and share nothing."""
    return power_of(_of_tasks(tasks, discordance, ALPHA / alpha), MORE, effect)


def smallest_of_tasks(tasks: int, discordance: float) -> float | None:
    """As `smallest_visible`, of one difference by itself whose tasks share nothing."""
    return smallest_visible(_of_tasks(tasks, discordance, 1))


def _of_tasks(tasks: int, discordance: float, family: float) -> Design:
    return Design(tasks, seeds=1, worth=tasks, unit=AnalysisUnit.TASK, family=family, discordance=discordance)
