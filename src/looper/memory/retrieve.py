"""Which items a task gets."""

import math
import random
import re
from collections import Counter
from collections.abc import Sequence

from looper.records.memory import Delivery, MemoryItem
from looper.records.task import Task

K1, B = 1.2, 0.75


def retrieved(task: Task, items: Sequence[MemoryItem], count: int) -> Delivery:
    """The items of the task's repository that share most words with its issue, by BM25; never one of the task itself.

    An item that shares no telling word is not given: a word that stands in every item tells nothing.
    """
    found = candidates(task, items)
    scores = bm25(words(task.problem_statement), [words(f"{item.title} {item.asked}") for item in found])
    ranked = sorted(zip(scores, found, strict=True), key=lambda pair: (-pair[0], pair[1].id))
    return _delivery(found, [item for score, item in ranked[:count] if score > 0])


def at_random(task: Task, items: Sequence[MemoryItem], count: int, seed: int) -> Delivery:
    """As many items of the repository, drawn without looking at the issue: what retrieval is worth beyond presence."""
    found = candidates(task, items)
    wanted = len(retrieved(task, items, count).items)
    rng = random.Random(f"{seed}/{task.instance_id}")
    return _delivery(found, rng.sample(sorted(found, key=lambda item: item.id), wanted))


def placebo(task: Task, items: Sequence[MemoryItem], count: int, seed: int) -> Delivery:
    """As many items as retrieval would give, nearest in length, of other repositories: form and length without the
    knowledge."""
    given = retrieved(task, items, count).items
    by_id = {item.id: item for item in items}
    others = [item for item in items if item.repo != task.repo]
    rng = random.Random(f"{seed}/{task.instance_id}")
    chosen: list[MemoryItem] = []
    for key in given:
        left = [item for item in others if item not in chosen]
        if not left:
            break
        length = len(by_id[key].text)
        nearest = min(abs(len(item.text) - length) for item in left)
        chosen.append(rng.choice([item for item in left if abs(len(item.text) - length) == nearest]))
    return _delivery(others, chosen)


def candidates(task: Task, items: Sequence[MemoryItem]) -> list[MemoryItem]:
    """Of the same repository, from earlier tasks only; so neither the task itself nor its future can be shown."""
    return [
        item
        for item in items
        if item.repo == task.repo
        and item.instance_id != task.instance_id
        and item.position < task.sequence_position
    ]


def _delivery(found: Sequence[MemoryItem], chosen: Sequence[MemoryItem]) -> Delivery:
    return Delivery(
        candidates=len(found),
        items=tuple(item.id for item in chosen),
        text="\n".join(item.text for item in chosen),
    )


def words(text: str) -> list[str]:
    """Lower-case words; names are split at underscores and capitals, so that `scale_oak` is found by `scale`."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", text)]


def bm25(query: Sequence[str], documents: Sequence[Sequence[str]]) -> list[float]:
    """Okapi BM25 of each document (Robertson and Zaragoza 2009), k1 = 1.2, b = 0.75.

    The inverse document frequency is ln(N / n), zero for a word that stands everywhere; the common form with + 0.5 would
    let such a word decide among a few documents.
    """
    if not documents:
        return []
    mean = sum(map(len, documents)) / len(documents) or 1.0
    counts = [Counter(document) for document in documents]
    containing = Counter(word for count in counts for word in count)
    scores = []
    for count, document in zip(counts, documents, strict=True):
        score = 0.0
        for word in set(query) & count.keys():
            rarity = math.log(len(documents) / containing[word])
            score += rarity * count[word] * (K1 + 1) / (count[word] + K1 * (1 - B + B * len(document) / mean))
        scores.append(score)
    return scores
