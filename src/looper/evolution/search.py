"""Proposals and authors that need no language model: one setting of the agent's scaffold at a time.

Each move is a fault that agents' frameworks really had, or its mend. Which is which depends on where one stands, and the gate says it.
"""

import random
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tomli_w

from looper.errors import BadInput
from looper.evolution.archive import ParentChoice, chosen_parent
from looper.evolution.contract import contract_text
from looper.evolution.cycle import Proposal
from looper.evolution.ledger import EventLog
from looper.evolution.moves import move as move_on
from looper.evolution.moves import reported
from looper.evolution.state import Generation, State
from looper.protocols import Sources
from looper.records.generation import Contract, Criterion, Origin, Phase
from looper.untrusted import parsed_toml

Settings = Mapping[str, Any]
"""A scaffold's settings where they differ from the packaged one that a campaign is about, as TOML holds them."""
FILE = "agent/scaffold.toml"

POOR: Settings = {
    "tools": ["bash", "read", "done"],
    "output_cap_bytes": 40,
    "guards": {"repeat_stop": 2, "no_progress_stop": 1},
}
"""An agent that cannot edit, sees the ends of what commands say, and is sent home when it looks at its work once."""


@dataclass(frozen=True)
class Move:
    """One change of one setting; None takes a setting back to the packaged one."""

    name: str
    why: str
    change: Mapping[str, Any]


MOVES = (
    Move("edit tool", "changes by hand in a shell lose lines", {"tools": ["bash", "read", "edit", "done"]}),
    Move("whole output", "what a command says at its end is the error", {"output_cap_bytes": 600}),
    Move("patience", "to look at the work is no standstill", {"guards": None}),
    Move("short output", "shorter prompts are cheaper", {"output_cap_bytes": 20}),
    Move("no shell", "commands are dangerous", {"tools": ["read", "edit", "done"]}),
    Move("more words", "a header over each output says what it is", {"terse": False}),
    Move("one line at a time", "less is read, so less is forgotten", {"read_cap_lines": 1}),
    Move("long reads", "more context", {"read_cap_lines": 400}),
    Move("another greeting", "a role makes a model careful", {"system": "You are a careful engineer."}),
    Move("empty done", "an agent knows when it is done", {"guards": {"refuse_empty_done": False}}),
    Move("exact edits", "what is looked for should be there", {"tolerant_edits": False}),
    Move("room", "an output is rarely needed whole", {"output_cap_bytes": 300}),
)


def settings_of(content: bytes | None) -> Settings:
    """Raises BadInput where a commit has no settings, or they are no TOML."""
    if content is None:
        raise BadInput(f"There is no {FILE} in this version.")
    try:
        return parsed_toml(content.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"{FILE}: {error}.") from error


def text_of(settings: Settings) -> bytes:
    return tomli_w.dumps(dict(settings)).encode()


def moved(settings: Settings, move: Move) -> Settings:
    found = dict(settings)
    for key, value in move.change.items():
        found[key] = {**found.get(key, {}), **value} if isinstance(value, dict) else value
    return {key: value for key, value in found.items() if value is not None}


def neighbours(settings: Settings, tried: Iterable[tuple[str, int]], parent: int) -> list[Move]:
    """Moves that change anything and were not tried from this parent: what did not help once may help from elsewhere."""
    before = set(tried)
    return [move for move in MOVES if moved(settings, move) != settings and (move.name, parent) not in before]


Screen = Callable[[str, Mapping[str, Settings]], Mapping[str, float]]
"""Commit of the parent and settings by name → how many tasks of a small lane of its own each of them resolves, as a share. Chooses
what is proposed, decides nothing, and spends no alpha."""


@dataclass(frozen=True)
class SettingsSearch:
    """Of the moves that were tried least, the one that looks best on the screen; among equals one drawn, by the seed and the number,
    so that a campaign can be repeated."""

    sources: Sources
    branch: str
    screen: Screen
    seed: int
    parents: ParentChoice = ParentChoice.ACTIVE

    def propose(self, state: State) -> Proposal | None:
        parent = chosen_parent(state, self.parents, f"{self.seed}/{state.next_number}")
        move = self._next(state, parent)
        if move is None:
            # Everything was tried from there; from what works there may be something left.
            parent = state.versions[-1].generation
            move = self._next(state, parent)
        if move is None:
            return None
        text = contract_text(contract_of(move))
        return Proposal(move.name, text, Origin.SEARCH, f"{move.name} from {parent}", parent)

    def _next(self, state: State, parent: int) -> Move | None:
        commit = commit_of(state, self.sources, self.branch, parent)
        settings = settings_of(self.sources.file(commit, FILE))
        tried = [(found.title, found.parent) for found in state.generations.values()]
        found = neighbours(settings, tried, parent)
        if not found:
            return None
        changed = {move.name: moved(settings, move) for move in MOVES}
        rates = self.screen(commit, {name: after for name, after in changed.items() if after != settings})
        best = max((rates[move.name] for move in found if move.name in rates), default=None)
        first = [move for move in found if move.name in rates and rates[move.name] == best]
        return random.Random(f"{self.seed}/{state.next_number}").choice(first) if first else None


def contract_of(move: Move) -> Contract:
    """What a move promises, in the form of every contract."""
    return Contract(
        title=move.name,
        objective=move.why,
        requirements=(f"{FILE}: {dict(move.change)}",),
        criteria=(Criterion(id="A1", text="more tasks of the development lane are resolved than before"),),
        files=(FILE,),
    )


def commit_of(state: State, sources: Sources, branch: str, parent: int) -> str:
    """Of a generation; for the one that works, and for the first version, as the branch has it."""
    if parent == state.versions[-1].generation:
        return sources.commit_of(branch)
    return state.generation(parent).candidate_commit if parent else state.versions[0].version


def without(found: Sequence[Generation], left_out: int, first: Settings) -> Settings:
    """What all promoted moves but one make of the first settings."""
    settings = first
    for one in found:
        if one.number != left_out:
            settings = moved(settings, move_named(one.title))
    return settings


@dataclass(frozen=True)
class SettingsAuthor:
    """Makes the candidate of a move: one commit on the active version, under a ref of its own."""

    ledger: EventLog
    sources: Sources
    branch: str

    def work(self, found: Generation) -> None:
        if found.phase is Phase.PREPARING:
            found = move_on(self.ledger, found, Phase.RUNNING)
        base = self.sources.commit_of(self.branch)
        move = move_named(found.title)
        # A parent that does not work now lends its settings; the candidate stands on what works, which it is held against.
        parent = commit_of(self.ledger.state(), self.sources, self.branch, found.parent)
        settings = settings_of(self.sources.file(parent, FILE))
        commit = self.sources.with_files(
            base, {FILE: text_of(moved(settings, move))}, f"generation {found.number}: {move.name}"
        )
        reported(self.ledger, self.sources, found, base, commit)


def move_named(title: str) -> Move:
    found = next((move for move in MOVES if move.name == title), None)
    if found is None:
        raise BadInput(f'No move is called "{title}"; it was proposed by another version of Looper.')
    return found
