"""What `looper evolve run`, `status`, `tree` and `rollback` do."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import tomli_w

from looper.cli.plans import RunOptions
from looper.cli.running import run as run_experiment
from looper.cli.settings import Settings
from looper.cli.wiring import begin_repository, sources, versions
from looper.errors import BadInput, InfrastructureError
from looper.evolution.benchmark import Outcomes
from looper.evolution.canaries import canaries, missed, on_the_lane
from looper.evolution.contract import Contracts
from looper.evolution.cycle import Campaign, run
from looper.evolution.gates import Scope
from looper.evolution.judging import Gatekeeper
from looper.evolution.ledger import Ledger
from looper.evolution.promotion import Promoter
from looper.evolution.search import FILE, MOVES, POOR, SettingsAuthor, SettingsSearch, settings_of, text_of
from looper.evolution.search import Settings as ScaffoldSettings
from looper.experiment.plans import scaffold_of
from looper.journal import RunLock
from looper.records.base import content_hash
from looper.records.gate import BenchmarkRule
from looper.records.generation import Begun
from looper.views.evolution import described, tree_lines, unseen_line
from looper.views.runs import RunView

BRANCH = "refs/heads/evolve/active"
BASE_SCAFFOLD = "terse"
"""That the embedded model was trained on; what evolves is how an agent differs from it."""
LANES = {"development": 0, "sealed": 1, "unseen": 2, "screen": 3, "canary": 4}
"""Lane → seed of the embedded suite: other repositories, so no lane tells anything of another's tasks."""
CANARY_TASKS = 20
"""Enough for what it is worth to be able to edit."""
KNOWN_GOOD = next(move for move in MOVES if move.name == "edit tool")
SCOPE = Scope(
    allowed=("agent",), protected=("README.md", ".gitattributes"), file_bytes=10_000, changed_lines=200
)
README = b"An agent that evolves: its scaffold's settings lie in agent/scaffold.toml.\n"
PLACE = Path(".looper") / "evolve"
"""Of everything that is kept of a repository, below its root; git ignores it."""
FOLLOW_S = 0.5
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


def promoter_in(folder: Path) -> Promoter:
    """Raises BadInput where no campaign has begun there."""
    if not (folder / "repository").is_dir():
        raise BadInput(f"There is no campaign in {folder}. Begin one: looper evolve run --folder {folder}")
    return Promoter(
        Ledger(folder / "ledger"),
        sources(folder / "repository"),
        versions(folder / "versions"),
        BRANCH,
        starts=_why_not,
        # What the gates saw depends on the settings alone, and those are the candidate's.
        still_passes=lambda tree, generation: False,
    )


def _why_not(version: Path) -> str:
    """Why a version's settings make no scaffold; empty where they do."""
    try:
        scaffold_of(dict(settings_of((version / FILE).read_bytes())), BASE_SCAFFOLD)
    except (OSError, ValueError, BadInput) as error:
        return f"{FILE}: {error}"
    return ""


def evolve(options: EvolveOptions, settings: Settings, say: Say) -> tuple[str, list[str]]:
    """Why the campaign ended; its tree, and what its end is worth on tasks that it has not used."""
    begin_repository(options.folder / "repository", {FILE: text_of(POOR), "README.md": README})
    lock = RunLock(options.folder / "campaign", "campaign")
    try:
        return _campaign(options, settings, say)
    finally:
        lock.close()


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
        ),
        SettingsSearch(sources, BRANCH, partial(_screen, promoter, options, own, say), options.seed),
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
    if len(state.versions) > 1:
        active, first = work("unseen", sources.commit_of(BRANCH), sources.commit_of("refs/heads/main"))
        lines.append(unseen_line(active, first))
    return reason, lines


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
    found = {
        name: settings_of(promoter.sources.file(commit, FILE))
        for name, commit in (("parent", parent), ("candidate", candidate))
    }
    count = CANARY_TASKS if lane == "canary" else options.tasks
    view = _experiment(options, settings, say, lane, count, found)
    candidate_outcomes, parent_outcomes = view.outcomes("candidate"), view.outcomes("parent")
    if "candidate" in view.failed_arms:
        # An agent that no longer acts resolves nothing; it must not stop the campaign that has to refuse it.
        candidate_outcomes = dict.fromkeys(parent_outcomes, False)
    if not len(candidate_outcomes) == len(parent_outcomes) == count:
        raise InfrastructureError(
            f"On the {lane} lane {len(candidate_outcomes)} and {len(parent_outcomes)} of {count} tasks have a verdict; the others failed "
            "outside of the agent. Mend that, then run the same command again."
        )
    return candidate_outcomes, parent_outcomes


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
    view = _experiment(
        options,
        settings,
        say,
        "screen",
        max(4, options.tasks // 4),
        arms | {names[name]: found for name, found in moves.items()},
    )
    found = {name: view.outcomes(arm) for name, arm in names.items()}
    # An arm that no longer speaks the protocol has no rate, so it is not proposed.
    return {name: fmean(outcomes.values()) for name, outcomes in found.items() if outcomes}


def _experiment(
    options: EvolveOptions,
    settings: Settings,
    say: Say,
    lane: str,
    tasks: int,
    arms: Mapping[str, ScaffoldSettings],
) -> RunView:
    """An experiment like any other, with its records; the first arm is base. What was run before is not run again."""
    plan: dict[str, Any] = {
        "title": f"{lane} lane",
        "hypothesis": "A candidate resolves more tasks than its parent.",
        "factor": "one setting of the scaffold",
        "arms": [
            {"name": name, "role": "treatment" if number else "base", "scaffold": dict(found)}
            for number, (name, found) in enumerate(arms.items())
        ],
        "profiles": {
            "micro": {
                "like": "micro",
                "tasks": {"suite_seed": LANES[lane], "per_repo": -(-tasks // 8), "limit": tasks},
            }
        },
    }
    text = tomli_w.dumps(plan)
    path = options.folder / "lanes" / f"{lane}-{content_hash(text)[:12]}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return run_experiment(RunOptions(str(path), "micro", workers=options.workers), settings, say)


def ledger_in(folder: Path, repo: Path | None) -> Ledger:
    """Of a repository, or of a campaign with the embedded agent. Raises BadInput where nothing has begun."""
    if repo is None:
        return promoter_in(folder).ledger
    sources(repo)
    place = repo.absolute() / PLACE / "ledger"
    if not place.is_dir():
        raise BadInput(
            f"Nothing has evolved in {repo} yet. Begin: looper evolve spawn program.md --repo {repo}"
        )
    return Ledger(place)


def status(ledger: Ledger, *, as_json: bool) -> Iterator[str]:
    """How far a campaign is."""
    state = ledger.state()
    if as_json:
        yield json.dumps(described(state))
        return
    yield f"{len(state.generations)} generations, {state.decided} decided, {state.stopped or 'not ended'}"
    for lane, count in state.tested.items():
        yield f"{lane} lane: {count} challengers tested"
    if state.calls:
        cost = "cost unknown" if state.cost_usd is None else f"{state.cost_usd:.4f} $"
        yield f"{state.calls} calls, {state.total_tokens} tokens, {cost}"
    yield from tree_lines(state)


def tree(ledger: Ledger) -> Iterator[str]:
    return tree_lines(ledger.state())


def event_lines(ledger: Ledger, *, follow: bool) -> Iterator[str]:
    """What happened, as JSON; with `follow` without end."""
    told = 0
    while True:
        found = ledger.events()
        yield from (event.to_json().decode() for event in found[told:])
        told = len(found)
        if not follow:
            return
        time.sleep(FOLLOW_S)


def roll_back(folder: Path, number: int | None) -> str:
    """What was done, in words."""
    ended = promoter_in(folder).roll_back(number)
    return f"generation {ended.generation} is rolled back: {ended.evidence}"
