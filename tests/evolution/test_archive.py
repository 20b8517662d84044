"""From what candidates are made, and what of them the version that works holds."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.evolution.test_cycle import RULE, TASKS, World, resolved

from looper.evolution.archive import ParentChoice, chosen_parent, clade_record, lineage, members
from looper.evolution.costs import cost_verdict
from looper.evolution.cycle import run
from looper.evolution.search import POOR, move_named, moved, without
from looper.evolution.state import State
from looper.records.gate import GateOutcome
from looper.records.generation import Phase


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> World:
    run_context = World(tmp_path_factory.mktemp("grown"))
    run(run_context.campaign, 12)
    return run_context


def state_of(run_context: World) -> State:
    return run_context.promoter.ledger.state()


def test_refused_candidates_are_nobodys_parents(grown: World) -> None:
    state = state_of(grown)
    assert 0 in members(state)
    assert all(
        not number or state.generations[number].verdict is not Phase.REJECTED for number in members(state)
    )


def test_a_clade_counts_what_descends_from_it(grown: World) -> None:
    state = state_of(grown)
    everything = clade_record(state, 0)
    tested = [found.tested["development"] for found in state.generations.values()]
    assert everything == (sum(one.wins for one in tested), sum(one.losses for one in tested))
    newest = max(state.generations)
    own = state.generations[newest].tested["development"]
    assert clade_record(state, newest) == (own.wins, own.losses)


def test_d06_reading_changes_nothing(grown: World) -> None:
    state = state_of(grown)
    assert len({clade_record(state, 1) for _ in range(5)}) == 1
    assert len({chosen_parent(state, ParentChoice.CLADE, "0/13") for _ in range(5)}) == 1


def test_parents_are_drawn_from_all_and_more_often_from_those_whose_line_wins(grown: World) -> None:
    state = state_of(grown)
    draws = [chosen_parent(state, ParentChoice.CLADE, str(number)) for number in range(400)]
    assert set(draws) <= set(members(state)) and len(set(draws)) > 1
    assert {chosen_parent(state, ParentChoice.ACTIVE, str(number)) for number in range(9)} == {
        state.versions[-1].generation
    }

    def share(number: int) -> float:
        wins, losses = clade_record(state, number)
        return (wins + 1) / (wins + losses + 2)

    best, worst = max(members(state), key=share), min(members(state), key=share)
    assert draws.count(best) > draws.count(worst)


def test_a_campaign_with_other_parents_promotes_what_is_better_too(tmp_path: Path) -> None:
    run_context = World(tmp_path, replace_rule := RULE.model_copy(update={"challengers": 40}))
    search = replace(run_context.campaign.proposer, parents=ParentChoice.CLADE)  # type: ignore[type-var]
    run(replace(run_context.campaign, proposer=search), replace_rule.challengers)
    state = state_of(run_context)
    assert any(found.parent != 0 for found in state.generations.values())
    assert sum(resolved(run_context.active(), "unseen").values()) == 60


def test_what_the_active_version_holds_and_what_it_is_without_each(grown: World, tmp_path: Path) -> None:
    held = lineage(state_of(grown))
    assert [found.title for found in held][0] == "edit tool" and len(held) == 3
    everything = without(held, -1, POOR)
    assert everything == grown.active()
    assert (
        without(held, held[0].number, POOR) != everything
        and "edit" not in without(held, held[0].number, POOR)["tools"]
    )
    run_context = World(tmp_path)
    run(run_context.campaign, 8)
    run_context.promoter.roll_back()
    assert len(lineage(state_of(run_context))) == sum(
        found.phase is Phase.PROMOTED for found in state_of(run_context).generations.values()
    )


def test_moves_are_known_by_name() -> None:
    assert moved(POOR, move_named("edit tool"))["tools"] == ["bash", "read", "edit", "done"]


@pytest.mark.parametrize(
    ("ratio", "outcome"),
    [(1.0, GateOutcome.PASS), (1.9, GateOutcome.PASS), (3.0, GateOutcome.FAIL)],
)
def test_what_is_too_dear_does_not_pass(ratio: float, outcome: GateOutcome) -> None:
    parent = {f"0/{task}": 100.0 + task for task in range(TASKS)}
    candidate = {
        key: ratio * spent * (1.02 if number % 2 else 0.98)
        for number, (key, spent) in enumerate(parent.items())
    }
    assert cost_verdict(candidate, parent, 2.0)[0] is outcome


def test_a_cost_that_may_be_too_high_decides_nothing() -> None:
    parent = dict.fromkeys((f"0/{task}" for task in range(9)), 100.0)
    candidate = {key: 60.0 if number % 2 else 600.0 for number, key in enumerate(parent)}
    outcome, said = cost_verdict(candidate, parent, 3.0)
    assert outcome is GateOutcome.UNDECIDED and "3 are allowed" in said
    assert cost_verdict({}, parent, 3.0) == (GateOutcome.UNDECIDED, "nobody counted tokens")
