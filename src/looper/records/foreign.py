"""Attempts that another harness made."""

from looper.records.base import Record


class ForeignAttempt(Record):
    """One attempt at one task. What the other harness did not say is None."""

    instance_id: str
    patch: str
    ended: str = ""
    """In that harness's own word."""
    steps: int | None = None
    cost: float | None = None
    """In the currency that it counted in."""
    resolved: bool | None = None
    """By its report; None where no report covers the task."""


class ForeignRun(Record):
    """One run of another harness."""

    name: str
    harness: str
    model: str
    attempts: tuple[ForeignAttempt, ...]
    unread: tuple[str, ...] = ()
    """Files beside them that could not be read, each with the reason."""


class Prediction(Record):
    """A patch that somebody else made, to be judged."""

    instance_id: str
    model: str
    patch: str
