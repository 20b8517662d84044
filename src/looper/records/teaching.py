"""What a model was taught here, as it is kept beside its weights."""

from typing import Annotated

from pydantic import Field

from looper.records.base import Record
from looper.records.plan import TaskSelection
from looper.records.training import AdapterRecord, LossPoint, Selection
from looper.records.trajectory import ModelIdentity

TEACHING = "teaching.json"
"""Name of its file in the model's folder."""


class Teaching(Record):
    """Where a taught model comes from."""

    name: str
    """Of the model, as `mlx:NAME`."""
    base: ModelIdentity
    """What it was made of."""
    command: str
    """That made it."""
    run: str
    """Of the expert: its trajectories are what was learned from."""
    tasks: TaskSelection
    """What the expert worked on. Nothing of that suite, level and seed can be evaluated with this model."""
    repositories: Annotated[tuple[str, ...], Field(min_length=1)]
    """Of those tasks, by name. Repositories of other seeds may be called the same and are others."""
    attempts: Selection
    """What became of the expert's attempts."""
    stages: Annotated[tuple[AdapterRecord, ...], Field(min_length=1)]
    """The trainings, each going on from the one before; the adapter of the last is what was added to the weights."""

    @property
    def iterations(self) -> int:
        return sum(card.settings.iterations for card in self.stages)

    @property
    def cpu_minutes(self) -> float:
        """Of the processor, of the trainings."""
        return sum(card.cpu_seconds or card.seconds for card in self.stages) / 60

    @property
    def losses(self) -> tuple[LossPoint, ...]:
        """The curve over all stages, in nats per supervised token."""
        found: list[LossPoint] = []
        before = 0
        for card in self.stages:
            found += [
                LossPoint(iteration=before + point.iteration, loss=point.loss) for point in card.train_losses
            ]
            before += card.settings.iterations
        return tuple(found)
