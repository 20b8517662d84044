"""What a registered contrast shows, by the rule that was registered."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from looper.metrics.family import holm
from looper.metrics.paired import MeanDifference, PairedDifference
from looper.records.plan import Contrast, Expect

ALPHA = 0.05
COVERED = 0.95
"""Share of the cells of both arms that must have a verdict."""
Difference = PairedDifference | MeanDifference


class Finding(StrEnum):
    """How a contrast came out."""

    SHOWN = "shown"
    REFUTED = "refuted"
    OPEN = "open"
    NOT_MEASURED = "not measured"
    INDECISIVE = "indecisive"
    """Too many cells are without a verdict."""
    NOT_EXERCISED = "not exercised"
    """What differs never came into play."""


@dataclass(frozen=True)
class Registered:
    """One registered contrast with its outcome."""

    contrast: Contrast
    difference: Difference | None
    p_adjusted: float | None
    """By task, adjusted for all registered differences (Holm); None for a margin, which an interval decides."""
    finding: Finding

    @property
    def sentence(self) -> str:
        """What was to be said of this outcome."""
        match self.finding:
            case Finding.SHOWN:
                return self.contrast.shown
            case Finding.REFUTED:
                return self.contrast.refuted
            case Finding.OPEN:
                return self.contrast.open
            case Finding.INDECISIVE:
                return f"Fewer than {100 * COVERED:.0f} % of the cells have a verdict: nothing is concluded."
            case Finding.NOT_EXERCISED:
                return "What differs never came into play at these tasks: nothing is concluded."
            case Finding.NOT_MEASURED:
                return (
                    "Nothing to compare: no task has a verdict in both arms, or one of them is a failed arm."
                )


def judge(pairs: Sequence[tuple[Contrast, Difference | None]]) -> list[Registered]:
    """Differences are tested at 0.05 over the family of all that are registered; margins by the 90 % interval, which is two
    one-sided tests at 0.05."""
    tested = [found for contrast, found in pairs if contrast.expect is Expect.MORE and found is not None]
    adjusted = iter(holm([found.p_by_task for found in tested]))
    results = []
    for contrast, found in pairs:
        p = next(adjusted) if contrast.expect is Expect.MORE and found is not None else None
        finding = Finding.NOT_MEASURED if found is None else _finding(contrast, found, p)
        results.append(Registered(contrast, found, p, finding))
    return results


def _finding(contrast: Contrast, found: Difference, p: float | None) -> Finding:
    if contrast.expect is Expect.MORE:
        if p is None or p >= ALPHA:
            return Finding.OPEN
        return Finding.SHOWN if found.difference > 0 else Finding.REFUTED
    low, high = found.within_margin
    above, below = high < contrast.margin, low > -contrast.margin
    inside = {
        Expect.SAME: above and below,
        Expect.NOT_MORE: above,
        Expect.NOT_LESS: below,
    }[contrast.expect]
    outside = {
        Expect.SAME: low > contrast.margin or high < -contrast.margin,
        Expect.NOT_MORE: low > contrast.margin,
        Expect.NOT_LESS: high < -contrast.margin,
    }[contrast.expect]
    return Finding.SHOWN if inside else Finding.REFUTED if outside else Finding.OPEN
