"""Whether the sentences of a plan claim what its contrasts decide, and no more.

What is decided is narrow: of a difference its sign, of a bound that it holds or is passed. A sentence that names a size, or turns the
sign around, would be printed beside a figure that does not carry it. Words are judged only where they leave no doubt.
"""

import re
from collections.abc import Iterator

from looper.experiment.toml_positions import Path
from looper.records.plan import Contrast, Expect, Metric, Plan

OUTCOMES = ("shown", "refuted", "open")
FEWEST_WORDS = 3
"""Fewer make no sentence: who does what."""
LOWER_IS_BETTER = (Metric.FORGETTING, Metric.INTERVENTIONS)
SIZE = re.compile(
    r"\b(?:by far|far (?:more|better|less|worse|higher|lower)|much (?:more|better|less|worse|higher|lower|likelier|fewer)|by a lot"
    r"|vastly|hugely|greatly|dramatically|massively|considerably|substantially|significantly|enormously)\b",
    re.IGNORECASE,
)
AMOUNT = re.compile(r"\{[^{}]*\b(margin|expected)\b[^{}]*\}")
LIMITED = re.compile(
    r"(?<!\bnot )(?<!n't )(?<!never )\b(?:less than|within|below|under|smaller than|at most) \{ ?margin ?\}",
    re.IGNORECASE,
)
EXCEEDED = re.compile(
    r"\b(?:more than|at least|above|beyond|exceeds?) \{ ?margin ?\}|\{ ?margin ?\} (?:and|or) (?:more|above)",
    re.IGNORECASE,
)
DENIED = re.compile(
    r"\b(?:no|not|never|nothing|none|neither|nor|without|cannot|hardly|whether|if)\b|n't\b", re.IGNORECASE
)
BETTER = re.compile(r"\b(?:help|gain|benefit|improve)(?:s|d|ed|ing)?\b|\bbetter\b", re.IGNORECASE)
WORSE = re.compile(r"\b(?:harm|hurt|damage|worsen|degrade|lose)(?:s|d|ed|ing)?\b|\bworse\b", re.IGNORECASE)
HIGHER = re.compile(r"\b(?:more|higher|raise[sd]?)\b", re.IGNORECASE)
LOWER = re.compile(r"\b(?:less|fewer|lower(?:s|ed)?)\b", re.IGNORECASE)
OF_METRIC = re.compile(r"\b(?:resol|solv|succe|rate\b|valid|likel|recall)", re.IGNORECASE)
"""Without one of these, more and less are of something else: fewer steps, more text."""


def faults(plan: Plan) -> Iterator[tuple[Path, str]]:
    """Keys of sentences that say nothing, or what nothing decides, and what is wrong with them."""
    for at, arm in enumerate(plan.arms):
        if arm.reason and _words(arm.reason) < 2:
            yield ("arms", at, "reason"), f"{arm.name} says no reason in {arm.reason!r}. Say why it is there"
    for at, choice in enumerate(plan.choices):
        if choice.reason and _words(choice.reason) < 2:
            yield (
                ("choices", at, "reason"),
                f"{choice.name} says no reason in {choice.reason!r}. Say why it is there",
            )
    yield from _of_hypothesis(plan)
    base = plan.base.name if plan.base is not None else ""
    for at, contrast in enumerate(plan.contrasts):
        silent = list(_says_nothing(contrast))
        yield from ((("contrasts", at, key), said) for key, said in silent)
        if not silent:
            wrong = (*_sizes(contrast), *_bounds(contrast), *_directions(contrast, base))
            yield from ((("contrasts", at, key), said) for key, said in wrong)


def _words(text: str) -> int:
    return len(re.findall(r"[^\W_]+", re.sub(r"\{[^{}]*\}", " x ", text)))


def _plain(text: str) -> str:
    """Without what does not change the sense: case, punctuation, spaces."""
    return " ".join(re.findall(r"\w+|[{}+/*<>=-]", text.casefold()))


def _says_nothing(contrast: Contrast) -> Iterator[tuple[str, str]]:
    """Outcomes that are not told apart by what will be said of them."""
    for key in OUTCOMES:
        text = getattr(contrast, key)
        if not _words(text):
            yield key, f"{contrast.name} has no words for this outcome. Say what it would mean"
            return
        if _words(text) < FEWEST_WORDS:
            yield (
                key,
                f'{contrast.name} has no sentence for this outcome, found "{text}". Say in {FEWEST_WORDS} words or more what it '
                "would mean",
            )
            return
    if len({_plain(getattr(contrast, key)) for key in OUTCOMES}) < len(OUTCOMES):
        yield (
            "shown",
            f"{contrast.name} says the same of two outcomes, so nothing could come of it. Say what each would mean",
        )


def _sizes(contrast: Contrast) -> Iterator[tuple[str, str]]:
    """Amounts in sentences of outcomes that decide none."""
    more = contrast.expect is Expect.MORE
    for key in OUTCOMES[:2]:
        text = getattr(contrast, key)
        decided = "that the difference is not 0" if more else "on which side of {margin} it lies"
        if found := SIZE.search(text):
            yield (
                key,
                f'{contrast.name} says "{found.group()}", and what is decided is {decided}. Leave the size out',
            )
        elif (found := AMOUNT.search(text)) and (more or found[1] == "expected"):
            yield (
                key,
                f"{contrast.name} says {found.group()}, and what is decided is {decided}. Leave the amount out, or ask another way "
                "(expect)",
            )


def _bounds(contrast: Contrast) -> Iterator[tuple[str, str]]:
    """A bound that holds says that a difference is within the margin; nothing is shown of what lies below it."""
    if contrast.expect is Expect.MORE:
        return
    text = contrast.shown
    exceeded = EXCEEDED.search(text)
    if not (DENIED.search(text) if exceeded else LIMITED.search(text)):
        yield (
            "shown",
            f'{contrast.name} (expect = "{contrast.expect.value}") is shown where the difference is within the margin, and this does '
            "not say so. Say it with less than {margin}, or within {margin}",
        )


def _sign(text: str, metric: Metric) -> int:
    """Which way a sentence says that its subject moves the metric: 1 up, -1 down, 0 where that is not beyond doubt."""
    clause = re.split(r"[:;]", text)[0]
    # What is compared with something else may have it as its subject.
    if DENIED.search(clause) or re.search(r"\bthan\b", clause, re.IGNORECASE):
        return 0
    better, worse = (-1, 1) if metric in LOWER_IS_BETTER else (1, -1)
    found = [
        *(better for _ in BETTER.findall(clause)),
        *(worse for _ in WORSE.findall(clause)),
    ]
    if metric not in LOWER_IS_BETTER and OF_METRIC.search(clause):
        found += [1 for _ in HIGHER.findall(clause)] + [-1 for _ in LOWER.findall(clause)]
    # Less harm is more of the metric, and less help is not none.
    turned = LOWER.search(clause) and (BETTER.search(clause) or WORSE.search(clause))
    return found[0] if len(set(found)) == 1 and not turned else 0


def _directions(contrast: Contrast, base: str) -> Iterator[tuple[str, str]]:
    """Sentences that turn a difference around. Only against base is it plain which arm they are about: what is compared with it."""
    if contrast.expect is not Expect.MORE or contrast.against != base:
        return
    for key, so in (("shown", 1), ("refuted", -1)):
        if _sign(getattr(contrast, key), contrast.metric) == -so:
            more = "more" if so > 0 else "less"
            yield (
                key,
                f'{contrast.name} comes out so where {contrast.arm} has {more} {contrast.metric.value}, and "{getattr(contrast, key)}" '
                "says the opposite. Exchange the sentences, or the arms",
            )


def _of_hypothesis(plan: Plan) -> Iterator[tuple[Path, str]]:
    """A hypothesis that no contrast asks about."""
    if not plan.contrasts:
        return
    if found := SIZE.search(plan.hypothesis):
        yield (
            ("hypothesis",),
            f'says "{found.group()}", and no contrast decides how large a difference is. Leave the size out',
        )
    elif all(contrast.expect is not Expect.MORE for contrast in plan.contrasts):
        primary = plan.contrasts[0]
        sign = _sign(plan.hypothesis, primary.metric)
        if sign and (
            primary.expect is Expect.SAME or sign == (1 if primary.expect is Expect.NOT_MORE else -1)
        ):
            yield (
                ("hypothesis",),
                f"says that a difference is expected, and the primary contrast {primary.name} asks for none (expect = "
                f'"{primary.expect.value}"). Let both say the same',
            )
