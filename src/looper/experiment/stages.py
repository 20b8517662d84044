"""A run from its first attempt to its last verdict: gather experience, consolidate it, prove that it arrived, evaluate.

Stages follow each other and each one ends before the next begins, but none is remembered as done: what is on record is skipped cell
by cell, adapter by adapter, proof by proof. So a run that was killed goes on by being begun again.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from looper.errors import Cancelled
from looper.experiment.consolidate import ConsolidationContext, Treatments, consolidate
from looper.experiment.likelihood import score_arms, score_attempts
from looper.experiment.preflight import check_contexts, check_treatments
from looper.experiment.run import TreatmentOf, untreated
from looper.experiment.schedule import experience_lanes, lanes
from looper.experiment.staging import Staging
from looper.protocols import ChatRequest, Message, Trainer
from looper.records.job import CellTreatment, Overseer
from looper.records.learning import Source
from looper.records.plan import Arm, ArmRole, Plan
from looper.records.task import Task
from looper.records.training import TrainingEvent
from looper.records.treatment import Consolidation


def run_stages(run: Staging) -> None:
    """Returns when every cell has its end. Raises as `run_plan` does, and TreatmentMissing or ModelFatal before the
    evaluation where an arm would not be what it is called."""
    plan = run.manifest.plan
    # Proofs of an earlier process hold: the same model, adapters and memory are asked for again, or the run would have been refused.
    run.proved.extend(run.ledger.proofs.recovered)
    schedule = lanes(plan, [run.tasks[name] for name in run.manifest.tasks], run.arms)
    wanted = plan.named_arms(run.arms)
    # All is done and sealed: going through it once more says so, and neither a model nor a trainer has to be there for that.
    if run.ledger.sealed and not any(run.ledger.resume(cell) for lane in schedule for cell in lane):
        run.work("", schedule, plan.arms)
        return
    treatments = Treatments(plan, (), ())
    check_contexts(run, wanted)
    learners, trainer = learners_of(plan, wanted), None
    if learners:
        # Asked for first: what cannot be trained should not have gathered experience for an hour.
        needed = any(arm.learning and arm.learning.treatment.is_adapter for arm in learners)
        trainer = run.trainer() if needed else None
        recorded = list(run.ledger.consolidations.recovered)

        def record(found: Consolidation) -> None:
            run.ledger.consolidations.append(found)
            # What is made in one round is what the next one begins with.
            recorded.append(found)

        context = ConsolidationContext(
            arms=learners,
            trainer=trainer,
            base=run.manifest.models[plan.learners_base.name],
            workers=run.workers,
            tell=_stoppable(run),
            remember=run.ledger.memory.append,
            record=record,
            asked=run.ledger.questions.append,
            stopped=run.ledger.stopped,
            ask=partial(_ask_base, run),
            similar=run.similar,
        )
        collect_experience(run, context, recorded)
        treatments = learn_in_rounds(run, context, recorded)
    failed = check_treatments(run, wanted, treatments, trainer)
    # Those that failed at work in an earlier process as well: their cells that are left stay undone.
    failed |= {proof.arm for proof in run.ledger.proofs.recovered if proof.stops and not proof.passed}
    kept = tuple(lane for lane in schedule if lane[0].arm not in failed)
    run.work("", kept, plan.arms, partial(treatment_of, plan, treatments))
    with run.during("asking the models how likely successes are"):
        score_arms(run, [arm for arm in wanted if arm.name not in failed], treatments)
        score_attempts(run)
    run.ledger.seal(_weights_served(run, learners, treatments, trainer), run.energy_j())


def _weights_served(
    run: Staging, learners: Sequence[Arm], treatments: Treatments, trainer: Trainer | None
) -> dict[str, str]:
    """Hash of the weights of every adapter that an arm worked with, by id."""
    if trainer is None:
        return {}
    used = {
        treatments.adapter(arm, seed, run.tasks[name].repo)
        for arm in learners
        for seed in run.manifest.plan.seeds_of(arm)
        for name in run.manifest.tasks
    }
    return {name: trainer.load(name).weights_hash for name in sorted(used - {""})}


def treatment_of(plan: Plan, treatments: Treatments, arm: Arm, seed: int, task: Task) -> CellTreatment:
    """What an arm has learned, and its overseer where it has one. What the overseer knows is not for the agent itself."""
    adapter = treatments.adapter(arm, seed, task.repo)
    if not arm.has_overseer:
        return CellTreatment(adapter=adapter, memory=treatments.memory(arm, seed, task))
    # Experience, and arms that have been trained, are guided by the overseer of the arm that has one.
    own = arm.role is not ArmRole.EXPERIENCE and arm.learning and not arm.learning.overseen
    holder = arm if own else plan.overseen
    assert holder is not None and holder.learning is not None
    overseer = Overseer(
        arm=holder.model_copy(update={"model": holder.learning.overseer or holder.model}),
        memory=treatments.memory(holder, seed, task),
        blind=holder.learning.blind,
    )
    return CellTreatment(adapter=adapter, overseer=overseer)


def _ask_base(run: Staging, conversation: str, messages: Sequence[Message], adapter: str) -> str:
    """What base, or base with an adapter, says at temperature 0."""
    plan = run.manifest.plan
    base = plan.learners_base
    model = run.model_for(base, run.tasks[run.manifest.tasks[0]], adapter)
    reply = model.reply(
        ChatRequest(
            conversation=f"question {conversation}",
            messages=tuple(messages),
            max_output_tokens=plan.limits.output_tokens,
            context_tokens=plan.limits.context_tokens,
            temperature=0.0,
            seed=0,
            timeout_s=plan.limits.wall_s,
        )
    )
    model.forget(f"question {conversation}")
    return reply.text


def learn_in_rounds(
    run: Staging, context: ConsolidationContext, recorded: Sequence[Consolidation]
) -> Treatments:
    """The first round from base's experience; each later one also from what the arm itself did before it. `recorded` grows with
    every consolidation."""
    treatments = consolidated(run, context, recorded)
    rounds = {arm: arm.learning.rounds for arm in context.arms if arm.learning is not None}
    for number in range(2, max(rounds.values()) + 1):
        for arm in context.arms:
            if rounds.get(arm, 0) >= number:
                collect_round(run, arm, number, treatments)
        treatments = consolidated(run, context, recorded, number)
    return treatments


def consolidated(
    run: Staging, context: ConsolidationContext, recorded: Sequence[Consolidation], number: int = 1
) -> Treatments:
    """What the arms of `context` have learned after a round, which may be trained for hours."""
    with run.during("learning from experience"):
        return consolidate(run.manifest, run.tasks, run.ledger.folder, recorded, context, number)


def collect_round(run: Staging, arm: Arm, number: int, treatments: Treatments) -> None:
    """An arm at work on the training tasks, with what it learned in the round before."""
    plan = run.manifest.plan
    arms = plan.later_experience_arms(arm, number)
    tasks = [run.tasks[name] for name in run.manifest.experience_tasks[Source.OWN]]

    def before(_: Arm, seed: int, task: Task) -> CellTreatment:
        return CellTreatment(adapter=treatments.adapter(arm, seed, task.repo, number - 1))

    run.work(
        f"{arm.name} before round {number}",
        experience_lanes(plan.seeds_of(arm), arms, tasks),
        arms,
        before,
    )


def learners_of(plan: Plan, wanted: Sequence[Arm]) -> tuple[Arm, ...]:
    """The arms that learn, and those that what they learn comes from."""
    named = {arm.name for arm in wanted if arm.learning and arm.learning.needs_experience}
    named |= {
        plain.name
        for arm in wanted
        if arm.learning and arm.learning.made_from_another and (plain := plan.made_from(arm)) is not None
    }
    if plan.overseen and any(
        arm.learning and (arm.learning.source is Source.GUIDED or arm.learning.overseen) for arm in wanted
    ):
        named.add(plan.overseen.name)
    return tuple(arm for arm in plan.arms if arm.name in named)


def collect_experience(
    run: Staging, context: ConsolidationContext, recorded: Sequence[Consolidation]
) -> None:
    """Base at work on the training tasks: alone first, then with an overseer that remembers what was gathered so far."""
    plan = run.manifest.plan
    _collect(run, [source for source in plan.sources if source is not Source.GUIDED])
    if not any(arm.learning and arm.learning.source is Source.GUIDED for arm in context.arms):
        return
    overseen = replace(context, arms=tuple(arm for arm in context.arms if arm == plan.overseen))
    treatments = consolidated(run, overseen, recorded)
    _collect(run, [Source.GUIDED], partial(treatment_of, plan, treatments))


def _collect(run: Staging, sources: Sequence[Source], treated: TreatmentOf = untreated) -> None:
    plan = run.manifest.plan
    schedule = tuple(
        lane
        for source in sources
        for lane in experience_lanes(
            plan.seeds,
            plan.experience_arms(source),
            [run.tasks[name] for name in run.manifest.experience_tasks[source]],
        )
    )
    name = "guided experience" if Source.GUIDED in sources else "experience"
    arms = [arm for source in sources for arm in plan.experience_arms(source)]
    run.work(name, schedule, arms, treated)


def _stoppable(run: Staging) -> Callable[[str, TrainingEvent], None]:
    def tell(what: str, event: TrainingEvent) -> None:
        if run.stop.is_set():
            raise Cancelled
        run.ledger.trained(what, event)
        run.tell(what, event)

    return tell
