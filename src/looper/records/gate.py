"""What the gates of a campaign decide on, and what they say."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field, model_validator

from looper.records.base import Record


class GateOutcome(StrEnum):
    """What a gate says of a candidate."""

    PASS = "pass"
    FAIL = "fail"
    UNDECIDED = "undecided"
    """It looked and cannot tell: nothing is promoted, and nothing is held against the candidate."""
    ERROR = "error"
    """It could not look. No verdict, and no lesson."""


class GateResult(Record):
    """What one gate found in one candidate."""

    gate: str
    outcome: GateOutcome
    evidence: str
    """What was seen, in a line; for a lesson, so it says what would have to change."""
    candidate_hash: str


class BenchmarkRule(Record):
    """When a candidate counts as better than its parent, fixed before the campaign."""

    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Chance of a false promotion in the whole campaign and lane, at most."""
    challengers: Annotated[int, Field(gt=0)] = 8
    """So many may be tested before alpha is spent; each gets an equal part, which is never given back."""
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The lower bound of the gain must lie above this."""

    @property
    def alpha_each(self) -> float:
        return self.alpha / self.challengers


class Benchmarked(Record):
    """A candidate against its parent on the same tasks with the same seeds."""

    outcome: GateOutcome
    pairs: int
    wins: int
    """Tasks at which the candidate does better, counted once whatever their seeds."""
    losses: int
    estimate: float
    """Mean gain over tasks, as a share."""
    lower: float
    """One-sided lower bound of the gain at the alpha that was spent."""
    upper: float
    p_value: float
    """One-sided, of no gain."""
    alpha_spent: float
    """By this test."""


class Drawn(Record):
    """What a simulated campaign draws its outcomes from."""

    tasks: Annotated[int, Field(gt=0)] = 100
    rate: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Of the parent."""
    discordance: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Share of tasks at which candidate and parent end differently."""
    gain: Annotated[float, Field(ge=-1, le=1)] = 0.0
    """True difference of the rates; no larger than the discordance."""

    @model_validator(mode="after")
    def _can_be_drawn(self) -> "Drawn":
        if abs(self.gain) > self.discordance:
            raise ValueError("gain: no larger than the share of tasks that end differently")
        return self


class Calibrated(Record):
    """How a gate did over many simulated campaigns."""

    gate: str
    campaigns: int
    with_promotion: int
    """Campaigns that promoted anything."""
    promotions: int
    challengers: int
    """Of all campaigns."""
