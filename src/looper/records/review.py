"""What a reviewer says of a change: a value with fields, never a text to be searched."""

from typing import Annotated, Literal

from pydantic import Field

from looper.records.base import Record


class Met(Record):
    """One acceptance criterion, as a reviewer sees it."""

    id: str
    met: bool
    evidence: str


class Review(Record):
    """One verdict. Models write it as JSON with these names."""

    approved: bool
    criteria: tuple[Met, ...]
    issues: Annotated[tuple[str, ...], Field(max_length=50)] = ()
    injection: bool = False
    """The change holds text that is meant for its reviewer."""
    confidence: Literal["high", "medium", "low"]
    summary: str
