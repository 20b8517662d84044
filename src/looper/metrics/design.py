"""What a design could see, by drawing runs of it and deciding them as they will be decided."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from looper.metrics.paired import ENOUGH_REPOSITORIES, PairedDifference, Unit, repository_of, student
from looper.metrics.registered import ALPHA
from looper.records.learning import Treatment
from looper.records.plan import Contrast, Expect, Plan

if TYPE_CHECKING:
    import numpy as np

ENOUGH = 0.8
"""Chance to see what a plan is about, below which it is a pilot."""
ASSUMED_DISCORDANCE = 0.3
"""Share of cells in which equal arms differ, where no run has measured it."""
ASSUMED_SPREAD = 0.1
"""Standard deviation of the true difference from repository to repository, where repositories are the unit."""
DRAWS = 1000
STEP = 0.01
"""Of the differences that are tried, in shares."""


@dataclass(frozen=True)
class Design:
    """As much of a plan as its power depends on."""

    tasks: int
    seeds: int
    repositories: int
    unit: Unit
    family: int
    """Contrasts that are registered. A difference is counted at the first step of Holm's order, the hardest."""
    discordance: float
    spread: float = ASSUMED_SPREAD

    @property
    def units(self) -> int:
        return self.repositories if self.unit is Unit.REPOSITORY else self.tasks


def unit_of(plan: Plan, repositories: int) -> Unit:
    """The unit of all that a plan decides.

    What is learned is learned per repository, so tasks of one repository share its luck; with too few repositories to carry
    that, the plan speaks of these repositories alone, and tasks are the unit.
    """
    learned = any(
        arm.learning is not None and arm.learning.treatment is not Treatment.OVERSIGHT for arm in plan.arms
    )
    return Unit.REPOSITORY if learned and repositories >= ENOUGH_REPOSITORIES else Unit.TASK


def effect_of_interest(contrast: Contrast) -> float:
    """What a contrast is registered to tell from the rest: the difference that is expected, or that there is none."""
    return contrast.expected if contrast.expect is Expect.MORE else 0.0


def design_of(plan: Plan, tasks: Sequence[str], discordance: float | None) -> Design:
    """`tasks` are ids; `discordance` is None where no run has measured it."""
    repositories = len({repository_of(task) for task in tasks})
    return Design(
        tasks=len(tasks),
        seeds=len(plan.seeds),
        repositories=repositories,
        unit=unit_of(plan, repositories),
        family=max(1, len(plan.contrasts)),
        discordance=ASSUMED_DISCORDANCE if discordance is None else discordance,
    )


@cache
def power_of(design: Design, contrast: Contrast, effect: float) -> float:
    """Chance that a run shows what `contrast` registers, where the true difference is `effect`; to about 0.02.

    Equal arms differ in `discordance` of the cells, gains and losses alike; a difference adds gains or losses, and varies
    between repositories by `spread` where these are the unit. Seeds of a task are independent.
    """
    import numpy as np

    if design.units < 2:
        return 0.0
    rng = np.random.default_rng(0)
    repository = design.unit is Unit.REPOSITORY
    members = max(1, round(design.tasks * design.seeds / design.units))
    # What is equal everywhere does not vary; a difference does.
    between = design.spread if repository and contrast.expect is Expect.MORE else 0.0
    true = effect + between * rng.standard_normal((DRAWS, design.units, 1))
    gain = np.clip(design.discordance / 2 + np.maximum(true, 0), 0, 1)
    loss = np.clip(design.discordance / 2 + np.maximum(-true, 0), 0, 1 - gain)
    drawn = rng.random((DRAWS, design.units, members))
    gains, losses = drawn < gain, drawn > 1 - loss
    sums = (gains.astype(int) - losses).sum(axis=2)
    variances = (sums / members).var(axis=1, ddof=1)
    ups, downs = gains.sum(axis=(1, 2)), losses.sum(axis=(1, 2))
    shown = 0
    for flip, variance, up, down in zip(sign_flips(sums), variances, ups, downs, strict=True):
        found = _found(design.unit, members, float(variance), design.units, int(up), int(down), float(flip))
        shown += _shown(contrast, found, design.family)
    return shown / DRAWS


def sign_flips(sums: "np.ndarray") -> "np.ndarray":
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
    unit: Unit, members: int, variance: float, units: int, gains: int, losses: int, p_flip: float
) -> PairedDifference:
    pairs = units * members
    same = pairs - gains - losses
    independent = ((gains + losses) / pairs - ((gains - losses) / pairs) ** 2) / pairs
    effect = variance / units / independent if independent > 0 else float(members)
    return PairedDifference(
        both=same // 2,
        gains=gains,
        losses=losses,
        neither=same - same // 2,
        unit=unit,
        units=units,
        effective=pairs / min(max(effect, 1.0), float(members)),
        p_flip=p_flip,
    )


def _shown(contrast: Contrast, found: PairedDifference, family: int) -> bool:
    alpha = ALPHA / family
    low, high = found.interval(1 - alpha if contrast.expect is Expect.MORE else 1 - 2 * alpha)
    match contrast.expect:
        case Expect.MORE:
            return low > 0
        case Expect.SAME:
            return -contrast.margin < low and high < contrast.margin
        case Expect.NOT_MORE:
            return high < contrast.margin
        case Expect.NOT_LESS:
            return low > -contrast.margin


def power_at_error(contrast: Contrast, error: float, units: int, family: int) -> float:
    """As `power_of`, of what is no yes or no, where a run has measured its standard error: by the noncentral t."""
    from scipy.special import nctdtr

    if error <= 0 or units < 2:
        return 0.0
    alpha = ALPHA / family
    if contrast.expect is Expect.MORE:
        return 1 - float(nctdtr(units - 1, contrast.expected / error, student(1 - alpha, units)))
    missed = float(nctdtr(units - 1, contrast.margin / error, student(1 - 2 * alpha, units)))
    return max(0.0, 1 - (2 if contrast.expect is Expect.SAME else 1) * missed)


@cache
def smallest_visible(design: Design) -> float | None:
    """Smallest true difference that a run shows with a chance of 80 %, to a point; None where not even 100 points are."""
    contrast = Contrast(arm="a", against="b", shown="", refuted="", open="")
    low, high = 1, round(1 / STEP)
    if power_of(design, contrast, high * STEP) < ENOUGH:
        return None
    while low < high:
        middle = (low + high) // 2
        if power_of(design, contrast, middle * STEP) >= ENOUGH:
            high = middle
        else:
            low = middle + 1
    return high * STEP
