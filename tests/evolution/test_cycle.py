"""A campaign from a poor scaffold, on real repositories and a real ledger; only what tasks end like is written down here."""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from looper.edges.workspaces.sources import GitSources, new_repository
from looper.edges.workspaces.versions import VersionFolders
from looper.errors import GatesUnfit, SandboxUnavailable
from looper.evolution.benchmark import Outcomes
from looper.evolution.canaries import ControlCandidate, canaries, missed, on_the_lane
from looper.evolution.contract import Contracts
from looper.evolution.cycle import Campaign, run
from looper.evolution.gates import ChangeScope
from looper.evolution.judging import JUDGE, Gatekeeper
from looper.evolution.ledger import EventLog
from looper.evolution.promotion import Promoter
from looper.evolution.search import (
    FILE,
    MOVES,
    POOR,
    Settings,
    SettingsAuthor,
    SettingsSearch,
    moved,
    settings_of,
    text_of,
)
from looper.records.gate import BenchmarkRule
from looper.records.generation import Cause, Phase

BRANCH = "refs/heads/evolve/active"
TASKS = 100
RULE = BenchmarkRule(challengers=12)


def resolved(settings: Settings, lane: str) -> Outcomes:
    """Of a hundred tasks as many as the settings let an agent resolve; the same ones for the same settings, others in each lane."""
    count = 60
    if "edit" not in settings.get("tools", ["edit"]):
        count = 0
    elif "bash" not in settings.get("tools", ["bash"]) or settings.get("terse") is False:
        count = 5
    count -= 20 if settings.get("output_cap_bytes", 600) < 100 else 0
    count -= 15 if settings.get("guards", {}).get("no_progress_stop") == 1 else 0
    return {f"0/{lane}-{task}": task < count for task in range(TASKS)}


class World:
    """A campaign in a folder, and what was asked of its lanes."""

    def __init__(
        self,
        folder: Path,
        rule: BenchmarkRule = RULE,
        fail_at: int = 0,
        known: tuple[ControlCandidate, ...] = (),
        plateau: int = 0,
    ) -> None:
        self.asked: list[str] = []
        self.fail_at = fail_at
        if not (folder / "repository").exists():
            new_repository(folder / "repository", {FILE: text_of(POOR), "README.md": b"fixed\n"})
        self.promoter = Promoter(
            EventLog(folder / "ledger"),
            GitSources(folder / "repository"),
            VersionFolders(folder / "versions"),
            BRANCH,
            starts=lambda version: "",
            still_passes=lambda tree, generation: False,
        )
        self.promoter.begin(self.promoter.sources.commit_of("refs/heads/main"))
        sources, ledger = self.promoter.sources, self.promoter.ledger
        scope = ChangeScope(allowed=("agent",), protected=("README.md",))
        contracts = Contracts(folder / "contracts")
        self.paused: list[float] = []
        keeper = Gatekeeper(
            ledger, sources, scope, (), self.lane, rule, contracts.contract, lambda line: None
        )
        refuse = partial(on_the_lane, sources, scope, self.lane)
        self.campaign = Campaign(
            self.promoter,
            keeper,
            SettingsSearch(sources, BRANCH, self.screen, 0),
            SettingsAuthor(ledger, sources, BRANCH),
            contracts.keep,
            lambda: missed(sources, sources.commit_of(BRANCH), known, refuse),
            lambda line: None,
            self.paused.append,
            plateau,
        )

    def lane(self, lane: str, candidate: str, parent: str) -> tuple[Outcomes, Outcomes]:
        self.asked.append(lane)
        if len(self.asked) == self.fail_at:
            raise SandboxUnavailable("the sandbox is gone")
        both = (settings_of(self.promoter.sources.file(commit, FILE)) for commit in (candidate, parent))
        ours, theirs = (resolved(settings, lane) for settings in both)
        return ours, theirs

    def screen(self, parent: str, moves: Mapping[str, Settings]) -> dict[str, float]:
        return {name: sum(resolved(found, "screen").values()) / TASKS for name, found in moves.items()}

    def active(self) -> Settings:
        versions = self.promoter.versions
        return tomllib.loads((versions.folder(versions.active()) / FILE).read_text())

    def ends(self) -> dict[str, Phase]:
        return {found.title: found.phase for found in self.promoter.ledger.state().generations.values()}


def test_real_improvements_are_promoted_in_turn_and_harm_is_not(tmp_path: Path) -> None:
    run_context = World(tmp_path)
    assert run(run_context.campaign, 12) == "generations"
    state = run_context.promoter.ledger.state()
    promoted = [found.title for found in state.generations.values() if found.phase is Phase.PROMOTED]
    assert promoted[0] == "edit tool" and len(promoted) == 3
    assert set(promoted) <= {"edit tool", "whole output", "room", "patience"}
    assert sum(resolved(run_context.active(), "unseen").values()) == 60
    for harmful in ("no shell", "more words", "short output"):
        assert run_context.ends().get(harmful, Phase.ARCHIVED) is Phase.ARCHIVED
    assert {"no shell", "more words", "short output"} & set(run_context.ends()), "harm was tried, and refused"
    assert state.tested["development"] == 12 and state.tested["sealed"] == 3, (
        "the sealed lane is asked once by each"
    )


def test_every_candidate_is_kept_under_its_ref_with_why_it_ended(tmp_path: Path) -> None:
    run_context = World(tmp_path)
    run(run_context.campaign, 5)
    for found in run_context.promoter.ledger.state().generations.values():
        assert (
            run_context.promoter.sources.at(f"refs/heads/evolve/gen-{found.number}") == found.candidate_commit
        )
        assert found.evidence or found.phase is Phase.PROMOTED


def test_a_campaign_ends_when_its_alpha_is_spent(tmp_path: Path) -> None:
    run_context = World(tmp_path, BenchmarkRule(challengers=2))
    assert run(run_context.campaign, 12) == "alpha spent" and run_context.asked.count("development") == 2
    assert run(run_context.campaign, 12) == "alpha spent", "and stays so"
    assert run_context.promoter.ledger.state().stopped == "alpha spent"


def interrupted(at: int) -> Callable[[Path], World]:
    return lambda folder: World(folder, fail_at=at)


@pytest.mark.parametrize("at", [1, 2, 3, 5])
def test_what_the_world_breaks_is_no_decision_and_the_campaign_goes_on_as_if_nothing_had_been(
    tmp_path: Path, at: int
) -> None:
    undisturbed = World(tmp_path / "a")
    run(undisturbed.campaign, 6)
    broken = interrupted(at)(tmp_path / "b")
    with pytest.raises(SandboxUnavailable):
        run(broken.campaign, 6)
    failed = broken.promoter.ledger.state()
    last = failed.generations[max(failed.generations)]
    assert last.phase is Phase.INFRA_ERROR and last.cause is Cause.JUDGE
    again = World(tmp_path / "b")
    assert run(again.campaign, 6) == "generations"
    assert again.ends() == undisturbed.ends() and again.active() == undisturbed.active()
    assert again.promoter.ledger.state().tested == undisturbed.promoter.ledger.state().tested


def test_a_move_is_tried_once_from_each_parent(tmp_path: Path) -> None:
    run_context = World(tmp_path, BenchmarkRule(challengers=60))
    run(run_context.campaign, 60)
    tried = [
        (found.title, found.parent) for found in run_context.promoter.ledger.state().generations.values()
    ]
    assert len(tried) == len(set(tried))


def test_a_move_changes_one_setting_and_can_take_it_back() -> None:
    patience = next(move for move in MOVES if move.name == "patience")
    assert "guards" not in moved(POOR, patience)
    careless = next(move for move in MOVES if move.name == "empty done")
    assert moved(POOR, careless)["guards"] == {**POOR["guards"], "refuse_empty_done": False}
    assert settings_of(text_of(moved(POOR, careless))) == moved(POOR, careless)


EDIT = next(move for move in MOVES if move.name == "edit tool")


def test_canaries_go_first_and_once(tmp_path: Path) -> None:
    run_context = World(tmp_path, known=canaries(POOR, EDIT, "README.md"))
    run(run_context.campaign, 1)
    assert run_context.asked[:2] == ["canary", "canary"] and run_context.promoter.ledger.state().canaries == {
        JUDGE: ()
    }
    again = World(tmp_path, known=canaries(POOR, EDIT, "README.md"))
    run(again.campaign, 2)
    assert "canary" not in again.asked
    assert run_context.promoter.ledger.state().tested["development"] == 2, "and they spend no alpha"


@pytest.mark.parametrize("name", [found.name for found in canaries(POOR, EDIT, "README.md")])
def test_a_campaign_whose_canaries_fail_does_not_start(tmp_path: Path, name: str) -> None:
    """Each of them, with another end than it must have."""
    found = next(one for one in canaries(POOR, EDIT, "README.md") if one.name == name)
    wrong = replace(found, caught_by="" if found.caught_by else "benchmark")
    run_context = World(tmp_path, known=(wrong,))
    for _ in range(2):
        with pytest.raises(GatesUnfit, match=name):
            run(run_context.campaign, 3)
    assert not run_context.promoter.ledger.state().generations


def test_without_a_promotion_for_long_a_campaign_ends(tmp_path: Path) -> None:
    run_context = World(tmp_path, plateau=3)
    assert run(run_context.campaign, 12) == "plateau"
    phases = [found.phase for found in run_context.promoter.ledger.state().generations.values()]
    assert Phase.PROMOTED not in phases[-3:] and Phase.PROMOTED in phases[:-3]


def test_failures_that_are_all_alike_are_the_harness_and_end_the_campaign(tmp_path: Path) -> None:
    run_context = World(tmp_path)
    scope = ChangeScope(allowed=("somewhere",), protected=())
    keeper = replace(run_context.campaign.keeper, scope=scope)
    ended = run(replace(run_context.campaign, keeper=keeper), 12)
    assert ended.startswith("suspect the harness: 3 candidates in a row ended with: scope")
    assert len(run_context.promoter.ledger.state().generations) == 3
