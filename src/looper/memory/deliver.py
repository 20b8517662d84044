"""What of an arm's memory one task is told, and when."""

from collections.abc import Sequence
from typing import assert_never

from looper.memory.distil import net_edits
from looper.memory.playbook import playbook
from looper.memory.retrieve import Similarity, candidates, oracle_items, placebo, random_items, retrieved
from looper.records.memory import Delivery, Draw, MemoryItem, MemoryKind, Moment, Remembering
from looper.records.task import Task


def deliver(
    how: Remembering,
    task: Task,
    items: Sequence[MemoryItem],
    count: int,
    *,
    budget_bytes: int | None = None,
    seed: int = 0,
    similar: Similarity | None = None,
) -> Delivery:
    """At most `count` items that fit into the budget together, each whole or not at all; line breaks between them do not count.
    The controls give as many as retrieval would."""
    found = len(candidates(task, items))
    match how.kind:
        case MemoryKind.BLANK:
            return Delivery(candidates=found, text="")
        case MemoryKind.GOLD:
            return Delivery(candidates=found, text=task.gold_patch)
        case MemoryKind.PLAYBOOK:
            return _playbook(how, task, items, found, budget_bytes, seed)
        case MemoryKind.LESSONS | MemoryKind.RAW | MemoryKind.SUCCESSES:
            pass
        case _:
            assert_never(how.kind)
    chosen = _chosen(how.draw, task, items, retrieved(task, items, count, similar), seed)
    chosen = _fitting(chosen, budget_bytes)
    ids = tuple(item.id for item in chosen)
    if not chosen:
        return Delivery(candidates=found)
    if how.moment is not Moment.START:
        # What names no file would wait for one without end, as an item of a success that only deletes files.
        later = tuple(item for item in chosen if item.paths or how.moment is not Moment.FILE_OPEN)
        return Delivery(candidates=found, later=later, moment=how.moment)
    if how.kind is MemoryKind.SUCCESSES:
        earlier = tuple(turn for item in chosen for turn in item.turns)
        return Delivery(candidates=found, items=ids, earlier=earlier)
    return Delivery(candidates=found, items=ids, text="\n".join(item.text for item in chosen))


def _chosen(
    draw: Draw, task: Task, items: Sequence[MemoryItem], real: list[MemoryItem], seed: int
) -> list[MemoryItem]:
    match draw:
        case Draw.RETRIEVED:
            return real
        case Draw.RANDOM:
            return random_items(task, items, len(real), seed)
        case Draw.PLACEBO:
            return placebo(task, items, real, seed)
        case Draw.ORACLE:
            fix = "\n".join(f"{edit.path}\n{edit.new}" for edit in net_edits(task.gold_patch))
            return oracle_items(task, items, len(real), fix)


def _fitting(items: Sequence[MemoryItem], budget_bytes: int | None) -> list[MemoryItem]:
    kept: list[MemoryItem] = []
    left = budget_bytes
    for item in items:
        size = len(item.text.encode())
        if left is None or size <= left:
            kept.append(item)
            left = None if left is None else left - size
    return kept


def _playbook(
    how: Remembering,
    task: Task,
    items: Sequence[MemoryItem],
    found: int,
    budget_bytes: int | None,
    seed: int,
) -> Delivery:
    """The lines that most successes stand behind, as many as fit; in a control those of other repositories."""
    mine = candidates(task, items)
    if how.draw is not Draw.RETRIEVED:
        mine = placebo(task, items, mine, seed)
    lines = sorted(playbook(mine), key=lambda line: -len(line.items))
    heads = _fitting([line.items[0] for line in lines], budget_bytes)
    told = [line for line in lines if line.items[0] in heads]
    if not told:
        return Delivery(candidates=found)
    return Delivery(
        candidates=found,
        items=tuple(item.id for line in told for item in line.items),
        text="\n".join(line.text for line in told),
    )
