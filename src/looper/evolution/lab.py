"""One author at work on one contract, in a working tree of its own that has no network, no key and no other candidate in it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from looper.agent.loop import Assignment, rollout
from looper.agent.scaffold import packaged_scaffold
from looper.agent.tools import ToolContext
from looper.errors import BudgetSpent, TreeUnreadable
from looper.journal import Stream, read_stream
from looper.protocols import ChatModel, Session
from looper.records.generation import Cause, Reported, ToolUse
from looper.records.memory import Delivery
from looper.records.plan import Limits, Scaffold
from looper.records.task import Task
from looper.records.text import bare_lines
from looper.records.trajectory import ObservationKind, Step, StopReason

STEPS = "steps"
TASK = """
Carry out this contract in the repository that is your current folder. Its own tests are run by `{tests} PATH`. You may change files in
these folders only: FOLDERS.

<contract>
{issue}
</contract>
"""


@dataclass(frozen=True)
class Lab:
    session: Session
    model: ChatModel
    limits: Limits
    temperature: float
    allowed: tuple[str, ...]
    """Folders that it is told it may change; a gate sees to it."""
    folder: Path
    """Where its steps are kept, so that work which was interrupted goes on."""
    clock: Callable[[], float]
    cancelled: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class LabResult:
    patch: str
    flagged: tuple[str, ...]
    """Entries of the tree that no patch can hold: links, submodules, devices."""
    reported: Reported

    @property
    def cause(self) -> Cause:
        """Why this is not to be judged; NONE where it is."""
        if self.reported.stop_reason == StopReason.TIME_LIMIT:
            return Cause.TIMEOUT
        if self.reported.stop_reason != StopReason.DONE:
            return Cause.INCOMPLETE
        if self.flagged:
            return Cause.UNSAFE_TREE
        return Cause.NONE if self.patch.strip() else Cause.NO_CHANGE


def scaffold_of_labs(allowed: tuple[str, ...]) -> Scaffold:
    """Base tools only: nothing here spawns, promotes or reaches a network."""
    full = packaged_scaffold("full")
    return full.model_copy(
        update={
            "name": "lab",
            "system": full.system.replace(
                "fixes one issue in a repository", "carries out one contract in a repository"
            ),
            "task": TASK.replace("FOLDERS", ", ".join(allowed) or "all"),
            "memory": "",
        }
    )


def work(lab: Lab, number: int, attempt: int, seed: int, task: Task) -> LabResult:
    """To the end of the rollout, whatever ends it: what was done by then is kept. Raises what the world does wrong, and Cancelled."""
    recorded = [step for step in read_stream(lab.folder, STEPS, Step) if step.attempt == attempt]
    stream = Stream(lab.folder, STEPS, Step)
    steps = list(recorded)

    def record(step: Step) -> None:
        stream.append(step)
        steps.append(step)

    assignment = Assignment(
        cell=f"gen-{number}",
        attempt=attempt,
        task=task,
        seed=seed,
        temperature=lab.temperature,
        memory=Delivery(candidates=0),
        tool_context=ToolContext(lab.session, scaffold_of_labs(lab.allowed), lab.limits),
        model=lab.model,
        clock=lab.clock,
        record=record,
        cancelled=lab.cancelled,
        recorded=tuple(recorded),
    )
    try:
        stop = rollout(assignment).stop_reason.value
    except BudgetSpent:
        stop = "budget"
    finally:
        stream.close()
        lab.model.forget(f"gen-{number}#{attempt}")
    try:
        patch, flagged = lab.session.patch()
    except TreeUnreadable:
        patch, flagged, stop = "", (), StopReason.UNUSABLE.value
    return LabResult(patch, flagged, _report(number, stop, steps, patch))


def _report(number: int, stop: str, steps: list[Step], patch: str) -> Reported:
    tools: dict[str, ToolUse] = {}
    for step in steps:
        if step.action is not None:
            before = tools.get(step.action.tool, ToolUse(calls=0, errors=0))
            wrong = step.observation.kind in (ObservationKind.REFUSED, ObservationKind.TIMEOUT) or bool(
                step.observation.exit_code
            )
            tools[step.action.tool] = ToolUse(calls=before.calls + 1, errors=before.errors + wrong)
    lines = [line for line in bare_lines(patch) if not line.startswith(("+++", "---"))]
    return Reported(
        generation=number,
        stop_reason=stop,
        steps=len(steps),
        tools=tools,
        wall_s=sum(step.wall_s - step.reply.waited_s for step in steps),
        insertions=sum(line.startswith("+") for line in lines),
        deletions=sum(line.startswith("-") for line in lines),
    )
