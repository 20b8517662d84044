"""Faults of systems that came before, each with what shows that this one has it not."""

import json
import random
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.edges.test_sources import git, live, root
from tests.evolution.test_cycle import TASKS, World
from tests.evolution.test_promotion import accepted, promoter, works

from looper.agent.actions import parse
from looper.agent.scaffold import packaged_scaffold, scaffold_names
from looper.cli.evolve_settings import EvolveSettings, evolve_settings
from looper.errors import BadInput, InfrastructureError, VerifierBroken, WorkspaceError
from looper.evolution.archive import ParentChoice
from looper.evolution.benchmark import AlphaAccount, Outcomes, benchmarked
from looper.evolution.cycle import judged, run
from looper.evolution.judge import Candidate, Found
from looper.evolution.lab import scaffold_of_labs
from looper.evolution.ledger import EventLog
from looper.evolution.moves import move
from looper.evolution.state import folded
from looper.journal import Stream
from looper.records.gate import BenchmarkRule, GateOutcome, GateResult
from looper.records.generation import Cause, Event, Phase
from looper.records.genome import Mode
from looper.records.trajectory import FinishReason

__all__ = ["root"]


def test_l06_a_candidate_of_several_commits_is_rolled_back_and_kept(root: Path, tmp_path: Path) -> None:
    one = promoter(tmp_path, root)
    one.begin(one.sources.commit_of("main"))
    base = one.sources.commit_of("main")
    for text in (b"one\n", b"two\n"):
        base = one.sources.with_files(base, {"agent/a.py": text}, "a step")
    one.sources.move("refs/heads/several", base, "")
    number = accepted(one, "three\n", "refs/heads/several")
    tip = one.sources.at(f"refs/heads/evolve/gen-{number}")
    assert one.promote(number).after is Phase.PROMOTED
    one.roll_back()
    assert works(one) == "one\ntwo\nthree\n" and one.sources.at(f"refs/heads/evolve/gen-{number}") == tip


def test_l07_a_promotion_that_fails_is_none(root: Path, tmp_path: Path) -> None:
    one = promoter(tmp_path, root)
    one.begin(one.sources.commit_of("main"))
    number = accepted(one, "better\n")

    class Full:
        """A disk without room for a version."""

        def __getattr__(self, name: str) -> Any:
            return getattr(one.sources, name)

        def export(self, tree: str, folder: Path) -> None:
            raise WorkspaceError("no space left on device")

    with pytest.raises(InfrastructureError, match="no space"):
        replace(one, sources=Full()).promote(number)
    assert one.ledger.state().generation(number).phase is Phase.ACCEPTED and works(one) == "one\ntwo\nthree\n"
    assert one.promote(number).after is Phase.PROMOTED, "and it can be promoted once there is room"


def test_l08_stash_index_and_untracked_files_of_a_person_are_as_they_were(root: Path, tmp_path: Path) -> None:
    (root / "agent" / "a.py").write_text("stashed\n")
    git(root, "stash")
    (root / "staged.txt").write_text("staged\n")
    git(root, "add", "staged.txt")
    (root / "untracked.txt").write_text("untracked\n")
    before = live(root), git(root, "stash", "list"), (root / ".git" / "index").read_bytes()
    one = promoter(tmp_path, root)
    one.begin(one.sources.commit_of("main"))
    one.promote(accepted(one, "better\n"))
    one.roll_back()
    assert (live(root), git(root, "stash", "list"), (root / ".git" / "index").read_bytes()) == before


def test_l24_d09_after_a_restart_every_counter_is_what_the_events_say(tmp_path: Path) -> None:
    run_context = World(tmp_path)
    run(run_context.campaign, 4)
    events = run_context.promoter.ledger.events()
    again = tmp_path / "again"
    again.mkdir()
    stream = Stream(again, "events", Event)
    for number, event in enumerate(events, 1):
        # A process that ended here, and one that begins now: it knows what it reads.
        stream.append(event)
        assert EventLog(again).state() == folded(events[:number])
    stream.close()
    assert World(tmp_path).promoter.ledger.state() == folded(events)
    assert World(tmp_path).promoter.ledger.state().tested == {"development": 4, "sealed": 3}


class Series(World):
    """Candidates whose gain follows a series; what they change does not matter."""

    def __init__(self, folder: Path, gains: Callable[[int], int]) -> None:
        super().__init__(folder, BenchmarkRule(challengers=12), plateau=3)
        self.gains, self.known = gains, dict[tuple[str, str], int]()

    def lane(self, lane: str, candidate: str, parent: str) -> tuple[Outcomes, Outcomes]:
        number = self.known.setdefault((candidate, parent), len(self.known))
        better = 40 + self.gains(number)
        return (
            {f"0/{lane}-{task}": task < better for task in range(TASKS)},
            {f"0/{lane}-{task}": task < 40 for task in range(TASKS)},
        )


@pytest.mark.parametrize(
    ("gains", "ended"),
    [
        (lambda number: 0, "plateau"),
        (lambda number: -number, "plateau"),
        (lambda number: random.Random(number).choice((-2, 0, 1, 3)), "plateau"),
        (lambda number: 30, "generations"),
    ],
    ids=["flat", "falling", "noisy", "rising"],
)
def test_l27_a_plateau_is_what_does_not_rise(tmp_path: Path, gains: Callable[[int], int], ended: str) -> None:
    run_context = Series(tmp_path, gains)
    assert run(run_context.campaign, 6) == ended
    if ended == "plateau":
        assert len(run_context.promoter.ledger.state().generations) == 3


NUMBERS = [
    name
    for name, field in EvolveSettings.model_fields.items()
    if "int" in str(field.annotation) or "float" in str(field.annotation)
]


@pytest.mark.parametrize("value", ["many", "-1", "nan", "inf", ""])
@pytest.mark.parametrize("name", NUMBERS)
def test_l28_what_is_no_number_is_an_error_and_never_without_limit(
    tmp_path: Path, name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"LOOPER_EVOLVE_{name.upper()}", value)
    with pytest.raises(BadInput, match=f"{name}: .* They come from the command line") as found:
        evolve_settings(tmp_path, {})
    assert "\n" not in str(found.value)


def test_settings_come_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "looper.toml").write_text(
        "[evolve]\nlookback = 2\nmax_output = 20\nmax_iterations = 200\ntoken_budget = 2000\n"
    )
    (tmp_path / ".env").write_text(
        "LOOPER_EVOLVE_MAX_OUTPUT=30\nLOOPER_EVOLVE_MAX_ITERATIONS=300\nLOOPER_EVOLVE_TOKEN_BUDGET=3000\nOTHER=x\n"
    )
    monkeypatch.setenv("LOOPER_EVOLVE_MAX_ITERATIONS", "400")
    monkeypatch.setenv("LOOPER_EVOLVE_TOKEN_BUDGET", "4000")
    found = evolve_settings(tmp_path, {"token_budget": 5000})
    assert (found.lookback, found.max_output, found.max_iterations, found.token_budget) == (2, 30, 400, 5000)
    assert found.generations == 5, "and defaults come last"


def test_l28_the_prime_does_not_choose_the_model_of_the_lab(tmp_path: Path) -> None:
    assert evolve_settings(tmp_path, {"prime": "ollama:large"}).lab == ""


def test_an_unknown_setting_in_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "looper.toml").write_text("[evolve]\nlokback = 2\n")
    with pytest.raises(BadInput, match="there is no setting lokback"):
        evolve_settings(tmp_path, {})


def test_l31_trivial_tests_raise_nothing() -> None:
    """What decides are tasks; a thousand tests change none."""
    same = {f"0/{task}": task < 50 for task in range(TASKS)}
    found = benchmarked(same, same, AlphaAccount(BenchmarkRule()))
    assert found.outcome is GateOutcome.FAIL and found.wins == 0


@pytest.mark.parametrize("name", [*scaffold_names(), "lab"])
def test_l35_every_tool_that_a_prompt_shows_is_what_the_parser_reads(name: str) -> None:
    scaffold = scaffold_of_labs(("src",)) if name == "lab" else packaged_scaffold(name)
    shown = re.findall(
        r"^(<(bash|read|edit|write|done)\b.*?</\2>)", scaffold.system, re.MULTILINE | re.DOTALL
    )
    read = [parse(text, FinishReason.STOP).action for text, _ in shown]
    assert all(read) and {found.tool for found in read if found} == {tag for _, tag in shown}
    if name != "terse":
        assert {tag for _, tag in shown} == set(scaffold.tools)


def outcomes(rng: random.Random) -> Outcomes:
    return {f"0/{task}": rng.random() < 0.5 for task in range(TASKS)}


def test_d08_d12_what_is_no_better_is_kept_by_chance_alone() -> None:
    """Two hundred comparisons of equals, each at 0.05 by itself."""
    rng = random.Random(1)
    alone = BenchmarkRule(challengers=1)
    kept = sum(
        benchmarked(outcomes(rng), outcomes(rng), AlphaAccount(alone)).outcome is GateOutcome.PASS
        for _ in range(200)
    )
    assert kept <= 0.05 * 200


def test_d05_a_task_without_a_verdict_is_no_failure_of_one_side(tmp_path: Path) -> None:
    whole = {f"0/{task}": True for task in range(9)}
    with pytest.raises(BadInput, match="were not run on the same cells"):
        benchmarked(whole, {key: True for key in list(whole)[:-1]}, AlphaAccount(BenchmarkRule()))


def test_c04_a_score_of_nothing_is_a_score_and_no_score_is_none(tmp_path: Path) -> None:
    run_context = World(tmp_path)
    search = run_context.campaign.proposer
    only = replace(search, screen=lambda parent, moves: {"short output": 0.0})  # type: ignore[type-var]
    proposal = only.propose(run_context.promoter.ledger.state())
    assert proposal is not None and proposal.title == "short output"
    none = replace(search, screen=lambda parent, moves: {})  # type: ignore[type-var]
    assert none.propose(run_context.promoter.ledger.state()) is None


def test_d02_what_is_chosen_has_no_better_beside_it(tmp_path: Path) -> None:
    run_context = World(tmp_path)
    rates = {"short output": 0.2, "whole output": 0.8, "room": 0.5}
    search = replace(run_context.campaign.proposer, screen=lambda parent, moves: rates)  # type: ignore[type-var]
    proposal = search.propose(run_context.promoter.ledger.state())
    assert proposal is not None and rates[proposal.title] == max(rates.values())


def test_d01_every_option_of_a_closed_set_is_a_name_of_its_own() -> None:
    for options in (ParentChoice, Mode, Phase, Cause):
        assert len({one.value for one in options}) == len(options) and all(
            options(one.value) is one for one in options
        )


def reported_generation(run_context: World) -> int:
    """One generation of the search, before it is judged."""
    from looper.evolution.cycle import admitted, carry_on

    state = run_context.promoter.ledger.state()
    proposal = run_context.campaign.proposer.propose(state)
    assert proposal is not None
    found = admitted(run_context.campaign, proposal)
    while found.phase is not Phase.REPORTED:
        carry_on(run_context.campaign, found)
        found = run_context.promoter.ledger.state().generation(found.number)
    move(run_context.promoter.ledger, found, Phase.JUDGING)
    return found.number


def test_c15_a_gate_that_breaks_is_an_error_and_no_verdict(tmp_path: Path) -> None:
    run_context = World(tmp_path)
    number = reported_generation(run_context)

    def style_gate(candidate: Candidate) -> Found:
        raise TypeError("style_gate() got an unexpected keyword argument")

    keeper = replace(run_context.campaign.keeper, gates=(style_gate,))
    with pytest.raises(VerifierBroken, match="The style gate broke: TypeError"):
        judged(keeper, run_context.promoter.ledger.state().generation(number))
    found = run_context.promoter.ledger.state().generation(number)
    assert (found.phase, found.cause, found.verdict) == (Phase.INFRA_ERROR, Cause.JUDGE, None)
    assert found.judged[-1].outcome is GateOutcome.ERROR


def test_l09_every_gate_sees_the_commit_that_was_reported(tmp_path: Path) -> None:
    run_context = World(tmp_path)
    number = reported_generation(run_context)
    seen: list[str] = []

    def first_gate(candidate: Candidate) -> Found:
        seen.append(candidate.commit)
        tree = run_context.promoter.sources.tree_of(candidate.commit)
        return GateResult(
            gate="first", outcome=GateOutcome.PASS, evidence="", candidate_hash=tree
        ), Cause.NONE

    judged(
        replace(run_context.campaign.keeper, gates=(first_gate,)),
        run_context.promoter.ledger.state().generation(number),
    )
    found = run_context.promoter.ledger.state().generation(number)
    assert seen == [found.candidate_commit] and all(
        one.candidate_hash == found.candidate_hash for one in found.judged
    )


def test_reports_are_made_anew_from_the_ledger(tmp_path: Path) -> None:
    from looper.views.evolution import derived

    run_context = World(tmp_path)
    run(run_context.campaign, 3)
    ledger = run_context.promoter.ledger
    once = dict(derived(ledger.events(), ledger.state(), lambda key: "text"))
    assert once == dict(derived(ledger.events(), ledger.state(), lambda key: "text"))
    assert {"programs/gen-1.md", "programs/gen-1-report.json", "fitness-log.jsonl", "lessons.jsonl"} <= set(
        once
    )
    lines = [json.loads(line) for line in once["fitness-log.jsonl"].splitlines()]
    assert [line["generation"] for line in lines] == [1, 2, 3]


def test_l20_what_a_candidate_does_to_its_repository_is_not_done_to_ours(root: Path, tmp_path: Path) -> None:
    """A tree is written from objects: nothing of it leads back."""
    one = promoter(tmp_path, root)
    one.begin(one.sources.commit_of("main"))
    folder = one.versions.folder(one.versions.active())
    assert not (folder / ".git").exists()
    for path in folder.rglob("*"):
        if path.is_file():
            assert path.stat().st_nlink == 1
            path.write_text("overwritten\n")
    assert "missing" not in subprocess.run(["git", "fsck"], cwd=root, capture_output=True, text=True).stdout
    assert git(root, "show", "main:agent/a.py") == "one\ntwo\nthree"


@pytest.mark.parametrize(("pairs", "outcome"), [(1, GateOutcome.UNDECIDED), (40, GateOutcome.PASS)])
def test_d03_one_and_many_are_counted_as_what_they_are(pairs: int, outcome: GateOutcome) -> None:
    """A list that was compared with a number was never equal to it; a lane of nothing is refused, one of one task decides nothing."""
    better = {f"0/{task}": True for task in range(pairs)}
    worse = {where: False for where in better}
    found = benchmarked(better, worse, AlphaAccount(BenchmarkRule()))
    assert (found.pairs, found.wins, found.losses) == (pairs, pairs, 0)
    assert found.outcome is outcome or (pairs == 1 and found.outcome is not GateOutcome.PASS)


def test_d03_a_lane_of_nothing_passes_nothing() -> None:
    with pytest.raises(BadInput):
        benchmarked({}, {}, AlphaAccount(BenchmarkRule()))
