"""What a generator hands over: one issue as plain files, before it becomes git history and a record."""

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
