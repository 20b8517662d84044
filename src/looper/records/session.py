"""What a run says of itself while it goes on, for those who look: nothing is decided by it."""

from enum import StrEnum

from looper.records.base import Count, Positive, Record
from looper.records.training import TrainingEvent


class Session(Record):
    """One process at work on a run, from here on."""

    pid: int
    workers: Positive
    """Rollouts side by side."""
    begun: str
    """UTC, ISO 8601."""
    done_before: Count
    """Cells that had an end when it began."""
    command: str = ""
    """What goes on with this run, once the process is no more."""
    where: str = ""
    """The folder in which that command was given; empty where it was gone."""


class Trained(Record):
    """How far one training is."""

    what: str
    """Which, in words."""
    event: TrainingEvent


class NodeState(StrEnum):
    """Where a machine of a cluster stands in a run."""

    READY = "ready"
    """Its control cells came out as they must; it takes cells."""
    REFUSED = "refused"
    """It takes none."""
    LOST = "lost"
    """It is no part of the cluster any more."""


class ClusterNode(Record):
    """What became of one machine of a cluster, from here on."""

    node: str
    """The cluster's id for it; another one when it joins again."""
    address: str
    """As verdicts name it: its address, with `#2` and so on where several nodes have that."""
    state: NodeState
    said: str
    """What its control cells were, or why it takes no cells; empty for one that is lost."""
    at: str
    """UTC, ISO 8601."""
