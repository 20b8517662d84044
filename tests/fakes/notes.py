"""The smallest record, for tests of journals; programs that are killed a hundred times import it and nothing else of the tests."""

from looper.records.base import Record


class Note(Record):
    """A record for these tests."""

    number: int
    text: str
    value: float = 0.0
