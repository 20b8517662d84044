"""Tasks whose issue gives the answer away.

A screen, not a verdict: it finds fixes that are quoted as code, misses those that are told in prose, and flags issues that
merely quote the code to be changed. A reader decides; figures are shown with and without flagged tasks.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from heapq import nsmallest

from looper.records.task import Task
from looper.records.text import bare_lines

LEAST_CHARACTERS = 10
SIMILAR = 0.80
"""Of a line to some part of the issue, from which on the line counts as given."""
ROUNDING = 1e-5
"""Of bounds in single precision."""
FLAGGED = 0.5
"""Share of the fix that is given, from which on the task is flagged."""


@dataclass(frozen=True)
class LeakScore:
    """How much of a fix stands in a text."""

    scored_lines: int
    """Added lines of the patch that say something: at least 10 characters, no comment, not moved."""
    max_similarity: float | None
    """Of the line that is given most exactly, 0 to 1; None without a scored line."""
    covered_share: float | None
    """Characters in lines that are given / characters of all scored lines."""

    @property
    def flagged(self) -> bool:
        return self.covered_share is not None and self.covered_share >= FLAGGED


def leak_score(patch: str, text: str) -> LeakScore:
    """Each telling line of the patch against every part of the text of its own length."""
    lines = telling_lines(patch)
    if not lines:
        return LeakScore(0, None, None)
    normal = " ".join(text.split())
    found = [(len(line), similarity(line, normal)) for line in lines]
    given = sum(length for length, score in found if score >= SIMILAR)
    return LeakScore(len(lines), max(score for _, score in found), given / sum(length for length, _ in found))


def gives_away(patch: str, text: str) -> bool:
    """Whether `leak_score` flags the two, without looking for the best of what is too unlike to count."""
    lines = telling_lines(patch)
    normal = " ".join(text.split())
    given = sum(len(line) for line in lines if _stands_in(line, normal))
    return bool(lines) and given / sum(map(len, lines)) >= FLAGGED


def telling_lines(patch: str) -> list[str]:
    """Added lines with single blanks, without comments, short ones, and lines that the patch also removes."""
    removed = {line for sign, line in _changed(patch) if sign == "-"}
    return [
        line
        for sign, line in _changed(patch)
        if sign == "+" and len(line) >= LEAST_CHARACTERS and not line.startswith("#") and line not in removed
    ]


def _changed(patch: str) -> Iterator[tuple[str, str]]:
    for line in bare_lines(patch):
        if re.match(r"[+-](?!\+\+ |-- )", line):
            yield line[0], " ".join(line[1:].split())


def similarity(line: str, text: str) -> float:
    """Best difflib ratio of a line with any window of its length in the text; 1 where it stands there exactly.

    The longest common subsequence bounds the ratio of a window from above and is found quickly, so windows are compared in
    earnest by falling bound, and few of them.
    """
    best = 0.0
    for bound, ratio in _windows(line, text):
        if bound <= best - ROUNDING:
            break
        best = max(best, ratio())
    return best


def _stands_in(line: str, text: str) -> bool:
    """Whether `similarity` is large enough to count: nothing whose bound is smaller need be compared."""
    for bound, ratio in _windows(line, text):
        if bound < SIMILAR - ROUNDING:
            return False
        if ratio() >= SIMILAR:
            return True
    return False


def _windows(line: str, text: str) -> Iterator[tuple[float, Callable[[], float]]]:
    """Every window of the line's length in the text: what its ratio cannot pass, falling, and the ratio itself."""
    from rapidfuzz.distance import Indel
    from rapidfuzz.process import cdist

    if line in text:
        yield 1.0, lambda: 1.0
        return
    size = min(len(line), len(text))
    windows = list(dict.fromkeys(text[start : start + size] for start in range(len(text) - size + 1)))
    bounds = cdist([line], windows, scorer=Indel.normalized_similarity)[0]
    matcher = SequenceMatcher(autojunk=False)
    matcher.set_seq2(line)
    for at in bounds.argsort()[::-1]:
        matcher.set_seq1(windows[at])
        yield float(bounds[at]), matcher.ratio


def fix_stands_in(task: Task, read: Callable[[str], bytes | None]) -> bool | None:
    """Whether every telling line of the gold patch stands in a tree, in the files that the patch changes; `read` gives their content
    there. An agent that has worked on such a tree has seen the fix. None for patches without a telling line."""
    lines = set(telling_lines(task.gold_patch))
    texts = [(read(path) or b"").decode("utf-8", "replace") for path in task.modified_files]
    there = {" ".join(line.split()) for text in texts for line in bare_lines(text)}
    return lines <= there if lines else None


SHINGLE = 3
"""Words in a row."""
Shingle = tuple[str, ...]
NEARLY_THE_SAME = 0.9
"""Share of shingles that two texts have in common, from which on one is a copy of the other."""
LEAST_SHINGLES = 8
"""Shorter texts are alike by chance."""


def near_duplicates(tasks: Sequence[Task], others: Sequence[Task]) -> dict[str, str]:
    """Ids of the `tasks` whose issue or gold patch nearly is that of one of the `others`, and the id of the first such one.

    Jaccard similarity of three-word shingles (Broder 1997), without the lines of a patch that name its blobs.
    """
    known = [_shingles(other) for other in others]
    holding: tuple[dict[Shingle, list[int]], ...] = ({}, {})
    for at, texts in enumerate(known):
        for where, shingles in zip(holding, texts, strict=True):
            for shingle in shingles:
                where.setdefault(shingle, []).append(at)
    found = {}
    for task in tasks:
        alike = [
            at
            for part, (shingles, where) in enumerate(zip(_shingles(task), holding, strict=True))
            for at in _candidates(shingles, where)
            if _alike(shingles, known[at][part]) >= NEARLY_THE_SAME
        ]
        if alike:
            found[task.instance_id] = others[min(alike)].instance_id
    return found


def _candidates(shingles: frozenset[Shingle], where: Mapping[Shingle, Sequence[int]]) -> set[int]:
    """Texts that can be nearly the same: such a one lacks no more than a tenth of the shingles, so it has one at least of any that are
    more than these (prefix filtering; Chaudhuri, Ganti and Kaushik 2006). Those that fewest texts have leave least to compare."""
    lacking = int((1 - NEARLY_THE_SAME) * len(shingles)) + 1
    rarest = nsmallest(lacking + 1, shingles, key=lambda shingle: len(where.get(shingle, ())))
    return {at for shingle in rarest for at in where.get(shingle, ())}


def _shingles(task: Task) -> tuple[frozenset[Shingle], ...]:
    patch = re.sub(r"^index .*$", "", task.gold_patch, flags=re.MULTILINE)
    texts = [re.findall(r"\w+|[^\w\s]", text) for text in (task.problem_statement, patch)]
    return tuple(
        frozenset(tuple(words[at : at + SHINGLE]) for at in range(len(words) - SHINGLE + 1))
        for words in texts
    )


def _alike(first: frozenset[Shingle], second: frozenset[Shingle]) -> float:
    if min(len(first), len(second)) < LEAST_SHINGLES:
        return 0.0
    common = len(first & second)
    return common / (len(first) + len(second) - common)
