"""A run from its first attempt to its last verdict: gather experience, consolidate it, prove that it arrived, evaluate."""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial

from looper.agent.oversight import Overseen
from looper.agent.prompt import opening
from looper.errors import Cancelled
from looper.experiment.cell import World
from looper.experiment.consolidate import School, Treatments, consolidate, made_from_another
from looper.experiment.ledger import Ledger
from looper.experiment.likelihood import Asking, of_attempt, successes_of_base
from looper.experiment.pools import read_attempts
from looper.experiment.prove import (
    measure_retention,
    prove_adapter,
    prove_context,
    prove_memory,
    prove_split,
    prove_valid_actions,
)
from looper.experiment.run import Progress, run_plan
from looper.experiment.schedule import experience_lanes, lanes
from looper.memory.retrieve import Similarity
from looper.protocols import ChatModel, ChatRequest, Engine, Fingerprinted, Message, Trainer
from looper.records.learning import Learning, Source, Treatment
from looper.records.memory import Delivery
from looper.records.plan import Arm, ArmRole, Cell, Chooser, Gate, Plan, RunManifest
from looper.records.task import Task
from looper.records.training import TrainingEvent
from looper.records.treatment import Consolidation, Proof, ProofKind

SCRIPTED = ("gold", "noop", "scripted")
"""Backends that read no prompt; there is nothing to prove of them."""
SHOWN = ("nano", "mlx")
"""Backends that say how likely a text is."""


@dataclass(frozen=True)
class Staging:
    """What the stages of one run work with."""

    manifest: RunManifest
    tasks: Mapping[str, Task]
    """All of them, to learn from and to evaluate, by id."""
    arms: tuple[str, ...]
    """Arms to run; empty for all."""
    world: World
    served: Callable[[Arm, Task, str], ChatModel]
    """An arm's model with an adapter, by its id; with none where that is empty."""
    adapted: Callable[[Arm, Task, str], Fingerprinted]
    """The same for models that carry adapters. Raises BadInput for others."""
    trainer: Callable[[], Trainer]
    """Raises BadInput where the plan's model cannot be trained."""
    ledger: Ledger
    engine: Engine
    stop: threading.Event
    show: Callable[[str, Sequence[Cell], int], AbstractContextManager[Progress]]
    """Makes the progress of a stage visible: its name, its cells, how many of them are to do."""
    say: Callable[[str], None]
    tell: Callable[[str, TrainingEvent], None]
    energy_j: Callable[[], float | None] = lambda: None
    """Joules that the machine took so far; None where they cannot be read."""
    similar: Similarity | None = None
    """For retrieval from memory; None for BM25."""
    proved: list[Proof] = field(default_factory=list)
    """What needs no second proof."""


def run_stages(run: Staging) -> None:
    """Returns when every cell has its end. Raises as `run_plan` does, and TreatmentMissing or ContextOverflow before the
    evaluation where an arm would not be what it is called."""
    plan = run.manifest.plan
    run.proved.extend(run.ledger.proofs.recovered)
    schedule = lanes(plan, [run.tasks[name] for name in run.manifest.tasks], run.arms)
    wanted = [arm for arm in plan.arms if not run.arms or arm.name in run.arms]
    if run.ledger.sealed and not any(run.ledger.past(cell) for lane in schedule for cell in lane):
        _work(run, "", schedule, plan.arms, run.world)
        return
    treatments = Treatments(plan, (), ())
    prove_contexts(run, wanted)
    learners, trainer = learners_of(plan, wanted), None
    if learners:
        # Asked for first: what cannot be trained should not have gathered experience for an hour.
        needed = any(arm.learning and arm.learning.treatment.is_adapter for arm in learners)
        trainer = run.trainer() if needed else None
        past = list(run.ledger.consolidations.recovered)

        def record(found: Consolidation) -> None:
            run.ledger.consolidations.append(found)
            past.append(found)

        school = School(
            arms=learners,
            trainer=trainer,
            base=run.manifest.models[next(arm.name for arm in plan.arms if arm.role is ArmRole.BASE)],
            engine=run.engine,
            tell=_stoppable(run),
            remember=run.ledger.memory.append,
            record=record,
            asked=run.ledger.questions.append,
            ask=partial(_ask_base, run),
            similar=run.similar,
        )
        gather(run, school, past)
        treatments = learn_in_rounds(run, school, past)
    failed = prove_treatments(run, wanted, treatments, trainer)
    failed |= {proof.arm for proof in run.ledger.proofs.recovered if proof.stops and not proof.passed}
    world = replace(
        run.world, model_of=partial(_at_work, run, treatments), memory_of=partial(_told, treatments)
    )
    kept = tuple(lane for lane in schedule if lane[0].arm not in failed)
    _work(run, "", kept, plan.arms, world)
    ask_arms(run, [arm for arm in wanted if arm.name not in failed], treatments)
    ask_of_attempts(run)
    run.ledger.seal(_weights_served(run, learners, treatments, trainer), run.energy_j())


def ask_arms(run: Staging, arms: Sequence[Arm], treatments: Treatments) -> None:
    """What base and the arms that learned make of successes, where something was learned and the model shows it."""
    base = next((arm for arm in run.manifest.plan.arms if arm.role is ArmRole.BASE), None)
    if base is None or base.model.backend not in SHOWN or not any(arm.learning for arm in arms):
        return
    successes = successes_of_base(run.manifest.plan, read_attempts(run.ledger.folder))
    asking = Asking(run.tasks, treatments, run.adapted, successes)
    known = {found.key for found in run.ledger.likelihoods.recovered}
    for arm in arms:
        if arm is not base and (arm.learning is None or _has_overseer(arm)):
            continue
        for seed in run.manifest.plan.seeds_of(arm):
            for key, ask in asking.of(arm, seed):
                if run.stop.is_set():
                    raise Cancelled
                if key not in known:
                    run.ledger.likelihoods.append(ask())


def ask_of_attempts(run: Staging) -> None:
    """What base makes of the attempts that are chosen from by their likelihood."""
    plan = run.manifest.plan
    names = {name for choice in plan.choices if choice.by is Chooser.LIKELIEST for name in choice.of}
    base = next((arm for arm in plan.arms if arm.role is ArmRole.BASE), None)
    if not names or base is None or base.model.backend not in SHOWN:
        return
    known = {(found.cell, found.attempt) for found in run.ledger.attempt_likelihoods.recovered}
    for attempt in read_attempts(run.ledger.folder):
        if run.stop.is_set():
            raise Cancelled
        if (attempt.verdict.cell, attempt.verdict.attempt) in known or attempt.trajectory.arm not in names:
            continue
        task = run.tasks[attempt.trajectory.instance_id]
        found = of_attempt(base, task, attempt, run.adapted(base, task, ""))
        if found is not None:
            run.ledger.attempt_likelihoods.append(found)


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


def _at_work(run: Staging, treatments: Treatments, arm: Arm, seed: int, task: Task) -> ChatModel:
    """An arm's model with what it has learned; under its overseer where it has one."""
    model = run.served(arm, task, treatments.adapter(arm, seed, task.repo))
    if not _has_overseer(arm):
        return model
    # Experience, and arms that have been trained, are guided by the overseer of the arm that has one.
    own = arm.role is not ArmRole.EXPERIENCE and arm.learning and not arm.learning.overseen
    holder = arm if own else run.manifest.plan.overseen
    assert holder is not None and holder.learning is not None
    overseer = holder.model_copy(update={"model": holder.learning.overseer or holder.model})
    told = treatments.memory(holder, seed, task)
    return Overseen(
        model,
        run.served(overseer, task, ""),
        opening(task, arm.scaffold, told),
        opening(task, arm.scaffold),
        blind=holder.learning.blind,
    )


def _told(treatments: Treatments, arm: Arm, seed: int, task: Task) -> Delivery:
    """What the agent itself is told; what its overseer knows is not for it."""
    return Delivery(candidates=0) if _has_overseer(arm) else treatments.memory(arm, seed, task)


def _has_overseer(arm: Arm) -> bool:
    return arm.learning is not None and arm.learning.has_overseer


def _ask_base(run: Staging, conversation: str, messages: Sequence[Message], adapter: str) -> str:
    """What base, or base with an adapter, says at temperature 0."""
    plan = run.manifest.plan
    base = next(arm for arm in plan.arms if arm.role is ArmRole.BASE)
    model = run.served(base, run.tasks[run.manifest.tasks[0]], adapter)
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


def learn_in_rounds(run: Staging, school: School, past: Sequence[Consolidation]) -> Treatments:
    """The first round from base's experience; each later one also from what the arm itself did before it. `past` grows with
    every consolidation."""
    treatments = consolidate(run.manifest, run.tasks, run.ledger.folder, past, school)
    rounds = max(arm.learning.rounds for arm in school.arms if arm.learning is not None)
    for number in range(2, rounds + 1):
        for arm in school.arms:
            if arm.learning is not None and arm.learning.rounds >= number:
                gather_again(run, arm, number, treatments)
        treatments = consolidate(run.manifest, run.tasks, run.ledger.folder, past, school, number)
    return treatments


def gather_again(run: Staging, arm: Arm, number: int, treatments: Treatments) -> None:
    """An arm at work on the training tasks, with what it learned in the round before."""
    plan = run.manifest.plan
    arms = plan.later_experience_arms(arm, number)
    tasks = [run.tasks[name] for name in run.manifest.experience_tasks[Source.OWN]]

    def model_of(_: Arm, seed: int, task: Task) -> ChatModel:
        return run.served(arm, task, treatments.adapter(arm, seed, task.repo, number - 1))

    world = replace(run.world, model_of=model_of)
    _work(
        run,
        f"{arm.name} before round {number}",
        experience_lanes(plan.seeds_of(arm), arms, tasks),
        arms,
        world,
    )


def learners_of(plan: Plan, wanted: Sequence[Arm]) -> tuple[Arm, ...]:
    """The arms that learn, and those that what they learn comes from."""
    named = {arm.name for arm in wanted if arm.learning and arm.learning.needs_experience}
    if any(arm.learning and made_from_another(arm.learning) for arm in wanted):
        named |= {arm.name for arm in plan.arms if arm.learning == Learning(treatment=Treatment.ADAPTER)}
    if plan.overseen and any(
        arm.learning and (arm.learning.source is Source.GUIDED or arm.learning.overseen) for arm in wanted
    ):
        named.add(plan.overseen.name)
    return tuple(arm for arm in plan.arms if arm.name in named)


def gather(run: Staging, school: School, past: Sequence[Consolidation]) -> None:
    """Base at work on the training tasks: alone first, then with an overseer that remembers what was gathered so far."""
    plan = run.manifest.plan
    _gather(run, [source for source in plan.sources if source is not Source.GUIDED], run.world)
    if not any(arm.learning and arm.learning.source is Source.GUIDED for arm in school.arms):
        return
    overseen = replace(school, arms=tuple(arm for arm in school.arms if arm == plan.overseen))
    treatments = consolidate(run.manifest, run.tasks, run.ledger.folder, past, overseen)
    _gather(run, [Source.GUIDED], replace(run.world, model_of=partial(_at_work, run, treatments)))


def _gather(run: Staging, sources: Sequence[Source], world: World) -> None:
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
    _work(run, name, schedule, arms, world)


def _work(
    run: Staging, name: str, schedule: Sequence[Sequence[Cell]], arms: Sequence[Arm], world: World
) -> None:
    cells = [cell for lane in schedule for cell in lane]
    todo = sum(run.ledger.past(cell) is not None for cell in cells)
    with run.show(name, cells, todo) as progress:
        run_plan(
            run.manifest.plan,
            arms,
            run.tasks,
            schedule,
            world,
            run.ledger,
            run.engine,
            run.stop,
            progress,
            degenerate_stops=run.manifest.stops(Gate.ACTION),
        )


def _stoppable(run: Staging) -> Callable[[str, TrainingEvent], None]:
    def tell(what: str, event: TrainingEvent) -> None:
        if run.stop.is_set():
            raise Cancelled
        run.tell(what, event)

    return tell


def prove_contexts(run: Staging, arms: Sequence[Arm]) -> None:
    """Once per model: adapters change no window."""
    seen = set()
    for arm in arms:
        if arm.model.backend in SCRIPTED or arm.model in seen:
            continue
        seen.add(arm.model)
        model = run.served(arm, run.tasks[run.manifest.tasks[0]], "")
        identity = model.identity()
        subject = f"{identity.name} {identity.digest[:12]}"
        prove = partial(prove_context, model, arm.name, subject, run.manifest.plan.limits)
        _once(run, ProofKind.CONTEXT, arm.name, subject, prove)


def _once(run: Staging, kind: ProofKind, arm: str, subject: str, prove: Callable[[], Proof]) -> Proof:
    """A proof of this run: the one on record, or a new one."""
    for proof in run.proved:
        if (proof.kind, proof.arm, proof.subject) == (kind, arm, subject):
            return proof
    if run.stop.is_set():
        raise Cancelled
    proof = prove()
    run.ledger.proofs.append(proof)
    run.proved.append(proof)
    return proof


def prove_treatments(
    run: Staging, arms: Sequence[Arm], treatments: Treatments, trainer: Trainer | None
) -> frozenset[str]:
    """Names of the arms that failed: they run no task and have no rate. Raises TreatmentMissing."""
    failed = set()
    for arm in arms:
        if arm.learning is None:
            continue
        if arm.learning.remembers is not None:
            _prove_memory(run, arm, treatments)
        if (
            arm.learning.treatment.is_adapter
            and trainer is not None
            and not _prove_adapters(run, arm, treatments, trainer)
        ):
            failed.add(arm.name)
    return frozenset(failed)


def _prove_memory(run: Staging, arm: Arm, treatments: Treatments) -> None:
    experience = run.manifest.plan.experience
    # Without experience it is the gold patch that is told, of which every task has one.
    least = experience.delivered if experience is not None else 1.0

    def prove() -> Proof:
        tasks = [run.tasks[name] for name in run.manifest.tasks]
        return prove_memory(
            [
                treatments.memory(arm, seed, task)
                for seed in run.manifest.plan.seeds_of(arm)
                for task in tasks
            ],
            arm.name,
            least,
        )

    _once(run, ProofKind.MEMORY_DELIVERED, arm.name, "memory", prove)


def _prove_adapters(run: Staging, arm: Arm, treatments: Treatments, trainer: Trainer) -> bool:
    """Whether the arm may run: each of its adapters is in the model, and the model still speaks the protocol."""
    assert arm.learning is not None
    plan = run.manifest.plan
    zero = arm.learning.treatment is Treatment.ZERO_ADAPTER
    kind = ProofKind.ZERO_IS_BASE if zero else ProofKind.ADAPTER_ARRIVED
    passed = True
    for seed in plan.seeds_of(arm):
        for repo in sorted({run.tasks[name].repo for name in run.manifest.tasks}):
            task = next(run.tasks[name] for name in run.manifest.tasks if run.tasks[name].repo == repo)
            adapter = treatments.adapter(arm, seed, repo)
            prove_split(trainer.load(adapter), run.manifest.tasks, arm.name)
            model, base = run.adapted(arm, task, adapter), run.adapted(arm, task, "")
            prompts = treatments.prompts(seed, repo)
            arrived = partial(prove_adapter, model, base, prompts, arm.name, adapter, zero=zero)
            _once(run, kind, arm.name, adapter, arrived)
            elsewhere = treatments.elsewhere(arm, seed, repo)
            if elsewhere and not zero:
                kept = partial(measure_retention, model, base, elsewhere, arm.name, adapter)
                _once(run, ProofKind.RETENTION, arm.name, adapter, kept)
            if not zero and seed == plan.seeds[0]:
                valid = partial(
                    prove_valid_actions,
                    model,
                    base,
                    prompts,
                    arm.name,
                    adapter,
                    plan.limits,
                    stops=run.manifest.stops(Gate.ACTION),
                )
                proof = _once(run, ProofKind.VALID_ACTIONS, arm.name, adapter, valid)
                if proof.stops and not proof.passed:
                    run.say(f"{arm.name} is a failed arm and runs no task: {proof.said}")
                    passed = False
    return passed
