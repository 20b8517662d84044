"""What `looper evolve run`, `status`, `tree` and `rollback` do.

The campaign in which settings of the scaffold evolve on the embedded suite, without a language model: `_campaign` puts its parts
together, `_Lanes` runs the experiments that decide.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean

from looper.cli.campaigns import BRANCH, promoter_in
from looper.cli.lanes import lane_run, paired_verdicts
from looper.cli.settings import Settings
from looper.cli.wiring import begin_repository
from looper.errors import BadInput
from looper.evolution.archive import ParentChoice, lineage
from looper.evolution.benchmark import Outcomes, power_of
from looper.evolution.canaries import canaries, missed, on_the_lane
from looper.evolution.contract import Contracts
from looper.evolution.costs import Spending
from looper.evolution.cycle import Campaign, run
from looper.evolution.gates import ChangeScope
from looper.evolution.judging import Gatekeeper
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
from looper.protocols import Sources
from looper.records.gate import BenchmarkRule
from looper.records.generation import Begun
from looper.views.evolution import credit_line, tree_lines, unseen_line
from looper.views.runs import RunView

CANARY_TASKS = 20
"""Enough for what it is worth to be able to edit."""
KNOWN_GOOD = next(move for move in MOVES if move.name == "edit tool")
EFFECT, DISCORDANCE, ENOUGH = 0.2, 0.3, 0.8
"""A campaign must find a gain of so much, where so many pairs differ, this often."""
SCOPE = ChangeScope(
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
    with contextlib.closing(RunLock(options.folder / "campaign", "campaign")):
        begin_repository(options.folder / "repository", {FILE: text_of(POOR), "README.md": README})
        return _campaign(options, settings, say, design)


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


def _campaign(options: EvolveOptions, settings: Settings, say: Say, design: str) -> tuple[str, list[str]]:
    promoter = promoter_in(options.folder)
    asked = Begun(
        generations=options.generations, tasks=options.tasks, alpha=options.alpha, seed=options.seed
    )
    if promoter.ledger.state().begun != asked:
        promoter.ledger.record(lambda now: asked)
    say(design)
    promoter.begin(promoter.sources.commit_of("refs/heads/main"))
    sources = promoter.sources
    lanes = _Lanes(sources, options, replace(settings, runs=options.folder / "runs"), say)
    contracts = Contracts(options.folder / "contracts")
    known = canaries({"tools": POOR["tools"]}, KNOWN_GOOD, "README.md")
    campaign = Campaign(
        promoter,
        Gatekeeper(
            promoter.ledger,
            sources,
            SCOPE,
            (),
            lanes.outcomes,
            BenchmarkRule(alpha=options.alpha, challengers=options.generations),
            contracts.contract,
            say,
            lanes.costs,
        ),
        SettingsSearch(sources, BRANCH, lanes.screen, options.seed, options.parents),
        SettingsAuthor(promoter.ledger, sources, BRANCH),
        contracts.keep,
        lambda: missed(
            sources, sources.commit_of(BRANCH), known, partial(on_the_lane, sources, SCOPE, lanes.outcomes)
        ),
        say,
        time.sleep,
        options.plateau,
    )
    reason = run(campaign, options.generations)
    state = promoter.ledger.state()
    lines = [f"ended: {reason}", *tree_lines(state)]
    if held := lineage(state):
        lines += lanes.worth(held)
    return reason, lines


@dataclass(frozen=True)
class _Lanes:
    """The embedded suite's lanes for versions of one repository's scaffold."""

    sources: Sources
    options: EvolveOptions
    settings: Settings
    say: Say

    def run(self, lane: str, arms: Mapping[str, ScaffoldSettings]) -> RunView:
        found = {name: {"scaffold": dict(settings)} for name, settings in arms.items()}
        return lane_run(
            self.options.folder, lane, self.tasks(lane), found, self.options.workers, self.settings, self.say
        )

    def tasks(self, lane: str) -> int:
        return {"canary": CANARY_TASKS, "screen": max(4, self.options.tasks // 4)}.get(
            lane, self.options.tasks
        )

    def _compared(self, lane: str, candidate: str, parent: str) -> RunView:
        return self.run(lane, {"parent": self.settings_at(parent), "candidate": self.settings_at(candidate)})

    def settings_at(self, commit: str) -> ScaffoldSettings:
        return settings_of(self.sources.file(commit, FILE))

    def outcomes(self, lane: str, candidate: str, parent: str) -> tuple[Outcomes, Outcomes]:
        """Both versions at the lane's tasks, with the same seeds."""
        return paired_verdicts(self._compared(lane, candidate, parent), lane, self.tasks(lane))

    def costs(self, lane: str, candidate: str, parent: str) -> tuple[Spending, Spending]:
        """Of a lane that was run: its records are read once more."""
        view = self._compared(lane, candidate, parent)
        return view.tokens("candidate"), view.tokens("parent")

    def screen(self, parent: str, moves: Mapping[str, ScaffoldSettings]) -> dict[str, float]:
        names = {name: f"move_{number}" for number, name in enumerate(moves)}
        arms = {"parent": self.settings_at(parent)} | {names[name]: found for name, found in moves.items()}
        view = self.run("screen", arms)
        found = {name: view.outcomes(arm) for name, arm in names.items()}
        # An arm that no longer speaks the protocol has no rate, so it is not proposed.
        return {name: fmean(outcomes.values()) for name, outcomes in found.items() if outcomes}

    def worth(self, held: Sequence[Generation]) -> Iterator[str]:
        """What the version that works is worth on tasks that the campaign has not used, and what each change in it: by leaving it out."""
        first = self.settings_at(self.sources.commit_of("refs/heads/main"))
        arms = {"first": first, "active": self.settings_at(self.sources.commit_of(BRANCH))}
        # Without the only change there is the first version once more, which is there already.
        single = held if len(held) > 1 else ()
        arms |= {f"without_{one.number}": without(held, one.number, first) for one in single}
        view = self.run("unseen", arms)
        active = view.outcomes("active")

        def of(arm: str) -> Outcomes:
            return dict.fromkeys(active, False) if arm in view.failed_arms else view.outcomes(arm)

        yield unseen_line(active, of("first"))
        for one in single:
            yield credit_line(one.title, active, of(f"without_{one.number}"))
