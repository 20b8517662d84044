"""How far a run is, on a terminal and for programs."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from looper.journal import RunLock, Stream, Tail
from looper.records.session import Session
from looper.records.verdict import Verdict
from looper.serve.watcher import BEHIND, Watcher
from looper.views.live import Projection, RunStatus, at_work, described, quiet_limit_s, standing
from looper.views.runs import RunTail, read_run
from tests.cli.test_commands import looper
from tests.fakes.written_run import fails, write_run


def begun(folder: Path, seconds_ago: float, done_before: int = 0) -> None:
    at = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    stream = Stream(folder, "sessions", Session)
    stream.append(Session(pid=os.getpid(), workers=2, begun=at.isoformat(), done_before=done_before))
    stream.close()


def test_what_is_left_comes_from_what_this_process_has_done(runs: Path) -> None:
    folder = write_run(
        runs, tasks=[f"a__b-{number}" for number in range(10)], judged=lambda cell: cell.startswith("base")
    )
    assert described(read_run(folder))["left_s"] is None, "nobody is at it"
    begun(folder, 100)
    lock = RunLock(folder)
    try:
        about, low, high = described(read_run(folder))["left_s"]
        assert low <= about <= high
        assert about == pytest.approx(100, abs=5), "ten cells took 100 s, ten are left"
        begun(folder, 100, done_before=8)
        assert described(read_run(folder))["left_s"] is None, "two cells say nothing"
    finally:
        lock.close()


def test_an_arm_that_failed_at_work_took_its_time_and_leaves_nothing_to_do(runs: Path) -> None:
    """Its cells count among what was done in the time, and that its failure was recorded just now begins nothing anew."""
    done = ("base", "other/0/a__b-1", "other/0/a__b-2", "other/0/a__b-3", "other/0/a__b-4")
    folder = write_run(
        runs,
        arms=("base", "other", "third"),
        tasks=[f"a__b-{number}" for number in range(1, 10)],
        judged=lambda cell: cell.startswith(done),
    )
    begun(folder, 130)
    fails(folder, "other", "31 of 40 steps held no action")
    lock = RunLock(folder)
    try:
        run = read_run(folder)
        about, _, _ = described(run)["left_s"]
    finally:
        lock.close()
    assert run.planned - run.finished == 9
    assert about == pytest.approx(90, abs=5), "13 cells took 130 s, 9 are left"
    assert not any(cell.startswith("other") for cell, _, _ in at_work(run))


def test_silence_for_longer_than_cells_take_is_a_stall(runs: Path) -> None:
    folder = write_run(runs, judged=lambda cell: cell.endswith("-1"))
    assert standing(read_run(folder), time.time()) is RunStatus.STOPPED
    lock = RunLock(folder)
    try:
        run = read_run(folder)
        assert standing(run, time.time()) is RunStatus.RUNNING
        assert standing(run, time.time() + quiet_limit_s(run) + 1) is RunStatus.STALLED
    finally:
        lock.close()


def test_one_screen_fits_a_terminal_and_says_what_status_says(runs: Path) -> None:
    for number in range(9):
        write_run(runs, experiment=f"many{number}", arms=("base", *(f"arm_{at}" for at in range(20))))
    (runs / "broken").mkdir()
    (runs / "broken" / "manifest.jsonl").write_text("nothing\n")
    size = {"COLUMNS": "80", "LINES": "24", "LOOPER_RUNS": str(runs)}
    shown = looper("watch", "--once", cwd=runs.parent, **size)
    lines = shown.stdout.splitlines()
    assert shown.returncode == 0 and len(lines) <= 24 and max(map(len, lines)) <= 80, shown.stdout
    assert "42/42" in lines[0] and "finished" in lines[0]
    assert any(line.split()[:4] == ["arm_0", "2", "2", "100"] for line in lines)
    assert lines[-1].startswith("broken is no usable run folder"), "R5: named, wherever the runs lie"
    said = looper("status", cwd=runs.parent, **size).stdout
    assert said.count("42 of 42 cells, finished\n") == 9
    empty = looper("watch", "--once", cwd=runs.parent, **{**size, "LOOPER_RUNS": str(runs.parent / "none")})
    assert "looper run exp00" in empty.stdout


def test_programs_watch_by_an_object_a_line_each_as_status_has_it(runs: Path, tmp_path: Path) -> None:
    mine = write_run(runs, experiment="mine")
    write_run(runs, experiment="other")
    here = {"LOOPER_RUNS": str(runs)}
    (line,) = looper("watch", "--once", "--json", cwd=runs.parent, **here).stdout.splitlines()
    status = json.loads(looper("status", "--json", cwd=runs.parent, **here).stdout)
    assert json.loads(line).keys() == status.keys() and len(json.loads(line)["runs"]) == 2
    asked = ["watch", "--json", "--every", "0.2", "--run", mine.name]
    with subprocess.Popen(
        [sys.executable, "-m", "looper", *asked],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **here},
        # Whoever began this in the background had it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout
        seen = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert [[run["run"] for run in each["runs"]] for each in seen] == [[mine.name]] * 3


def test_a_tail_reads_each_line_once_and_a_file_that_was_replaced_anew(runs: Path) -> None:
    folder, other = write_run(runs), write_run(runs.parent / "other")
    tail = Tail(folder, "verdicts", Verdict)
    assert tail.refresh() and len(tail.records) == 4 and not tail.refresh()
    line = (folder / "verdicts.jsonl").read_bytes().splitlines(keepends=True)[0]
    with (folder / "verdicts.jsonl").open("ab") as stream:
        stream.write(line[:50])
    assert not tail.refresh() and not tail.damage
    with (folder / "verdicts.jsonl").open("ab") as stream:
        stream.write(line[50:])
    first = tail.records[0]
    assert tail.refresh() and len(tail.records) == 5 and tail.records[0] is first
    (other / "verdicts.jsonl").replace(folder / "verdicts.jsonl")
    assert tail.refresh() and len(tail.records) == 4
    (folder / "verdicts.jsonl").unlink()
    assert tail.refresh() and tail.records == []


def test_a_view_stays_the_same_until_something_is_different(runs: Path) -> None:
    folder = write_run(runs)
    tail = RunTail(folder)
    tail.refresh()
    view = tail.view()
    assert not tail.refresh() and tail.view() is view, "so nothing is counted twice"
    begun(folder, 1)
    assert tail.refresh() and tail.view() is not view


def test_who_reads_too_slowly_is_told_everything_anew(runs: Path) -> None:
    folder = write_run(runs, judged=lambda cell: False)

    async def told() -> list[str]:
        watcher = Watcher(Projection(runs))
        events = watcher.listen()
        names = [(await anext(events))[1]]
        status = watcher._projection.status()
        for _ in range(BEHIND + 3):
            watcher._tell(("", "changed", {}), status)
        names += [(await anext(events))[1] for _ in range(2)]
        await events.aclose()
        return names

    assert folder.exists() and asyncio.run(told()) == ["status", "status", "changed"]


def test_a_look_that_fails_ends_the_streams_so_that_browsers_come_back(runs: Path) -> None:
    class Broken(Projection):
        looks = 0

        def status(self) -> dict[str, Any]:
            self.looks += 1
            if self.looks > 1:
                raise RuntimeError("the disk is gone")
            return super().status()

    async def told() -> list[str]:
        return [name async for _, name, _ in Watcher(Broken(runs)).listen()]

    assert asyncio.run(asyncio.wait_for(told(), 10)) == ["status"]


def test_pages_that_ask_at_once_read_each_step_once(runs: Path) -> None:
    folder = write_run(runs, steps=300)
    for _ in range(10):
        tail = RunTail(folder)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: tail.steps(), range(8)))
        counts = {len(entry.places) for entry in tail.steps().attempts.values()}
        assert counts == {300}
