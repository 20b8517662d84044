"""Whether the sentences of a plan claim what its contrasts decide, and no more.

What is decided is narrow: of a difference its sign, of a bound that it holds or is passed. A sentence that names a size, or turns the
sign around, would be printed beside a figure that does not carry it. Words are judged only where they leave no doubt.
"""

import re
from collections.abc import Callable, Iterator, Sequence

from looper.experiment.toml_positions import Path
from looper.records.learning import Source
from looper.records.plan import Arm, Contrast, Expect, Metric, Plan

OUTCOMES = ("shown", "refuted", "open")
FEWEST_WORDS = 3
"""Fewer make no sentence: who does what."""
LOWER_IS_BETTER = (Metric.FORGETTING, Metric.INTERVENTIONS)
UNDECIDED = re.compile(r"(?:it is |still |as yet )?(?:undecided|not known|unknown|open)\W*", re.IGNORECASE)
"""Said of an outcome that is open, this is enough."""
SIZE = re.compile(
    r"\b(?:a (?:great|good) deal|a lot|strongly|markedly|drastically|immensely|overwhelmingly|by far|far (?:more|better|less|worse|higher|lower)|much (?:more|better|less|worse|higher|lower|likelier|fewer)|by a lot"
    r"|vastly|hugely|greatly|dramatically|massively|considerably|substantially|significantly|enormously)\b",
    re.IGNORECASE,
)
AMOUNT = re.compile(r"\{[^{}]*\b(margin|expected)\b[^{}]*\}")
LIMITED = re.compile(
    r"(?<!\bnot )(?<!n't )(?<!never )\b(?:less than|fewer than|within|inside|below|under|smaller than|at most|no more than|up to) \{ ?margin ?\}"
    r"|\b(?:not|never|cannot|n't)\b[^.:;]*\b(?:by|gains?|loses?|costs?) \{ ?margin ?\}(?! (?:or|and) less)",
    re.IGNORECASE,
)
EXCEEDED = re.compile(
    r"\b(?:more than|at least|above|beyond|exceeds?) \{ ?margin ?\}|\{ ?margin ?\} (?:and|or) (?:more|above)",
    re.IGNORECASE,
)
DENIED = re.compile(
    r"\b(?:no|not|never|nothing|none|neither|nor|without|cannot|hardly|barely|scarcely|(?<!a )little|whether|if)\b|n't\b",
    re.IGNORECASE,
)
BETTER = re.compile(r"\b(?:help|gain|benefit|improve)(?:s|d|ed|ing)?\b|\bbetter\b", re.IGNORECASE)
WORSE = re.compile(r"\b(?:harm|hurt|damage|worsen|degrade|lose)(?:s|d|ed|ing)?\b|\bworse\b", re.IGNORECASE)
HIGHER = re.compile(r"\b(?:more|higher|raise[sd]?)\b", re.IGNORECASE)
LOWER = re.compile(r"\b(?:less|fewer|lower(?:s|ed)?)\b", re.IGNORECASE)
OF_METRIC = re.compile(r"\b(?:resol|solv|succe|rate\b|valid|likel|recall)", re.IGNORECASE)
"""Without one of these, more and less are of something else: fewer steps, more text."""

EFFECT = re.compile(
    r"\b(?:matter|differ|beat|transfer|change|work|affect|add|cost|teach|spoil|win|rise|fall|drop)(?:s|es|ed|ing)?\b|\beffects?\b",
    re.IGNORECASE,
)
"""Beside what is better, worse, more or less: that something came of it."""
NOT_TOLD = re.compile(
    r"\b(?:is|are|was|were|be|been|remains?|remained|stays?|could|can|do|does|did|has|have|we)?(?: still| yet| been| to)* ?"
    r"(?:(?:not|never|n't)(?: yet| be| been)* (?:shown|seen|found|told|tell|known|know|decided|clear|settled|say|said)"
    r"|cannot (?:be )?(?:told|tell|say|said|shown|known)|undecided|unknown|unclear|open)\b"
    r"|\b(?:no|nothing|neither|none)\b[^.:;]*\b(?:shown|found|seen|visible|told|known|decided)\b|\btells? (?:us )?nothing\b|\bwho knows\b"
    r"|\binconclusive\b|\b(?:not|n't) (?:settle|decide|show whether|tell whether|say whether)\b",
    re.IGNORECASE,
)
ASKED = re.compile(r"\b(?:whether|that|which|who|whose|how|what|where|when|if|why|to)\b", re.IGNORECASE)
ASKING = re.compile(
    r"\W*(?:whether|that|which|who|whose|how|what|where|when|if|why|it|no|not|nothing|we|the \w+ of)\b",
    re.IGNORECASE,
)
QUANTIFIED = re.compile(
    r"\b(?:every\w*|each (?:and every|(?:repository|model|agent|task) (?:of|in) the world)|(?<!at )(?<!the )most(?! of it)|(?:the|a) majority|(?<!at )(?<!after )all(?! else)|any\w*|always"
    r"|never(?<!was never)(?<!were never)(?<!is never)|nothing(?! to \w)|nobody|no one|none|proven?|proves|proof|certainly"
    r"|undoubtedly|guaranteed?|generally|universal(?:ly)?|in general|the world|useless|worthless)\b",
    re.IGNORECASE,
)
"""What is said of a population, or for good: a run decides about the mean of what it ran."""
CONCLUDES = re.compile(r"\bdo not trust\b|\bgains\b[^;]*\bnot about\b", re.IGNORECASE)
"""What may follow a sentence's claim: what to make of it."""
TREATMENTS: tuple[tuple[re.Pattern[str], str, Callable[[Arm], bool]], ...] = (
    (
        re.compile(r"\badapters?\b|\bloras?\b", re.IGNORECASE),
        "an adapter",
        lambda arm: (
            bool(arm.model.adapter) or (arm.learning is not None and arm.learning.treatment.is_adapter)
        ),
    ),
    (
        re.compile(r"\blessons?\b|\bmemor(?:y|ies)\b", re.IGNORECASE),
        "a memory",
        lambda arm: arm.learning is not None and (arm.learning.remembers or arm.learning.teacher) is not None,
    ),
    (
        re.compile(r"\bover(?:seers?|sight)\b", re.IGNORECASE),
        "an overseer",
        lambda arm: (
            arm.has_overseer
            or (arm.learning is not None and arm.learning.source is Source.GUIDED)
            or "overseer" in arm.name
        ),
    ),
)
"""Words for treatments, and which arms have them."""
FILLERS = (
    "a",
    "an",
    "the",
    "own",
    "of",
    "in",
    "from",
    "these",
    "those",
    "and",
    "with",
    "at",
    "by",
    "for",
    "some",
)
"""Before the first word of a clause that means something."""


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
            wrong = (
                *_sizes(contrast),
                *_bounds(contrast),
                *_directions(contrast, base),
                *_claims(contrast),
                *_asserted(contrast),
                *_without_the_treatment(plan, contrast),
            )
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
        if _words(text) < FEWEST_WORDS and not (key == "open" and UNDECIDED.fullmatch(text)):
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
    if not EXCEEDED.search(contrast.refuted) and LIMITED.search(contrast.refuted):
        yield (
            "refuted",
            f'{contrast.name} (expect = "{contrast.expect.value}") is refuted where the difference is beyond the margin, and this says '
            "that it is within. Say it with {margin} and more",
        )


def _claims(contrast: Contrast) -> Iterator[tuple[str, str]]:
    """Outcomes that speak of more than the mean difference of what was run."""
    for key in OUTCOMES[:2]:
        text = getattr(contrast, key)
        if (found := QUANTIFIED.search(text)) and not _of_a_bound(found.group(), text):
            yield (
                key,
                f'{contrast.name} says "{found.group()}", and what is decided is a mean difference between its arms at tasks like these. '
                "Leave it out",
            )
        _, *more = re.split(r"[;:]\s|[.!?]\s+(?=[A-Z({])", re.sub(r"\{[^{}]*\}", "{}", text))
        if beside := [part.strip() for part in more if part.strip() and not CONCLUDES.search(part)]:
            yield (
                key,
                f'{contrast.name} says "{beside[0]}" beside its claim, and one thing is decided. Leave it out, or register a contrast '
                "for it",
            )


def _of_a_bound(word: str, text: str) -> bool:
    """ "Any loss is less than {margin}" says no more than that the loss is."""
    return word.lower() in ("any", "all", "nothing", "none") and "{margin}" in text


def _asserted(contrast: Contrast) -> Iterator[tuple[str, str]]:
    """An outcome that is open and says that something is so: only that it was not shown follows from it."""
    text = re.sub(r"\{[^{}]*\}", "{}", contrast.open)
    clauses = [
        part for part in re.split(r"[;:.!?]|,?\s\b(?:but|yet|although|though)\b", text) if _words(part)
    ]
    told = [not UNDECIDED.fullmatch(part.strip()) and _is_told(part) for part in clauses]
    left_open = any(UNDECIDED.fullmatch(part.strip()) or NOT_TOLD.search(part) for part in clauses)
    if any(told) or not left_open:
        yield (
            "open",
            f'{contrast.name} has come out so where nothing could be told, and "{contrast.open}" says more. Say what is open, as in "Whether … is '
            'open.", or "That … was not shown."',
        )


def _is_told(clause: str) -> bool:
    """Whether a clause asserts that something has an effect."""
    effects = [found for words in (BETTER, WORSE, HIGHER, LOWER, EFFECT) for found in words.finditer(clause)]
    unknown = NOT_TOLD.search(clause)
    if unknown is None:
        needed = re.search(r"\bneed(?:s|ed)?\b", clause)
        return bool(effects) and not needed
    before = [found for found in effects if found.start() < unknown.start()]
    after = [found for found in effects if found.start() >= unknown.end()]
    if before and not ASKING.match(clause):
        return True
    return any(not ASKED.search(clause[unknown.end() : found.start()]) for found in after)


def _without_the_treatment(plan: Plan, contrast: Contrast) -> Iterator[tuple[str, str]]:
    """Treatments that outcomes speak of and no arm of the contrast has."""
    names = {
        *contrast.arms,
        *(name for choice in plan.choices if choice.name in contrast.arms for name in choice.of),
    }
    arms = [arm for arm in plan.arms if arm.name in names]
    for key in OUTCOMES[:2]:
        yield from ((key, f"{contrast.name} {said}") for said in _nobody_has(getattr(contrast, key), arms))


def _nobody_has(text: str, arms: Sequence[Arm]) -> Iterator[str]:
    for words, what, has in TREATMENTS:
        if (found := words.search(text)) and not any(map(has, arms)):
            yield f'speaks of "{found.group()}", and no arm of it has {what}. Name what its arms have'


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
    """Sentences that turn a difference around: against base it is plain which arm they are about, what is compared with it; of other
    arms both outcomes must not say the same of one subject."""
    if contrast.expect is not Expect.MORE:
        return
    if contrast.against != base:
        if _said_of(contrast.shown, contrast.metric) & _said_of(contrast.refuted, contrast.metric):
            yield (
                "refuted",
                f"{contrast.name} says of both outcomes that they go the same way. Exchange one of them",
            )
        return
    for key, so in (("shown", 1), ("refuted", -1)):
        if _sign(getattr(contrast, key), contrast.metric) == -so:
            more = "more" if so > 0 else "less"
            yield (
                key,
                f'{contrast.name} comes out so where {contrast.arm} has {more} {contrast.metric.value}, and "{getattr(contrast, key)}" '
                "says the opposite. Exchange the sentences, or the arms",
            )


def _said_of(text: str, metric: Metric) -> set[tuple[str, int]]:
    """Of each clause its first word that means something, and which way it goes; nothing of clauses without a sign."""
    found = set()
    for clause in re.split(r"[;:.,]|\band\b", text):
        words = [word for word in re.findall(r"[^\W\d_]+", clause.casefold()) if word not in FILLERS]
        if words and (sign := _sign(clause, metric)):
            found.add((words[0].removesuffix("s"), sign))
    return found


def _of_hypothesis(plan: Plan) -> Iterator[tuple[Path, str]]:
    """A hypothesis that no contrast asks about."""
    if not plan.contrasts:
        return
    if found := SIZE.search(plan.hypothesis):
        yield (
            ("hypothesis",),
            f'says "{found.group()}", and no contrast decides how large a difference is. Leave the size out',
        )
        return
    # Of contrasts that a profile leaves out the hypothesis may speak all the same; what is left out is printed beside it.
    if not plan.unasked:
        yield from ((("hypothesis",), said) for said in _nobody_has(plan.hypothesis, plan.arms))
    for contrast in plan.contrasts:
        if contrast.expect is not Expect.MORE:
            continue
        shown = _said_of(contrast.shown, contrast.metric)
        turned = {(subject, -sign) for subject, sign in shown} & _said_of(plan.hypothesis, contrast.metric)
        if turned:
            yield (
                ("hypothesis",),
                f'says of {min(turned)[0]} the opposite of what {contrast.name} is registered to show, "{contrast.shown}". Let both say '
                "the same",
            )
            return
    if all(contrast.expect is not Expect.MORE for contrast in plan.contrasts):
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
