"""Requests in flight: a treatment that no plan names, recorded with each reply and compared between arms."""

from dataclasses import replace
from pathlib import Path

from tests.experiment.test_run import Project
from tests.fakes.written_run import write_run

from looper.journal import read_stream
from looper.records.trajectory import Step, Trajectory
from looper.views.concurrency import concurrency_lines, in_flight
from looper.views.runs import RunView, read_run


def counted(folder: Path, counts: dict[str, float]) -> RunView:
    """The run, its rollouts with so many requests in flight, by arm."""
    run = read_run(folder)
    ends = tuple(end.model_copy(update={"in_flight": counts[end.arm]}) for end in run.trajectories)
    return replace(run, trajectories=ends)


def test_arms_that_were_asked_under_unlike_load_are_named_with_their_medians(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    assert concurrency_lines(read_run(folder)) == [], "nobody counted"
    (line,) = concurrency_lines(counted(folder, {"base": 25.0, "other": 8.0}))
    assert line.startswith("requests in flight, median: other 8, base 25.")


def test_nothing_is_said_where_the_load_was_the_same(tmp_path: Path) -> None:
    run = counted(write_run(tmp_path), {"base": 8.0, "other": 8.0})
    assert in_flight(run) == {"base": 8, "other": 8} and not concurrency_lines(run)


def test_arms_that_other_servers_answered_are_named_with_their_shares(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path, tasks=("a__b-1", "a__b-2", "a__b-3", "a__b-4")))

    def on(base: list[tuple[int, ...]], other: list[tuple[int, ...]]) -> list[str]:
        left = {"base": list(base), "other": list(other)}
        ends = tuple(end.model_copy(update={"servers": left[end.arm].pop(0)}) for end in run.trajectories)
        return concurrency_lines(replace(run, trajectories=ends))

    assert on([(1,), (2,), (1,), (2,)], [(2,), (1,), (1,), (2,)]) == []
    (line,) = on([(1,), (1,), (1,), (1, 2)], [(2,), (2,), (1,), (1,)])
    assert line.startswith("rollouts by server 1, 2: base 88, 12 %; other 50, 50 %.")


def test_every_reply_of_a_served_model_has_its_count_and_every_rollout_their_median(
    finished: Project,
) -> None:
    counts = {
        (step.cell, step.attempt): step.reply.in_flight for step in read_stream(finished.run, "steps", Step)
    }
    assert set(counts.values()) <= {1, 2}, "two workers"
    ends = list(read_stream(finished.run, "trajectories", Trajectory))
    assert ends and all(end.in_flight is not None and 1 <= end.in_flight <= 2 for end in ends)
