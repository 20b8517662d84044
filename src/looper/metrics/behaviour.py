"""How an arm worked, beside what it resolved: shares of steps and of rollouts, by the names of the field."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from statistics import fmean

from looper.metrics.arms import Rate
from looper.records.trajectory import Guard, ObservationKind, ReplyProblem, StopReason, Trajectory
from looper.records.verdict import Outcome, Verdict

FINE = (ObservationKind.OK, ObservationKind.END)


@dataclass
class StepCounts:
    """How many steps there are of each kind."""

    steps: int = 0
    acted: int = 0
    """With an action that could be read."""
    truncated: int = 0
    ambiguous: int = 0
    overseen: int = 0
    fine: int = 0
    """Actions that did what was asked."""
    edits: int = 0
    edits_refused: int = 0
    edits_tolerant: int = 0

    def add(
        self, *, tool: str | None, problem: str | None, kind: str, overseen: bool, tolerant: bool
    ) -> None:
        self.steps += 1
        self.acted += tool is not None
        self.truncated += problem == ReplyProblem.TRUNCATED
        self.ambiguous += problem == ReplyProblem.SEVERAL_ACTIONS
        self.overseen += overseen
        self.fine += tool is not None and kind in FINE
        self.edits += tool == "edit"
        self.edits_refused += tool == "edit" and kind == ObservationKind.REFUSED
        self.edits_tolerant += tool == "edit" and tolerant

    def as_list(self) -> list[int]:
        return [getattr(self, field.name) for field in fields(self)]

    @classmethod
    def together(cls, counts: "Iterable[StepCounts]") -> "StepCounts":
        return cls(*map(sum, zip(*(found.as_list() for found in counts), strict=True)))


def step_rates(counts: StepCounts, tasks: frozenset[str]) -> dict[str, Rate]:
    """Shares of steps, of tool calls and of edits. `tasks` are those that the steps belong to."""

    def of_steps(hits: int) -> Rate:
        return Rate(hits, counts.steps, tasks)

    return {
        "valid_action_rate": of_steps(counts.acted),
        "truncated_action_rate": of_steps(counts.truncated),
        "ambiguous_action_rate": of_steps(counts.ambiguous),
        "intervention_rate": of_steps(counts.overseen),
        "tool_success_rate": Rate(counts.fine, counts.acted, tasks),
        "edit_exact_rate": Rate(
            counts.edits - counts.edits_refused - counts.edits_tolerant, counts.edits, tasks
        ),
        "edit_tolerant_rate": Rate(counts.edits_tolerant, counts.edits, tasks),
        "edit_refused_rate": Rate(counts.edits_refused, counts.edits, tasks),
    }


def rollout_rates(ends: Sequence[Trajectory], tasks: frozenset[str]) -> dict[str, Rate]:
    """Shares of rollouts that ended in a way, or in which a guard had to step in."""

    def share(hits: int) -> Rate:
        return Rate(hits, len(ends), tasks)

    def ended(reason: StopReason) -> Rate:
        return share(sum(end.stop_reason is reason for end in ends))

    return {
        "premature_done_rate": share(sum(Guard.PREMATURE_DONE in end.guards for end in ends)),
        "stalled_rate": ended(StopReason.STALLED),
        "step_limit_rate": ended(StopReason.STEP_LIMIT),
        "time_limit_rate": ended(StopReason.TIME_LIMIT),
        "empty_patch_rate": share(sum(not end.patch for end in ends)),
        "patch_at_limit_rate": share(sum(end.patch_at_limit for end in ends)),
    }


def verdict_rates(verdicts: Sequence[Verdict], ends: Mapping[tuple[str, int], Trajectory]) -> dict[str, Rate]:
    """Shares of verdicts: what was fixed, broken, or changed in vain."""
    judged = [found for found in verdicts if found.outcome.is_verdict]
    tasks = frozenset(found.instance_id for found in judged)
    guarded = [found for found in judged if found.pass_to_pass]
    wrong = [
        found
        for found in judged
        if found.outcome is Outcome.UNRESOLVED
        and (end := ends.get((found.cell, found.attempt))) is not None
        and end.patch
    ]
    return {
        "f2p_only_rate": Rate(sum(found.f2p_only for found in judged), len(judged), tasks),
        "wrong_fix_rate": Rate(len(wrong), len(judged), tasks),
        "p2p_break_rate": Rate(
            sum(any(not test.passes for test in found.pass_to_pass.values()) for found in guarded),
            len(guarded),
            frozenset(found.instance_id for found in guarded),
        ),
    }


def f2p_fraction(verdicts: Iterable[Verdict]) -> float | None:
    """Mean over attempts of the share of FAIL_TO_PASS tests that pass; None without a verdict. Tells arms apart where
    resolves are rare."""
    shares = [
        fmean(test.passes for test in found.fail_to_pass.values())
        for found in verdicts
        if found.outcome.is_verdict and found.fail_to_pass
    ]
    return fmean(shares) if shares else None


def whole_sum(values: Iterable[int | None]) -> int | None:
    """None where one of them was not counted."""
    known = list(values)
    return None if None in known else sum(filter(None, known))


def tokens_per_resolved(
    verdicts: Sequence[Verdict], ends: Mapping[tuple[str, int], Trajectory]
) -> float | None:
    """All tokens of the judged attempts for each resolved one; None where none is resolved or tokens were not counted."""
    judged = [found for found in verdicts if found.outcome.is_verdict]
    resolved = sum(found.outcome is Outcome.RESOLVED for found in judged)
    spent = [ends[key] for found in judged if (key := (found.cell, found.attempt)) in ends]
    total = whole_sum(end.tokens for end in spent)
    return total / resolved if total is not None and resolved and spent else None
