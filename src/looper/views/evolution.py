"""A campaign as its ledger tells it: where it stands, and who comes from whom."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from looper.metrics.paired import paired_difference
from looper.records.gate import Benchmarked
from looper.records.generation import Activated, Challenged, Event, Moved, Phase, Proposed


def tree_lines(events: Sequence[Event]) -> Iterator[str]:
    """Every generation below its parent, with its end and what the gates saw."""
    proposed = [found.happened for found in events if isinstance(found.happened, Proposed)]
    ends: dict[int, Moved] = {}
    evidence: dict[int, str] = {}
    for event in events:
        if isinstance(event.happened, Moved):
            move = event.happened
            evidence[move.generation] = move.evidence or evidence.get(move.generation, "")
            # What was decided says more than that it was kept aside afterwards.
            if move.after is not Phase.ARCHIVED or move.cause:
                ends[move.generation] = move
    activated = [found.happened for found in events if isinstance(found.happened, Activated)]
    active = activated[-1].generation if activated else None

    def below(parent: int, depth: int) -> Iterator[str]:
        for found in proposed:
            if found.parent == parent:
                number = found.generation
                mark = "*" if number == active else " "
                said = ends[number].after.value if number in ends else Phase.PROPOSED.value
                tests = "".join(
                    f", {one.lane} {_gain(one.found)}"
                    for one in _challenges(events)
                    if one.generation == number
                )
                why = f", {evidence[number]}" if evidence.get(number) and not tests else ""
                yield f"{mark}{'  ' * depth}{number} {found.title}: {said}{tests}{why}"
                yield from below(number, depth + 1)

    yield f"{'*' if active == 0 else ' '}0 the version that the campaign began with"
    yield from below(0, 1)


def _challenges(events: Sequence[Event]) -> list[Challenged]:
    return [found.happened for found in events if isinstance(found.happened, Challenged)]


def _gain(found: Benchmarked) -> str:
    return f"{100 * found.estimate:+.1f} points, p = {found.p_value:.2g}"


def unseen_line(active: Mapping[str, bool], first: Mapping[str, bool]) -> str:
    """What the active version is worth on tasks that the campaign has not used."""
    found = paired_difference(active, first)
    if found is None:
        return "on unseen tasks: not measured"
    return (
        f"on {found.pairs} unseen tasks the active version resolves {sum(active.values())}, the first one {sum(first.values())}: "
        f"{100 * found.difference:+.1f} points, 95 % {100 * found.low:+.1f} to {100 * found.high:+.1f}, p = {found.p_value:.2g}"
    )


def described(events: Sequence[Event], folded: Any) -> dict[str, Any]:
    """For machines."""
    return {
        "events": len(events),
        "generations": {
            number: {
                "title": found.title,
                "phase": found.phase.value,
                "parent": found.parent,
                "evidence": found.evidence,
            }
            for number, found in folded.generations.items()
        },
        "active": folded.active,
        "decided": folded.decided,
        "tested": dict(folded.tested),
        "stopped": folded.stopped,
    }
