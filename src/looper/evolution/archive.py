"""Everything that was built and not refused, and from which of it the next candidate is made."""

import random
from collections.abc import Iterator
from enum import StrEnum

from looper.evolution.state import Generation, State
from looper.records.generation import Phase


class ParentChoice(StrEnum):
    """From what the next candidate is made; what it is held against is always the version that works."""

    ACTIVE = "active"
    """The version that works."""
    CLADE = "clade"
    """Drawn by how well everything that descends from it did: a version whose children win is worth more than one that won itself.
    Source: Huxley-Gödel Machine, 2025, by Thompson sampling."""


def members(state: State) -> tuple[int, ...]:
    """Generations that may be parents: the first version, those that worked, and those of which nothing was decided."""
    kept = (
        found.number
        for found in state.generations.values()
        if found.candidate_hash and found.verdict in (Phase.PROMOTED, Phase.INCONCLUSIVE)
    )
    return 0, *kept


def chosen_parent(state: State, how: ParentChoice, seed: str) -> int:
    """The same for the same state and seed."""
    active = state.versions[-1].generation
    if how is ParentChoice.ACTIVE:
        return active
    rng = random.Random(f"{seed}/parent")
    draws = {}
    for number in members(state):
        wins, losses = clade_record(state, number)
        draws[number] = rng.betavariate(1 + wins, 1 + losses)
    return max(draws, key=lambda number: draws[number])


def clade_record(state: State, number: int) -> tuple[int, int]:
    """Tasks won and lost on the development lane by a generation and all that descend from it."""
    tested = [found.tested["development"] for found in _clade(state, number) if "development" in found.tested]
    return sum(one.wins for one in tested), sum(one.losses for one in tested)


def _clade(state: State, number: int) -> Iterator[Generation]:
    for found in state.generations.values():
        up = found.number
        while up and up != number:
            up = state.generations[up].parent
        if up == number:
            yield found


def lineage(state: State) -> list[Generation]:
    """The promoted generations that the active version holds, oldest first."""
    held: list[int] = []
    for version in state.versions:
        if version.back:
            held = held[: held.index(version.generation) + 1] if version.generation in held else []
        elif version.generation:
            held.append(version.generation)
    return [state.generations[number] for number in held]
