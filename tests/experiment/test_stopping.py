"""What a run records while it is being taken down: nothing."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from looper.edges.engines.local import LocalEngine, Threads
from looper.edges.environments.harness import HarnessEnvironment
from looper.edges.models.scripted import ScriptedModel
from looper.edges.workspaces.exports import GitSessions
from looper.errors import Cancelled
from looper.experiment.cell import RunContext, run_cell
from looper.experiment.ledger import Ledger
from looper.experiment.run import run_plan
from looper.journal import read_stream
from looper.protocols import Command, CommandResult, Sandbox
from looper.records.plan import Arm, Cell, Limits, Plan, RunManifest, TaskSelection
from looper.records.task import Task
from looper.records.trajectory import Step, Trajectory
from looper.records.verdict import Verdict


class Interrupting:
    """The sandbox of the session; its nth command does what `then` does before its result comes back."""

    def __init__(self, inner: Sandbox, number: int, then: Callable[[], None]) -> None:
        self.name, self.owner = inner.name, inner.owner
        self._inner, self._left, self._then = inner, number, then

    def run(self, command: Command) -> CommandResult:
        result = self._inner.run(command)
        self._left -= 1
        if self._left == 0:
            self._then()
        return result


class Silent:
    def finished(self, cell: Cell, verdict: Verdict) -> None:
        pass


@pytest.mark.parametrize(
    ("during", "steps", "trajectories"),
    [(1, 0, 0), (2, 2, 1)],
    ids=["in a step", "in the verification"],
)
def test_p01_what_ends_after_the_run_was_stopped_is_not_recorded(
    during: int,
    steps: int,
    trajectories: int,
    tmp_path: Path,
    task: Task,
    sessions: GitSessions,
    environments: HarnessEnvironment,
    sandbox: Sandbox,
    arm: Arm,
    limits: Limits,
) -> None:
    """Its workspace may have been removed under it: the result would be a false observation or a false verdict."""
    plan = Plan(
        experiment="stopping",
        profile="test",
        title="Stopping",
        hypothesis="A stopped run records no half-truths.",
        factor="none",
        arms=(arm,),
        selection=TaskSelection(suite="micro"),
        seeds=(0,),
        limits=limits,
        order="parallel",
    )
    manifest = RunManifest(
        plan=plan,
        code_version="test",
        tasks=(task.instance_id,),
        tasks_hash="",
        models={"base": ScriptedModel([]).identity()},
        environments=(environments.of(task).id,),
        sandbox=sandbox.name,
    )
    stop = threading.Event()
    model = ScriptedModel(["<bash>echo new > new.txt</bash>", "<done></done>"])
    run_context = RunContext(
        replace(sessions, sandbox=Interrupting(sandbox, during, stop.set)),
        lambda arm, task, adapter, server: model,
        "test",
    )
    ledger = Ledger(tmp_path, manifest)
    cell = Cell(arm="base", seed=0, instance_id=task.instance_id)
    try:
        with pytest.raises(Cancelled):
            run_plan(
                plan,
                plan.arms,
                {task.instance_id: task},
                [[cell]],
                ledger,
                LocalEngine(Threads(1), lambda job, tell: run_cell(job, run_context, tell, stop.is_set)),
                stop,
                Silent(),
            )
    finally:
        ledger.close()
    assert len(list(read_stream(tmp_path, "steps", Step))) == steps
    assert len(list(read_stream(tmp_path, "trajectories", Trajectory))) == trajectories
    assert not list(read_stream(tmp_path, "verdicts", Verdict))
