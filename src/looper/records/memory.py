"""What an arm remembers in its prompt."""

from looper.records.base import Record


class MemoryItem(Record):
    """One thing worth telling, from one verified success."""

    id: str
    """Content hash."""
    source: str
    """Cell and attempt that it was taken from."""
    instance_id: str
    repo: str
    position: int
    """Of its task in the repository's sequence; later tasks than the one at hand are never shown."""
    title: str
    text: str
    """What stands in the prompt."""
    asked: str
    """Issue text of its task; retrieval looks here too, the prompt never shows it."""


class Delivery(Record):
    """What the memory of an arm gave to one task."""

    candidates: int
    """Items that could be given: of the right repository, not of this task."""
    items: tuple[str, ...]
    """Ids of the items in the prompt, in order."""
    text: str
