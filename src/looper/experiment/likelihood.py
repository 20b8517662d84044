"""What the arms of a finished evaluation make of actions that succeeded.

The same successes are asked of every arm, with the adapter that it worked with; asked afterwards, so that it changes nothing of
what was run. What is on record is not asked again.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean

from looper.agent.actions import render
from looper.agent.prompt import opening
from looper.errors import Cancelled
from looper.experiment.consolidate import Treatments
from looper.experiment.pools import read_attempts
from looper.experiment.staging import Staging
from looper.protocols import AdapterHost
from looper.records.base import grouped
from looper.records.likelihood import AttemptLikelihood, Key, Likelihood
from looper.records.plan import Arm, ArmRole, Chooser, Metric, Plan
from looper.records.task import Task
from looper.records.training import Example
from looper.records.verdict import Outcome
from looper.training.examples import trajectory_examples
from looper.training.select import Attempt

ModelFor = Callable[[Arm, str], AdapterHost]
"""An arm's model with the adapter of an id, or with none."""
ASKED, SHOWN = 64, 12
"""Tasks at most, where a contrast compares the answers, and where they only stand in a table: of a large model one takes
seconds."""


@dataclass(frozen=True)
class LikelihoodScorer:
    tasks: Mapping[str, Task]
    treatments: Treatments
    model_for: ModelFor
    successes: Sequence[Attempt]
    """Of base and its repeats, at tasks of the evaluation."""

    def of(self, arm: Arm, seed: int) -> Iterator[tuple[Key, Callable[[], Likelihood]]]:
        """All that is asked of an arm with a seed: the key of what will be recorded, and the question."""
        if arm.strategy is not None:
            batches = self.treatments.batches(arm, seed)
            adapters = self.treatments.after(arm, seed)
            together = len(adapters) == 1
            nothing = partial(self._learned, arm, seed, batches, 0, "", last=False)
            yield (arm.name, seed, 0, False), nothing
            for number, adapter in enumerate(adapters, 1):
                learned = len(batches) if together else number
                last = number == len(adapters)
                ask = partial(self._learned, arm, seed, batches, learned, adapter, last=last)
                yield (arm.name, seed, learned, last), ask
        else:
            yield (arm.name, seed, 0, True), partial(self._held_out, arm, seed, 0)

    def _learned(
        self,
        arm: Arm,
        seed: int,
        batches: Sequence[Sequence[Example]],
        number: int,
        adapter: str,
        *,
        last: bool,
    ) -> Likelihood:
        """What a strategy's adapter makes of all batches, those to come included."""
        examples = [example for batch in batches for example in batch]
        found = self.model_for(arm, adapter).losses(examples)
        batch_of: dict[str, int] = {}
        for at, batch in enumerate(batches, 1):
            for example in batch:
                batch_of.setdefault(example.instance_id, at)
        asked = Likelihood(
            arm=arm.name,
            seed=seed,
            batches=number,
            last=last,
            adapters=(adapter,) if adapter else (),
            learned=_by_task(examples, [-loss for loss in found]),
            batch_of=batch_of,
        )
        if not last:
            return asked
        held_out = self._held_out(arm, seed, number)
        return asked.model_copy(update={"held_out": held_out.held_out, "kl_from_base": held_out.kl_from_base})

    def _held_out(self, arm: Arm, seed: int, number: int) -> Likelihood:
        """What an arm as it worked makes of what base did well."""
        told = partial(self._opening, arm, seed)
        likely: dict[str, float] = {}
        divergent: dict[str, float] = {}
        used: dict[str, None] = {}
        by_adapter = grouped(
            (self.treatments.adapter(arm, seed, self.tasks[attempt.trajectory.instance_id].repo), attempt)
            for attempt in self.successes
        )
        for adapter, attempts in by_adapter.items():
            examples = trajectory_examples(attempts, dict(self.tasks), told, render)
            model = self.model_for(arm, adapter)
            if not adapter:
                likely |= _by_task(examples, [-loss for loss in model.losses(examples)])
                continue
            used[adapter] = None
            compared = model.loss_and_kl(examples)
            likely |= _by_task(examples, [-loss for loss, _ in compared])
            divergent |= _by_task(examples, [apart for _, apart in compared])
        return Likelihood(
            arm=arm.name,
            seed=seed,
            batches=number,
            last=True,
            adapters=tuple(used),
            held_out=likely,
            kl_from_base=divergent,
        )

    def _opening(self, arm: Arm, seed: int, task: Task) -> tuple[tuple[str, str], ...]:
        """As the arm itself was told the task: with its memory where it has one of its own."""
        return opening(task, arm.scaffold, self.treatments.memory(arm, seed, task))


def of_attempt(base: Arm, task: Task, attempt: Attempt, model: AdapterHost) -> AttemptLikelihood | None:
    """What base makes of an attempt at a task. None where it has no action."""
    if not any(step.action is not None for step in attempt.steps):
        return None
    (example,) = trajectory_examples(
        [attempt], {task.instance_id: task}, partial(opening, scaffold=base.scaffold), render
    )
    (loss,) = model.losses([example])
    return AttemptLikelihood(cell=attempt.verdict.cell, attempt=attempt.verdict.attempt, log_likelihood=-loss)


def _by_task(examples: Sequence[Example], values: Sequence[float]) -> dict[str, float]:
    found = grouped(zip((example.instance_id for example in examples), values, strict=True))
    return {task: fmean(each) for task, each in found.items()}


def successes_of_base(plan: Plan, attempts: Sequence[Attempt]) -> list[Attempt]:
    """One resolved attempt of base or its repeats for each task, the earliest; every arm is asked about the same."""
    names = {arm.name for arm in plan.arms if arm.role in (ArmRole.BASE, ArmRole.AGAIN)}
    found: dict[str, Attempt] = {}
    for attempt in attempts:
        acted = any(step.action is not None for step in attempt.steps)
        if attempt.trajectory.arm in names and attempt.verdict.outcome is Outcome.RESOLVED and acted:
            found.setdefault(attempt.trajectory.instance_id, attempt)
    compared = any(contrast.metric is Metric.ACTION_LOG_LIKELIHOOD for contrast in plan.contrasts)
    return list(found.values())[: ASKED if compared else SHOWN]


def score_arms(run: Staging, arms: Sequence[Arm], treatments: Treatments) -> None:
    """What base and the arms that learned make of successes, where something was learned and the model shows it."""
    base = run.manifest.plan.base
    if base is None or not base.model.shows_losses or not any(arm.learning for arm in arms):
        return
    successes = successes_of_base(run.manifest.plan, read_attempts(run.ledger.folder))
    asking = LikelihoodScorer(run.tasks, treatments, run.adapted, successes)
    known = {found.key for found in run.ledger.likelihoods.recovered}
    for arm in arms:
        if arm is not base and (arm.learning is None or arm.has_overseer):
            continue
        for seed in run.manifest.plan.seeds_of(arm):
            for key, ask in asking.of(arm, seed):
                if run.stop.is_set():
                    raise Cancelled
                if key not in known:
                    run.ledger.likelihoods.append(ask())


def score_attempts(run: Staging) -> None:
    """What base makes of the attempts that are chosen from by their likelihood."""
    plan = run.manifest.plan
    names = {name for choice in plan.choices if choice.by is Chooser.LIKELIEST for name in choice.of}
    base = plan.base
    if not names or base is None or not base.model.shows_losses:
        return
    known = {(found.cell, found.attempt) for found in run.ledger.attempt_likelihoods.recovered}
    for attempt in read_attempts(run.ledger.folder):
        if run.stop.is_set():
            raise Cancelled
        if (attempt.verdict.cell, attempt.verdict.attempt) in known or attempt.trajectory.arm not in names:
            continue
        task = run.tasks[attempt.trajectory.instance_id]
        found = of_attempt(base, task, attempt, run.adapted(base, ""))
        if found is not None:
            run.ledger.attempt_likelihoods.append(found)
