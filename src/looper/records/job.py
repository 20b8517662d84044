"""What a cell is run with, as data: it can go to another process, or to another machine."""

from looper.records.base import Record
from looper.records.memory import Delivery
from looper.records.plan import Arm


class Overseer(Record):
    """A second agent that sees each action before it is done, and may put its own in its place."""

    arm: Arm
    """Whose model oversees."""
    memory: Delivery
    """What the overseer is told, and the agent is not."""
    blind: bool


class CellTreatment(Record):
    """What an arm has learned, as it bears on one cell."""

    adapter: str = ""
    """Id of the adapter that its model is served with; empty for none."""
    memory: Delivery = Delivery(candidates=0)
    overseer: Overseer | None = None


UNTREATED = CellTreatment()
