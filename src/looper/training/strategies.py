"""Batches of experience, one after another → one adapter, by the rule of a strategy.

A strategy sees batches, a function that trains and one that measures, and returns the adapters that it made on the way. Since a
training is named by its request, a chain that was broken off goes on where the first request is new.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain, cycle, islice, pairwise
from math import dist

from looper.records.base import content_hash
from looper.records.strategy import (
    AdaptiveRank,
    Anchor,
    Anchored,
    Division,
    FullReplay,
    Mixture,
    PartialReplay,
    Priority,
    Sequential,
    Strategy,
)
from looper.records.training import (
    AdapterRecord,
    Example,
    Make,
    Measured,
    TrainingRequest,
    TrainingSettings,
    Turn,
)
from looper.records.trajectory import ModelIdentity

Batch = Sequence[Example]
PROBE_SHARE = 0.25
"""Of the tasks of a batch, to compare ranks on."""
PARTS = {"bash": 0, "done": 0, "read": 1, "write": 2, "edit": 2}
"""Expert for each tool: commands, reads, changes."""


@dataclass(frozen=True)
class TrainingContext:
    base: ModelIdentity
    settings: TrainingSettings
    """Of the training on one batch."""
    train: Callable[[TrainingRequest], AdapterRecord]
    measure: Callable[[str, Sequence[Example]], tuple[Measured, ...]]
    """By an adapter's id, or by none for the base."""


@dataclass
class TrainingOutcome:
    """What a strategy made of its batches."""

    made: list[AdapterRecord] = field(default_factory=list)
    """Every adapter on the way, in order; the last is what was learned."""
    after: list[AdapterRecord] = field(default_factory=list)
    """The one that stood after each batch; one alone where all were learned together."""

    @property
    def last(self) -> AdapterRecord | None:
        return self.after[-1] if self.after else None

    @property
    def last_id(self) -> str:
        return self.after[-1].id if self.after else ""

    def stands(self, card: AdapterRecord) -> None:
        self.made.append(card)
        self.after.append(card)


def learn(strategy: Strategy, batches: Sequence[Batch], training_context: TrainingContext) -> TrainingOutcome:
    """One batch after another, or all together, as the strategy has it."""
    assert batches
    match strategy:
        case FullReplay():
            # As many iterations as all batches have with the others.
            every = tuple(chain.from_iterable(batches))
            found = TrainingOutcome()
            found.stands(
                _train(
                    training_context, every, iterations=len(batches) * training_context.settings.iterations
                )
            )
            return found
        case Sequential():
            return _one_after_another(batches, training_context)
        case Anchored(anchor=anchor):
            return _one_after_another(batches, training_context, anchor)
        case PartialReplay():
            return _with_buffer(strategy, batches, training_context)
        case Mixture():
            return _mixture(strategy, batches, training_context)
        case AdaptiveRank():
            return _adaptive(strategy, batches, training_context)


def _train(
    training_context: TrainingContext,
    examples: Batch,
    *,
    start: str = "",
    grow: bool = False,
    anchor: Anchor | None = None,
    **changes: object,
) -> AdapterRecord:
    return training_context.train(
        TrainingRequest(
            base=training_context.base,
            make=Make.TRAINED,
            settings=training_context.settings.model_copy(update=changes),
            examples=tuple(examples),
            start=start,
            grow=grow,
            anchor=anchor,
        )
    )


def _one_after_another(
    batches: Sequence[Batch], training_context: TrainingContext, anchor: Anchor | None = None
) -> TrainingOutcome:
    found = TrainingOutcome()
    for batch in batches:
        found.stands(_train(training_context, batch, start=found.last_id, anchor=anchor))
    return found


def _with_buffer(
    strategy: PartialReplay, batches: Sequence[Batch], training_context: TrainingContext
) -> TrainingOutcome:
    found = TrainingOutcome()
    buffer: list[Example] = []
    seen: list[Example] = []
    for batch in batches:
        shown = mixed(batch, buffer, strategy.old_per_new)
        found.stands(_train(training_context, shown, start=found.last_id))
        seen += batch
        buffer = kept(strategy, [*buffer, *batch], seen, found.last_id, training_context)
    return found


def mixed(new: Batch, old: Batch, old_per_new: float) -> list[Example]:
    """New and old examples, repeated so that every one is there and the old stand to the new as wanted."""
    if not old:
        return list(new)
    wanted = max(1, round(old_per_new * len(new)))
    if wanted >= len(old):
        return [*new, *islice(cycle(old), wanted)]
    return [*islice(cycle(new), max(len(new), round(len(old) / old_per_new))), *old]


def kept(
    strategy: PartialReplay,
    pool: Sequence[Example],
    seen: Sequence[Example],
    adapter: str,
    training_context: TrainingContext,
) -> list[Example]:
    """What of `pool` stays in the buffer; the newest stand at its end. A random buffer draws from all that was `seen`."""
    size = strategy.buffer
    match strategy.priority:
        case Priority.RECENCY:
            return list(pool[-size:])
        case Priority.RANDOM:
            # The same draw for an example in every round, as a reservoir has it.
            drawn = sorted(
                seen, key=lambda item: content_hash(str(training_context.settings.seed), item.source)
            )
            return drawn[:size]
        case Priority.DIFFICULTY:
            losses = _losses(training_context.measure(adapter, pool))
            return sorted(pool, key=lambda item: -losses[item.source])[:size]
        case Priority.CONFIDENCE:
            losses = _losses(training_context.measure("", pool))
            return sorted(pool, key=lambda item: losses[item.source])[:size]
        case Priority.DIVERSITY:
            places = {found.source: found.place for found in training_context.measure("", pool)}
            return farthest(pool, [places[item.source] for item in pool], size)


def _losses(found: Sequence[Measured]) -> dict[str, float]:
    return {item.source: item.loss for item in found}


def farthest(pool: Sequence[Example], places: Sequence[Sequence[float]], size: int) -> list[Example]:
    """The first example, then each time the one whose nearest chosen neighbour is farthest away (Gonzalez 1985)."""
    chosen = [0]
    nearest = [dist(place, places[0]) for place in places]
    while len(chosen) < min(size, len(pool)):
        best = max((at for at in range(len(pool)) if at not in chosen), key=lambda at: (nearest[at], -at))
        chosen.append(best)
        nearest = [min(near, dist(place, places[best])) for near, place in zip(nearest, places, strict=True)]
    return [pool[at] for at in chosen]


def _mixture(
    strategy: Mixture, batches: Sequence[Batch], training_context: TrainingContext
) -> TrainingOutcome:
    examples = divided(strategy.division, batches, training_context.settings.seed, strategy.experts)
    numbers = sorted({turn.part for example in examples for turn in example.turns if turn.part is not None})
    experts = [
        _train(training_context, taught, rank=strategy.expert_rank)
        for number in numbers
        if (taught := [found for example in examples if (found := only(example, number)) is not None])
    ]
    make = {"trained": Make.MIXTURE, "random": Make.ROUTED_BY_CHANCE, "none": Make.MERGED}[strategy.router]
    settings = training_context.settings.model_copy(
        update={
            "rank": strategy.expert_rank,
            **({"iterations": strategy.router_iterations} if make is Make.MIXTURE else {}),
        }
    )
    joined = TrainingRequest(
        base=training_context.base,
        make=make,
        settings=settings,
        examples=tuple(renumbered(examples, numbers)) if make is Make.MIXTURE else (),
        parts=tuple(card.id for card in experts),
        top=strategy.top if make is not Make.MERGED else None,
    )
    mixture = training_context.train(joined)
    return TrainingOutcome([*experts, mixture], [mixture])


def divided(
    division: Division, batches: Sequence[Batch], seed: int, experts: int | None = None
) -> list[Example]:
    """All examples, each supervised turn with the number of the expert that it belongs to; one for each batch, or so many `experts`."""
    rng = random.Random(seed)
    if experts is not None:
        every = list(chain.from_iterable(batches))
        ends = [round(len(every) * number / experts) for number in range(experts + 1)]
        batches = [every[first:last] for first, last in pairwise(ends)]

    def part(turn: Turn, batch: int) -> int:
        match division:
            case Division.BATCH:
                return batch
            case Division.TOOL:
                return PARTS[turn.tool or "bash"]
            case Division.RANDOM:
                return rng.randrange(len(batches))

    return [
        example.model_copy(
            update={
                "turns": tuple(
                    turn.model_copy(update={"part": part(turn, number)}) if turn.supervised else turn
                    for turn in example.turns
                )
            }
        )
        for number, batch in enumerate(batches)
        for example in batch
    ]


def only(example: Example, part: int) -> Example | None:
    """The example as one expert learns it: nothing is supervised that belongs to another; None where nothing is left."""
    turns = tuple(
        turn.model_copy(update={"supervised": turn.supervised and turn.part == part, "part": None})
        for turn in example.turns
    )
    return example.model_copy(update={"turns": turns}) if any(turn.supervised for turn in turns) else None


def renumbered(examples: Batch, numbers: Sequence[int]) -> list[Example]:
    """With the experts' places in the mixture in place of their numbers."""
    return [
        example.model_copy(
            update={
                "turns": tuple(
                    turn if turn.part is None else turn.model_copy(update={"part": numbers.index(turn.part)})
                    for turn in example.turns
                )
            }
        )
        for example in examples
    ]


def _adaptive(
    strategy: AdaptiveRank, batches: Sequence[Batch], training_context: TrainingContext
) -> TrainingOutcome:
    found = TrainingOutcome()
    rng = random.Random(training_context.settings.seed)
    for batch in batches:
        last = found.last
        ranks = [rank for rank in strategy.ranks if rank < strategy.budget] or [strategy.budget]
        if strategy.drawn:
            rank = rng.choice(ranks)
        else:
            probes = _probed(strategy, ranks, batch, last, training_context)
            found.made += probes
            rank = _knee(probes, strategy.knee)
        if last is not None and last.rank + rank > strategy.budget:
            settings = training_context.settings.model_copy(update={"rank": strategy.budget - rank})
            last = training_context.train(
                TrainingRequest(
                    base=training_context.base, make=Make.CUT, settings=settings, parts=(last.id,)
                )
            )
            found.made.append(last)
        start = last.id if last else ""
        found.stands(_train(training_context, batch, start=start, grow=last is not None, rank=rank))
    return found


def _probed(
    strategy: AdaptiveRank,
    ranks: Sequence[int],
    batch: Batch,
    last: AdapterRecord | None,
    training_context: TrainingContext,
) -> list[AdapterRecord]:
    """One adapter for each rank that was tried; the last one tried no longer helped, unless there was no larger rank."""
    found: list[AdapterRecord] = []
    share = training_context.settings.validation_share or PROBE_SHARE
    for rank in ranks:
        found.append(
            _train(
                training_context,
                batch,
                start=last.id if last else "",
                grow=last is not None,
                rank=rank,
                validation_share=share,
            )
        )
        if len(found) > 1 and _gain(found[-2], found[-1]) <= strategy.knee:
            break
    return found


def _knee(probes: Sequence[AdapterRecord], knee: float) -> int:
    """The last rank that helped."""
    if len(probes) > 1 and _gain(probes[-2], probes[-1]) <= knee:
        return probes[-2].settings.rank
    return probes[-1].settings.rank


def _gain(smaller: AdapterRecord, larger: AdapterRecord) -> float:
    """By what share a larger rank lowers the best validation loss."""
    before, after = (min(point.loss for point in card.validation_losses) for card in (smaller, larger))
    return (before - after) / before if before > 0 else 0.0
