"""What a run's files were when it ended."""

from looper.records.base import Record


class SealedFile(Record):
    """The beginning of a record file, up to where it was written then; later records may follow."""

    lines: int
    bytes: int
    sha256: str


class Seal(Record):
    """Made when every cell has its end. What was changed afterwards is found by anybody who looks."""

    ended: str
    """UTC, ISO 8601."""
    files: dict[str, SealedFile]
    """By stream."""
    adapters: dict[str, str]
    """Id → hash of the weights, of all that an arm was served with."""
    energy_j: float | None = None
    """Of the whole machine, from the first record to the last; None where it cannot be read, or where an earlier process did
    a part."""
