"""What a generator hands over: one issue as plain files, before it becomes git history and a record."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Change:
    """One task of a generated repository. Paths map to whole file contents."""

    title: str
    """Short name, unique within its repository, in lower-case words joined by `-` or `_`."""
    issue: str
    base: dict[str, str]
    """The whole tree before the fix."""
    fix: dict[str, str]
    """Files that the gold patch changes, as they are after it."""
    tests: dict[str, str]
    """Test files that the test patch adds or changes, as they are after it."""
    fail_to_pass: tuple[str, ...]
    pass_to_pass: tuple[str, ...]
    difficulty: int = 1


@dataclass(frozen=True)
class Project:
    """A generated repository: its tasks in sequence order."""

    name: str
    changes: tuple[Change, ...] = field(repr=False)


def shuffled_families(
    rng: random.Random, known: Sequence[str], hidden: Sequence[str], tasks: int
) -> list[str]:
    """Of each issue the family of its bug: every fourth can be repaired from what stands there, three hide a convention."""
    families = [
        known[index // 4 % len(known)] if index % 4 == 3 else hidden[(index - index // 4) % len(hidden)]
        for index in range(tasks)
    ]
    rng.shuffle(families)
    return families
