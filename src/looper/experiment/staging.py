"""What the stages of one run work with, and cells at work in one of them."""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from looper.experiment.cell import ModelFor
from looper.experiment.ledger import Ledger
from looper.experiment.run import Progress, TreatmentOf, run_plan, untreated
from looper.memory.retrieve import Similarity
from looper.protocols import AdapterHost, Engine, Trainer, Workers
from looper.records.plan import Arm, Cell, Gate, RunManifest
from looper.records.task import Task
from looper.records.training import TrainingEvent
from looper.records.treatment import Proof


@dataclass(frozen=True)
class Staging:
    manifest: RunManifest
    tasks: Mapping[str, Task]
    """All of them, to learn from and to evaluate, by id."""
    arms: tuple[str, ...]
    """Arms to run; empty for all."""
    model_for: ModelFor
    """As `RunContext.model_for`: for what is asked outside of cells."""
    adapted: Callable[[Arm, str], AdapterHost]
    """The model behind `model_for`, asked without patience. Raises BadInput for those that carry no adapters."""
    trainer: Callable[[], Trainer]
    """Raises BadInput where the plan's model cannot be trained."""
    ledger: Ledger
    engine: Engine
    workers: Workers
    """For trainings."""
    stop: threading.Event
    show: Callable[[str, Sequence[Cell], int], AbstractContextManager[Progress]]
    """Makes the progress of a stage visible: its name, its cells, how many of them are to do."""
    say: Callable[[str], None]
    during: Callable[[str], AbstractContextManager[None]]
    """Says what is going on where nothing else has been said for a while."""
    tell: Callable[[str, TrainingEvent], None]
    energy_j: Callable[[], float | None] = lambda: None
    """Joules that the machine took so far; None where they cannot be read."""
    similar: Mapping[str, Similarity] = field(default_factory=dict)
    """For retrieval from memory, by the name that settings give it; BM25 for a name that is not here."""
    proved: list[Proof] = field(default_factory=list)
    """What needs no second proof."""

    def work(
        self,
        name: str,
        schedule: Sequence[Sequence[Cell]],
        arms: Sequence[Arm],
        treatment_of: TreatmentOf = untreated,
    ) -> None:
        """Run the cells that have no end yet; `name` is shown."""
        cells = [cell for lane in schedule for cell in lane]
        todo = sum(self.ledger.resume(cell) is not None for cell in cells)
        with self.show(name, cells, todo) as progress:
            run_plan(
                self.manifest.plan,
                arms,
                self.tasks,
                schedule,
                self.ledger,
                self.engine,
                self.stop,
                progress,
                treatment_of,
                degenerate_stops=self.manifest.stops(Gate.ACTION),
            )
