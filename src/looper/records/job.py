"""What a cell is run with and what comes of it, as data: it can go to another process, or to another machine, and back."""

from collections.abc import Mapping

from looper.records.base import Count, Record
from looper.records.memory import Delivery
from looper.records.model import BACKENDS
from looper.records.plan import Arm, Cell, Limits, RunManifest
from looper.records.task import Task
from looper.records.trajectory import Step, Trajectory
from looper.records.verdict import Verdict


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


class ResumeState(Record):
    """What an earlier process left of a cell that has no verdict yet."""

    attempt: int = 1
    """To go on with; from 1."""
    steps: tuple[Step, ...] = ()
    trajectory: Trajectory | None = None
    """Of this attempt, where the rollout was over and only its verification is missing."""


class Obstacle(Record):
    """Why an attempt cannot be made."""

    cause: str
    fault: str = ""
    """Traceback, where the cause is a fault of Looper's own."""


class CellJob(Record):
    """One attempt at a cell; its last event is its verdict."""

    cell: Cell
    arm: Arm
    task: Task
    limits: Limits
    treatment: CellTreatment = UNTREATED
    resume: ResumeState = ResumeState()
    made: Trajectory | None = None
    """The rollout, where it was made elsewhere: it is judged, and none begins."""
    server: Count = 0
    """Which of its model's servers it begins with, from 0; where the model has fewer, they are counted round again."""
    obstacle: Obstacle | None = None
    """Where the cell's treatment was not to be had: the attempt ends as an infrastructure error."""

    @property
    def address(self) -> str:
        """Of the server that it asks, as the plan has it, after the backend; empty where no server is asked that other processes could ask too."""
        model = self.arm.model
        if not BACKENDS[model.backend].address_after:
            return ""
        return f"{model.backend} {model.addresses[self.server % len(model.addresses)]}"


class RunSpec(Record):
    """What a process must know to run cells of a run, anywhere. It has no path but those that the plan names; where suites, mirrors,
    adapters and working trees lie is that process's own to know. An adapter's id comes with the jobs that it serves."""

    manifest: RunManifest
    """Plan, task ids and suite, models, environments: what that process has must be the same."""
    sandbox: str
    """As it is chosen: `auto` or a name."""
    arms: tuple[str, ...] = ()
    """That run; empty for all."""


Event = Step | Trajectory | Verdict
"""What an attempt tells, in this order: steps as they are taken, the rollout as a whole, the verdict."""

EVENTS: Mapping[str, type[Event]] = {kind.__name__: kind for kind in (Step, Trajectory, Verdict)}
"""By the name that a process elsewhere tells an event with."""
Told = tuple[str, bytes]
"""What a process elsewhere tells of an attempt: an event by its name and as JSON; `said` and a line for whoever waits; `wanted` and a
`Wanted` as JSON, whose answer it waits for; `control` and what its control cells came to; `unfit` and why no cell of the run can be run
there; or the class and the message of an error that no other cell could survive."""
