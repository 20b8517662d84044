"""What the environments of real tasks are, take and need, before and after they are built."""

from looper.records.base import Record, Seconds


class Cost(Record):
    """Of building one environment."""

    mib: int
    """All its files, whether another environment or a cache has the same ones or not."""
    seconds: Seconds


class NeededEnvironment(Record):
    """An environment that tasks need: an interpreter with one frozen list, and what its tasks' trees take from releases beside it."""

    lock: str
    """Name of the list."""
    repo: str
    python: str
    """Minor version."""
    tasks: int
    compiled: int
    """Of these, tasks whose native sources have to be compiled in addition, which no figure here holds."""
    ready: bool
    expected: Cost | None
    """Measured with these very lists on another machine; nothing where they were not."""
    measured: Cost | None
    """On this machine, when it was built."""

    @property
    def cost(self) -> Cost | None:
        """What is known best."""
        return self.measured or self.expected
