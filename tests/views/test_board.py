"""What a real run leaves for those who watch it: who was at it, how its trainings went, how far each phase is."""

import html
import os
import re
import shutil
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.experiment.test_run import Project
from tests.serve.conftest import serving

from looper.journal import RunLock, Stream, read_stream
from looper.records.plan import ArmRole
from looper.records.session import Session
from looper.records.treatment import Consolidation
from looper.records.verdict import Verdict
from looper.views.board import AT_WORK, CellQuery, cell_page, curves, squares
from looper.views.live import RunStatus, at_work, described, standing
from looper.views.runs import read_run


@pytest.fixture
def project(tmp_path: Path, state: Path) -> Project:
    return Project(tmp_path, state)


def test_a_run_says_who_was_at_it_and_how_its_trainings_went(finished: Project) -> None:
    run = read_run(finished.run)
    assert [session.workers for session in run.sessions] == [2] and run.sessions[0].done_before == 0
    shown = curves(run)
    assert shown["losses"] and all(training["loss"] for training in shown["losses"])
    named = {training["what"] for training in shown["losses"]}
    assert all(any(arm in what for what in named) for arm in ("lora", "in_batches"))
    for arm in run.manifest.plan.arms:
        outcomes = run.outcomes(arm.name).values()
        assert abs(shown["shares"][arm.name][-1] - sum(outcomes) / len(outcomes)) < 1e-3


def test_every_cell_is_a_square_in_the_row_of_its_arm_and_seed(finished: Project) -> None:
    run = read_run(finished.run)
    rows = dict(squares(run))
    base = next(arm for arm in run.manifest.plan.arms if arm.role is ArmRole.BASE)
    assert set(rows) == {f"{arm.name} · {seed}" for arm in run.manifest.plan.arms for seed in (0, 1)}
    for square in rows[f"{base.name} · 1"]:
        assert square.mark == ("y" if run.outcomes(base.name)[square.cell.partition("/")[2]] else "n")


def moment(run: Path, folder: Path, verdicts: int, learned: int) -> Path:
    """The run as it was when it had only so many verdicts and consolidations; one process began it 100 s ago, and what was learned
    is 60 s old."""
    shutil.copytree(run, folder)
    for name, kind, count in (("verdicts", Verdict, verdicts), ("consolidations", Consolidation, learned)):
        records = list(read_stream(run, name, kind))[:count]
        (folder / f"{name}.jsonl").unlink()
        stream: Stream[Verdict | Consolidation] = Stream(folder, name, kind)
        for record in records:
            stream.append(record)
        stream.close()
    for name in ("seals", "sessions"):
        (folder / f"{name}.jsonl").unlink()
    begun = (datetime.now(UTC) - timedelta(seconds=100)).isoformat()
    sessions = Stream(folder, "sessions", Session)
    sessions.append(Session(pid=os.getpid(), workers=2, begun=begun, done_before=0))
    sessions.close()
    for name in ("consolidations", "proofs"):
        os.utime(folder / f"{name}.jsonl", (time.time() - 60, time.time() - 60))
    return folder


def test_each_phase_has_its_own_progress_and_time(finished: Project, tmp_path: Path) -> None:
    whole = read_run(finished.run)
    arms = {arm.name for arm in whole.manifest.plan.arms}
    names = [verdict.cell.partition("/")[0] for verdict in whole.verdicts]
    gathered, learned = sum(name not in arms for name in names), len(whole.consolidations)
    assert gathered and all(name not in arms for name in names[:gathered]), "experience comes first"
    evaluated = len(names) - gathered

    def told(
        verdicts: int, made: int
    ) -> tuple[list[tuple[str, int, int]], list[list[int] | None], list[int] | None]:
        folder = moment(finished.run, tmp_path / f"at{verdicts}-{made}", verdicts, made)
        lock = RunLock(folder)
        try:
            said = described(read_run(folder))
        finally:
            lock.close()
        return [tuple(phase.values()) for phase in said["phases"]], said["phases_left_s"], said["left_s"]

    half = gathered // 2
    found, left, total = told(half, 0)
    assert found == [("experience", half, gathered), ("learning", 0, learned), ("evaluation", 0, evaluated)]
    assert left[0] is not None and left[0][0] == pytest.approx(100 / half * (gathered - half), abs=3)
    assert left[1:] == [None, None] and total is None, "what nobody has measured yet is not guessed"
    found, left, total = told(gathered, learned - 1)
    assert found[1] == ("learning", learned - 1, learned) and left[0] is None and total is None
    found, left, total = told(gathered + 6, learned)
    assert found[2] == ("evaluation", 6, evaluated)
    assert total == left[2] and total is not None, "of what is over nothing is left"
    about, low, high = total
    assert about == pytest.approx(60 / 6 * (evaluated - 6), abs=3), "trainings are not counted as cells"
    assert low < about < high
    assert described(whole)["left_s"] is None


def test_the_page_names_every_phase_with_its_own_progress_and_what_is_not_measured(
    finished: Project, tmp_path: Path
) -> None:
    """In the middle of what is learned: the phase before has no time left, this one has its own, the next one none yet."""
    whole = read_run(finished.run)
    arms = {arm.name for arm in whole.manifest.plan.arms}
    gathered = sum(verdict.cell.partition("/")[0] not in arms for verdict in whole.verdicts)
    made, evaluated = len(whole.consolidations), len(whole.verdicts) - gathered
    folder = moment(finished.run, tmp_path / "runs" / "half", gathered, made - 1)
    lock = RunLock(folder)
    try:
        with serving(folder.parent, tmp_path / "audit") as served, served.browser() as client:
            page = client.get(f"/runs/{folder.name}").text
    finally:
        lock.close()
    rows = {
        name: [html.unescape(re.sub("<[^>]+>", "", cell)).strip() for cell in re.findall("<td.*?</td>", row)]
        for name, row in re.findall(r'<tr data-phase="(\w+)">(.*?)</tr>', page, re.DOTALL)
    }
    assert {name: cells[1] for name, cells in rows.items()} == {
        "experience": f"{gathered} of {gathered} cells",
        "learning": f"{made - 1} of {made} adapters and memories",
        "evaluation": f"0 of {evaluated} cells",
    }
    left = {name: cells[2] for name, cells in rows.items()}
    assert (
        left["experience"] == "" and "left" in left["learning"] and left["evaluation"] == "not measured yet"
    )


def test_after_a_kill_nothing_is_at_work_until_somebody_goes_on_and_then_no_more_than_are_worked_on(
    project: Project,
) -> None:
    """A real run, killed with two rollouts begun; gone on with by one worker, the other rollout waits for its turn."""
    (project.folder / "script.txt").write_text(
        "<bash>ls</bash>\n---\n<bash>sleep 60</bash>\n---\n<done></done>"
    )

    def working(process: "subprocess.Popen[str]", rollouts: int) -> list[str]:
        until = time.monotonic() + 900
        while time.monotonic() < until and process.poll() is None:
            if any(path.stat().st_size for path in project.folder.glob("runs/*/sessions.jsonl")):
                run = read_run(project.run)
                cells = [row.cell for row in cell_page(run, CellQuery(outcome=AT_WORK)).rows]
                # Both look at the run as it is when they are asked, one after the other.
                same = sorted(cells) == sorted(cell for cell, _, _ in at_work(run))
                if same and len(run.sessions) == len(killed) + 1 and len(cells) == rollouts:
                    return cells
            time.sleep(0.1)
        raise AssertionError(process.communicate())

    killed: list[list[str]] = []
    for workers, rollouts in ((2, 2), (1, 1)):
        with project.start("run", "test", "--arm", "base", "--workers", str(workers)) as process:
            killed.append(working(process, rollouts))
            process.kill()
        run = read_run(project.run)
        assert standing(run, time.time()) is RunStatus.STOPPED and not at_work(run)
        assert not cell_page(run, CellQuery(outcome=AT_WORK)).rows
        assert described(run)["left_s"] is None
    assert set(killed[1]) < set(killed[0])
