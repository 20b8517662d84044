"""What a registered contrast shows, by the rule that was registered."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from looper.metrics.family import holm
from looper.metrics.paired import Difference, least_alpha
from looper.records.plan import Contrast, Expect

ALPHA = 0.05
"""Chance that anything false is said of all that a plan registers."""
COVERED = 0.95
"""Share of the cells of both arms that must have a verdict."""


class Decision(StrEnum):
    """How a contrast came out."""

    SHOWN = "shown"
    REFUTED = "refuted"
    OPEN = "open"
    PILOT = "pilot"
    """The plan could not have seen what it is about: figures, and no decision."""
    UNTRUSTED = "not trusted"
    """A control did not come out as it must, so the harness is not to be believed."""
    NOT_MEASURED = "not measured"
    INDECISIVE = "indecisive"
    """Too many cells are without a verdict, or those that are could turn the decision."""
    NOT_EXERCISED = "not exercised"
    """What differs never came into play."""


DECIDED = (Decision.SHOWN, Decision.REFUTED, Decision.OPEN)
"""What comes of a contrast that the plan was large enough for, and that nothing stood in the way of."""


@dataclass(frozen=True)
class Registered:
    contrast: Contrast
    difference: Difference | None
    p_adjusted: float
    """Over all that the plan registers (Holm): the least level of the whole family at which this one is decided."""
    confidence: float
    """Of the interval that decides: with it, and with no other, interval and decision agree."""
    finding: Decision

    @property
    def interval(self) -> tuple[float, float] | None:
        return None if self.difference is None else self.difference.interval(self.confidence)

    @property
    def sentence(self) -> str:
        """What the plan's author wrote for this outcome; empty where nothing was decided."""
        wrote = {
            Decision.SHOWN: self.contrast.shown,
            Decision.REFUTED: self.contrast.refuted,
            Decision.OPEN: self.contrast.open,
        }
        return wrote.get(self.finding, "")


def judge(found: Sequence[tuple[Contrast, Difference | None, Decision | None]]) -> list[Registered]:
    """Each contrast with its difference and with what forbids a conclusion, where something does.

    Every contrast that was registered is in the family, differences and margins alike, measured or not: what was not measured,
    or must not be concluded from, has p = 1. A difference is tested two-sided; a margin by two one-sided tests (Schuirmann
    1987), each at the level of its step in Holm's order, which also is the level of the interval.
    """
    p_values = [
        1.0 if difference is None or veto is not None else _decided_at(contrast, difference)
        for contrast, difference, veto in found
    ]
    adjusted = holm(p_values)
    rejected = sum(p < ALPHA for p in adjusted)
    order = sorted(range(len(found)), key=lambda at: p_values[at])
    results = []
    for at, (contrast, difference, veto) in enumerate(found):
        # What is not decided was not decided at the step where Holm's order stopped.
        alpha = ALPHA / (len(found) - min(order.index(at), rejected))
        confidence = 1 - alpha if contrast.expect is Expect.MORE else 1 - 2 * alpha
        finding = veto or Decision.NOT_MEASURED
        if veto is None and difference is not None:
            interval = difference.interval(confidence)
            finding = decided(contrast, interval) if adjusted[at] < ALPHA else Decision.OPEN
        results.append(Registered(contrast, difference, adjusted[at], confidence, finding))
    return results


def _decided_at(contrast: Contrast, found: Difference) -> float:
    """The least level at which a contrast is decided, either way."""
    if contrast.expect is Expect.MORE:
        return found.p_value
    half = least_alpha(lambda alpha: decided(contrast, found.interval(1 - alpha)) is not Decision.OPEN)
    return min(1.0, half / 2)


def decided(contrast: Contrast, interval: tuple[float, float] | None) -> Decision:
    """What a contrast shows, by where an interval lies; open where there is none."""
    if interval is None:
        return Decision.OPEN
    (low, high), margin = interval, contrast.margin
    inside, outside = {
        Expect.MORE: (low > 0, high < 0),
        Expect.SAME: (-margin < low and high < margin, low > margin or high < -margin),
        Expect.NOT_MORE: (high < margin, low > margin),
        Expect.NOT_LESS: (low > -margin, high < -margin),
    }[contrast.expect]
    return Decision.SHOWN if inside else Decision.REFUTED if outside else Decision.OPEN
