"""Attempts with verdicts → the ones worth learning from."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from looper.records.base import content_hash
from looper.records.training import Selection, SelectionSettings
from looper.records.trajectory import Done, Edit, ObservationKind, Read, Step, Trajectory, Write
from looper.records.verdict import Outcome, Verdict


@dataclass(frozen=True)
class Attempt:
    trajectory: Trajectory
    steps: tuple[Step, ...]
    verdict: Verdict


def select(
    attempts: Sequence[Attempt], training_tasks: Collection[str], settings: SelectionSettings
) -> tuple[list[Attempt], Selection]:
    """The shortest resolved attempts at each training task, cleaned, and what became of all others.

    What counts is the typed verdict: a patch that was made and not verified is no success.
    """
    counts = dict.fromkeys(
        ("unresolved", "without_verdict", "without_steps", "outside", "duplicates", "over_cap"), 0
    )
    by_task: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        if attempt.trajectory.instance_id not in training_tasks:
            counts["outside"] += 1
        elif not attempt.verdict.outcome.is_verdict:
            counts["without_verdict"] += 1
        elif attempt.verdict.outcome is not Outcome.RESOLVED:
            counts["unresolved"] += 1
        else:
            by_task.setdefault(attempt.trajectory.instance_id, []).append(attempt)
    taken: list[Attempt] = []
    dropped_steps = 0
    for task in sorted(by_task):
        distinct: dict[str, Attempt] = {}
        for attempt in sorted(
            by_task[task], key=lambda item: (len(item.steps), item.trajectory.cell, item.trajectory.attempt)
        ):
            cleaned = without_detours(attempt.steps) if settings.drop_detours else attempt.steps
            if not cleaned:
                counts["without_steps"] += 1
                continue
            key = content_hash(*(step.action for step in cleaned if step.action is not None))
            if key in distinct:
                counts["duplicates"] += 1
            else:
                distinct[key] = Attempt(attempt.trajectory, cleaned, attempt.verdict)
                if len(distinct) <= settings.per_task:
                    dropped_steps += len(attempt.steps) - len(cleaned)
        found = list(distinct.values())
        taken += found[: settings.per_task]
        counts["over_cap"] += len(found[settings.per_task :])
    return taken, Selection(
        seen=len(attempts),
        **counts,
        taken=len(taken),
        tasks=tuple(dict.fromkeys(attempt.trajectory.instance_id for attempt in taken)),
        dropped_steps=dropped_steps,
    )


def preference_pairs(taken: Sequence[Attempt], attempts: Sequence[Attempt]) -> list[tuple[Attempt, Attempt]]:
    """Each success with the shortest failure at the same task, where there is one; a failure is used once."""
    failures: dict[str, list[Attempt]] = {}
    for attempt in sorted(attempts, key=lambda item: (len(item.steps), item.trajectory.cell)):
        acted = any(step.action is not None for step in attempt.steps)
        if attempt.verdict.outcome is Outcome.UNRESOLVED and acted:
            failures.setdefault(attempt.trajectory.instance_id, []).append(attempt)
    return [
        (success, failures[success.trajectory.instance_id].pop(0))
        for success in taken
        if failures.get(success.trajectory.instance_id)
    ]


def without_detours(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Leave out what neither changed the tree nor was needed for a change: replies without an action, refused actions,
    and reads of files that were never edited. The steps that stay saw what they would have seen without the others."""
    edited = {
        step.action.path
        for step in steps
        if isinstance(step.action, Edit | Write) and step.observation.kind is ObservationKind.OK
    }
    return tuple(step for step in steps if _had_effect(step, edited))


def _had_effect(step: Step, edited: Collection[str]) -> bool:
    match step.action:
        case None:
            return False
        case Done():
            return step.observation.kind is ObservationKind.END
        case Read(path=path) if path not in edited:
            return False
    return step.observation.kind is ObservationKind.OK
