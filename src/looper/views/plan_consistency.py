"""What a run's plan makes it owe, held against what it has: proofs before the first task of an arm, likelihoods after the last, what
was learned, the course of trainings, ratings, and times by the clock.

A run that is going on, or was killed, owes nothing yet but what comes before the work that it has done; what comes after it is owed
by a run that came to its end.
"""

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from math import inf

from looper.journal import read_stream
from looper.records.base import grouped
from looper.records.learning import Learning, Treatment
from looper.records.likelihood import Key, Likelihood
from looper.records.plan import Arm, ArmRole, Chooser, Gate, Plan, arm_of
from looper.records.question import AnsweredQuestion, Rating
from looper.records.seal import Seal
from looper.records.strategy import AdaptiveRank, FullReplay, Mixture
from looper.records.training import Format, TrainingEvent
from looper.records.treatment import (
    VALID_MARGIN,
    Consolidation,
    GateStop,
    Proof,
    ProofKind,
    StoppingGate,
    too_few_resolved,
    too_few_told,
)
from looper.views.contradictions import CLOCK_S, AttemptSteps, Contradictions, Records

ROUNDED = 1e-3
"""Nats: by which a mean that cannot be above nought, or below it, may be so in single precision."""
START_APART = 0.01
"""Nats: by which two processes may differ in what one model makes of one text."""
SKEW_S = 86_400.0
"""By which clocks of machines that a run is moved between may differ."""
ALWAYS_PASS = (
    ProofKind.CONTEXT,
    ProofKind.ADAPTER_ARRIVED,
    ProofKind.ZERO_IS_BASE,
    ProofKind.RETENTION,
)
"""Where one of these does not pass the run ends, and it is no proof that is recorded."""


def against_plan(records: Records) -> list[str]:
    """What is not there, or cannot be, each in words with the names that show it."""
    found = Contradictions()
    found.run(
        records,
        _proofs,
        _stopped,
        _gates,
        _likelihoods,
        _learned,
        _trainings,
        _ratings,
        _questions,
        _sealed_adapters,
        _by_the_clock,
    )
    return list(found.lines())


def _proofs(records: Records, found: Contradictions) -> None:
    """That each proof is there once, says what its figures say, and stops what the plan has it stop."""
    run = records.run
    times = Counter((proof.kind, proof.arm, proof.subject) for proof in run.proofs)
    for (kind, arm, _), count in times.items():
        # At work an arm may fail once more in a later process, where it gathers experience.
        if count > 1 and kind is not ProofKind.ACTS:
            found.add("proofs that are there twice", f"{kind.value} of {arm}")
    for proof in run.proofs:
        if (proof.passed and proof.kind is ProofKind.ACTS) or (
            not proof.passed and proof.kind in ALWAYS_PASS
        ):
            found.add(
                "proofs that are recorded only if they come out otherwise",
                f"{proof.kind.value} of {proof.arm}",
            )
        memory = proof.kind is ProofKind.MEMORY_DELIVERED
        if memory and not proof.passed and records.run.stops(Gate.MEMORY):
            found.add("memories with too little to say whose gate nobody passed over", proof.arm)
        if proof.subject != _subject(records, proof):
            found.add(
                "proofs of something else than their kind is about", f"{proof.kind.value} of {proof.arm}"
            )
        if proof.stops != _stops(records, proof):
            found.add(
                "proofs that stop an arm otherwise than the plan has it", f"{proof.kind.value} of {proof.arm}"
            )
        if said := _figures(proof):
            found.add(said, f"{proof.kind.value} of {proof.arm}")
        if proof.kind is ProofKind.RETENTION and proof.subject not in _to_be_retained(records, proof.arm):
            found.add("proofs of what nothing could be measured on", f"{proof.kind.value} of {proof.arm}")


def _stopped(records: Records, found: Contradictions) -> None:
    """That each gate that ended a process was one of the plan's, and was not met; and that what was passed over later had stopped it."""
    run, plan = records.run, records.run.manifest.plan
    for stop in run.gate_stops:
        name = f"{stop.gate.value} of {stop.arm}"
        arm = records.arms.get(stop.arm)
        if arm is None or not _asks(arm, stop.gate):
            found.add("gates that stopped an arm that does not have them", name)
        elif not _could_stop(records, arm, stop):
            found.add("gates that stopped at something else than they look at", name)
        if arm is not None and not _says_its_figures(records, arm, stop):
            found.add(
                "gates that stopped a run, with figures of what has none, or other words than figures", name
            )
        if stop.value is not None and stop.least is not None and stop.value >= stop.least:
            found.add("gates that stopped a run, and were met", name)
        if stop.gate.has_figures and stop.least not in _thresholds(plan, stop.gate):
            found.add("gates that stopped a run at another threshold than the plan's", name)
    given = {word for session in run.sessions for word in _words(session.command)}
    for late in run.late_overrides:
        stops = [stop for stop in run.gate_stops if stop.gate.override is late.gate]
        if not any(_seconds(stop.at, late.at) >= 0 for stop in stops):
            found.add("gates that were passed over later, and had not stopped the run", late.gate.value)
        if f"{late.gate.value}={late.reason}" not in given:
            found.add("gates that were passed over for another reason than was given", late.gate.value)
        stopped = {stop.arm for stop in stops}
        # A process that was asked for some arms, or was killed, need not have come to the others.
        if late.gate is Gate.MEMORY and records.by_all and records.uninterrupted:
            for proof in run.proofs:
                if proof.kind is ProofKind.MEMORY_DELIVERED and not proof.passed and proof.arm not in stopped:
                    found.add(
                        "memories with too little to say that stopped nothing before they were passed over",
                        proof.arm,
                    )


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:
        return []


def _asks(arm: Arm, gate: StoppingGate) -> bool:
    """Whether a gate can stop a run for this arm."""
    match gate:
        case StoppingGate.DATA | StoppingGate.MATERIAL:
            return arm.learning is not None
        case StoppingGate.MEMORY_DELIVERED:
            return arm.remembers is not None
        case StoppingGate.CONTEXT:
            return arm.model.reads
        case StoppingGate.ADAPTER_ARRIVED:
            return arm.has_adapter or arm.model.carried_there
        case StoppingGate.ZERO_IS_BASE | StoppingGate.UNSEEN:
            return arm.has_adapter


def _could_stop(records: Records, arm: Arm, stop: GateStop) -> bool:
    """Whether a gate that asks of each consolidation names one of the arm's, and any other what it looks at and no consolidation."""
    plan = records.run.manifest.plan
    if stop.gate in (StoppingGate.DATA, StoppingGate.MATERIAL):
        return (
            stop.seed in plan.seeds_of(arm)
            and stop.repo in ({""} if arm.strategy is not None else records.evaluated)
            and stop.round <= arm.own_learning.rounds
            and not stop.subject
        )
    about = stop.subject == "memory" if stop.gate is StoppingGate.MEMORY_DELIVERED else bool(stop.subject)
    return about and stop.seed is None and not stop.repo and stop.round == 1


def _says_its_figures(records: Records, arm: Arm, stop: GateStop) -> bool:
    """Whether a gate has the figures of its kind, and words that say them."""
    manifest = records.run.manifest
    if not stop.gate.has_figures or stop.value is None or stop.least is None:
        return not stop.gate.has_figures and stop.value is None and stop.least is None
    if stop.gate is StoppingGate.DATA:
        words = [
            too_few_resolved(repo, stop.value, stop.seed or 0, source)
            for repo in records.evaluated
            for source in manifest.plan.sources
        ]
    else:
        total = len(manifest.plan.seeds_of(arm)) * len(manifest.tasks)
        words = [too_few_told(given, total) for given in range(total) if given / total == stop.value]
    return stop.said in words


def _thresholds(plan: Plan, gate: StoppingGate) -> tuple[float, ...]:
    """What a gate can have wanted: where it is passed over, or nothing is gathered, something at all, or all."""
    experience = plan.experience
    if gate is StoppingGate.MEMORY_DELIVERED:
        return (experience.delivered if experience is not None else 1.0,)
    return (1, experience.selection.minimum_tasks) if experience is not None else ()


def _to_be_retained(records: Records, name: str) -> set[str]:
    """Adapters of an arm that are asked what they make of successes in other repositories than they were changed for."""
    arm = records.arms.get(name)
    if arm is None or not _is_changed(arm):
        return set()
    return {
        one.adapter
        for seed in records.run.manifest.plan.seeds_of(arm)
        for one in _served(records, arm, seed)
        if _has_elsewhere(records, arm, one)
    }


def _subject(records: Records, proof: Proof) -> str:
    """What a proof of its kind is about; what it says itself where that is one of several adapters, or nobody wrote it down."""
    model = records.run.manifest.models.get(proof.arm)
    match proof.kind:
        case ProofKind.CONTEXT:
            known = model is not None and model.digest != "not asked"
            return f"{model.name} {model.digest[:12]}" if model is not None and known else proof.subject
        case ProofKind.MEMORY_DELIVERED:
            return "memory"
        case ProofKind.ACTION_GATE | ProofKind.ACTS:
            return ""
        case (
            ProofKind.ADAPTER_ARRIVED | ProofKind.ZERO_IS_BASE | ProofKind.VALID_ACTIONS | ProofKind.RETENTION
        ):
            return proof.subject


def _stops(records: Records, proof: Proof) -> bool:
    if proof.kind is ProofKind.ACTION_GATE:
        return records.run.stops(Gate.ACTION)
    if proof.kind is ProofKind.MEMORY_DELIVERED and not proof.passed:
        # It is recorded only where the gate was passed over.
        return False
    return proof.kind is not ProofKind.VALID_ACTIONS


def _figures(proof: Proof) -> str:
    """What is wrong with the figures of a proof; empty where nothing is."""
    before, after = proof.before, proof.after
    if proof.kind not in (ProofKind.VALID_ACTIONS, ProofKind.RETENTION):
        return "" if before is None and after is None else "proofs with figures of what has none"
    if before is None or after is None or not all(-ROUNDED <= figure < inf for figure in (before, after)):
        return "proofs with figures that nothing can have"
    if proof.kind is ProofKind.VALID_ACTIONS:
        if max(before, after) > 1:
            return "proofs with figures that nothing can have"
        if proof.passed != (after >= before - VALID_MARGIN):
            return "proofs that came out otherwise than their figures"
    return ""


def _is_changed(arm: Arm) -> bool:
    return arm.has_adapter and arm.treatment is not Treatment.ZERO_ADAPTER


def _gates(records: Records, found: Contradictions) -> None:
    """That each arm that worked was proved before, and that none worked that was stopped before its first task."""
    run, plan = records.run, records.run.manifest.plan
    read, arrived = (
        [
            (arm.model, plan.limits_of(arm))
            for proof in run.proofs
            if proof.kind is kind and (arm := records.arms.get(proof.arm)) is not None
        ]
        for kind in (ProofKind.CONTEXT, ProofKind.ADAPTER_ARRIVED)
    )
    for arm in plan.arms:
        if arm.name not in records.at_work:
            continue
        if arm.model.reads and (arm.model, plan.limits_of(arm)) not in read:
            found.add("arms that worked although nothing shows that their prompts are read whole", arm.name)
        if arm.model.carried_there and records.same_code and (arm.model, plan.limits_of(arm)) not in arrived:
            found.add("arms that worked although nothing shows that their server had the adapter", arm.name)
        stopped = [
            proof for proof in run.proofs if proof.arm == arm.name and proof.stops and not proof.passed
        ]
        if any(proof.kind is not ProofKind.ACTS for proof in stopped):
            found.add("arms that worked although a proof stopped them before their first task", arm.name)
        if not _is_changed(arm):
            continue
        asked = {proof.subject for proof in run.proofs if _is_of(proof, arm, ProofKind.VALID_ACTIONS)}
        if not {one.adapter for one in _served(records, arm, plan.seeds[0])} <= asked:
            found.add(
                "arms that worked although nothing shows that their adapters speak the protocol", arm.name
            )
        if not any(_is_of(proof, arm, ProofKind.ACTION_GATE) for proof in run.proofs):
            found.add("arms that worked without their action gate", arm.name)
        missing = _to_be_retained(records, arm.name) - {
            proof.subject for proof in run.proofs if _is_of(proof, arm, ProofKind.RETENTION)
        }
        if missing:
            found.add(
                "arms that worked although nobody asked what their adapters make of other repositories",
                arm.name,
            )


def _is_of(proof: Proof, arm: Arm, kind: ProofKind) -> bool:
    return proof.arm == arm.name and proof.kind is kind


def _served(records: Records, arm: Arm, seed: int) -> list[Consolidation]:
    """What an arm learned last with a seed: what it works with."""
    rounds = arm.learning.rounds if arm.learning is not None else 1
    return [one for one in records.learned.get((arm.name, seed), []) if one.round == rounds and one.adapter]


def _has_elsewhere(records: Records, arm: Arm, one: Consolidation) -> bool:
    """Whether base has successes in a repository that an adapter has learned nothing of."""
    learning = arm.own_learning
    if learning.strategy is not None or not one.repo:
        return False
    repos = sorted(records.evaluated)
    learned = (
        repos[(repos.index(one.repo) + 1) % len(repos)]
        if learning.elsewhere and one.repo in repos
        else one.repo
    )
    return any(repo != learned for repo in records.own_successes.get(one.seed, ()))


def _likelihoods(records: Records, found: Contradictions) -> None:
    """That every arm was asked what its plan has it asked, and that no answer is one that nothing can give."""
    run = records.run
    starts: dict[tuple[int, Learning, frozenset[tuple[str, int]]], dict[str, float]] = {}
    batches: dict[tuple[str, int], dict[str, int]] = {}
    for one in run.likelihoods:
        name = f"{one.arm}, seed {one.seed}, after {one.batches} batches"
        arm = records.arms.get(one.arm)
        if any(not -inf < value <= ROUNDED for value in (*one.held_out.values(), *one.learned.values())):
            found.add("likelihoods above certainty", name)
        if any(not -ROUNDED <= value < inf for value in one.kl_from_base.values()):
            found.add("divergences from base below nought", name)
        if not _asked_with(records, arm, one):
            found.add("likelihoods with other adapters than the arm had then", name)
        if one.kl_from_base.keys() != (one.held_out.keys() if one.last and one.adapters else set()):
            found.add(
                "divergences from base of what is base, or of other successes than the likelihoods", name
            )
        if arm is None or arm.learning is None or arm.strategy is None:
            if one.learned or one.batch_of or one.batches or not one.last:
                found.add("likelihoods of batches that the arm does not learn", name)
            continue
        same = one.batch_of == batches.setdefault((one.arm, one.seed), one.batch_of)
        if one.learned.keys() != one.batch_of.keys() or not same or not _in_batches(records, arm, one):
            found.add("likelihoods of other batches than the arm learned", name)
        if not one.adapters:
            key = (
                one.seed,
                arm.learning.model_copy(update={"strategy": None}),
                frozenset(one.batch_of.items()),
            )
            start = starts.setdefault(key, one.learned)
            if any(abs(start[task] - value) > START_APART for task, value in one.learned.items()):
                found.add("likelihoods before the first batch that are not what other arms began with", name)
    for each in run.attempt_likelihoods:
        if not -inf < each.log_likelihood <= ROUNDED:
            found.add("likelihoods above certainty", each.cell)
    for cell in _attempts_asked(records):
        found.add("likelihoods of attempts that are gone, or there twice", cell)
    for name in _not_asked(records):
        found.add("likelihoods that are gone", name)


def _attempts_asked(records: Records) -> Iterator[str]:
    """Cells whose attempts a choice takes the likeliest of, and that were not asked about once each. One without an action is not."""
    run, plan = records.run, records.run.manifest.plan
    names = {name for choice in plan.choices if choice.by is Chooser.LIKELIEST for name in choice.of}
    if plan.base is None or not plan.base.model.shows_losses or not records.by_all:
        return
    asked = Counter((one.cell, one.attempt) for one in run.attempt_likelihoods)
    for cell, verdict in run.final.items():
        key, arm = (cell, verdict.attempt), arm_of(cell)
        steps = records.steps.get(key, AttemptSteps())
        asks = arm in names and key in run.ends and steps.count > steps.without
        if asked.pop(key, 0) != asks:
            yield cell
    # Of attempts that were tried again there may be some too.
    yield from (
        cell for (cell, attempt), count in asked.items() if count > 1 or (cell, attempt) not in run.ends
    )


def _asked_with(records: Records, arm: Arm | None, one: Likelihood) -> bool:
    """Whether an arm was asked with the adapter that stood after that batch, or with those that it worked with."""
    mine = records.learned.get((one.arm, one.seed), [])
    if arm is None or arm.learning is None or not any(each.adapter for each in mine):
        return True
    if arm.strategy is not None:
        # Where all batches were learned together, one stands after them all.
        return one.adapters == mine[-1].after[: one.batches][-1:] * bool(one.batches)
    asked = {records.repo_of(task) for task in one.held_out}
    served = {each.adapter for each in _served(records, arm, one.seed) if each.repo in ("", *asked)}
    return not one.held_out or (len({*one.adapters}) == len(one.adapters) and {*one.adapters} == served)


def _in_batches(records: Records, arm: Arm, one: Likelihood) -> bool:
    """Whether the batches are made of what the arm learned from, in the order of the repositories and of their tasks."""
    learning = arm.own_learning
    mine = [each for each in records.learned.get((arm.name, one.seed), []) if not each.repo]
    plan = records.run.manifest.plan
    plain = not (learning.failures or learning.recovered)
    tasks = {task for of in records.run.manifest.experience_tasks.values() for task in of}
    if plain and mine:
        tasks = {task for each in mine for task in each.selection.tasks}
    if not one.learned.keys() <= tasks or one.batches > max(one.batch_of.values(), default=0):
        return False
    if not plain or not one.learned.keys() <= records.tasks.keys() or plan.experience is None:
        return True
    at = [(records.tasks[task].repo, records.tasks[task].sequence_position) for task in one.batch_of]
    numbers = [number for _, number in sorted(zip(at, one.batch_of.values(), strict=True))]
    return numbers == sorted(numbers)


def _not_asked(records: Records) -> Iterator[str]:
    """Arms and seeds of which a run that came to its end has not all likelihoods that were asked for."""
    run, plan = records.run, records.run.manifest.plan
    base = plan.base
    if (
        not records.by_all
        or base is None
        or not base.model.shows_losses
        or not any(arm.learning for arm in plan.arms)
    ):
        return
    keys = {one.key for one in run.likelihoods}
    with_last = {(one.arm, one.seed) for one in run.likelihoods if one.last}
    # Of an earlier version, which may have asked for less, the answers of each arm as it worked.
    if not (records.same_code or keys):
        return
    for arm in plan.arms:
        if arm.name in run.failed_arms or (arm != base and (arm.learning is None or arm.has_overseer)):
            continue
        for seed in plan.seeds_of(arm):
            if (arm.name, seed) not in with_last or (
                records.same_code and not {*_keys(records, arm, seed)} <= keys
            ):
                yield f"{arm.name}, seed {seed}"


def _keys(records: Records, arm: Arm, seed: int) -> Iterator[Key]:
    """Of all that an arm is asked with a seed, but for what it is asked last."""
    if arm.strategy is None:
        return
    yield arm.name, seed, 0, False
    for one in records.learned.get((arm.name, seed), [])[-1:]:
        yield from ((arm.name, seed, number, False) for number in range(1, len(one.after)))


def _learned(records: Records, found: Contradictions) -> None:
    """That what was learned is there once, in an order that can be, and that memories have an owner."""
    run = records.run
    first: dict[tuple[str, int, str, int], Consolidation] = {}
    for one in run.consolidations:
        name = f"{one.arm}, seed {one.seed}, {one.repo or 'all repositories'}"
        arm = records.arms.get(one.arm)
        if arm is not None and arm.learning is not None:
            if one.round > arm.learning.rounds:
                found.add("what was learned in a round that the plan does not have", name)
            if one.repo not in ({""} if arm.strategy is not None else records.evaluated):
                found.add("what was learned for a repository that nobody works at", name)
        in_batches = arm is not None and arm.strategy is not None
        if not in_batches and one.after != ((one.adapter,) if one.adapter else ()):
            found.add("adapters that stood after batches which the arm does not learn", name)
        told = {records.items[item].instance_id for item in one.items if item in records.items}
        remembers = arm is not None and arm.remembers is not None
        whole = arm is not None and arm.learning is not None and not arm.learning.recovered
        if (whole and not told <= {*one.selection.tasks}) or (one.items and not remembers):
            found.add(
                "memories of other tasks than were learned from, or of an arm that remembers nothing", name
            )
        if not one.made and (one.trained_tokens or one.training_s or one.adapter):
            found.add("trainings that made no adapter", name)
        before = first.setdefault(one.key, one)
        if before is not one and not _made_again(before, one, len(run.sessions)):
            found.add("what was learned is there twice", name)
        order = [one.made.index(each) for each in one.after if each in one.made]
        if one.after and (one.after[-1] != one.adapter or order != sorted(order)):
            found.add("adapters that did not come one after the other as they were made", name)
        most = (
            run.manifest.plan.experience.selection.per_task if run.manifest.plan.experience is not None else 1
        )
        tasks = len({*one.selection.tasks})
        if tasks != len(one.selection.tasks) or not tasks <= one.selection.taken <= tasks * most:
            found.add("what was learned from another number of tasks than of successes", name)
    owned = {item for one in run.consolidations for item in one.items}
    # A process that was killed may have left some that the next one did not need.
    if records.sealed and records.uninterrupted:
        for item in sorted(records.items.keys() - owned):
            found.add("memories that no arm learned", item)


def _made_again(before: Consolidation, now: Consolidation, sessions: int) -> bool:
    """Whether a later process may have recorded this once more: an adapter whose folder was gone, or other successes since what failed
    outside of the agent was tried again."""
    own = {"seconds": 0.0, "training_s": 0.0}
    alike = before.model_copy(update=own) == now.model_copy(update=own)
    return sessions > 1 and bool(now.adapter) and (alike or before.selection.without_verdict > 0)


def _trainings(records: Records, found: Contradictions) -> None:
    """That trainings were of the plan's arms and length, and came to their end. One that is gone altogether may have been had before."""
    run = records.run
    for what, events in grouped((each.what, each.event) for each in run.trainings).items():
        arm = records.arms.get(what.partition(",")[0])
        if arm is None or arm.role is ArmRole.EXPERIENCE:
            found.add("trainings of an arm that the plan does not have", what)
            continue
        if what not in _trained_names(records, arm):
            found.add("trainings of a seed or a repository that the plan does not have", what)
        planned = _iterations(arm, records)
        for event in events:
            if event.iteration > event.iterations:
                found.add("trainings that went on past their end", what)
            if planned and event.iterations not in (0, planned):
                found.add("trainings of another length than the plan's", what)
        if records.sealed and records.uninterrupted and not _to_its_end(events):
            found.add("trainings without their beginning or their end", what)


def _trained_names(records: Records, arm: Arm) -> set[str]:
    """Of all that is trained for an arm, as trainings are called."""
    at_once = arm.learning is None or arm.strategy is not None
    repos = [""] if at_once else [f", {repo}" for repo in records.evaluated]
    return {
        f"{arm.name}{repo}, seed {seed}" for repo in repos for seed in records.run.manifest.plan.seeds_of(arm)
    }


def _to_its_end(events: Sequence[TrainingEvent]) -> bool:
    """Whether the events of a training, or of several, are whole."""
    kinds = [each.event for each in events]
    parts = "".join("f" if kind == "finished" else "l" if kind == "loaded" else "." for kind in kinds)
    # Each ends; what shows losses was loaded before.
    return parts.endswith("f") and all(
        not part or part.startswith("l") or "." not in part for part in parts.split("f")
    )


def _iterations(arm: Arm, records: Records) -> int:
    """Of one training of an arm; 0 where they differ."""
    experience, learning = records.run.manifest.plan.experience, arm.learning
    if learning is None or experience is None or experience.training is None:
        return 0
    if isinstance(learning.strategy, FullReplay | Mixture | AdaptiveRank):
        return 0
    changed = (
        learning.training.of(experience.training) if learning.training is not None else experience.training
    )
    return changed.iterations


def _ratings(records: Records, found: Contradictions) -> None:
    """That what was rated was answered."""
    folder = records.run.folder
    answered = {
        (one.arm, one.seed, one.round, one.source)
        for one in read_stream(folder, "questions", AnsweredQuestion)
    }
    for rating in read_stream(folder, "ratings", Rating):
        if (rating.arm, rating.seed, rating.round, rating.source) not in answered:
            found.add("ratings of questions that nobody answered", f"{rating.arm}, {rating.source}")


def _questions(records: Records, found: Contradictions) -> None:
    """That what was asked about successes is what they give, is judged as its answer says, and is all that was to be asked."""
    run, agent = records.run, records.agent
    learned = {one.key: one for one in run.consolidations}
    # Whoever was killed while an arm learned has its questions, and its next process asks them again.
    at_once = records.uninterrupted and records.sealed
    about: dict[tuple[str, int, str, int], dict[str, list[int]]] = {}
    for one in read_stream(run.folder, "questions", AnsweredQuestion):
        source, _, number = one.source.rpartition("/")
        cell, _, attempt = source.rpartition("#")
        at = cell, int(attempt) if attempt.isdigit() else 0
        key = one.arm, one.seed, one.repo, one.round
        end, arm, of = run.ends.get(at), records.arms.get(one.arm), learned.get(key)
        if end is None or arm is None or arm.learning is None or (of is None and at_once):
            found.add("questions about successes that the arm did not learn from", one.source)
            continue
        plain = not (arm.learning.failures or arm.learning.recovered)
        if plain and of is not None and end.instance_id not in of.selection.tasks:
            found.add("questions about successes that the arm did not learn from", one.source)
        task, most = records.tasks.get(end.instance_id), 0
        if agent is not None and task is not None:
            most = agent.asked(one, arm, end, records.steps_of(at), task)
            if not most:
                found.add("questions that are not what their success gives, or judged otherwise", one.source)
        of_source = about.setdefault(key, {}).setdefault(source, list(range(1, most + 1)))
        # Each number once; what is left over in the end was not asked.
        if number.isdigit() and int(number) in of_source:
            of_source.remove(int(number))
        elif most and at_once:
            found.add("questions that are there twice", one.source)
    for key, consolidation in learned.items() if at_once else ():
        arm, sources = records.arms.get(key[0]), about.get(key, {})
        asks = arm is not None and arm.learning is not None and arm.learning.format is Format.SELF_QA
        if (asks and len(sources) != consolidation.used) or any(sources.values()):
            found.add("questions that are gone", f"{key[0]}, seed {key[1]}, {key[2]}, round {key[3]}")


def _sealed_adapters(records: Records, found: Contradictions) -> None:
    """That the seal names the weights of every adapter that an arm worked with."""
    seals = list(read_stream(records.run.folder, "seals", Seal))
    if not records.by_all or not seals:
        return
    plan = records.run.manifest.plan
    used = {
        one.adapter for arm in plan.arms for seed in plan.seeds_of(arm) for one in _served(records, arm, seed)
    }
    for adapter in sorted(used - seals[-1].adapters.keys()):
        found.add("adapters whose weights the seal does not name", adapter)


def _by_the_clock(records: Records, found: Contradictions) -> None:
    """That sessions and seals follow each other, that what a seal counts was there when it was made, and that no more time was worked than
    there was."""
    run = records.run
    seals = list(read_stream(run.folder, "seals", Seal))
    begun = [session.begun for session in run.sessions]
    for number, (before, after) in enumerate(pairwise(begun), 2):
        if run.sessions[number - 1] == run.sessions[number - 2]:
            found.add("sessions that are there twice", f"session {number}")
        if not _seconds(before, after) >= -SKEW_S:
            found.add("sessions that began before the one that they follow", f"session {number}")
    for name, when in (
        *((f"session {n}", at) for n, at in enumerate(begun, 1)),
        *(("seal", seal.ended) for seal in seals),
        *((f"stop of {stop.arm} by the gate {stop.gate.value}", stop.at) for stop in run.gate_stops),
        *((f"gate {late.gate.value} passed over", late.at) for late in run.late_overrides),
    ):
        if not _seconds(when, records.now or when) >= -SKEW_S:
            found.add("times that have not come yet, or are none", name)
    for seal in seals:
        counted = run.sessions[: seal.files["sessions"].lines] if "sessions" in seal.files else ()
        for number, session in enumerate(counted, 1):
            if _seconds(session.begun, seal.ended) < -CLOCK_S:
                found.add("sessions that began after the seal that counts them", f"session {number}")
    # Another machine's clock says nothing of how long this one worked.
    if not records.sealed or not seals or len({session.where for session in run.sessions}) != 1:
        return
    had = _seconds(begun[0], seals[-1].ended) + CLOCK_S
    for end in run.trajectories:
        if end.wall_s > had:
            found.add("rollouts that took longer than the run", end.cell)
    for verdict in run.verdicts:
        if verdict.wall_s > had:
            found.add("test runs that took longer than the run", verdict.cell)
    for one in run.consolidations:
        if one.seconds > had:
            found.add("learning that took longer than the run", f"{one.arm}, seed {one.seed}")
    workers = max(session.workers for session in run.sessions)
    together = sum(end.wall_s for end in run.trajectories) + sum(verdict.wall_s for verdict in run.verdicts)
    if together > workers * had:
        found.add("rollouts and test runs that took more time together than the run had", run.folder.name)


def _seconds(begun: str, ended: str) -> float:
    """Between two times of the clock; no number where one is none."""
    try:
        return (datetime.fromisoformat(ended) - datetime.fromisoformat(begun)).total_seconds()
    except (ValueError, TypeError):
        return float("nan")
