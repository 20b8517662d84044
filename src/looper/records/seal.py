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
