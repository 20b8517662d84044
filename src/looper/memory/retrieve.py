"""Which items a task gets."""

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence

from looper.records.memory import MemoryItem
from looper.records.task import Task

K1, B = 1.2, 0.75

Similarity = Callable[[str, Sequence[str]], list[float]]
"""How like a question each of several texts is; 0 or less for not at all."""


def retrieved(
    task: Task, items: Sequence[MemoryItem], count: int, similar: Similarity | None = None
) -> list[MemoryItem]:
    """The items of the task's repository that are most like its issue, by BM25 where nothing else is given; never one of
    the task itself.

    An item that shares no telling word is not given: a word that stands in every item tells nothing.
    """
    found = candidates(task, items)
    scores = (similar or by_words)(task.problem_statement, [f"{item.title} {item.asked}" for item in found])
    ranked = sorted(zip(scores, found, strict=True), key=lambda pair: (-pair[0], pair[1].id))
    return [item for score, item in ranked[:count] if score > 0]


def oracle_items(task: Task, items: Sequence[MemoryItem], count: int, fix: str) -> list[MemoryItem]:
    """So many items of the repository, those first whose changes are most like `fix`, the code that the gold patch writes:
    what retrieval could be worth if it knew the answer. Nothing of the fix itself is told."""
    found = candidates(task, items)
    scores = bm25(_tokens(fix), [_tokens("\n".join((*item.paths, *item.changes))) for item in found])
    ranked = sorted(zip(scores, found, strict=True), key=lambda pair: (-pair[0], pair[1].id))
    return [item for _, item in ranked[:count]]


def random_items(task: Task, items: Sequence[MemoryItem], count: int, seed: int) -> list[MemoryItem]:
    """So many items of the repository, drawn without looking at the issue: what retrieval is worth beyond presence."""
    rng = random.Random(f"{seed}/{task.instance_id}")
    return rng.sample(sorted(candidates(task, items), key=lambda item: item.id), count)


def placebo(
    task: Task, items: Sequence[MemoryItem], like: Sequence[MemoryItem], seed: int
) -> list[MemoryItem]:
    """For each item of `like` one of another repository, nearest in length: form and length without the knowledge."""
    others = [item for item in items if item.repo != task.repo]
    rng = random.Random(f"{seed}/{task.instance_id}")
    chosen: list[MemoryItem] = []
    for given in like:
        left = [item for item in others if item not in chosen]
        if not left:
            break
        nearest = min(abs(len(item.text) - len(given.text)) for item in left)
        chosen.append(rng.choice([item for item in left if abs(len(item.text) - len(given.text)) == nearest]))
    return chosen


def candidates(task: Task, items: Sequence[MemoryItem]) -> list[MemoryItem]:
    """Of the same repository, from earlier tasks only; so neither the task itself nor its future can be shown."""
    return [
        item
        for item in items
        if item.repo == task.repo
        and item.instance_id != task.instance_id
        and item.position < task.sequence_position
    ]


def words(text: str) -> list[str]:
    """Lower-case words; names are split at underscores and capitals, so that `scale_oak` is found by `scale`."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", text)]


def _tokens(code: str) -> list[str]:
    """Names, numbers and signs of code: constants often differ in a sign alone."""
    return re.findall(r"\w+|[^\w\s]", code)


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


def by_words(question: str, texts: Sequence[str]) -> list[float]:
    """BM25 over lower-case words."""
    return bm25(words(question), [words(text) for text in texts])
