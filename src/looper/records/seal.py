"""What a run's files were when it ended."""

from typing import Annotated

from pydantic import Field

from looper.records.base import Count, Record

LATER = ("seals", "reverted", "ratings", "sessions")
"""Streams that may grow after a run was sealed: what people did with it. Of these the beginning is sealed, of all others the end too."""


class SealedFile(Record):
    """A record file, up to where it was written then."""

    lines: Count
    bytes: Count
    sha256: str


class Seal(Record):
    """Made when every cell has its end. What was changed afterwards is found by anybody who looks. Texts that lie beside the records
    are named by their hashes, so they are sealed with what names them; seals before this one are a file like any other."""

    ended: str
    """UTC, ISO 8601."""
    files: dict[str, SealedFile]
    """By stream. An earlier version did not seal the beginnings of those that may grow."""
    adapters: dict[str, str]
    """Id → hash of the weights, of all that an arm was served with."""
    energy_j: Annotated[float, Field(ge=0)] | None = None
    """Of the whole machine, from the first record to the last; None where it cannot be read, or where an earlier process did
    a part."""
