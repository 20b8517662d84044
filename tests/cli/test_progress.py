"""What is said while nothing ends."""

import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from tests.fakes.written_run import write_run

from looper.cli import progress
from looper.cli.plans import RunOptions
from looper.cli.progress import LOG_EVERY_S, RunProgress, Spoken, Waits
from looper.cli.running import run
from looper.cli.settings import settings
from looper.journal import read_stream
from looper.records.plan import Cell
from looper.records.verdict import Verdict


def test_c8_a_wait_is_said_once_for_all_who_wait_and_again_before_long() -> None:
    said: list[tuple[float, str]] = []
    now = 0.0
    waits = Waits(lambda line: said.append((now, line)), lambda: now)
    while now < 60:
        for _ in range(8):
            waits("Nobody is there.", 60 - now)
        now += 2.0
    assert said[0] == (0.0, "Nobody is there. Asking again in 60 s.")
    assert all(then - first <= LOG_EVERY_S for (first, _), (then, _) in pairwise(said)) and len(said) < 10


def test_what_is_counted_after_an_interruption_says_since_when(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = Cell(arm="base", seed=0, instance_id="task")
    (verdict, *_) = read_stream(write_run(tmp_path / "run"), "verdicts", Verdict)
    with RunProgress(Path("x"), "", total=5, todo=1) as shown:
        shown.finished(cell, verdict)
    assert "5/5 cells, since it was resumed 1 unresolved" in capsys.readouterr().err


def test_of_several_phases_each_line_names_its_own_and_what_the_time_left_is_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Experience is one phase and the evaluation another: what is left of the first is not what is left of the run."""
    (verdict, *_) = read_stream(write_run(tmp_path / "run"), "verdicts", Verdict)
    with RunProgress(Path("x"), "experience", total=2, todo=1, later=24) as shown:
        shown.finished(Cell(arm="base", seed=0, instance_id="task"), verdict)
    first, last = capsys.readouterr().err.splitlines()
    assert first == "x: experience 2 cells, 1 done before, 1 to do; after this phase 24 cells to evaluate"
    assert last.startswith("experience 2/2 cells, since") and last.endswith(" left of this phase")
    with RunProgress(Path("x"), "evaluation", total=2, todo=1, later=0) as shown:
        shown.finished(Cell(arm="base", seed=0, instance_id="task"), verdict)
    first, last = capsys.readouterr().err.splitlines()
    assert (
        first.endswith("1 to do")
        and last.startswith("evaluation 2/2 cells, ")
        and last.endswith(" of this phase")
    )


def test_c8_a_run_says_that_it_is_alive_while_no_cell_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LOG_EVERY_S", 0.5)
    with RunProgress(Path("x"), "", total=5, todo=3):
        time.sleep(2.5)
    lines = capsys.readouterr().err.splitlines()[1:]
    assert len(lines) >= 2 and all(line.startswith("2/5 cells, none ended for ") for line in lines)


def test_what_takes_long_is_said_where_nothing_else_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LOG_EVERY_S", 1.0)
    lines: list[str] = []
    say = Spoken(lines.append)
    with say.during("training"):
        time.sleep(2.5)
    assert len(lines) >= 2 and all(line.startswith("training, for ") for line in lines)
    before = len(lines)
    time.sleep(1.5)
    assert len(lines) == before, "it is over"
    with say.during("training"):
        for _ in range(10):
            say("a step")
            time.sleep(0.25)
    assert set(lines[before:]) == {"a step"}


def test_a_run_says_what_it_does_before_its_cells(
    tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LOG_EVERY_S", 0.02)
    here = replace(settings(), state=state, runs=tmp_path / "runs", workspaces=state / "workspaces")
    lines: list[str] = []
    run(RunOptions("exp00", "demo", arms=("base",), limit=1), here, lines.append)
    said = {line.partition(", for ")[0] for line in lines}
    assert said >= {"looking at the models", "base: checking the context"}
