"""Every proof that a run owes before its first task: contexts of models, memories and adapters of arms.

A proof is made once for its subject and kept; a run that is gone on with asks only for those that are missing. The gate of actions
ends its arm alone; everything else that fails ends the run, which would measure something else than it says.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial

from looper.errors import Cancelled, LooperError, MemorySilent, ModelUnfit, PromptCut, TreatmentMissing
from looper.experiment.checks import (
    check_action_gate,
    check_adapter,
    check_context,
    check_memory,
    check_split,
    check_valid_actions,
    measure_retention,
    memory_silent,
)
from looper.experiment.consolidate import Treatments
from looper.experiment.staging import Staging
from looper.protocols import CarriesThere, ChatModel, Trainer
from looper.records.learning import Treatment
from looper.records.plan import Arm, Gate, Limits
from looper.records.treatment import GateStop, Proof, ProofKind, StoppingGate, too_few_told


def check_contexts(run: Staging, arms: Sequence[Arm]) -> None:
    """Once per model and limits: adapters change no window."""
    seen = set()
    for arm in arms:
        limits = run.manifest.plan.limits_of(arm)
        if not arm.model.reads or (arm.model, limits) in seen:
            continue
        seen.add((arm.model, limits))
        task = run.tasks[run.manifest.tasks[0]]
        models = [run.model_for(arm, task, "", server) for server in range(len(arm.model.addresses))]
        identity = models[0].identity()
        subject = f"{identity.name} {identity.digest[:12]}"
        _once(run, ProofKind.CONTEXT, arm.name, subject, partial(_every, models, arm, subject, limits))
        if arm.model.carried_there:
            # A model that was asked what it is has its adapter in force, or nothing after this is reached.
            _once(
                run, ProofKind.ADAPTER_ARRIVED, arm.name, arm.model.adapter, partial(_arrived, models[0], arm)
            )


def _every(models: Sequence[ChatModel], arm: Arm, subject: str, limits: Limits) -> Proof:
    """The proof of the first of a model's servers, where all pass."""
    first, *_ = [check_context(model, arm.name, subject, limits, arm.model.adapter) for model in models]
    return first


def _arrived(model: ChatModel, arm: Arm) -> Proof:
    """Raises TreatmentMissing where nothing is said of the adapter. Each server of the model is compared before it is asked."""
    said = model.arrival() if isinstance(model, CarriesThere) else ""
    if not said:
        raise TreatmentMissing(
            f"{arm.name}: nothing shows that the adapter {arm.model.adapter} is in force. Serve the base with mlx:FOLDER."
        )
    return Proof(
        kind=ProofKind.ADAPTER_ARRIVED, arm=arm.name, subject=arm.model.adapter, passed=True, said=said
    )


def _once(run: Staging, kind: ProofKind, arm: str, subject: str, prove: Callable[[], Proof]) -> Proof:
    """A proof of this run: the one on record, or a new one. What does not pass is recorded as what stopped the run."""
    for proof in run.proved:
        if (proof.kind, proof.arm, proof.subject) == (kind, arm, subject):
            return proof
    if run.stop.is_set():
        raise Cancelled
    try:
        with run.during(f"{arm}: checking the {kind.value.replace('_', ' ')}"):
            proof = prove()
    except (TreatmentMissing, PromptCut, ModelUnfit) as error:
        _record_stop(run, StoppingGate(kind.value), arm, subject, error)
        raise
    run.ledger.proofs.append(proof)
    run.proved.append(proof)
    return proof


def _record_stop(run: Staging, gate: StoppingGate, arm: str, subject: str, error: LooperError) -> None:
    found = GateStop(gate=gate, arm=arm, subject=subject, said=f"{error}")
    if isinstance(error, MemorySilent):
        ((given, total),) = error.said.values()
        figures = {
            "value": given / total,
            "least": error.least,
            "said": too_few_told(given, total),
        }
        found = found.model_copy(update=figures)
    run.ledger.stopped(found)


SAID_EVERY_S = 10.0


class AdaptersChecked:
    """How many of the adapters have been checked, said now and then: with many repositories it takes minutes. Where that was begun, it is
    said of the last one too."""

    def __init__(
        self, total: int, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._total, self._say, self._clock, self._done = total, say, clock, 0
        self._said, self._told = clock(), False

    def one_more(self) -> None:
        self._done += 1
        over = self._done == self._total and self._told
        if over or self._clock() - self._said >= SAID_EVERY_S:
            self._said, self._told = self._clock(), True
            self._say(f"adapters checked: {self._done} of {self._total}")


def check_treatments(
    run: Staging, arms: Sequence[Arm], treatments: Treatments, trainer: Trainer | None
) -> frozenset[str]:
    """Names of the arms that failed: they run no task and have no rate. Raises TreatmentMissing; where memories have too little to say, of
    all arms together."""
    _check_memories(run, arms, treatments)
    failed = set()
    repos = len({run.tasks[name].repo for name in run.manifest.tasks})
    adapted = [arm for arm in arms if arm.has_adapter]
    checked = AdaptersChecked(sum(len(run.manifest.plan.seeds_of(arm)) * repos for arm in adapted), run.say)
    for arm in arms:
        if arm.has_adapter and trainer and not _check_adapters(run, arm, treatments, trainer, checked):
            failed.add(arm.name)
    return frozenset(failed)


def _check_memories(run: Staging, arms: Sequence[Arm], treatments: Treatments) -> None:
    """Raises MemorySilent."""
    plan = run.manifest.plan
    # Without experience it is the gold patch that is told, of which every task has one.
    least = plan.experience.delivered if plan.experience is not None else 1.0
    tasks = [run.tasks[name] for name in run.manifest.tasks]
    silent: dict[str, tuple[int, int]] = {}
    for arm in arms:
        if arm.remembers is None:
            continue

        def prove(arm: Arm = arm) -> Proof:
            deliveries = [treatments.memory(arm, seed, task) for seed in plan.seeds_of(arm) for task in tasks]
            return check_memory(deliveries, arm.name, least, stops=run.manifest.stops(Gate.MEMORY))

        try:
            _once(run, ProofKind.MEMORY_DELIVERED, arm.name, "memory", prove)
        except MemorySilent as error:
            silent |= error.said
    if silent:
        raise memory_silent(silent, least)


def _check_unseen(run: Staging, arm: Arm, adapter: str, trainer: Trainer) -> None:
    """Raises TreatmentMissing."""
    try:
        check_split(trainer.load(adapter), run.manifest.tasks, arm.name)
    except TreatmentMissing as error:
        _record_stop(run, StoppingGate.UNSEEN, arm.name, adapter, error)
        raise


def _check_adapters(
    run: Staging, arm: Arm, treatments: Treatments, trainer: Trainer, checked: AdaptersChecked
) -> bool:
    """Whether the arm may run: each of its adapters is in the model, and with them the model still speaks the protocol."""
    plan = run.manifest.plan
    zero = arm.treatment is Treatment.ZERO_ADAPTER
    kind = ProofKind.ZERO_IS_BASE if zero else ProofKind.ADAPTER_ARRIVED
    speaks: list[Proof] = []
    for seed in plan.seeds_of(arm):
        for repo in sorted({run.tasks[name].repo for name in run.manifest.tasks}):
            task = next(run.tasks[name] for name in run.manifest.tasks if run.tasks[name].repo == repo)
            adapter = treatments.adapter(arm, seed, repo)
            _check_unseen(run, arm, adapter, trainer)
            model, base = run.adapted(arm, adapter), run.adapted(arm, "")
            prompts = treatments.prompts(seed, repo)
            arrived = partial(check_adapter, model, base, prompts, arm.name, adapter, zero=zero)
            _once(run, kind, arm.name, adapter, arrived)
            elsewhere = treatments.elsewhere(arm, seed, repo)
            if elsewhere and not zero:
                kept = partial(measure_retention, model, base, elsewhere, arm.name, adapter)
                _once(run, ProofKind.RETENTION, arm.name, adapter, kept)
            if not zero and seed == plan.seeds[0]:
                valid = partial(
                    check_valid_actions,
                    run.model_for(arm, task, adapter),
                    run.model_for(arm, task, ""),
                    prompts,
                    arm.name,
                    adapter,
                    plan.limits_of(arm),
                )
                speaks.append(_once(run, ProofKind.VALID_ACTIONS, arm.name, adapter, valid))
            checked.one_more()
    if not speaks:
        return True
    gate = partial(check_action_gate, speaks, arm.name, stops=run.manifest.stops(Gate.ACTION))
    proof = _once(run, ProofKind.ACTION_GATE, arm.name, "", gate)
    if proof.stops and not proof.passed:
        run.say(f"{arm.name} is a failed arm and runs no task: {proof.said}")
        return False
    return True
