"""What the commands of `looper evolve` that only look, or go back, do; they import little, since going back must be quick."""

import time
from collections.abc import Iterator
from pathlib import Path

from looper.cli.options import json_line
from looper.cli.wiring import sources, versions
from looper.errors import BadInput
from looper.evolution.ledger import EventLog
from looper.evolution.promotion import Promoter
from looper.evolution.search import FILE, settings_of
from looper.experiment.plans import scaffold_of
from looper.records.text import counted
from looper.views.evolution import described, tree_lines

BRANCH = "refs/heads/evolve/active"
BASE_SCAFFOLD = "terse"
"""That the embedded model was trained on; what evolves is how an agent differs from it."""
PLACE = Path(".looper") / "evolve"
"""Of everything that is kept of a repository, below its root; git ignores it."""
FOLLOW_S = 0.5


def promoter_in(folder: Path) -> Promoter:
    """Raises BadInput where no campaign has begun there."""
    if not (folder / "repository").is_dir():
        raise BadInput(f"There is no campaign in {folder}. Begin one: looper evolve run --folder {folder}")
    return Promoter(
        EventLog(folder / "ledger"),
        sources(folder / "repository"),
        versions(folder / "versions"),
        BRANCH,
        starts=_why_not,
        healthy=_why_not,
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


def ledger_in(folder: Path, repo: Path | None) -> EventLog:
    """Of a repository, or of a campaign with the embedded agent. Raises BadInput where nothing has begun."""
    if repo is None:
        return promoter_in(folder).ledger
    sources(repo)
    place = repo.absolute() / PLACE / "ledger"
    if not place.is_dir():
        raise BadInput(
            f"Nothing has evolved in {repo} yet. Begin: looper evolve spawn program.md --repo {repo}"
        )
    return EventLog(place)


def status(ledger: EventLog, *, as_json: bool) -> Iterator[str]:
    state = ledger.state()
    if as_json:
        yield json_line(described(state))
        return
    yield f"{counted(len(state.generations), 'generation')}, {state.decided} decided, {state.stopped or 'not ended'}"
    for lane, count in state.tested.items():
        yield f"{lane} lane: {count} challengers tested"
    if state.calls:
        cost = "cost unknown" if state.cost_usd is None else f"{state.cost_usd:.4f} $"
        yield f"{state.calls} calls, {state.total_tokens} tokens, {cost}"
    yield from tree_lines(state)


def tree(ledger: EventLog) -> Iterator[str]:
    return tree_lines(ledger.state())


def event_lines(ledger: EventLog, *, follow: bool) -> Iterator[str]:
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
