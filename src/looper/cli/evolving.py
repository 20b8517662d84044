"""What `looper evolve run`, `status`, `tree` and `rollback` do."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from looper.cli.campaigns import BRANCH, promoter_in
from looper.cli.lanes import both, lane_run
from looper.cli.settings import Settings
from looper.cli.wiring import begin_repository
from looper.errors import BadInput
from looper.evolution.archive import ParentChoice, lineage
from looper.evolution.benchmark import Outcomes, power_of
from looper.evolution.canaries import canaries, missed, on_the_lane
from looper.evolution.contract import Contracts
from looper.evolution.costs import Spending
from looper.evolution.cycle import Campaign, run
from looper.evolution.gates import Scope
from looper.evolution.judging import Gatekeeper
from looper.evolution.promotion import Promoter
from looper.evolution.search import (
    FILE,
    MOVES,
    POOR,
    SettingsAuthor,
    SettingsSearch,
    settings_of,
    text_of,
    without,
)
from looper.evolution.search import Settings as ScaffoldSettings
from looper.evolution.state import Generation
from looper.journal import RunLock
from looper.records.gate import BenchmarkRule
from looper.records.generation import Begun
from looper.views.evolution import credit_line, tree_lines, unseen_line
from looper.views.runs import RunView

CANARY_TASKS = 20
"""Enough for what it is worth to be able to edit."""
KNOWN_GOOD = next(move for move in MOVES if move.name == "edit tool")
EFFECT, DISCORDANCE, ENOUGH = 0.2, 0.3, 0.8
"""A campaign must find a gain of so much, where so many pairs differ, this often."""
SCOPE = Scope(
    allowed=("agent",), protected=("README.md", ".gitattributes"), file_bytes=10_000, changed_lines=200
)
README = b"An agent that evolves: its scaffold's settings lie in agent/scaffold.toml.\n"
Say = Callable[[str], None]


@dataclass(frozen=True)
class EvolveOptions:
    """What `looper evolve run` was asked for."""

    folder: Path
    generations: int
    tasks: int
    """Of each lane."""
    alpha: float
    seed: int
    workers: int | None
    plateau: int
    parents: ParentChoice
    pilot: bool
    """Begin although the lanes are too small to find what is looked for."""


def evolve(options: EvolveOptions, settings: Settings, say: Say) -> tuple[str, list[str]]:
    """Why the campaign ended; its tree, and what its end is worth on tasks that it has not used."""
    design = _must_be_able_to_see(options)
    begin_repository(options.folder / "repository", {FILE: text_of(POOR), "README.md": README})
    lock = RunLock(options.folder / "campaign", "campaign")
    try:
        say(design)
        return _campaign(options, settings, say)
    finally:
        lock.close()


def _must_be_able_to_see(options: EvolveOptions) -> str:
    """What the design can find, in words. Raises BadInput where that is too little."""
    rule = BenchmarkRule(alpha=options.alpha, challengers=options.generations)
    found = power_of(rule, options.tasks, EFFECT, DISCORDANCE)
    design = (
        f"{options.tasks} tasks, {options.generations} challengers at {rule.alpha_each:.2g} each: a gain of {100 * EFFECT:.0f} points is "
        f"found with probability {found:.2f}"
    )
    if found < ENOUGH and not options.pilot:
        raise BadInput(
            f"{design}. That is too few to decide anything: ask for more --tasks or fewer --generations, or say that it is a --pilot."
        )
    return design


def _campaign(options: EvolveOptions, settings: Settings, say: Say) -> tuple[str, list[str]]:
    promoter = promoter_in(options.folder)
    asked = Begun(
        generations=options.generations, tasks=options.tasks, alpha=options.alpha, seed=options.seed
    )
    if promoter.ledger.state().begun != asked:
        promoter.ledger.record(lambda now: asked)
    promoter.begin(promoter.sources.commit_of("refs/heads/main"))
    own = replace(settings, runs=options.folder / "runs")
    work = partial(_lane, promoter, options, own, say)
    sources = promoter.sources
    contracts = Contracts(options.folder / "contracts")
    known = canaries({"tools": POOR["tools"]}, KNOWN_GOOD, "README.md")
    campaign = Campaign(
        promoter,
        Gatekeeper(
            promoter.ledger,
            sources,
            SCOPE,
            (),
            work,
            BenchmarkRule(alpha=options.alpha, challengers=options.generations),
            contracts.contract,
            say,
            partial(_costs, promoter, options, own, say),
        ),
        SettingsSearch(
            sources, BRANCH, partial(_screen, promoter, options, own, say), options.seed, options.parents
        ),
        SettingsAuthor(promoter.ledger, sources, BRANCH),
        contracts.keep,
        lambda: missed(sources, sources.commit_of(BRANCH), known, partial(on_the_lane, sources, SCOPE, work)),
        say,
        time.sleep,
        options.plateau,
    )
    reason = run(campaign, options.generations)
    state = promoter.ledger.state()
    lines = [f"ended: {reason}", *tree_lines(state)]
    if held := lineage(state):
        lines += _worth(promoter, options, own, say, held)
    return reason, lines


def _worth(
    promoter: Promoter, options: EvolveOptions, settings: Settings, say: Say, held: Sequence[Generation]
) -> Iterator[str]:
    """What the version that works is worth on tasks that the campaign has not used, and what each change in it: by leaving it out."""
    sources = promoter.sources
    first = settings_of(sources.file(sources.commit_of("refs/heads/main"), FILE))
    arms = {"first": first, "active": settings_of(sources.file(sources.commit_of(BRANCH), FILE))}
    names = {one.number: f"without_{one.number}" for one in held}
    # Without the only change there is the first version once more, which is there already.
    arms |= {names[one.number]: without(held, one.number, first) for one in held if len(held) > 1}
    view = lane_run(options.folder, "unseen", options.tasks, _arms(arms), options.workers, settings, say)
    active = view.outcomes("active")

    def of(arm: str) -> Outcomes:
        return dict.fromkeys(active, False) if arm in view.failed_arms else view.outcomes(arm)

    yield unseen_line(active, of("first"))
    for one in held if len(held) > 1 else ():
        yield credit_line(one.title, active, of(names[one.number]))


def _lane_view(
    promoter: Promoter,
    options: EvolveOptions,
    settings: Settings,
    say: Say,
    lane: str,
    candidate: str,
    parent: str,
) -> RunView:
    found = {
        name: settings_of(promoter.sources.file(commit, FILE))
        for name, commit in (("parent", parent), ("candidate", candidate))
    }
    return lane_run(options.folder, lane, _tasks(options, lane), _arms(found), options.workers, settings, say)


def _tasks(options: EvolveOptions, lane: str) -> int:
    return CANARY_TASKS if lane == "canary" else options.tasks


def _lane(
    promoter: Promoter,
    options: EvolveOptions,
    settings: Settings,
    say: Say,
    lane: str,
    candidate: str,
    parent: str,
) -> tuple[Outcomes, Outcomes]:
    """Both versions at the lane's tasks, with the same seeds."""
    view = _lane_view(promoter, options, settings, say, lane, candidate, parent)
    return both(view, lane, _tasks(options, lane))


def _costs(
    promoter: Promoter,
    options: EvolveOptions,
    settings: Settings,
    say: Say,
    lane: str,
    candidate: str,
    parent: str,
) -> tuple[Spending, Spending]:
    """Of a lane that was run: its records are read once more."""
    view = _lane_view(promoter, options, settings, say, lane, candidate, parent)
    return view.tokens("candidate"), view.tokens("parent")


def _screen(
    promoter: Promoter,
    options: EvolveOptions,
    settings: Settings,
    say: Say,
    parent: str,
    moves: Mapping[str, ScaffoldSettings],
) -> dict[str, float]:
    names = {name: f"move_{number}" for number, name in enumerate(moves)}
    arms = {"parent": settings_of(promoter.sources.file(parent, FILE))}
    every = arms | {names[name]: found for name, found in moves.items()}
    tasks = max(4, options.tasks // 4)
    view = lane_run(options.folder, "screen", tasks, _arms(every), options.workers, settings, say)
    found = {name: view.outcomes(arm) for name, arm in names.items()}
    # An arm that no longer speaks the protocol has no rate, so it is not proposed.
    return {name: fmean(outcomes.values()) for name, outcomes in found.items() if outcomes}


def _arms(found: Mapping[str, ScaffoldSettings]) -> dict[str, dict[str, Any]]:
    return {name: {"scaffold": dict(settings)} for name, settings in found.items()}
