"""What one cell of a plan is worked on with."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from looper.edges.engines.local import LocalEngine, Threads
from looper.edges.workspaces.exports import GitSessions
from looper.errors import SandboxUnavailable
from looper.experiment.cell import RunContext, run_cell
from looper.experiment.grading import GRADING, arm_names, grading_plan, identity_of, trajectories
from looper.experiment.ledger import Ledger
from looper.experiment.run import run_plan
from looper.journal import read_stream
from looper.protocols import ChatModel, Command, CommandResult, Sandbox
from looper.records.foreign import Prediction
from looper.records.plan import Arm, Cell, RunManifest
from looper.records.sampling import sampling_seed
from looper.records.task import Task
from looper.records.trajectory import Trajectory
from looper.records.verdict import Outcome, Verdict


class FailsAtFirst:
    """A sandbox that does not start so many times."""

    def __init__(self, inner: Sandbox, times: int) -> None:
        self.name, self.owner, self._inner, self._times = inner.name, inner.owner, inner, times

    def run(self, command: Command) -> CommandResult:
        self._times -= 1
        if self._times >= 0:
            raise SandboxUnavailable("it did not start")
        return self._inner.run(command)


class Silent:
    def finished(self, cell: Cell, verdict: Verdict) -> None:
        pass


@pytest.mark.parametrize(("times", "outcome"), [(1, Outcome.RESOLVED), (9, Outcome.INFRA_ERROR)])
def test_v5_another_attempt_judges_the_same_prediction_again(
    tmp_path: Path,
    task: Task,
    sessions: GitSessions,
    sandbox: Sandbox,
    times: int,
    outcome: Outcome,
) -> None:
    def no_model(arm: Arm, task: Task, adapter: str) -> ChatModel:
        raise AssertionError("a prediction has no model to ask")

    prediction = Prediction(instance_id=task.instance_id, model="m", patch=task.gold_patch)
    plan = grading_plan(Path("p.jsonl"), [prediction], "micro", 0, GRADING).model_copy(update={"attempts": 2})
    (made,) = trajectories(plan, [prediction], "test", "s", {task.instance_id: "e"})
    run_context = RunContext(replace(sessions, sandbox=FailsAtFirst(sandbox, times)), no_model, "test")
    manifest = RunManifest(
        plan=plan, code_version="test", tasks=(task.instance_id,), tasks_hash="",
        models={arm.name: identity_of(arm) for arm in plan.arms}, environments=("e",), sandbox="s",
    )  # fmt: skip
    ledger = Ledger(tmp_path, manifest)
    cell = Cell(arm=arm_names(["m"])["m"], seed=0, instance_id=task.instance_id)
    engine = LocalEngine(Threads(1), lambda job, tell: run_cell(job, run_context, tell))
    try:
        run_plan(
            plan, plan.arms, {task.instance_id: task}, [[cell]], ledger, engine, threading.Event(), Silent(),
            made={made.cell: made},
        )  # fmt: skip
    finally:
        ledger.close()
    ends = list(read_stream(tmp_path, "trajectories", Trajectory))
    verdicts = list(read_stream(tmp_path, "verdicts", Verdict))
    last = verdicts[-1]
    assert last.outcome is outcome and [found.attempt for found in verdicts] == [1, 2]
    assert [(end.attempt, end.patch) for end in ends] == [(1, task.gold_patch), (2, task.gold_patch)]


def test_arms_of_one_seed_share_their_luck_and_repeats_do_not(arm: Arm) -> None:
    cell = Cell(arm="base", seed=0, instance_id="t-1")
    other = arm.model_copy(update={"name": "other"})
    again = arm.model_copy(update={"name": "again", "repetition": 1})
    mine = sampling_seed(cell, arm)
    assert sampling_seed(cell.model_copy(update={"arm": "other"}), other) == mine
    different = [
        sampling_seed(cell, again),
        sampling_seed(cell.model_copy(update={"seed": 1}), arm),
        sampling_seed(cell.model_copy(update={"instance_id": "t-2"}), arm),
    ]
    assert len({mine, *different}) == 4


def test_v8_arms_of_models_have_names_of_their_own_whatever_the_models_are_called() -> None:
    assert arm_names(["x y", "x_y", "x_y_1"]) == {"x y": "m_x_y_2", "x_y": "m_x_y_3", "x_y_1": "m_x_y_1"}
    assert arm_names(["A", "a"]) == {"A": "m_a_1", "a": "m_a_2"}
