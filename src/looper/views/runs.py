"""A run folder as it can be read by anybody at any time, without a lock.

A view is one moment of a run: its records as they stood when they were read, and everything that is worked out from them, each
once, when it is first asked for. Tables, pages, audits and exports all take their figures from here, so that two of them cannot
differ. Who looks again and again keeps a `RunTail`, which reads only what is new.
"""

import difflib
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from looper.errors import BadInput, FileRefused, JournalError, possible
from looper.journal import Damage, Tail, holder_of, must_be_records, read_stream
from looper.metrics.arms import ArmFigures, Rate, arm_figures
from looper.metrics.behaviour import (
    StepCounts,
    f2p_fraction,
    rollout_rates,
    step_rates,
    tokens_per_resolved,
    verdict_rates,
)
from looper.metrics.choice import AttemptOutcome, can_choose, chosen, own_check
from looper.metrics.continual import forgotten
from looper.metrics.design import is_pilot, too_small_for, unit_of
from looper.metrics.paired import (
    AnalysisUnit,
    Difference,
    MeanDifference,
    PairedDifference,
    mean_difference,
    paired_difference,
    rise,
)
from looper.metrics.registered import COVERED, DECIDED, Decision, Registered, decided, judge
from looper.records.base import Record, grouped
from looper.records.learning import Treatment
from looper.records.likelihood import AttemptLikelihood, Likelihood
from looper.records.plan import (
    ArmRole,
    Chooser,
    Contrast,
    Expect,
    Gate,
    LateOverride,
    Metric,
    Override,
    Plan,
    RunManifest,
)
from looper.records.seal import Seal
from looper.records.session import ClusterNode, Session, Trained
from looper.records.text import counted
from looper.records.trajectory import Trajectory
from looper.records.treatment import Consolidation, GateStop, Proof, ProofKind, StoppingGate
from looper.records.verdict import Outcome, Verdict, final_verdicts
from looper.views.index import StepIndex, kept_index, read_on, step_index, steps_at
from looper.views.questions import supported_shares

OF_EACH_CELL = (Metric.VALID_ACTIONS, Metric.INTERVENTIONS, Metric.TARGET_TESTS, Metric.FILE_RECALL)
"""Metrics that every cell with a verdict should have."""


@dataclass(frozen=True)
class RunView:
    """What a run folder says right now."""

    folder: Path
    manifest: RunManifest
    tasks: tuple[str, ...]
    """Ids of the selected tasks."""
    trajectories: tuple[Trajectory, ...]
    verdicts: tuple[Verdict, ...]
    """Up to the one that ended their cell: what was recorded after it is no attempt, and stands among the damage."""
    consolidations: tuple[Consolidation, ...]
    proofs: tuple[Proof, ...]
    gate_stops: tuple[GateStop, ...]
    """Each gate that ended a process; those that are in force `stopped_by` has."""
    late_overrides: tuple[LateOverride, ...]
    likelihoods: tuple[Likelihood, ...]
    attempt_likelihoods: tuple[AttemptLikelihood, ...]
    sessions: tuple[Session, ...]
    trainings: tuple[Trained, ...]
    nodes: tuple[ClusterNode, ...]
    damage: tuple[Damage, ...]
    writer: int | None
    """Process id of the run that is writing; None where none is."""
    followed: Callable[[], StepIndex]
    """Where each step stands."""

    def cells(self, arm: str) -> list[str]:
        """Of an arm that is compared at the tasks to evaluate; of one that gathers experience at those that it is gathered at."""
        plan = self.manifest.plan
        tasks = self.gathering.get(arm, self.tasks)
        arms = plan.every_arm if arm in self.gathering else plan.arms
        seeds = next(plan.seeds_of(found) for found in arms if found.name == arm)
        return [f"{arm}/{seed}/{task}" for seed in seeds for task in tasks]

    @cached_property
    def gathering(self) -> dict[str, tuple[str, ...]]:
        tasks = self.manifest.experience_tasks
        return {arm.name: tasks[source] for source, arm in self.manifest.plan.all_experience()}

    def figures(self, arm: str) -> ArmFigures:
        return arm_figures(arm, self.cells(arm), self.verdicts, self.trajectories)

    def without_arm(self, name: str, known: Iterable[str]) -> BadInput:
        """That none of the `known` arms has this name, and what there is in its place."""
        if name in self.gathering:
            return BadInput(
                f"{name} gathers experience in {self.folder.name}: it learns nothing and is compared with no arm. Its cells: looper show "
                f"--run {self.folder.name} --arm {name}"
            )
        return BadInput(f'{self.folder.name} has no arm "{name}". {possible(name, known)}')

    # What takes long is worked out once: a view is a moment of a run, and several parts of a report ask for the same.

    @cached_property
    def final(self) -> dict[str, Verdict]:
        return final_verdicts(self.verdicts)

    @cached_property
    def ends(self) -> dict[tuple[str, int], Trajectory]:
        return {(end.cell, end.attempt): end for end in self.trajectories}

    @cached_property
    def last_ends(self) -> dict[str, Trajectory]:
        return {end.cell: end for end in self.trajectories}

    @cached_property
    def behaviour(self) -> dict[str, tuple[dict[str, Rate], float | None, float | None]]:
        """For each arm its rates of steps, rollouts and verdicts, its share of target tests, its tokens per resolved task."""
        ends, index, found = self.ends, self.followed(), {}
        for arm in self.manifest.plan.arms:
            verdicts = [verdict for _, verdict in self._verdicts_of(arm.name)]
            mine = [ends[key] for verdict in verdicts if (key := (verdict.cell, verdict.attempt)) in ends]
            tasks = frozenset(end.instance_id for end in mine)
            counts = [
                index.attempts[key].counts
                for verdict in verdicts
                if (key := (verdict.cell, verdict.attempt)) in index.attempts
            ]
            rates = {
                **step_rates(StepCounts.together([StepCounts(), *counts]), tasks),
                **rollout_rates(mine, tasks),
                **verdict_rates(verdicts, ends),
            }
            found[arm.name] = rates, f2p_fraction(verdicts), tokens_per_resolved(verdicts, ends)
        return found

    @property
    def choice_names(self) -> tuple[str, ...]:
        return tuple(found.name for found in self.manifest.plan.choices)

    def chosen(self, name: str) -> dict[str, bool]:
        """Seed and task → whether what a choice takes is resolved, where all attempts that it takes from have a verdict, and
        what its chooser looks at was measured."""
        choice = next(found for found in self.manifest.plan.choices if found.name == name)
        final, ends = self.final, self.ends
        likely = {(found.cell, found.attempt): found.log_likelihood for found in self.attempt_likelihoods}
        checked = self.followed().attempts if choice.by is Chooser.CHECKED else {}
        picked = {}
        for where in self.outcomes(choice.of[0]):
            verdicts = [final.get(f"{arm}/{where}") for arm in choice.of]
            made = [
                AttemptOutcome(
                    end.patch_hash,
                    not end.patch,
                    verdict.outcome is Outcome.RESOLVED,
                    (entry := checked.get((verdict.cell, verdict.attempt))) is not None
                    and own_check(steps_at(self.folder, entry)),
                    likely.get((verdict.cell, verdict.attempt)),
                )
                for verdict in verdicts
                if verdict is not None
                and verdict.outcome.is_verdict
                and (end := ends.get((verdict.cell, verdict.attempt))) is not None
            ]
            if len(made) == len(choice.of) and can_choose(choice.by, made):
                picked[where] = chosen(choice.by, made, f"{name}/{where}").resolved
        return picked

    def share_of_steps(self, arm: str, hits: Callable[[StepCounts], int]) -> dict[str, float]:
        """Seed and task → share of the steps of its rollout, for cells with a verdict."""
        index, found = self.followed(), {}
        for cell, verdict in self._verdicts_of(arm):
            entry = index.attempts.get((cell, verdict.attempt)) if verdict.outcome.is_verdict else None
            if entry is not None and entry.counts.steps:
                found[_where(verdict)] = hits(entry.counts) / entry.counts.steps
        return found

    def measured(self, arm: str, metric: Metric) -> dict[str, float]:
        """Seed and task → an arm's figure; only where it was measured."""
        if metric is Metric.RESOLVED:
            return {where: float(resolved) for where, resolved in self.outcomes(arm).items()}
        judged = [verdict for _, verdict in self._verdicts_of(arm)]
        match metric:
            case Metric.VALID_ACTIONS:
                return self.share_of_steps(arm, lambda counts: counts.acted)
            case Metric.INTERVENTIONS:
                return self.share_of_steps(arm, lambda counts: counts.overseen)
            case Metric.ANSWERS:
                return supported_shares(self.folder, arm)
            case Metric.TARGET_TESTS:
                return {
                    _where(verdict): share
                    for verdict in judged
                    if (share := f2p_fraction([verdict])) is not None
                }
            case Metric.FILE_RECALL:
                return {
                    _where(verdict): verdict.file_recall
                    for verdict in judged
                    if verdict.outcome.is_verdict and verdict.file_recall is not None
                }
            case Metric.ACTION_LOG_LIKELIHOOD:
                return _by_seed((found.seed, found.held_out) for found in self.asked(arm) if found.last)
            case Metric.RETENTION:
                return _by_seed((found.seed, found.learned) for found in self.asked(arm) if found.last)
            case Metric.FORGETTING:
                return _by_seed((seed, self._forgotten(arm, seed)) for seed in self.manifest.plan.seeds)

    def asked(self, arm: str) -> list[Likelihood]:
        return [found for found in self.likelihoods if found.arm == arm]

    def batch_matrices(self, arm: str) -> list[tuple[list[list[float]], list[float]]]:
        """For each seed: the mean log likelihood of what each batch teaches (columns) after every batch (rows), and before the
        first. Nothing where an arm learned all batches together."""
        found = []
        for seed in self.manifest.plan.seeds:
            asked = {one.batches: one for one in self.asked(arm) if one.seed == seed and one.learned}
            if len(asked) > 1 and sorted(asked) == list(range(len(asked))):
                rows = [_by_batch(asked[at]) for at in range(len(asked))]
                if len(rows[0]) == len(rows) - 1:
                    found.append((rows[1:], rows[0]))
        return found

    def _forgotten(self, arm: str, seed: int) -> dict[str, float]:
        """Of every task but those of the last batch. Nothing where an arm learned all batches together."""
        after = {found.batches: found for found in self.asked(arm) if found.seed == seed and found.batches}
        if sorted(after) != list(range(1, len(after) + 1)):
            return {}
        return {
            task: value
            for task, batch in (after[len(after)].batch_of if after else {}).items()
            if (value := forgotten([after[at].learned[task] for at in range(batch, len(after) + 1)]))
            is not None
        }

    def outcomes(self, arm: str) -> dict[str, bool]:
        """Seed and task → whether resolved, for cells with a verdict."""
        if arm in self.choice_names:
            return self.chosen(arm)
        return {
            _where(verdict): verdict.outcome is Outcome.RESOLVED
            for _, verdict in self._verdicts_of(arm)
            if verdict.outcome.is_verdict
        }

    def _verdicts_of(self, arm: str) -> Iterator[tuple[str, Verdict]]:
        """Each cell of an arm that has an end, with it."""
        return ((cell, self.final[cell]) for cell in self.cells(arm) if cell in self.final)

    def tokens(self, arm: str) -> dict[str, float]:
        """Seed and task → tokens of prompts and replies of the rollout that was judged; only where they were counted."""
        ends = [self.ends.get((cell, found.attempt)) for cell, found in self._verdicts_of(arm)]
        return {_where(end): float(end.tokens) for end in ends if end and end.tokens is not None}

    @cached_property
    def contrasts(self) -> list[tuple[str, str, PairedDifference | None]]:
        """Each arm that repeats base or differs from it by its treatment, against the base arm."""
        arms = self.manifest.plan.arms
        base = self.manifest.plan.base
        if base is None:
            return []
        others = [arm for arm in arms if arm.learning or arm.role in (ArmRole.AGAIN, ArmRole.TREATMENT)]
        return [(arm.name, base.name, self.paired(arm.name, base.name)) for arm in others]

    def paired(self, arm: str, against: str) -> PairedDifference | None:
        """Of what two arms resolved, worked out once; None too where one of them is a failed arm, which has no rate."""
        if (arm, against) not in self._paired:
            members = {*self.members(arm), *self.members(against)}
            arms = [one for one in self.manifest.plan.arms if one.name in members]
            # What is not registered can have been learned by repository beside contrasts of what was not.
            unit = (
                self.unit
                if self.unit is AnalysisUnit.REPOSITORY
                else unit_of(self.manifest.plan, self.tasks, arms)
            )
            failed = self.failed_arms.keys() & members
            self._paired[arm, against] = (
                None if failed else paired_difference(self.outcomes(arm), self.outcomes(against), unit)
            )
        return self._paired[arm, against]

    @cached_property
    def _paired(self) -> dict[tuple[str, str], PairedDifference | None]:
        return {}

    def discordance(self) -> float | None:
        """Share of cells in which base and a repeat of it differ; None where there is no repeat, or no common cell."""
        pairs = self.equal_pairs()
        return sum(first != second for first, second in pairs) / len(pairs) if pairs else None

    def equal_pairs(self) -> list[tuple[bool, bool]]:
        """What base and a repeat of it came to, cell by cell; nothing where there is no repeat."""
        arms = self.manifest.plan.arms
        again = next((arm for arm in arms if arm.role is ArmRole.AGAIN), None)
        base = self.manifest.plan.base
        if again is None or base is None:
            return []
        first, second = self.outcomes(base.name), self.outcomes(again.name)
        return [(first[key], second[key]) for key in first.keys() & second.keys()]

    @property
    def unit(self) -> AnalysisUnit:
        return unit_of(self.manifest.plan, self.tasks)

    @property
    def pilot(self) -> bool:
        """Whether the run is too small for what it is about, so that nothing of it is decided."""
        return is_pilot(self.manifest.plan, self.tasks)

    @cached_property
    def failed_controls(self) -> dict[str, str]:
        """Controls that did not come out as they must, and what they did: the known patch must resolve every task, doing nothing
        none, and an adapter that changes nothing makes base's patches."""
        found, over = {}, self.finished == self.planned
        for arm in self.manifest.plan.arms:
            rate, cells = self.figures(arm.name).resolved, len(self.cells(arm.name))
            must = {"gold": rate.denominator, "noop": 0}.get(arm.model.backend)
            if must is not None and rate.numerator != must:
                found[arm.name] = f"resolved {rate.numerator} of {rate.denominator}"
            elif over and must is not None and rate.denominator < COVERED * cells:
                found[arm.name] = f"has a verdict in {rate.denominator} of {counted(cells, 'cell')}"
            if arm.treatment is Treatment.ZERO_ADAPTER:
                same, both = self.same_as_base(arm.name)
                few = over and arm.name not in self.failed_arms and both < COVERED * cells
                if same != both or few:
                    found[arm.name] = f"made base's patch in {same} of {counted(both, 'cell')}"
        return found

    def _is_of_a_control(self, contrast: Contrast) -> bool:
        """Whether it registers that an arm which must not differ, or must not gain, does not."""
        roles = {arm.name: arm.role for arm in self.manifest.plan.arms}
        base = self.manifest.plan.base
        return (
            contrast.metric is Metric.RESOLVED
            and contrast.expect in (Expect.SAME, Expect.NOT_MORE)
            and base is not None
            and base.name in contrast.arms
            and any(roles.get(name) in (ArmRole.AGAIN, ArmRole.CONTROL) for name in contrast.arms)
        )

    @cached_property
    def registered(self) -> list[Registered]:
        """The plan's own contrasts, with what was found. A failed arm has no rate, so nothing is found."""
        compared = [
            (one, each := self._compared(one), self._veto(one, each)) for one in self.manifest.plan.contrasts
        ]
        found = judge(compared)
        # What is taken back leaves the others of the family less than it had left them, so all are decided anew.
        while any(turned := [self._could_turn(each) for each in found]):
            compared = [
                (one, each, Decision.INDECISIVE if turns else veto)
                for (one, each, veto), turns in zip(compared, turned, strict=True)
            ]
            found = judge(compared)
        broken = [
            each
            for each in found
            if each.finding is Decision.REFUTED
            and self._is_of_a_control(each.contrast)
            and not too_small_for(self.manifest.plan, self.tasks, each.contrast)
        ]
        return [self._as_it_may_be_said(each, broken) for each in found]

    def _as_it_may_be_said(self, found: Registered, broken: list[Registered]) -> Registered:
        """No decision of a harness whose control failed, but that it did, nor of a contrast that the plan is too small for."""
        if found.finding not in DECIDED:
            return found
        if self.failed_controls or (broken and found not in broken):
            return replace(found, finding=Decision.UNTRUSTED)
        small = too_small_for(self.manifest.plan, self.tasks, found.contrast)
        return replace(found, finding=Decision.PILOT) if small else found

    def _veto(self, contrast: Contrast, found: Difference | None) -> Decision | None:
        """Why nothing may be concluded of what was compared; None where it may."""
        if found is None:
            return None
        if self._covered(contrast, found) < COVERED:
            return Decision.INDECISIVE
        if contrast.metric is Metric.RESOLVED and self._has_no_room(contrast):
            return Decision.NOT_EXERCISED
        fired = {
            guard for end in self.trajectories if end.arm in self._run_for(contrast) for guard in end.guards
        }
        return Decision.NOT_EXERCISED if contrast.exercised and not fired & {*contrast.exercised} else None

    def _has_no_room(self, contrast: Contrast) -> bool:
        """Whether a margin could hold for want of room: all arms resolve less than it, or leave less than it unresolved. But who resolves
        nearly everything has lost little."""
        rates = [fmean(found.values()) for name in contrast.arms if (found := self.outcomes(name))]
        if contrast.expect is Expect.MORE or not rates:
            return False
        ceiling = min(rates) > 1 - contrast.margin and contrast.expect is not Expect.NOT_LESS
        return max(rates) < contrast.margin or ceiling

    def _could_turn(self, found: Registered) -> bool:
        """Whether a decision about what was resolved would be another one, had the cells without a verdict all gone one way or the
        other: a cell may lack it because of how it went."""
        contrast = found.contrast
        if found.finding not in (Decision.SHOWN, Decision.REFUTED) or contrast.metric is not Metric.RESOLVED:
            return False
        whole = [self._supposing(name, True).keys() == self.outcomes(name).keys() for name in contrast.arms]
        for best in () if all(whole) else (True, False):
            other = self._compared_supposing(contrast, best)
            interval = None if other is None else other.interval(found.confidence)
            if decided(contrast, interval) is not found.finding:
                return True
        return False

    def _compared_supposing(self, contrast: Contrast, best: bool) -> Difference | None:
        """As `_compared`, had every cell without a verdict gone for the higher arms and against the lower ones, or the other way round."""
        names = contrast.arms
        if not contrast.through:
            ours, theirs = self._supposing(contrast.arm, best), self._supposing(contrast.against, not best)
            return paired_difference(ours, theirs, self.unit)
        # Of a line, the half of the arms with the higher doses pulls it up and the other half down; the middle does neither.
        return rise(
            [
                dict(self._supposing(name, best if 2 * at >= len(names) else not best))
                for at, name in enumerate(names)
            ],
            self.unit,
        )

    def _supposing(self, name: str, resolved: bool) -> dict[str, bool]:
        """What an arm, or a choice, resolved, supposing this of the cells that have no verdict."""
        planned = dict.fromkeys(
            (cell.partition("/")[2] for arm in self.members(name) for cell in self.cells(arm)), resolved
        )
        return planned | self.outcomes(name)

    def _covered(self, contrast: Contrast, found: Difference) -> float:
        """Share of an arm's cells that have a verdict, of the arm that has fewest; of a figure of each cell the share in which both
        arms have it, if that is less."""
        judged = {verdict.cell for verdict in self.verdicts if verdict.outcome.is_verdict}
        arms = [self.cells(name) for name in self._run_for(contrast)]
        least = min(sum(cell in judged for cell in cells) / len(cells) for cells in arms)
        return min(least, found.pairs / min(map(len, arms))) if contrast.metric in OF_EACH_CELL else least

    def _run_for(self, contrast: Contrast) -> set[str]:
        """The arms whose cells a contrast takes, those that a choice is made from among them."""
        return {arm for name in contrast.arms for arm in self.members(name)}

    def members(self, name: str) -> tuple[str, ...]:
        of = {found.name: found.of for found in self.manifest.plan.choices}
        return tuple(of.get(name, (name,)))

    def _compared(self, contrast: Contrast) -> PairedDifference | MeanDifference | None:
        if self._run_for(contrast) & self.failed_arms.keys():
            return None
        if contrast.through:
            return rise([self.measured(name, contrast.metric) for name in contrast.arms], self.unit)
        if contrast.metric is not Metric.RESOLVED:
            return mean_difference(
                self.measured(contrast.arm, contrast.metric),
                self.measured(contrast.against, contrast.metric),
                self.unit,
            )
        return self.paired(contrast.arm, contrast.against)

    def same_as_base(self, arm: str) -> tuple[int, int]:
        """Cells in which an arm made the very patch that base made, and cells that both have."""
        base = self.manifest.plan.learners_base.name
        ends = self.last_ends
        pairs = [
            (ends[cell].patch_hash, ends[theirs].patch_hash)
            for cell in self.cells(arm)
            if cell in ends and (theirs := f"{base}/{cell.partition('/')[2]}") in ends
        ]
        return sum(ours == theirs for ours, theirs in pairs), len(pairs)

    @property
    def begun(self) -> datetime:
        """When somebody began to work on it; of a version that did not record it, when a record was last written."""
        if self.sessions:
            return datetime.fromisoformat(self.sessions[0].begun)
        return datetime.fromtimestamp(written(self.folder), UTC)

    @property
    def ended(self) -> datetime:
        """When its last cell had its end; while it is going on, when a record was last written."""
        seals = list(read_stream(self.folder, "seals", Seal))
        if seals:
            return datetime.fromisoformat(seals[-1].ended)
        return datetime.fromtimestamp(written(self.folder), UTC)

    @property
    def energy_j(self) -> float | None:
        """Joules of the whole machine over the run; None where that was not measured."""
        seals = list(read_stream(self.folder, "seals", Seal))
        return seals[0].energy_j if len(seals) == 1 else None

    @property
    def failed_arms(self) -> dict[str, str]:
        """Arms that are not what they are called, and why: they have no rate."""
        return {proof.arm: proof.said for proof in self.proofs if proof.stops and not proof.passed}

    @property
    def overrides(self) -> tuple[Override, ...]:
        """Gates that were passed over, from the beginning or later."""
        return *self.manifest.overrides, *self.late_overrides

    def stops(self, gate: Gate) -> bool:
        """As the manifest says it, but for what was passed over later."""
        return self.manifest.stops(gate) and all(found.gate is not gate for found in self.late_overrides)

    @cached_property
    def stopped_by(self) -> tuple[GateStop, ...]:
        """Gates that hold the run up: of each the last word, where nothing has passed it since. None while somebody is at it, who asks
        them again."""
        proved = {(proof.kind.value, proof.arm, proof.subject) for proof in self.proofs}
        made = {found.key for found in self.consolidations}
        last = {found.key: found for found in self.gate_stops} if self.writer is None else {}
        return tuple(found for found in last.values() if not _passed_since(found, proved, made))

    @cached_property
    def planned_cells(self) -> set[str]:
        """Names of all cells that the run will have; those that gather experience included."""
        plan = self.manifest.plan
        failed = self.failed_arms
        return {cell for arm in plan.every_arm if arm.name not in failed for cell in self.cells(arm.name)}

    @cached_property
    def finished(self) -> int:
        """Cells with an end, verdict or not; those that gather experience included."""
        return len({verdict.cell for verdict in self.verdicts} & self.planned_cells)

    @property
    def planned(self) -> int:
        return len(self.planned_cells)


def _passed_since(
    stop: GateStop, proved: Collection[tuple[str, str, str]], made: Collection[tuple[str, int, str, int]]
) -> bool:
    """Whether what a gate held up is there: a consolidation, or the proof, which is kept only where it passes or is passed over."""
    if stop.seed is not None:
        return (stop.arm, stop.seed, stop.repo, stop.round) in made
    # That an adapter is in the model is proved next.
    unseen = stop.gate is StoppingGate.UNSEEN
    kinds = (ProofKind.ADAPTER_ARRIVED, ProofKind.ZERO_IS_BASE) if unseen else (stop.gate,)
    return any((kind.value, stop.arm, stop.subject) in proved for kind in kinds)


def _by_batch(found: Likelihood) -> list[float]:
    batches = grouped((found.batch_of[task], value) for task, value in found.learned.items())
    return [fmean(batches[number]) for number in sorted(batches)]


def _where(end: Verdict | Trajectory) -> str:
    return end.cell.partition("/")[2]


def by_task(outcomes: Iterable[tuple[str, bool]]) -> dict[str, list[bool]]:
    """Task → whether each seed, and arm where there are several, resolved it."""
    return grouped((where.partition("/")[2], resolved) for where, resolved in outcomes)


def _by_seed(found: Iterable[tuple[int, Mapping[str, float]]]) -> dict[str, float]:
    return {f"{seed}/{task}": value for seed, values in found for task, value in values.items()}


class Shortened(Damage):
    """Records of which less is there than was sealed when the run ended: it did not stop before its end, it lost it."""


class RunTail:
    """A run folder as it grows, for those who look again and again: what was read is not read again, and nothing is written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tails: dict[str, Tail[Any]] = {name: Tail(folder, name, kind) for name, kind in STREAMS.items()}
        self._steps: StepIndex | None = None
        self._reading = threading.Lock()
        self._view: RunView | None = None

    def refresh(self) -> bool:
        """Read on; whether anything is different from what was there before. Raises BadInput where the folder cannot be read."""
        try:
            must_be_records(self.folder)
            changed = [tail.refresh() for tail in self._tails.values()]
        except JournalError as error:
            self._view = None
            raise BadInput(str(error)) from error
        if not any(changed):
            return False
        self._view = None
        return True

    def view(self) -> RunView:
        """As far as was read. Raises BadInput where the folder is no run folder."""
        try:
            writer = holder_of(self.folder)
        except JournalError as error:
            raise BadInput(str(error)) from error
        if self._view is None or self._view.writer != writer:
            self._view = self._made(writer)
        return self._view

    def steps(self) -> StepIndex:
        """Where each step stands, up to now. Asked for by several pages at once, each line is still read once."""
        with self._reading:
            if self._steps is None:
                self._steps = kept_index(self.folder)
            read_on(self._steps, self.folder)
            return self._steps

    def _made(self, writer: int | None) -> RunView:
        manifests = self._tails["manifest"]
        if not manifests.records:
            damage = manifests.damage
            what = f"its manifest cannot be read ({damage[0].reason})" if damage else "it has no manifest"
            raise BadInput(
                f"{self.folder} is no usable run folder: {what}. See the runs with: looper status."
            )
        manifest = manifests.records[0]
        records: dict[str, Any] = {
            name: tuple(tail.records) for name, tail in self._tails.items() if name != "manifest"
        }
        records["verdicts"], late = _until_ended(self._tails["verdicts"])
        records["trajectories"], too_late = _of_attempts(
            self._tails["trajectories"], final_verdicts(records["verdicts"])
        )
        return RunView(
            folder=self.folder,
            manifest=manifest,
            tasks=manifest.tasks,
            damage=(
                *(found for tail in self._tails.values() for found in tail.damage),
                *late,
                *too_late,
                *_shortened(self.folder),
            ),
            writer=writer,
            followed=self.steps,
            **records,
        )


def _shortened(folder: Path) -> Iterator[Shortened]:
    for seal in list(read_stream(folder, "seals", Seal))[-1:]:
        for name, then in seal.files.items():
            path = folder / f"{name}.jsonl"
            left = path.stat().st_size if path.is_file() else 0
            if left < then.bytes:
                why = f"{left} bytes are left of {then.bytes} that were there when the run had ended"
                yield Shortened(path.name, then.lines, why)


def _until_ended(tail: Tail[Verdict]) -> tuple[tuple[Verdict, ...], list[Damage]]:
    """Verdicts without those that came after the end of their cell, and these."""
    kept, late, ended = list[Verdict](), list[Damage](), set[str]()
    for verdict, line in zip(tail.records, tail.lines, strict=True):
        if verdict.cell in ended:
            late.append(Damage(tail.file, line, f"{verdict.cell} had its verdict before"))
            continue
        kept.append(verdict)
        if verdict.outcome.is_verdict:
            ended.add(verdict.cell)
    return tuple(kept), late


def _of_attempts(
    tail: Tail[Trajectory], final: Mapping[str, Verdict]
) -> tuple[tuple[Trajectory, ...], list[Damage]]:
    """One rollout for each attempt up to the one that ended its cell, and what else is there."""
    kept, late, seen = list[Trajectory](), list[Damage](), set[tuple[str, int]]()
    for end, line in zip(tail.records, tail.lines, strict=True):
        verdict = final.get(end.cell)
        if (end.cell, end.attempt) in seen:
            late.append(
                Damage(tail.file, line, f"attempt {end.attempt} of {end.cell} had its rollout before")
            )
        elif verdict is not None and verdict.outcome.is_verdict and end.attempt > verdict.attempt:
            late.append(Damage(tail.file, line, f"{end.cell} had its verdict before"))
        else:
            kept.append(end)
            seen.add((end.cell, end.attempt))
    return tuple(kept), late


STREAMS: dict[str, type[Record]] = {
    "manifest": RunManifest,
    "trajectories": Trajectory,
    "verdicts": Verdict,
    "consolidations": Consolidation,
    "proofs": Proof,
    "gate_stops": GateStop,
    "late_overrides": LateOverride,
    "likelihoods": Likelihood,
    "attempt_likelihoods": AttemptLikelihood,
    "sessions": Session,
    "trainings": Trained,
    "nodes": ClusterNode,
}
"""What a view of a run is made of; steps are read where they are asked for."""


def read_run(folder: Path) -> RunView:
    """Raises BadInput where the folder is no run folder."""
    tail = RunTail(folder)
    tail.refresh()
    # What is read once keeps the index of its steps beside the records.
    return replace(tail.view(), followed=lambda: step_index(folder))


def run_folders(runs: Path) -> list[Path]:
    """Every run folder, the one that was begun last at the end: whoever waits for an old run may have begun another since."""
    found = [path.parent for path in runs.glob("*/manifest.jsonl")]
    # What may not be looked into is named by whoever reads it, and not passed over as if it were not there.
    closed = [path for path in runs.glob("*") if path.is_dir() and not os.access(path, os.X_OK)]
    return sorted([*closed, *found], key=_begun)


def _begun(folder: Path) -> float:
    """When somebody began to work on a run, in seconds since 1970; of a version that did not record it, when a record was last
    written."""
    try:
        first = next(read_stream(folder, "sessions", Session), None)
        return datetime.fromisoformat(first.begun).timestamp() if first else written(folder)
    except (JournalError, FileRefused, OSError, ValueError):
        return written(folder)


def written(folder: Path, *names: str) -> float:
    """When a record was last written, to any file or to one of `names`, in seconds since 1970; 0 for a folder that has gone in the
    meantime, and for files that are not there."""
    times = [0.0]
    for path in [folder / name for name in names] or folder.glob("*.jsonl"):
        try:
            times.append(path.lstat().st_mtime)
        except FileNotFoundError:
            continue
    return max(times)


def no_run(runs: Path) -> str:
    """That there is none, in words: where runs are looked for, and what to type."""
    return (
        f"There is no run below {runs}. Runs lie in ./runs of the folder that they were begun in: go there, or name the folder of runs "
        "by LOOPER_RUNS. Begin with: looper run exp00"
    )


def _nothing_said(said: str) -> None:
    pass


def run_named(
    runs: Path, wanted: str | Path | None = None, say: Callable[[str], None] = _nothing_said
) -> RunView:
    """The run that `find_run` finds. Raises BadInput."""
    return read_run(find_run(runs, wanted, say=say))


def find_run(
    runs: Path,
    wanted: str | Path | None = None,
    *,
    by_experiment: bool = True,
    say: Callable[[str], None] = _nothing_said,
) -> Path:
    """The folder of the run that a person names: a path, the name of a run below `runs`, an experiment (`exp00`, `exp00 micro`) for
    its newest run, or the beginning of one name only. Without a name the newest run, a grading only where there is nothing else. The
    newest is the one that was begun last; `say` is told which that is where there was a choice.

    Raises BadInput that says what was given, what there is, and what to type.
    """
    folders = run_folders(runs)
    if wanted is None:
        if not folders:
            raise BadInput(no_run(runs))
        plans = _plans(folders)
        own = [path for path in folders if path in plans and not plans[path].is_grading]
        return _newest(own or folders, "", say)
    text = str(wanted)
    if os.path.lexists(os.path.join(text, "manifest.jsonl")):
        return Path(text)
    named = [path for path in folders if path.name == text.rstrip("/")]
    plans = {} if named else _plans(folders)
    named = named or [path for path, plan in plans.items() if text in (plan.experiment, plan.name)]
    if named and (by_experiment or named[-1].name == text.rstrip("/")):
        return _newest(named, f" of {text}", say)
    if named:
        names = ", ".join(path.name for path in named[-3:]) + (", …" if len(named) > 3 else "")
        raise BadInput(f'"{text}" is an experiment. Name its run, or the beginning of its name: {names}')
    begun = [path for path in folders if text and path.name.startswith(text)]
    if len(begun) == 1:
        return begun[0]
    if begun:
        names = ", ".join(path.name for path in begun[-3:]) + (", …" if len(begun) > 3 else "")
        raise BadInput(
            f'"{text}" is the beginning of {len(begun)} runs: {names}. Type more of a name; all names: looper runs list'
        )
    for place in (text, os.path.join(runs, text)) if text else ():
        if os.path.isdir(place):  # Which reading it will say what is wrong with.
            return Path(place)
    if not folders:
        raise BadInput(f'There is no run "{text}". {no_run(runs)}')
    known = [*dict.fromkeys(plan.experiment for plan in plans.values()), *(path.name for path in folders)]
    near = difflib.get_close_matches(Path(text).name, known, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    raise BadInput(
        f'There is no run "{text}": no run folder, no name below {runs}, no beginning of one, no experiment with a run. '
        f"{hint}All names: looper runs list"
    )


def _newest(folders: Sequence[Path], of: str, say: Callable[[str], None]) -> Path:
    """The one at the end, said where it is not the only one."""
    if len(folders) > 1:
        say(f"{folders[-1].name}: the newest of {len(folders)} runs{of}; all: looper runs list")
    return folders[-1]


def _plans(folders: Iterable[Path]) -> dict[Path, Plan]:
    """Of every run whose manifest can be read, in the same order."""
    found = {}
    for folder in folders:
        try:
            manifest = next(read_stream(folder, "manifest", RunManifest), None)
        except (JournalError, FileRefused, OSError):
            continue
        if manifest is not None:
            found[folder] = manifest.plan
    return found


def read_runs(runs: Path, unreadable: Callable[[str], None] = lambda said: None) -> list[RunView]:
    """Every run that can be read, the one that was begun last at the end; of the others `unreadable` is told, so that one damaged
    folder, or one of a newer version, does not hide the rest."""
    found = []
    for folder in run_folders(runs):
        try:
            found.append(read_run(folder))
        except BadInput as error:
            unreadable(str(error))
    return found
