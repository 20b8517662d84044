"""What one run judged, another takes over, where everything that decides it is the same."""

from dataclasses import replace
from pathlib import Path

import pytest

from looper.edges.models.scripted import ScriptedModel
from looper.edges.verdicts import StoredVerdicts
from looper.edges.workspaces.exports import GitSessions
from looper.experiment.cell import RunContext, run_cell
from looper.protocols import Command, CommandResult, Sandbox
from looper.records.job import CellJob
from looper.records.model import ModelSpec
from looper.records.plan import Arm, Cell, Limits
from looper.records.task import Task
from looper.records.verdict import Outcome, Verdict


class Counting:
    """The session's sandbox, counting what it runs."""

    def __init__(self, inner: Sandbox) -> None:
        self.name, self.owner, self.runs = inner.name, inner.owner, 0
        self._inner = inner

    def run(self, command: Command) -> CommandResult:
        self.runs += 1
        return self._inner.run(command)


class Bench:
    """Cells of one task whose agent writes a file and is done."""

    def __init__(self, run_context: RunContext, arm: Arm, limits: Limits) -> None:
        self.run_context, self.arm, self.limits = run_context, arm, limits

    def judge(self, task: Task, arm: Arm | None = None) -> Verdict:
        cell = Cell(arm="base", seed=0, instance_id=task.instance_id)
        job = CellJob(cell=cell, arm=arm or self.arm, task=task, limits=self.limits)
        return run_cell(job, self.run_context, lambda event: None)


@pytest.fixture
def counting(sandbox: Sandbox) -> Counting:
    return Counting(sandbox)


def bench(
    counting: Counting,
    sessions: GitSessions,
    arm: Arm,
    limits: Limits,
    folder: Path,
    run: str,
) -> Bench:
    model = ScriptedModel(['<write path="new.txt">\nnew\n</write>', "<done></done>"])
    kept = StoredVerdicts(folder, run)
    return Bench(
        RunContext(
            replace(sessions, sandbox=counting), lambda arm, task, adapter, server: model, "test", judged=kept
        ),
        arm.model_copy(update={"model": ModelSpec(backend="scripted", name="script")}),
        limits,
    )


def test_the_tests_of_equal_patches_run_once_over_all_runs(
    counting: Counting,
    sessions: GitSessions,
    arm: Arm,
    limits: Limits,
    task: Task,
    tmp_path: Path,
) -> None:
    def new(run: str) -> Bench:
        return bench(counting, sessions, arm, limits, tmp_path / "verdicts", run)

    first = new("first").judge(task)
    assert first.outcome is Outcome.UNRESOLVED and not first.same_as and counting.runs == 1
    again = new("second").judge(task)
    assert counting.runs == 1 and again.same_as == "first:base/0/" + task.instance_id + "#1"
    assert again.fail_to_pass == first.fail_to_pass and again.cell == first.cell
    relabelled = task.model_copy(update={"pass_to_pass": task.pass_to_pass[1:]})
    assert not new("third").judge(relabelled).same_as and counting.runs == 2, (
        "other labels, another judgement"
    )
    roomier = new("larger")
    roomier.limits = limits.model_copy(update={"memory_mb": 2 * limits.memory_mb})
    assert not roomier.judge(task).same_as and counting.runs == 3, "more memory, another judgement"
    assert arm.model.backend == "noop"
    assert not new("fourth").judge(task, arm).same_as and counting.runs == 4, "a control shows that tests run"
    for path in (tmp_path / "verdicts").glob("*/*.json"):
        path.write_text('{"cell": ')
    assert not new("fifth").judge(task).same_as and counting.runs == 5, "what is damaged was never judged"
    assert new("sixth").judge(task).same_as.startswith("fifth:") and counting.runs == 5, "and is mended"


def test_a_damaged_verdict_was_never_judged(tmp_path: Path) -> None:
    kept = StoredVerdicts(tmp_path, "run")
    (tmp_path / "ab").mkdir()
    (tmp_path / "ab" / "abc.json").write_text('{"cell": ')
    assert kept.get("abc") is None and kept.get("abd") is None
