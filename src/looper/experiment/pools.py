"""What a run has gathered → the successes of each source, seed and repository."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from looper.journal import read_stream
from looper.records.base import grouped
from looper.records.learning import Experience, Source
from looper.records.plan import Arm, Plan, RunManifest
from looper.records.task import Task
from looper.records.training import Selection
from looper.records.trajectory import Step, Trajectory
from looper.records.verdict import Outcome, Verdict, final_verdicts
from looper.training.select import Attempt, preference_pairs, select

HELD_OUT = 12
"""Failures that are kept to look at an adapter with."""


@dataclass(frozen=True)
class Pool:
    """The successes of one source, seed and repository."""

    attempts: tuple[Attempt, ...]
    """In the order of their tasks."""
    selection: Selection
    pairs: tuple[tuple[Attempt, Attempt], ...]
    """Successes with a failure at the same task."""
    failures: tuple[Attempt, ...]
    """At tasks that were never resolved. Nothing is trained on them, so they show how a trained model behaves elsewhere."""
    wrong: tuple[Attempt, ...]
    """Other attempts that did not resolve their task, for arms that learn from everything."""


class Pools:
    """The successes of a run's experience, as far as it has been gathered."""

    def __init__(self, manifest: RunManifest, tasks: Mapping[str, Task], attempts: Iterable[Attempt]) -> None:
        """Of `attempts` those that gathered experience are looked at."""
        assert manifest.plan.experience is not None
        self._manifest, self._tasks = manifest, tasks
        self._experience: Experience = manifest.plan.experience
        self._by_cell = {attempt.verdict.cell: attempt for attempt in attempts}
        self._known: dict[tuple[str, Source, int, str], Pool | None] = {}

    def of(
        self, source: Source, seed: int, repo: str, learner: Arm | None = None, number: int = 1
    ) -> Pool | None:
        """None where nothing was tried. A `learner` in a later round also has what it did itself before that round."""
        key = (f"{learner.name}_{number}" if learner and number > 1 else "", source, seed, repo)
        if key not in self._known:
            plan = self._manifest.plan
            arms = list(plan.experience_arms(source))
            if learner is not None:
                arms += [
                    arm
                    for round_number in range(2, number + 1)
                    for arm in plan.later_experience_arms(learner, round_number)
                ]
            names = self._manifest.experience_tasks.get(source, ())
            attempts = [
                found
                for arm in arms
                for name in names
                if self._tasks[name].repo == repo
                and (found := self._by_cell.get(f"{arm.name}/{seed}/{name}")) is not None
            ]
            self._known[key] = self._pool(attempts, frozenset(names)) if attempts else None
        return self._known[key]

    def without_pruning(self, attempt: Attempt) -> Attempt:
        """An attempt as it went, before anything was left out."""
        return self._by_cell[attempt.verdict.cell]

    def _pool(self, attempts: Sequence[Attempt], split: frozenset[str]) -> Pool:
        taken, selection = select(attempts, split, self._experience.selection)
        taken.sort(key=lambda item: self._tasks[item.trajectory.instance_id].sequence_position)
        resolved = set(selection.tasks)
        failures = [
            attempt
            for attempt in attempts
            if attempt.verdict.outcome is Outcome.UNRESOLVED
            and attempt.trajectory.instance_id not in resolved
        ]
        pairs = preference_pairs(taken, attempts)
        held_out = failures[:HELD_OUT]
        wrong = [
            found
            for found in attempts
            if found.verdict.outcome is Outcome.UNRESOLVED
            and found not in held_out
            and any(step.action is not None for step in found.steps)
        ]
        return Pool(tuple(taken), selection, tuple(pairs), tuple(held_out), tuple(wrong))

    def matched(self, plan: Plan, seed: int, repo: str) -> int:
        """How many successes every arm of this seed and repository learns from: as many as the poorest source has.

        Otherwise a control that learns from another source would also learn from another amount. Guided experience comes
        after the others, and has what is left of this.
        """
        pools = [self.of(source, seed, repo) for source in plan.matched_sources]
        return min(len(pool.attempts) for pool in pools if pool is not None)

    def failures(self, plan: Plan, seed: int, repo: str) -> list[Attempt]:
        pools = [self.of(source, seed, repo) for source in plan.matched_sources]
        return [attempt for pool in pools if pool is not None for attempt in pool.failures]


def combined(selections: Iterable[Selection]) -> Selection:
    """What became of the attempts of several repositories together."""
    found = list(selections)
    counts = {
        name: sum(getattr(selection, name) for selection in found)
        for name in Selection.model_fields
        if name != "tasks"
    }
    return Selection(**counts, tasks=tuple(task for selection in found for task in selection.tasks))


def read_attempts(folder: Path) -> list[Attempt]:
    """The attempt that ended each cell of a run, where it has both a rollout and an end."""
    steps = grouped(((step.cell, step.attempt), step) for step in read_stream(folder, "steps", Step))
    ends = {(end.cell, end.attempt): end for end in read_stream(folder, "trajectories", Trajectory)}
    verdicts = final_verdicts(read_stream(folder, "verdicts", Verdict))
    return [
        Attempt(end, tuple(steps.get((end.cell, end.attempt), ())), verdict)
        for verdict in verdicts.values()
        if (end := ends.get((verdict.cell, verdict.attempt))) is not None
    ]
