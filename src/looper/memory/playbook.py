"""One text for each repository that grows with every success: each adds a line or confirms one.

Lines are never rewritten, so a line that was told once is told again word for word, and every line knows which successes
stand behind it. (Texts that a model rewrites as a whole lose detail each time; see ACE, Zhang et al. 2025.)
"""

from collections.abc import Sequence
from dataclasses import dataclass

from looper.records.memory import MemoryItem


@dataclass(frozen=True)
class PlaybookLine:
    """One line, with the items that it was made of, in order: the first added it, the others confirmed it."""

    text: str
    items: tuple[MemoryItem, ...]


def playbook(items: Sequence[MemoryItem]) -> list[PlaybookLine]:
    """The lines in the order in which they were added. Items that say to write the same in the same files are one line."""
    lines: dict[tuple[tuple[str, ...], tuple[str, ...]], PlaybookLine] = {}
    for item in sorted(items, key=lambda item: (item.position, item.id)):
        key = item.paths, item.changes
        known = lines.get(key)
        lines[key] = PlaybookLine(known.text if known else item.text, (*(known.items if known else ()), item))
    return list(lines.values())
