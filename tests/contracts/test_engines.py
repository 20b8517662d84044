"""What every engine keeps to, whoever runs cells: what was not recorded is not acted on, and lanes keep their order."""

import threading
from collections.abc import Callable, Iterator

import pytest

from looper.bench.verify import without_tests
from looper.edges.engines.local import LocalEngine, Threads
from looper.errors import BadInput, Cancelled
from looper.protocols import Engine
from looper.records.job import CellJob, Event
from looper.records.plan import Arm, Cell, Limits
from looper.records.task import Task
from looper.records.verdict import Outcome, Verdict

Work = Callable[[CellJob, Callable[[Event], None]], object]
ENGINES: dict[str, Callable[[int, Work], Engine]] = {
    "local": lambda workers, work: LocalEngine(Threads(workers), work)
}


@pytest.fixture(params=ENGINES.values(), ids=ENGINES.keys())
def engine(request: pytest.FixtureRequest) -> Callable[[int, Work], Engine]:
    made: Callable[[int, Work], Engine] = request.param
    return made


@pytest.fixture
def job(arm: Arm, task: Task, limits: Limits) -> Callable[[int], CellJob]:
    def of(seed: int) -> CellJob:
        return CellJob(
            cell=Cell(arm="base", seed=seed, instance_id=task.instance_id), arm=arm, task=task, limits=limits
        )

    return of


def verdict(job: CellJob, cause: str = "") -> Verdict:
    found = without_tests(job.task, Outcome.UNRESOLVED, cause)
    return Verdict(
        cell=job.cell.key, attempt=job.resume.attempt, instance_id=job.task.instance_id, outcome=found.outcome, cause=found.cause,
        f2p_only=found.f2p_only, fail_to_pass=found.fail_to_pass, pass_to_pass=found.pass_to_pass, stripped_paths=(), applied=found.applied,
        tampering=found.tampering, patch_hash="", environment="", sandbox="", verifier="", wall_s=0.0,
    )  # fmt: skip


def test_an_attempt_goes_no_further_until_its_event_is_recorded(
    engine: Callable[[int, Work], Engine], job: Callable[[int], CellJob]
) -> None:
    acted, recorded = threading.Event(), list[Event]()

    def work(job: CellJob, tell: Callable[[Event], None]) -> None:
        tell(verdict(job, "first"))
        acted.set()
        tell(verdict(job, "second"))

    def record(event: Event) -> None:
        if not recorded:
            assert not acted.wait(0.3)
        recorded.append(event)

    engine(2, work).run([[job(0)]], record)
    assert recorded == [verdict(job(0), "first"), verdict(job(0), "second")]


def test_a_lane_is_asked_for_its_next_job_when_the_verdict_on_the_one_before_is_recorded(
    engine: Callable[[int, Work], Engine], job: Callable[[int], CellJob]
) -> None:
    recorded: list[str] = []

    def lane(seeds: range) -> Iterator[CellJob]:
        for seed in seeds:
            assert all(job(before).cell.key in recorded for before in seeds if before < seed)
            yield job(seed)

    lanes = [lane(range(at, at + 5)) for at in (0, 10, 20)]
    engine(3, lambda job, tell: tell(verdict(job))).run(lanes, lambda event: recorded.append(event.cell))
    assert len(recorded) == len(set(recorded)) == 15


@pytest.mark.parametrize("where", ["lane", "attempt", "record"])
def test_what_no_other_cell_could_survive_is_raised_to_who_asks(
    engine: Callable[[int, Work], Engine], job: Callable[[int], CellJob], where: str
) -> None:
    def fail(here: str) -> None:
        if where == here:
            raise BadInput("the plan is wrong")

    def lane() -> Iterator[CellJob]:
        yield job(0)
        fail("lane")

    def work(job: CellJob, tell: Callable[[Event], None]) -> None:
        tell(verdict(job))
        fail("attempt")

    with pytest.raises(BadInput, match="the plan is wrong"):
        engine(1, work).run([lane()], lambda event: fail("record"))


def test_an_attempt_whose_event_is_refused_is_not_gone_on_with(
    engine: Callable[[int, Work], Engine], job: Callable[[int], CellJob]
) -> None:
    further: list[str] = []

    def work(job: CellJob, tell: Callable[[Event], None]) -> None:
        tell(verdict(job))
        further.append(job.cell.key)

    def refuse(event: Event) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        engine(3, work).run([[job(seed), job(seed + 3)] for seed in range(3)], refuse)
    assert further == []


def test_a_job_and_what_it_holds_is_the_same_after_it_was_written_out(job: Callable[[int], CellJob]) -> None:
    assert CellJob.from_json(job(3).to_json()) == job(3)
