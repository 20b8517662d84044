"""Proposals that need no language model: one setting of the agent's scaffold at a time.

Each move is a fault that agents' frameworks really had, or its mend. Which is which depends on where one stands, and the gate says it.
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import tomli_w

from looper.errors import BadInput

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
        return tomllib.loads(content.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"{FILE}: {error}.") from error


def text_of(settings: Settings) -> bytes:
    return tomli_w.dumps(dict(settings)).encode()


def moved(settings: Settings, move: Move) -> Settings:
    """The settings after a move."""
    found = dict(settings)
    for key, value in move.change.items():
        found[key] = {**found.get(key, {}), **value} if isinstance(value, dict) else value
    return {key: value for key, value in found.items() if value is not None}


def neighbours(settings: Settings, tried: Iterable[tuple[str, int]], parent: int) -> list[Move]:
    """Moves that change anything and were not tried from this parent: what did not help once may help from elsewhere."""
    before = set(tried)
    return [move for move in MOVES if moved(settings, move) != settings and (move.name, parent) not in before]
