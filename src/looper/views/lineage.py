"""Where the figures of an arm come from: what it learned, from what, with which settings, and how that was proved.

`looper lineage why` prints it and the cell's page shows it; all of it is read from a run's records and the adapters' cards.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from looper.records.learning import Learning
from looper.records.plan import Arm, arm_of
from looper.records.text import counted, listed
from looper.records.training import AdapterRecord
from looper.records.treatment import Consolidation
from looper.views.diff import leaves
from looper.views.findings import stop_lines
from looper.views.memory import drawn_text
from looper.views.runs import RunView

LISTED = 6


def lineage_lines(
    run: RunView, arm: str | None, card_of: Callable[[str], AdapterRecord | None]
) -> Iterator[str]:
    """The treatment behind each arm, or behind one. Raises BadInput for a name that is not in the run."""
    arms = _arms(run, arm)
    yield f"{run.folder.name}: code {run.manifest.code_version}, tasks {run.manifest.tasks_hash[:12]}, sandbox {run.manifest.sandbox}"
    for found in arms:
        yield from _arm_lines(run, found, card_of)


def lineage_data(
    run: RunView, arm: str | None, card_of: Callable[[str], AdapterRecord | None]
) -> dict[str, Any]:
    """The same for programs: of each arm its configuration, model, consolidations, proofs, and the cards of its adapters, None for one
    whose folder is gone. Raises BadInput."""
    return {
        "run": run.folder.name,
        "code_version": run.manifest.code_version,
        "tasks_hash": run.manifest.tasks_hash,
        "sandbox": run.manifest.sandbox,
        "arms": [_arm_data(run, found, card_of) for found in _arms(run, arm)],
    }


def adapters_of(run: RunView) -> dict[str, tuple[str, ...]]:
    """Arms by the id of each adapter that their records name: made for them, or on the way to that, or carried by a model of theirs."""
    named: dict[str, list[str]] = {}
    for made in run.consolidations:
        for adapter in (made.adapter, *made.made, *made.after):
            named.setdefault(adapter, []).append(made.arm)
    for arm in run.manifest.plan.arms:
        for model in (arm.model, arm.learning.overseer if arm.learning is not None else None):
            if model is not None:
                named.setdefault(model.adapter, []).append(arm.name)
    return {adapter: tuple(dict.fromkeys(arms)) for adapter, arms in named.items() if adapter}


def _arm_data(run: RunView, arm: Arm, card_of: Callable[[str], AdapterRecord | None]) -> dict[str, Any]:
    made = [found for found in run.consolidations if found.arm == arm.name]
    cards: dict[str, AdapterRecord | str | None] = {}
    for adapter in dict.fromkeys(found.adapter for found in made if found.adapter):
        try:
            cards[adapter] = card_of(adapter)
        except ValueError as error:
            cards[adapter] = str(error)
    return {
        "arm": arm,
        "config_hash": arm.config_hash(),
        "model": run.manifest.models[arm.name],
        "consolidations": made,
        "adapters": cards,
        "proofs": [proof for proof in run.proofs if proof.arm == arm.name],
        "stopped_by": [stop for stop in run.stopped_by if stop.arm == arm.name],
    }


def _arms(run: RunView, wanted: str | None) -> list[Arm]:
    arms = run.manifest.plan.arms
    names = [found.name for found in arms]
    if wanted is not None and wanted not in names:
        raise run.without_arm(wanted, names)
    return [found for found in arms if wanted in (None, found.name)]


def _arm_lines(run: RunView, arm: Arm, card_of: Callable[[str], AdapterRecord | None]) -> Iterator[str]:
    identity = run.manifest.models[arm.name]
    yield f"{arm.name} ({arm.role.value}), configuration {arm.config_hash()[:12]}"
    yield f"  model: {identity.backend} {identity.known_as}, temperature {arm.temperature:g}"
    if arm.model.adapter:
        yield "  its model carries, from outside of this run:"
        yield from _adapter_lines(arm.model.adapter, card_of)
    if arm.sampling is not None:
        yield f"  sampling: {', '.join(f'{key} {value:g}' for key, value in arm.sampling.model_dump(exclude_unset=True).items())}"
    if arm.limits is not None:
        own = arm.limits.model_dump(exclude_none=True)
        yield f"  limits of its own: {', '.join(f'{key} {value:g}' for key, value in own.items())}"
    if arm.learning is None:
        yield f"  learned{' in this run' if arm.model.adapter else ''}: nothing"
    else:
        yield from _learning_lines(run, arm, arm.learning, card_of)
    yield from (f"  {line}" for line in stop_lines(run, arm.name))
    for proof in run.proofs:
        if proof.arm == arm.name:
            yield f"  check {proof.kind.value}: {'passed' if proof.passed else 'NOT passed'}, {proof.said}"


def _learning_lines(
    run: RunView, arm: Arm, learning: Learning, card_of: Callable[[str], AdapterRecord | None]
) -> Iterator[str]:
    yield f"  learned: {_flat(learning.model_dump(mode='json', exclude_defaults=True))}"
    how, experience = learning.remembers, run.manifest.plan.experience
    if how is not None and experience is not None and how.kind.traits.has_items:
        told = experience.told(how)
        size = f", {told.bytes} bytes together" if told.bytes is not None else ""
        if how.one_text:
            yield f"  told: {how.one_text}{size}"
        else:
            yield f"  told: at most {counted(told.items, 'item')}{size}, {drawn_text(how) or f'found by {told.retrieval}'}"
    for made in run.consolidations:
        if made.arm == arm.name:
            yield from _consolidation_lines(made, card_of)


def _consolidation_lines(
    made: Consolidation, card_of: Callable[[str], AdapterRecord | None]
) -> Iterator[str]:
    where = made.repo or "all repositories"
    head = f"  seed {made.seed}, {where}" + (f", round {made.round}" if made.round > 1 else "")
    yield f"{head}: {made.used} of {counted(made.selection.taken, 'success', 'successes')} of {counted(made.selection.seen, 'attempt')}"
    if made.items:
        yield f"    memory: {counted(len(made.items), 'item')}, {listed([name[:24] for name in made.items], LISTED)}"
    if made.adapter:
        yield from _adapter_lines(made.adapter, card_of)


def _flat(said: Mapping[str, Any]) -> str:
    """Keys with their values, those of a part by their path, as in `memory.kind lessons`."""
    found = leaves(said)
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in found.items()}
    return ", ".join(f"{key} {'as by default' if text == '{}' else text}" for key, text in texts.items())


def _adapter_lines(name: str, card_of: Callable[[str], AdapterRecord | None]) -> Iterator[str]:
    try:
        card = card_of(name)
    except ValueError as error:
        yield f"    adapter {name}: {error}"
        return
    if card is None:
        yield f"    adapter {name}: its folder is gone"
        return
    yield f"    adapter {card.id}, {card.make.value}: {_flat(card.settings.model_dump(mode='json', exclude_defaults=True))}"
    yield (
        f"    from {counted(card.train_examples, 'example')} ({card.examples_hash[:12]}) of {listed([name[:24] for name in card.tasks], LISTED)}; changed by "
        f"{100 * card.relative_change:.1f} %, {card.backend}"
    )
    if card.run is not None:
        arms = Counter(arm_of(source) for source in card.sources)
        yield f"    trained by hand from {card.run}: {', '.join(f'{arm} {count}' for arm, count in arms.items())}"
    if card.parts or card.start:
        yield f"    made from {', '.join([*filter(None, [card.start]), *card.parts])}"
