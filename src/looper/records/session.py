"""What a run says of itself while it goes on, for those who look: nothing is decided by it."""

from looper.records.base import Count, Positive, Record
from looper.records.training import TrainingEvent


class Session(Record):
    """One process at work on a run, from here on."""

    pid: int
    workers: Positive
    """Rollouts side by side."""
    begun: str
    """UTC, ISO 8601."""
    done_before: Count
    """Cells that had an end when it began."""
    command: str = ""
    """What goes on with this run, once the process is no more."""
    where: str = ""
    """The folder in which that command was given; empty where it was gone."""


class Trained(Record):
    """How far one training is."""

    what: str
    """Which, in words."""
    event: TrainingEvent
