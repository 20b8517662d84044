"""Requests in flight: a treatment that no plan names, recorded with each reply and compared between arms."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tests.experiment.test_run import Project
from tests.fakes.written_run import write_run

from looper.journal import read_stream
from looper.records.model import ModelSpec
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


def _on_servers(
    run: RunView, servers: Mapping[str, str], by: Mapping[str, list[tuple[int, ...] | None]]
) -> list[str]:
    """The lines of a run whose arms have these servers, and whose rollouts were answered so."""
    left = {arm: list(each) for arm, each in by.items()}
    ends = tuple(end.model_copy(update={"servers": left[end.arm].pop(0)}) for end in run.trajectories)
    plan = run.manifest.plan
    arms = tuple(
        arm.model_copy(update={"model": ModelSpec(backend="openai", name="m", base_url=servers[arm.name])})
        for arm in plan.arms
    )
    manifest = run.manifest.model_copy(update={"plan": plan.model_copy(update={"arms": arms})})
    return concurrency_lines(replace(run, trajectories=ends, manifest=manifest))


def test_arms_that_other_servers_answered_are_named_with_their_shares_and_what_came_of_each(
    tmp_path: Path,
) -> None:
    run = read_run(write_run(tmp_path, tasks=("a__b-1", "a__b-2", "a__b-3", "a__b-4")))
    both = {"base": "http://a,http://b", "other": "http://a,http://b"}
    even, uneven = [(1,), (2,), (1,), (2,)], [(1,), (1,), (1,), (1, 2)]
    assert _on_servers(run, both, {"base": even, "other": [(2,), (1,), (1,), (2,)]}) == [
        "server http://a: 4 rollouts, 2 resolved; ended by done 4",
        "server http://b: 4 rollouts, 2 resolved; ended by done 4",
    ]
    line, *_ = _on_servers(run, both, {"base": uneven, "other": even})
    assert line.startswith("rollouts by server http://a, http://b: base 88, 12 %; other 50, 50 %.")
    # An arm with one of the two, arms with others, and the same ones in another order.
    line, *_ = _on_servers(run, {**both, "base": "http://a"}, {"base": [None] * 4, "other": even})
    assert line.startswith("rollouts by server http://a, http://b: base 100, 0 %; other 50, 50 %.")
    line, *_ = _on_servers(run, {**both, "base": "http://c,http://d"}, {"base": even, "other": even})
    assert line.startswith("rollouts by server http://a, http://b, http://c, http://d: base 0, 0, 50, 50 %")
    first, *_ = _on_servers(
        run, {**both, "base": "http://b,http://a"}, {"base": [(2,)] * 4, "other": [(1,)] * 4}
    )
    assert first.startswith("server http://a: 8 rollouts")
    assert not _on_servers(
        run, {"base": "http://a", "other": "http://b"}, {"base": [None] * 4, "other": [None] * 4}
    ), "no arm has several"


def test_every_reply_of_a_served_model_has_its_count_and_every_rollout_their_median(
    finished: Project,
) -> None:
    counts = {
        (step.cell, step.attempt): step.reply.in_flight for step in read_stream(finished.run, "steps", Step)
    }
    assert set(counts.values()) <= {1, 2}, "two workers"
    ends = list(read_stream(finished.run, "trajectories", Trajectory))
    assert ends and all(end.in_flight is not None and 1 <= end.in_flight <= 2 for end in ends)
