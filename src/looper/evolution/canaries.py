"""Candidates whose end is known, put through the gates before any other: a gate that errs on these judges nobody."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from looper.evolution.benchmark import AlphaAccount, Lane, benchmarked
from looper.evolution.gates import ChangeScope, frozen, manifest_gate, scope_gate
from looper.evolution.search import FILE, Move, Settings, moved, text_of
from looper.protocols import Sources
from looper.records.gate import BenchmarkRule, GateOutcome

ALONE = BenchmarkRule(challengers=1)
"""A canary tells of the gate, not of a candidate, so it has an alpha of its own."""


@dataclass(frozen=True)
class ControlCandidate:
    """One candidate, on a base of its own."""

    name: str
    base: Mapping[str, bytes | None]
    files: Mapping[str, bytes | None]
    caught_by: str
    """The gate that must refuse it; empty for one that must pass them all."""


def canaries(poor: Settings, better: Move, fixed: str) -> tuple[ControlCandidate, ...]:
    """`better` is known to help an agent with the settings `poor` much; `fixed` is a path that nobody may change."""
    good = {FILE: text_of(moved(poor, better))}
    bad = {FILE: text_of(poor)}
    return (
        ControlCandidate("a real improvement", bad, good, ""),
        ControlCandidate("harm", good, bad, "benchmark"),
        ControlCandidate("an edit of a fixed point", bad, {**good, fixed: b"alpha = 0.5\n"}, "manifest"),
        ControlCandidate("no change", bad, {}, "scope"),
        ControlCandidate(
            "a plugin that turns failures green", bad, {"agent/conftest.py": b"import pytest\n"}, "scope"
        ),
        ControlCandidate("a module that does not parse", bad, {"agent/new.py": b"def broken(:\n"}, "scope"),
        ControlCandidate("a file outside of what may change", bad, {"elsewhere.py": b"x = 1\n"}, "scope"),
        ControlCandidate(
            "a thousand trivial tests",
            bad,
            {"agent/checks.py": b"def test():\n    assert True\n\n\n" * 1000},
            "scope",
        ),
    )


Refuse = Callable[[str, str], str]
"""Commits of a base and of a candidate → the gate that refuses it; empty where all let it through."""


def missed(sources: Sources, root: str, known: tuple[ControlCandidate, ...], refuse: Refuse) -> list[str]:
    """Those that ended otherwise than they must, in words. `root` is the commit that they are made from."""
    found = []
    for canary in known:
        base = sources.with_files(root, canary.base, f"canary: {canary.name}, base")
        candidate = sources.with_files(base, canary.files, f"canary: {canary.name}")
        gate = refuse(base, candidate)
        if gate != canary.caught_by:
            found.append(
                f"{canary.name} was {f'refused by the {gate} gate' if gate else 'let through'}, and must be "
                f"{f'refused by the {canary.caught_by} gate' if canary.caught_by else 'let through'}"
            )
    return found


def on_bytes(sources: Sources, scope: ChangeScope, base: str, candidate: str) -> str:
    """The gate of those that run nothing which refuses a candidate."""
    for gate in (
        manifest_gate(sources, candidate, frozen(sources, base, scope), scope),
        scope_gate(sources, base, candidate, scope),
    ):
        if gate.outcome is not GateOutcome.PASS:
            return gate.gate
    return ""


def on_the_lane(sources: Sources, scope: ChangeScope, lane: Lane, base: str, candidate: str) -> str:
    """As `on_bytes`, and by the benchmark."""
    if gate := on_bytes(sources, scope, base, candidate):
        return gate
    ours, theirs = lane("canary", candidate, base)
    return "" if benchmarked(ours, theirs, AlphaAccount(ALONE)).outcome is GateOutcome.PASS else "benchmark"
