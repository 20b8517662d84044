"""What a person did through the pages: on record before it is done, and how it ended."""

from enum import StrEnum

from looper.records.base import Record


class AuditAction(StrEnum):
    """What was asked for."""

    SPAWN = "spawn"
    PROMOTE = "promote"
    ROLL_BACK = "roll_back"
    PAUSE = "pause"
    CANCEL = "cancel"


class Stage(StrEnum):
    """How far it is."""

    BEGUN = "begun"
    DONE = "done"
    FAILED = "failed"


class AuditEntry(Record):
    """One of two lines: that something was asked for, and what became of it."""

    kind: AuditAction
    target: str
    """Generation or run."""
    seen_hash: str
    """Of what the person looked at."""
    stage: Stage
    said: str = ""
    """What became of it, in a line."""
    at: str
    """UTC, to the second; nothing is decided by it."""
