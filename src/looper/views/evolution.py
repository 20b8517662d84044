"""What became of candidates, as people, machines and the next proposal read it: all of it derived, and made anew at any time.

`looper evolve`, the pages, the files beside a ledger and the prompt of the next proposal take their words from here. The input is a
`State`, which `evolution/state` folds from the events.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from looper.evolution.reflect import lessons
from looper.evolution.state import Generation, State
from looper.metrics.paired import paired_difference
from looper.records.gate import Benchmarked, GateOutcome
from looper.records.generation import (
    Cause,
    Event,
    GateJudged,
    Moved,
    Phase,
    Proposed,
    Reported,
    Spent,
    Stopped,
)
from looper.records.text import counted
from looper.views.findings import EXPLORATORY, difference_text, share_text


def tree_lines(state: State) -> Iterator[str]:
    """Every generation below its parent, with its end and what the gates saw; a star at the one that works."""
    active = state.active_generation

    def below(parent: int, depth: int) -> Iterator[str]:
        for found in state.generations.values():
            if found.parent == parent:
                mark = "*" if found.number == active else " "
                yield f"{mark}{'  ' * depth}{found.number} {found.title}: {outcome(found)}{_seen(found)}"
                yield from below(found.number, depth + 1)

    yield f"{'*' if active == 0 else ' '}0 the version that the campaign began with"
    yield from below(0, 1)


def outcome(found: Generation) -> str:
    """What was decided says more than that it was kept aside afterwards; why, where the decision does not say it."""
    if found.verdict is None:
        return f"{found.phase.value} ({found.cause.value})" if found.cause else found.phase.value
    return found.verdict.value


def _seen(found: Generation) -> str:
    tests = "".join(f", {lane} {tested_text(one)}" for lane, one in found.tested.items())
    return tests or (f", {found.evidence}" if found.evidence else "")


def tested_text(found: Benchmarked) -> str:
    """What a gate measured of a candidate, as the campaign's rule decides it: that was set before the data, whose test it is."""
    low, high = (f"{100 * end:+z.1f}" for end in (found.lower, found.upper))
    return (
        f"{100 * found.estimate:+z.1f} points of tasks resolved, candidate − parent, by task ({found.pairs}), "
        f"{share_text(1 - 2 * found.alpha_spent)} {low} to {high}, one-sided p = {found.p_value:.2g}, decided by the gate's rule"
    )


def unseen_line(active: Mapping[str, bool], first: Mapping[str, bool]) -> str:
    """What the active version is worth on tasks that the campaign has not used."""
    found = paired_difference(active, first)
    if found is None:
        return "on unseen tasks: not measured"
    return (
        f"on {counted(found.units, 'unseen task')} the active version resolves {sum(active.values())}, the first one "
        f"{sum(first.values())}; active − first ({EXPLORATORY}, about tasks like these): {difference_text(found)}"
    )


def credit_line(title: str, active: Mapping[str, bool], without: Mapping[str, bool]) -> str:
    """What one accepted change is worth: the active version less the same without it, on the same tasks."""
    found = paired_difference(active, without)
    if found is None:
        return f"  {title}: not measured"
    return f"  {title}, active − without it ({EXPLORATORY}, about tasks like these): {difference_text(found)}"


def described(state: State) -> dict[str, Any]:
    """For machines."""
    return {
        "generations": {
            str(number): described_generation(found) for number, found in state.generations.items()
        },
        "active": state.active,
        "active_generation": state.active_generation,
        "decided": state.decided,
        "tested": dict(state.tested),
        "tokens": {role.value: count for role, count in state.tokens.items()},
        "calls": state.calls,
        "cost_usd": state.cost_usd,
        "stopped": state.stopped,
    }


def described_generation(found: Generation) -> dict[str, Any]:
    return {
        "generation": found.number,
        "parent": found.parent,
        "title": found.title,
        "source": found.source.value,
        "program_hash": found.contract_hash,
        "phase": found.phase.value,
        "outcome": outcome(found),
        "cause": found.cause.value,
        "evidence": found.evidence,
        "attempt": found.attempt,
        "base_commit": found.base_commit,
        "candidate_commit": found.candidate_commit,
        "candidate_hash": found.candidate_hash,
        "judge_version": found.judge,
        "token_usage": {role.value: count for role, count in found.tokens.items()},
        "stop_reason": found.reported.stop_reason if found.reported else None,
        "duration_s": found.reported.wall_s if found.reported else None,
        "tool_stats": {
            name: used.model_dump() for name, used in (found.reported.tools if found.reported else {}).items()
        },
        "verification": {
            "gates": [one.model_dump(mode="json") for one in found.judged],
            "review": found.reviewed.model_dump(mode="json") if found.reviewed else None,
            "benchmark": {lane: one.model_dump(mode="json") for lane, one in found.tested.items()},
        },
    }


def supervisor_event(event: Event) -> tuple[str, dict[str, Any]]:
    """Name and fields under which one event of a ledger is told to whoever follows a campaign."""
    match event.happened:
        case Proposed() as one:
            return "spawn", {
                "generation": one.generation,
                "status": "starting",
                "branch": _ref(one.generation),
            }
        case Moved(after=Phase.RUNNING) as one:
            return "spawn", {
                "generation": one.generation,
                "status": "spawned",
                "branch": _ref(one.generation),
            }
        case Moved(after=Phase.PROMOTED) as one:
            return "promote", {"generation": one.generation, "commit": one.candidate_commit}
        case Moved(after=Phase.ROLLED_BACK) as one:
            return "rollback", {"generation": one.generation}
        case Moved(cause=Cause.TIMEOUT) as one:
            return "timeout", {"generation": one.generation}
        case Moved() as one:
            status = {"generation": one.generation, "status": one.after.value, "progress": one.evidence}
            return "lab_status", {**status, "error": one.evidence if one.cause.of_the_world else ""}
        case Reported() as one:
            done = {
                "generation": one.generation,
                "status": "done",
                "progress": f"{counted(one.steps, 'step')}",
            }
            return "lab_done", {**done, "stop_reason": one.stop_reason}
        case GateJudged() as one:
            return "gate", {"generation": one.generation, **one.found.model_dump(mode="json")}
        case Spent() as one:
            return "budget", one.model_dump(mode="json", exclude={"kind"})
        case Stopped() as one:
            return "stop", {"reason": one.reason}
        case other:
            return other.kind, other.model_dump(mode="json", exclude={"kind"})


def _ref(number: int) -> str:
    return f"evolve/gen-{number}"


def report_lines(found: Generation) -> Iterator[str]:
    yield f"generation {found.number}, {found.title}: {outcome(found)}"
    if found.candidate_hash:
        yield f"  candidate {found.candidate_hash[:12]}, commit {found.candidate_commit[:12]}, on {found.base_commit[:12]}"
    if found.reported:
        done = found.reported
        yield f"  work: {counted(done.steps, 'step')} in {done.wall_s:.0f} s, +{done.insertions} -{done.deletions}, ended by {done.stop_reason}"
    for one in found.judged:
        yield f"  {one.gate}: {one.outcome.value}: {one.evidence}"
    for lane, tested in found.tested.items():
        yield f"  {lane}: {tested.outcome.value}, {tested_text(tested)}"
    if found.reviewed:
        yield from (f"  reviewer: {issue}" for issue in found.reviewed.issues)
    if found.evidence and not any(found.evidence.endswith(one.evidence) for one in found.judged):
        yield f"  {found.evidence}"


def derived(
    events: Sequence[Event], state: State, contract: Callable[[str], str]
) -> Iterator[tuple[str, str]]:
    """Path and text of every file that people and other programs read beside the ledger."""
    ended = {event.happened.generation: event.at for event in events if isinstance(event.happened, Moved)}
    lines = []
    for number, found in state.generations.items():
        yield f"programs/gen-{number}.md", contract(found.contract_hash)
        report = {**described_generation(found), "completed": ended.get(number)}
        yield f"programs/gen-{number}-report.json", json.dumps(report, indent=1) + "\n"
        if found.verdict is not None:
            lines.append(_fitness(found, ended.get(number, "")))
    yield "fitness-log.jsonl", "".join(json.dumps(line) + "\n" for line in lines)
    yield "lessons.jsonl", "".join(json.dumps({"lesson": lesson}) + "\n" for lesson in lessons(state))


def _fitness(found: Generation, at: str) -> Mapping[str, Any]:
    tested = found.tested.get("development")
    failed = [one for one in found.judged if one.outcome is not GateOutcome.PASS]
    return {
        "generation": found.number,
        "outcome": outcome(found),
        "gain": tested.estimate if tested else None,
        "gain_lower": tested.lower if tested else None,
        "tokens": {role.value: count for role, count in found.tokens.items()},
        "program_title": found.title,
        "program_hash": found.contract_hash,
        "failure_reason": failed[0].evidence
        if failed
        else found.evidence
        if found.verdict is not Phase.PROMOTED
        else "",
        "timestamp": at,
    }
