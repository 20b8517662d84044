"""A campaign's ledger: what may follow what, and that nothing is lost, doubled or decided on an old state."""

import subprocess
import sys
from pathlib import Path

import pytest

from looper.errors import BadInput, JournalError
from looper.evolution.ledger import EventLog
from looper.evolution.state import NotAllowed, State, folded
from looper.records.gate import Benchmarked, GateOutcome
from looper.records.generation import (
    Activated,
    Cause,
    Challenged,
    Event,
    Happened,
    Moved,
    Origin,
    Phase,
    Proposed,
    Role,
    Spent,
    Stopped,
)

FOUND = Benchmarked(
    outcome=GateOutcome.UNDECIDED,
    pairs=10,
    wins=1,
    losses=1,
    estimate=0.0,
    lower=-0.1,
    upper=0.1,
    p_value=0.5,
    alpha_spent=0.01,
)
TO_ACCEPTED = (Phase.ADMITTED, Phase.PREPARING, Phase.RUNNING, Phase.REPORTED, Phase.JUDGING, Phase.ACCEPTED)


def proposed(number: int, request: str = "") -> Proposed:
    return Proposed(
        generation=number,
        parent=0,
        source=Origin.CLI,
        request=request or f"r{number}",
        title="t",
        contract_hash="c",
    )


def events(*happened: Happened) -> list[Event]:
    return [Event(happened=found, at="2026-01-01T00:00:00+00:00") for found in happened]


def path(number: int, *phases: Phase, begin: Phase = Phase.PROPOSED) -> list[Moved]:
    found, before = [], begin
    for phase in phases:
        found.append(Moved(generation=number, before=before, after=phase))
        before = phase
    return found


def test_a_generation_goes_from_its_contract_to_promotion_and_back() -> None:
    state = folded(events(proposed(1), *path(1, *TO_ACCEPTED, Phase.PROMOTED)))
    assert state.generation(1).phase is Phase.PROMOTED and state.decided == 1
    back = folded(events(proposed(1), *path(1, *TO_ACCEPTED, Phase.PROMOTED, Phase.ROLLED_BACK)))
    assert back.generation(1).phase is Phase.ROLLED_BACK


@pytest.mark.parametrize(
    "phases",
    [
        *(TO_ACCEPTED[:count] for count in range(len(TO_ACCEPTED))),
        (*TO_ACCEPTED[:-1], Phase.REJECTED),
        (*TO_ACCEPTED[:-1], Phase.INCONCLUSIVE),
        (*TO_ACCEPTED, Phase.ARCHIVED),
        (*TO_ACCEPTED, Phase.PROMOTED, Phase.ROLLED_BACK),
        (Phase.CANCELLED,),
    ],
    ids=lambda phases: phases[-1].value if phases else "proposed",
)
def test_nothing_but_what_was_accepted_is_promoted(phases: tuple[Phase, ...]) -> None:
    before = [proposed(1), *path(1, *phases)]
    move = Moved(generation=1, before=folded(events(*before)).generation(1).phase, after=Phase.PROMOTED)
    with pytest.raises(NotAllowed, match="cannot become promoted"):
        folded(events(*before, move))


def test_another_tree_than_the_judged_one_is_refused() -> None:
    """L09, L10: both gates see the same commit, and promotion is pinned to it."""
    moves = path(1, *TO_ACCEPTED)
    judged = [
        move.model_copy(update={"candidate_hash": "a" * 64}) if move.after is Phase.REPORTED else move
        for move in moves
    ]
    other = Moved(generation=1, before=Phase.ACCEPTED, after=Phase.PROMOTED, candidate_hash="b" * 64)
    with pytest.raises(NotAllowed, match="what was judged is what is promoted"):
        folded(events(proposed(1), *judged, other))


def test_a_failure_of_the_world_counts_as_no_generation_and_may_be_tried_again() -> None:
    failed = Moved(generation=1, before=Phase.RUNNING, after=Phase.INFRA_ERROR, cause=Cause.LAB_DIED)
    state = folded(events(proposed(1), *path(1, *TO_ACCEPTED[:3]), failed))
    assert state.decided == 0 and state.generation(1).cause is Cause.LAB_DIED
    again = Moved(generation=1, before=Phase.INFRA_ERROR, after=Phase.PREPARING, attempt=2)
    assert folded(events(proposed(1), *path(1, *TO_ACCEPTED[:3]), failed, again)).generation(1).attempt == 2
    blamed = failed.model_copy(update={"cause": Cause.GATE})
    with pytest.raises(NotAllowed, match="no failure of the outside world"):
        folded(events(proposed(1), *path(1, *TO_ACCEPTED[:3]), blamed))


def test_a_lane_is_spent_once_by_a_candidate() -> None:
    tested = Challenged(generation=1, lane="development", candidate_hash="a", found=FOUND)
    state = folded(events(proposed(1), tested))
    assert state.tested == {"development": 1}
    with pytest.raises(NotAllowed, match="tested once"):
        folded(events(proposed(1), tested, tested))


def test_tokens_are_summed_by_role_and_an_unknown_price_makes_no_sum() -> None:
    spent = Spent(
        generation=0, role=Role.PRIME, calls=1, prompt_tokens=100, completion_tokens=10, cost_usd=0.5
    )
    more = Spent(generation=1, role=Role.LAB, calls=2, prompt_tokens=50, completion_tokens=5, cost_usd=0.25)
    state = folded(events(proposed(1), spent, more))
    assert state.tokens == {Role.PRIME: 110, Role.LAB: 55} and state.calls == 3 and state.cost_usd == 0.75
    assert state.generation(1).tokens == {Role.LAB: 55} and state.total_tokens == 165
    unknown = more.model_copy(update={"cost_usd": None})
    assert folded(events(proposed(1), spent, unknown)).cost_usd is None


def test_the_active_version_is_the_last_one_that_was_activated() -> None:
    state = folded(
        events(
            Activated(version="v0", generation=0),
            proposed(1),
            Activated(version="v1", generation=1),
            Activated(version="v0", generation=0, back=True),
            Stopped(reason="plateau"),
        )
    )
    assert state.active == "v0" and len(state.versions) == 3 and state.stopped == "plateau"


def test_an_unknown_generation_is_named_with_those_that_are_there() -> None:
    with pytest.raises(BadInput, match="no generation 7. There are: 1"):
        folded(events(proposed(1))).generation(7)


SPAWNER = """
import sys
from pathlib import Path
from looper.evolution.ledger import EventLog
from tests.evolution.test_ledger import proposed
ledger = EventLog(Path(sys.argv[1]))
for number in range(5):
    ledger.record(lambda state: proposed(state.next_number, f"{sys.argv[2]}/{number}"))
"""


def test_l11_spawns_at_once_get_numbers_of_their_own(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    running = [
        subprocess.Popen([sys.executable, "-c", SPAWNER, str(tmp_path), str(name)], cwd=root)
        for name in range(8)
    ]
    assert [process.wait() for process in running] == [0] * 8
    state = EventLog(tmp_path).state()
    assert sorted(state.generations) == list(range(1, 41))
    assert len({found.request for found in state.generations.values()}) == 40


def test_c16_a_step_that_cannot_follow_is_not_written(tmp_path: Path) -> None:
    ledger = EventLog(tmp_path)
    ledger.record(lambda state: proposed(state.next_number))
    with pytest.raises(NotAllowed):
        ledger.record(lambda state: Moved(generation=1, before=Phase.PROPOSED, after=Phase.PROMOTED))
    assert len(ledger.events()) == 1


def test_l23_a_ledger_that_ends_anywhere_is_the_state_before_its_last_line(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    ledger = EventLog(whole)
    states = [State()]
    for happened in (proposed(1), *path(1, *TO_ACCEPTED[:2])):
        ledger.record(lambda state, happened=happened: happened)  # type: ignore[misc]
        states.append(ledger.state())
    data = (whole / "events.jsonl").read_bytes()
    cut = EventLog(tmp_path / "cut")
    for length in range(len(data) + 1):
        (cut.folder / "events.jsonl").write_bytes(data[:length])
        assert cut.state() == states[data[:length].count(b"\n")]
    (cut.folder / "events.jsonl").write_bytes(data[:-5])
    cut.record(lambda state: path(1, *TO_ACCEPTED[:2])[-1])
    assert cut.state() == states[-1]


def test_damage_before_the_end_is_refused_with_its_line(tmp_path: Path) -> None:
    ledger = EventLog(tmp_path)
    for number in range(1, 4):
        ledger.record(lambda state, number=number: proposed(number))  # type: ignore[misc]
    lines = (tmp_path / "events.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "events.jsonl").write_bytes(lines[0] + lines[1].replace(b'"c"', b'"d"') + lines[2])
    with pytest.raises(JournalError, match="line 2 is damaged"):
        ledger.state()
    with pytest.raises(JournalError, match="line 2 is damaged"):
        ledger.record(lambda state: proposed(state.next_number))
