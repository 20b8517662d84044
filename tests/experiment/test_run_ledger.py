"""What a run does with the ends of its cells: what is tried again, what stops it, and where another process goes on."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.fakes.written_run import step, write_run

import looper.experiment.run as running
from looper.edges.engines.local import LocalEngine, Threads
from looper.errors import DiskNearlyFull, Drift, InfrastructureError, JournalError, LooperError
from looper.experiment.ledger import ActionCount, Ledger, differences, nothing_done
from looper.experiment.run import run_plan
from looper.journal import RunLock, Stream, read_stream
from looper.records.job import CellJob, Event
from looper.records.plan import Cell, RunManifest
from looper.records.seal import Seal
from looper.records.session import Session, Trained
from looper.records.task import Runner, Task
from looper.records.training import TrainingEvent
from looper.records.trajectory import Step, Trajectory
from looper.records.verdict import Outcome, Verdict
from looper.views.runs import read_run


def manifest_of(folder: Path) -> RunManifest:
    (found,) = read_stream(folder, "manifest", RunManifest)
    return found


@contextmanager
def opened(folder: Path, manifest: RunManifest | None = None) -> Iterator[Ledger]:
    ledger = Ledger(folder, manifest or manifest_of(folder))
    try:
        yield ledger
    finally:
        ledger.close()


def verdict_of(cell: str, outcome: Outcome, attempt: int = 1, cause: str = "", fault: str = "") -> Verdict:
    return Verdict(
        cell=cell, attempt=attempt, instance_id=cell.rpartition("/")[2], outcome=outcome, cause=cause, f2p_only=False, fail_to_pass={},
        pass_to_pass={}, stripped_paths=(), tampering=(), patch_hash="", environment="e", sandbox="none", verifier="1", wall_s=1.0,
        fault=fault,
    )  # fmt: skip


CELLS = ["base/0/a__b-1", "base/0/a__b-2", "other/0/a__b-1", "other/0/a__b-2"]
FIRST = Cell(arm="base", seed=0, instance_id="a__b-1")


def add(folder: Path, name: str, *records: Step | Trajectory | Verdict) -> None:
    stream: Stream[Step | Trajectory | Verdict] = Stream(folder, name, type(records[0]))
    for record in records:
        stream.append(record)
    stream.close()


def test_a_finished_run_leaves_nothing_to_go_on_with(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    with opened(folder) as ledger:
        assert ledger.over == set(CELLS) and ledger.resume(FIRST) is None and not ledger.sealed
        assert ledger.acted == {cell: ActionCount(steps=5) for cell in CELLS}


def test_what_was_cut_off_goes_on_behind_its_last_step_and_what_failed_outside_is_tried_again(
    tmp_path: Path,
) -> None:
    folder = write_run(tmp_path, judged=lambda cell: cell.startswith("other"))
    fresh = FIRST.model_copy(update={"seed": 1})
    with opened(folder) as ledger:
        assert ledger.over == set(CELLS[2:])
        left, new = ledger.resume(FIRST), ledger.resume(fresh)
        assert left is not None and (left.attempt, len(left.steps), left.trajectory) == (1, 5, None)
        assert new is not None and (new.attempt, new.steps) == (1, ())
    add(folder, "verdicts", verdict_of(CELLS[0], Outcome.INFRA_ERROR))
    again = [step(CELLS[0], at, 9, "x", "y").model_copy(update={"attempt": 2}) for at in (1, 2)]
    # The second was recorded twice, and would be replayed twice.
    add(folder, "steps", *again, again[1].model_copy(update={"action": None}))
    with opened(folder) as ledger:
        left = ledger.resume(FIRST)
        assert left is not None and (left.attempt, left.steps) == (2, tuple(again))
        assert ledger.over == set(CELLS[2:]) and ledger.acted[CELLS[0]] == ActionCount(steps=3, without=1)
        ledger.begin(4, "looper run x")
    (session,) = read_stream(folder, "sessions", Session)
    assert (session.workers, session.command, session.done_before) == (4, "looper run x", 3)


def test_a_rollout_that_was_over_is_only_judged_again(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    (end, *_) = read_stream(folder, "trajectories", Trajectory)
    (folder / "verdicts.jsonl").unlink()
    with opened(folder) as ledger:
        left = ledger.resume(FIRST)
        assert left is not None and left.trajectory == end and not ledger.over


def test_records_without_a_manifest_and_another_manifest_are_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    manifest = manifest_of(folder)
    other = manifest.model_copy(update={"code_version": "y"})
    with pytest.raises(Drift, match=r'was begun differently: code_version was "x" and is "y"\.$'):
        Ledger(folder, other)
    for name in ("steps", "verdicts"):
        alone = tmp_path / name
        alone.mkdir()
        (alone / f"{name}.jsonl").touch()
        with pytest.raises(
            JournalError, match=r"has records but no manifest\. Move it away and run again\.$"
        ):
            Ledger(alone, manifest)
    new = tmp_path / "new"
    with opened(new, manifest):
        assert manifest_of(new) == manifest
    with opened(new):
        assert len(list(read_stream(new, "manifest", RunManifest))) == 1


def test_a_run_is_done_nothing_of_while_it_has_no_step_and_no_verdict(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with opened(folder, manifest_of(write_run(tmp_path))):
        assert not nothing_done(folder), "somebody is at it"
    assert nothing_done(folder)
    add(folder, "verdicts", verdict_of(CELLS[0], Outcome.INFRA_ERROR))
    assert nothing_done(folder), "each attempt failed before its first step"
    add(folder, "verdicts", verdict_of(CELLS[0], Outcome.TAMPERED, 2))
    assert not nothing_done(folder)
    (folder / "verdicts.jsonl").unlink()
    add(folder, "steps", step(CELLS[0], 1, 2, "x", "y"))
    assert not nothing_done(folder)


def test_of_the_losses_of_a_training_one_a_second_is_kept_and_the_last(tmp_path: Path) -> None:
    losses = [TrainingEvent(event="loss", iteration=at, loss=1 / at) for at in (1, 2, 3)]
    finished = TrainingEvent(event="finished")
    folder = write_run(tmp_path)
    with opened(folder) as ledger:
        for what, event in [("a", losses[0]), ("b", losses[0]), ("a", losses[1]), ("a", losses[2]), ("a", finished), ("a", finished)]:  # fmt: skip
            ledger.trained(what, event)
    kept = [(found.what, found.event) for found in read_stream(folder, "trainings", Trained)]
    assert kept == [("a", losses[0]), ("b", losses[0]), ("a", losses[2]), ("a", finished), ("a", finished)]


def test_a_seal_says_what_the_files_are(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    with opened(folder) as ledger:
        ledger.seal({"a": "b"}, energy_j=5.0)
    with opened(fresh := tmp_path / "new", manifest_of(folder)) as ledger:
        ledger.seal({}, energy_j=5.0)
    (seal,), (new) = read_stream(folder, "seals", Seal), next(read_stream(fresh, "seals", Seal))
    assert (
        seal.files["verdicts"].lines == 4 and seal.files["steps"].lines == 20 and seal.adapters == {"a": "b"}
    )
    assert seal.files["steps"].bytes == (folder / "steps.jsonl").stat().st_size
    assert (seal.files["questions"].lines, seal.files["questions"].bytes) == (0, 0)
    assert seal.energy_j is None and new.energy_j == 5.0, "what another process has used is not known"
    with opened(folder) as ledger:
        assert ledger.sealed


def test_differences_are_named_by_what_a_plan_calls_its_parts(tmp_path: Path) -> None:
    manifest = manifest_of(write_run(tmp_path))

    def changed(**plan: object) -> RunManifest:
        return RunManifest.model_validate(
            json.loads(manifest.to_json()) | {"plan": json.loads(manifest.plan.to_json()) | plan}
        )

    arms = json.loads(manifest.plan.to_json())["arms"]
    warmer = [arms[0] | {"temperature": 0.5}, arms[1]]
    assert differences(manifest, changed(arms=warmer)) == "plan.arms[base].temperature was 0.0 and is 0.5"
    assert differences(manifest, changed(seeds=[1])) == "plan.seeds was [0] and is [1]"
    assert differences(manifest, changed(seeds=[0, 1])) == "plan.seeds was [0] and is [0, 1]"
    every = {name: f"other {name}" for name in ("title", "hypothesis", "factor")}
    assert differences(manifest, changed(**every), most=3).count("; ") == 2
    assert differences(manifest, changed(**every), most=2).endswith("; and 1 more")


class Told:
    """What of a run was told."""

    def __init__(self) -> None:
        self.ends: list[tuple[str, str]] = []

    def finished(self, cell: Cell, verdict: Verdict) -> None:
        self.ends.append((cell.key, verdict.outcome.value))


Ends = Callable[[str, int], Sequence[Event]]
TASK = Task(
    instance_id="a__b-1", suite="micro-0", repo="a/b", base_commit="c", created_at="2020-01-01", problem_statement="It is wrong.",
    difficulty=None, sequence_id="a/b", sequence_position=1, dependencies=(), modified_files=("x",), environment="harness",
    runner=Runner.PYTEST, test_targets=(), gold_patch="", test_patch="", fail_to_pass=("tests/test_x.py::test_x",), pass_to_pass=(),
)  # fmt: skip


def run_with(folder: Path, ends: Ends, *, attempts: int = 1, cells: int = 9) -> list[tuple[str, str]]:
    """Cells one after the other; `ends` gives what comes of an attempt at a cell. Each cell that is over, with its outcome."""
    written = manifest_of(write_run(folder / "written"))
    plan = written.plan.model_copy(update={"attempts": attempts})
    told = Told()

    def attempt(job: CellJob, tell: Callable[[Event], None]) -> None:
        for event in ends(job.cell.key, job.resume.attempt):
            tell(event)

    lane = [Cell(arm="base", seed=seed, instance_id="a__b-1") for seed in range(cells)]
    with opened(folder / "run", written.model_copy(update={"plan": plan})) as ledger:
        run_plan(
            plan, plan.arms, {"a__b-1": TASK}, [lane], ledger, LocalEngine(Threads(1), attempt), threading.Event(), told
        )  # fmt: skip
    return told.ends


def outcomes(*found: Outcome | str) -> Ends:
    """By cell in order; a text is the cause of a fault of Looper's own. The last goes on for ever."""

    def ends(cell: str, attempt: int) -> list[Event]:
        each = found[min(int(cell.split("/")[1]), len(found) - 1)]
        if isinstance(each, Outcome):
            return [verdict_of(cell, each, attempt, f"cause of {cell}")]
        return [verdict_of(cell, Outcome.INFRA_ERROR, attempt, each, "Traceback")]

    return ends


BAD, GOOD = Outcome.INFRA_ERROR, Outcome.UNRESOLVED


def test_the_sixth_cell_in_a_row_that_fails_outside_of_the_agent_stops_a_run(tmp_path: Path) -> None:
    assert len(run_with(tmp_path / "a", outcomes(*[BAD] * 5, GOOD, *[BAD] * 5, GOOD), cells=13)) == 13
    with pytest.raises(InfrastructureError) as stopped:
        run_with(tmp_path / "b", outcomes(GOOD, BAD))
    assert str(stopped.value) == (
        "6 cells in a row failed outside of the agent; the last: cause of base/6/a__b-1 Fix that, then run the same command again."
    )
    assert len(list(read_stream(tmp_path / "b" / "run", "verdicts", Verdict))) == 7


def test_the_sixth_fault_of_one_cause_in_a_row_stops_a_run(tmp_path: Path) -> None:
    alike, other = ["KeyError: x"] * 5, ["KeyError: y"] * 5
    assert len(run_with(tmp_path / "a", outcomes(*alike, *other, GOOD, *other, GOOD), cells=17)) == 17
    with pytest.raises(LooperError) as stopped:
        run_with(tmp_path / "b", outcomes("KeyError: y", "KeyError: x"))
    assert str(stopped.value) == (
        "6 cells in a row met the same fault of Looper's own: KeyError: x. Its traceback: looper show base/6/a__b-1 --run run. Fix it, or "
        "leave these tasks out."
    )
    # It says nothing of the world, so cells that fail outside are in a row across it.
    with pytest.raises(InfrastructureError):
        run_with(tmp_path / "c", outcomes(BAD, BAD, BAD, "KeyError: x", BAD))


@pytest.mark.parametrize("attempts", [1, 3])
def test_a_cell_is_tried_as_often_as_the_plan_says_and_no_more_once_it_has_a_verdict(
    tmp_path: Path, attempts: int
) -> None:
    tried: list[int] = []

    def ends(cell: str, attempt: int) -> list[Event]:
        tried.append(attempt)
        good = int(cell.split("/")[1]) == 1
        return [verdict_of(cell, GOOD if good else BAD, attempt)]

    found = run_with(tmp_path, ends, attempts=attempts, cells=2)
    assert [outcome for _, outcome in found] == ["infra_error", "unresolved"]
    assert tried == [*range(1, attempts + 1), 1]
    tried.clear()
    # Another process gives the cell that failed as many attempts again, and leaves the other alone.
    again = by_another_process(tmp_path, ends, attempts)
    assert tried == list(range(attempts + 1, 2 * attempts + 1)) and len(again) == 1


def by_another_process(folder: Path, ends: Ends, attempts: int) -> list[tuple[str, str]]:
    (folder / "written").rename(folder / "before")
    return run_with(folder, ends, attempts=attempts, cells=2)


def test_an_arm_that_says_nothing_that_can_be_read_runs_no_more_tasks(tmp_path: Path) -> None:
    def ends(cell: str, attempt: int) -> list[Event]:
        mute = [step(cell, at, 9, "x", "y").model_copy(update={"action": None}) for at in (1, 2)]
        return [*mute, verdict_of(cell, GOOD, attempt)]

    found = run_with(tmp_path, ends, cells=30)
    run = read_run(tmp_path / "run")
    (proof,) = [proof for proof in run.proofs if not proof.passed]
    count = len(found)
    assert 1 < count < 10 and proof.arm == "base"
    assert proof.said == (
        f"{2 * count} of {2 * count} steps held no action that could be read, in {count} rollouts: more than 20 % of an arm's, at 0.01"
    )


def test_a_disk_that_is_nearly_full_begins_no_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "FREE_BYTES", 1 << 70)
    with pytest.raises(DiskNearlyFull) as stopped:
        run_with(tmp_path, outcomes(GOOD))
    free, needed = (int(word) for word in str(stopped.value).split() if word.isdigit())
    assert needed == 1 << 50 and 0 < free < 1 << 30, "MiB"
    assert not list(read_stream(tmp_path / "run", "verdicts", Verdict))


def test_nobody_else_writes_a_run_that_is_running(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    with opened(folder), pytest.raises(LooperError):
        RunLock(folder)
