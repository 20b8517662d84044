"""Comparing two arms on the cells that both have.

The unit says what is drawn at random: tasks, or repositories where it is these that are to be generalised from. Cells of one unit
are not independent, so intervals are those of fewer, effective pairs, and tests flip signs of whole units.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, cached_property
from math import exp, fsum, inf, log, sqrt
from statistics import NormalDist, fmean
from typing import Protocol

from looper.errors import BadInput
from looper.metrics.clustered import clustered, sign_flip
from looper.records.base import grouped
from looper.records.task import Task

LEAST_P, MOST_P = 1e-15, 0.999


class AnalysisUnit(StrEnum):
    """What was drawn, or treated, independently of the rest: the level at which a difference is decided."""

    TASK = "task"
    REPOSITORY = "repository"


ENOUGH_REPOSITORIES = 10
"""With fewer, nothing is said about repositories that were not looked at. Source: Cameron, Gelbach and Miller 2008, whose
clustered tests mislead below about ten clusters."""


class Difference(Protocol):
    """One arm less another, on common cells, decided by unit."""

    @property
    def pairs(self) -> int: ...
    @property
    def difference(self) -> float: ...
    @property
    def unit(self) -> AnalysisUnit: ...
    @property
    def units(self) -> int: ...
    @property
    def p_value(self) -> float:
        """Two-sided, of no difference; below alpha exactly where `interval(1 - alpha)` leaves out 0."""
        ...

    def interval(self, confidence: float = 0.95) -> tuple[float, float] | None:
        """None where the data carry none."""
        ...


@dataclass(frozen=True)
class PairedDifference:
    """Resolve rate of one arm minus that of another, on common cells."""

    both: int
    gains: int
    """Resolved by the first arm only."""
    losses: int
    """Resolved by the second arm only."""
    neither: int
    unit: AnalysisUnit
    units: int
    effective: float
    """So many independent pairs would say as much: pairs over the design effect, no fewer than units. Source: Kish 1965."""
    degrees: float
    """Of freedom, of the variance by units; one less than units where these are of one size."""
    p_flip: float
    """Exact sign-flip test over units, two-sided."""

    @property
    def pairs(self) -> int:
        return self.both + self.gains + self.losses + self.neither

    @property
    def difference(self) -> float:
        return (self.gains - self.losses) / self.pairs

    @property
    def discordance(self) -> float:
        """Share of the pairs in which the arms differ."""
        return (self.gains + self.losses) / self.pairs

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Newcombe's method 10 for as many pairs as are effective, with Student's quantile; wide enough to hold 0
        where the exact test does not leave it out. It has a width even where all pairs agree."""
        low, high = self._newcombe(confidence)
        return (min(low, 0.0), max(high, 0.0)) if self.p_flip > 1 - confidence else (low, high)

    def _newcombe(self, confidence: float) -> tuple[float, float]:
        table = (self.both, self.gains, self.losses, self.neither)
        return newcombe_paired(*table, confidence, effective=self.effective, degrees=self.degrees)

    @cached_property
    def p_value(self) -> float:
        return max(self.p_flip, least_alpha(lambda alpha: _leaves_out(self._newcombe(1 - alpha), 0.0)))


@dataclass(frozen=True)
class MeanDifference:
    """Mean of one arm minus that of another, on common cells, of something that is no yes or no."""

    pairs: int
    difference: float
    error: float
    """Standard error, from sums over units."""
    degrees: float
    """Of freedom, of the error."""
    unit: AnalysisUnit
    units: int
    p_flip: float

    def interval(self, confidence: float = 0.95) -> tuple[float, float] | None:
        """By Student's t over units; None for a single unit, or where all units agree: that they vary by nothing is not known
        from their not having done so."""
        if self.error == 0.0 or self.units < 2:
            return None
        half = student(confidence, self.degrees) * self.error
        low, high = self.difference - half, self.difference + half
        return (min(low, 0.0), max(high, 0.0)) if self.p_flip > 1 - confidence else (low, high)

    @cached_property
    def p_value(self) -> float:
        """The larger one of the exact test's and Student's."""
        from scipy.special import stdtr

        if self.error == 0.0 or self.units < 2:
            return 1.0
        return max(self.p_flip, 2 * float(stdtr(self.degrees, -abs(self.difference) / self.error)))


def _leaves_out(interval: tuple[float, float] | None, value: float) -> bool:
    return interval is not None and not interval[0] <= value <= interval[1]


def least_alpha(decided: Callable[[float], bool]) -> float:
    """The smallest level at which something is decided that is decided at every higher one; 1 where it never is."""
    low, high = log(LEAST_P), log(MOST_P)
    if not decided(MOST_P):
        return 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if decided(exp(middle)) else (middle, high)
    return exp(high)


def student(confidence: float, degrees: float) -> float:
    """Quantile of Student's t, two-sided; infinite without a degree of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + confidence) / 2)) if degrees > 0 else inf


def mean_difference(
    first: Mapping[str, float], second: Mapping[str, float], unit: AnalysisUnit = AnalysisUnit.TASK
) -> MeanDifference | None:
    """Keys as in `paired_difference`; every task counts as one, with the mean over its seeds. None where the arms have no cell
    in common."""
    common = sorted(first.keys() & second.keys())
    if not common:
        return None
    moved = grouped((task_of(key), first[key] - second[key]) for key in common)
    tasks = {task: fmean(values) for task, values in moved.items()}
    level = repository_of if unit is AnalysisUnit.REPOSITORY else str
    groups = list(grouped((level(task), value) for task, value in tasks.items()).values())
    variance, degrees = clustered(groups) if len(groups) > 1 else (0.0, 0.0)
    return MeanDifference(
        pairs=len(common),
        difference=fmean(tasks.values()),
        error=sqrt(variance),
        degrees=degrees,
        unit=unit,
        units=len(groups),
        p_flip=sign_flip([fsum(values) for values in groups]),
    )


def rise(
    arms: Sequence[Mapping[str, float]], unit: AnalysisUnit = AnalysisUnit.TASK
) -> MeanDifference | None:
    """How much a straight line through the arms rises from the first to the last, the arms being evenly apart; keys as in
    `paired_difference`. None where they have no cell in common.

    Where all arms are alike, their values at a task could as well stand in the opposite order, which turns the sign of the
    rise: so the test of `mean_difference` holds for it.
    """
    common = set(arms[0]).intersection(*arms[1:])
    lines = {key: line_rise([arm[key] for arm in arms]) for key in common}
    return mean_difference(lines, dict.fromkeys(common, 0.0), unit)


def line_rise(values: Sequence[float]) -> float:
    """From the first to the last, of the least-squares line through evenly spaced values."""
    middle = (len(values) - 1) / 2
    weights = [at - middle for at in range(len(values))]
    slope = sum(weight * value for weight, value in zip(weights, values, strict=True))
    return (len(values) - 1) * slope / sum(weight * weight for weight in weights)


def paired_difference(
    first: Mapping[str, bool], second: Mapping[str, bool], unit: AnalysisUnit = AnalysisUnit.TASK
) -> PairedDifference | None:
    """Keys are SEED/REPOSITORY-NUMBER, a cell but for its arm. None where the arms have no cell in common."""
    common = first.keys() & second.keys()
    if not common:
        return None
    gains = sum(first[key] and not second[key] for key in common)
    losses = sum(second[key] and not first[key] for key in common)
    both = sum(first[key] and second[key] for key in common)
    pairs = len(common)
    moved = {key: int(first[key]) - int(second[key]) for key in sorted(common)}
    level = (lambda key: repository_of(task_of(key))) if unit is AnalysisUnit.REPOSITORY else task_of
    groups = list(grouped((level(key), float(value)) for key, value in moved.items()).values())
    variance, degrees = clustered(groups) if len(groups) > 1 else (0.0, 0.0)
    return PairedDifference(
        both=both,
        gains=gains,
        losses=losses,
        neither=pairs - both - gains - losses,
        unit=unit,
        units=len(groups),
        effective=effective_pairs(pairs, gains, losses, len(groups), variance),
        degrees=degrees,
        p_flip=sign_flip([sum(values) for values in groups]),
    )


def effective_pairs(pairs: int, gains: int, losses: int, units: int, variance: float) -> float:
    """So many independent pairs would say as much; `variance` is that of the difference, by units."""
    independent = ((gains + losses) / pairs - ((gains - losses) / pairs) ** 2) / pairs
    return _effective(pairs, units, variance, independent)


def _effective(count: int, units: int, variance: float, independent: float) -> float:
    # Where nothing varies, nothing says that members of a unit are independent of each other.
    effect = variance / independent if independent > 0 else count / units
    return count / min(max(effect, 1.0), count / units)


def rate_interval(
    outcomes: Mapping[str, bool], unit: AnalysisUnit = AnalysisUnit.TASK, confidence: float = 0.95
) -> tuple[float, float]:
    """Of the rate of one arm, by unit: Wilson's interval for as many cells as are effective, with Student's quantile. Keys as in
    `paired_difference`; not empty."""
    level = (lambda key: repository_of(task_of(key))) if unit is AnalysisUnit.REPOSITORY else task_of
    groups = list(grouped((level(key), float(value)) for key, value in outcomes.items()).values())
    if len(groups) < 2:
        return 0.0, 1.0
    count, rate = len(outcomes), sum(outcomes.values()) / len(outcomes)
    variance, degrees = clustered(groups)
    effective = _effective(count, len(groups), variance, rate * (1 - rate) / count)
    return _wilson(rate, effective, student(confidence, degrees))


def task_of(where: str) -> str:
    return where.partition("/")[2]


def repository_of(task: str) -> str:
    """Of the id of a task, which is its repository's with a number behind it: for those who have records of a run alone."""
    return task.rpartition("-")[0]


def ids_must_tell_repositories(tasks: Iterable[Task]) -> None:
    """Raises BadInput where `repository_of` would not tell the repositories of these tasks apart."""
    by_name: dict[str, Task] = {}
    by_repo: dict[str, Task] = {}
    for task in tasks:
        name = repository_of(task.instance_id)
        known = by_name.setdefault(name, task), by_repo.setdefault(task.repo, task)
        other = next(
            (each for each in known if each.repo != task.repo or repository_of(each.instance_id) != name),
            None,
        )
        if other or not name:
            beside = f" and {other.instance_id} of {other.repo}" if other else ""
            raise BadInput(
                f"{task.instance_id} of {task.repo}{beside}: what stands before the last hyphen of a task's id must name its "
                "repository, and no other one, since figures count repositories by it. Name tasks NAME-NUMBER, as django__django-11099."
            )


@cache
def mcnemar_exact(gains: int, losses: int) -> float:
    """Two-sided exact p-value of a sign test on the discordant pairs; 1 where there are none."""
    from scipy.special import bdtr

    # Not `scipy.stats`, whose import takes twice as long as a small table.
    return min(1.0, 2 * float(bdtr(min(gains, losses), gains + losses, 0.5)))


@cache
def wilson(successes: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of one proportion. Source: Wilson 1927."""
    return _wilson(successes / total, total, NormalDist().inv_cdf((1 + confidence) / 2))


def _wilson(share: float, total: float, z: float) -> tuple[float, float]:
    middle = share + z * z / (2 * total)
    half = z * sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2)
    below, above = ((middle + side) / (1 + z * z / total) for side in (-half, half))
    return (below if share else 0.0, above if share < 1 else 1.0)


def newcombe_paired(
    both: int,
    first_only: int,
    second_only: int,
    neither: int,
    confidence: float = 0.95,
    *,
    effective: float | None = None,
    degrees: float | None = None,
) -> tuple[float, float]:
    """Interval of the difference of two paired proportions. Source: Newcombe 1998, method 10.

    Of pairs that are not independent: as if there were `effective` of them, with Student's quantile of so many `degrees` in
    the place of the normal one, which is how surveys use Wilson's interval (Korn and Graubard 1998).
    """
    total = both + first_only + second_only + neither
    counted = total if effective is None else effective
    z = NormalDist().inv_cdf((1 + confidence) / 2) if degrees is None else student(confidence, degrees)
    if z == inf:
        return -1.0, 1.0
    first, second = (both + first_only) / total, (both + second_only) / total
    (low_1, high_1), (low_2, high_2) = (_wilson(share, counted, z) for share in (first, second))
    phi = _correlation(*(counted * cell / total for cell in (both, first_only, second_only, neither)))
    down = (first - low_1) ** 2 - 2 * phi * (first - low_1) * (high_2 - second) + (high_2 - second) ** 2
    up = (second - low_2) ** 2 - 2 * phi * (second - low_2) * (high_1 - first) + (high_1 - first) ** 2
    difference = first - second
    return max(-1.0, difference - sqrt(max(0.0, down))), min(1.0, difference + sqrt(max(0.0, up)))


def _correlation(both: float, first_only: float, second_only: float, neither: float) -> float:
    """Newcombe's phi, with his continuity correction where it is positive."""
    total = both + first_only + second_only + neither
    margins = (both + first_only) * (second_only + neither) * (both + second_only) * (first_only + neither)
    if margins <= 0:
        return 0.0
    determinant = both * neither - first_only * second_only
    corrected = max(0.0, determinant - total / 2) if determinant > 0 else determinant
    return corrected / sqrt(margins)
