"""Whether the sentences of a plan contradict what is registered.

They are printed as quotations of the plan, beside the claim that Looper makes itself, so how well an author puts things is not judged
here. What is: a direction, a bound, a metric or a treatment that is not that of the contrast, an outcome that is open and asserts
something, and a few words of size and scope that no result carries. Words are judged only where they leave no doubt.
"""

import re
from collections.abc import Callable, Iterator, Sequence

from looper.experiment.toml_positions import Path
from looper.metrics.claim import metric_name
from looper.records.learning import Source
from looper.records.plan import Arm, Contrast, Expect, Metric, Plan

OUTCOMES = ("shown", "refuted", "open")
FEWEST_WORDS = 3
"""Fewer make no sentence: who does what."""
LOWER_IS_BETTER = (Metric.FORGETTING, Metric.INTERVENTIONS)
UNDECIDED = re.compile(r"(?:it is |still |as yet )?(?:undecided|not known|unknown|open)\W*", re.IGNORECASE)
"""Said of an outcome that is open, this is enough."""
SIZE = re.compile(
    r"\b(?:a great deal|by far|far (?:more|better)|vastly|hugely|dramatically|drastically|massively|enormously)\b",
    re.IGNORECASE,
)
AMOUNT = re.compile(r"\{[^{}]*\b(margin|expected)\b[^{}]*\}")
_MARGIN = r"\{ ?margin ?\}"
_SMALLER = "less than|fewer than|within|inside|below|under|smaller than|at most|no more than|up to"
_MOVES = "gain|improve|rise|lose|cost|lower|fall|drop|differ"
NAMED = re.compile(_MARGIN)
WITHIN = re.compile(rf"(?<!\bnot )(?<!n't )(?<!never )\b(?:{_SMALLER}) {_MARGIN}", re.IGNORECASE)
OUTSIDE = re.compile(rf"(?:\bnot|\bnever|n't) (?:{_SMALLER}) {_MARGIN}", re.IGNORECASE)
BEYOND = re.compile(
    rf"\b(?:more than|at least|above|beyond|outside|exceeds?) {_MARGIN}|{_MARGIN} (?:and|or) (?:more|above)",
    re.IGNORECASE,
)
REACHED = re.compile(rf"\b(?:{_MOVES})s?(?: by)? {_MARGIN}(?! (?:and|or) less)", re.IGNORECASE)
NOT_REACHED = re.compile(
    rf"\b(?:not|never|cannot|n't) (?:{_MOVES})s?\b[^.:;]*{_MARGIN}(?! (?:and|or) less)|{_MARGIN}[^.:;]*\b(?:excluded|ruled out)\b",
    re.IGNORECASE,
)
GAINED = re.compile(
    rf"\b(?:help|gain|benefit|improve|rise|raise)s?\b|\bgained\b|\b(?:is|are|do|does) (?:no |not )?better\b|\bsuperior\b"
    rf"|{_MARGIN} (?:more|higher|better)\b(?! or)",
    re.IGNORECASE,
)
LOST = re.compile(
    rf"\b(?:harm|hurt|damage|worsen|degrade|lose|cost|fall|drop)s?\b|\blost\b|\bloss(?:es)?\b|\blower(?:s| (?:the|its))\b"
    rf"|\b(?:is|are|do|does) (?:no |not )?worse\b|\binferior\b|{_MARGIN} (?:less|fewer|lower|worse)\b(?! or)",
    re.IGNORECASE,
)
EITHER = re.compile(r"\b(?:either|other|whichever|apart)\b", re.IGNORECASE)
RESOLVES = re.compile(r"\b(?:re)?solves?\b|\b(?:is|are|was|were) (?:re)?solved\b", re.IGNORECASE)
ALIKE = re.compile(r"\b(?:alike|equally|the same|as \w+ as)\b", re.IGNORECASE)
DENIED = re.compile(
    r"\b(?:no|not|never|nobody|nothing|none|neither|nor|without|cannot|hardly|barely|scarcely|(?<!a )little|whether|if|excluded|ruled out)\b"
    r"|n't\b",
    re.IGNORECASE,
)
BETTER = re.compile(r"\b(?:help|gain|benefit|improve)(?:s|d|ed|ing)?\b|\bbetter\b", re.IGNORECASE)
WORSE = re.compile(r"\b(?:harm|hurt|damage|worsen|degrade|lose)(?:s|d|ed|ing)?\b|\bworse\b", re.IGNORECASE)
HIGHER = re.compile(r"\b(?:more|higher|raise[sd]?)\b", re.IGNORECASE)
LOWER = re.compile(r"\b(?:less|fewer|lower(?:s|ed)?)\b", re.IGNORECASE)
OF_METRIC = re.compile(r"\b(?:resol|solv|succe|rate\b|valid|likel|recall)", re.IGNORECASE)
"""Without one of these, more and less are of something else: fewer steps, more text."""

EFFECT = re.compile(
    r"\b(?:matter|differ|beat|transfer|change|work|affect|add|cost|teach|spoil|win|rise|fall|drop)(?:s|es|ed|ing)?\b|\beffects?\b"
    r"|\b(?:is|are|was|were) (?:equal|alike|identical|equivalent|the same|useless|worthless)\b"
    r"|\bmakes? no difference\b|\bas (?:many|much|well|often|good)\b",
    re.IGNORECASE,
)
"""Beside what is better, worse, more or less: that something came of it, or that nothing did."""
NOTHING_COMES = re.compile(
    r"\bno (?:effects?|difference|gain|change)\b|\bnothing comes of\b"
    r"|\b(?:(?:do|does|did|will|can|could)(?: not|n't)|never|cannot) (?:help|gain|benefit|improve|matter|work)\b",
    re.IGNORECASE,
)
POSSIBLE = re.compile(r"\b(?:whether|if|may|might|distinguish|too \w+(?: \w+)? to)\b", re.IGNORECASE)
"""What stands behind one of these is not asserted."""
NOUN = re.compile(r"(?:^\W*|\b(?:a|an|any|the|of|such) )$", re.IGNORECASE)
"""Before a word of an effect that is a noun, and what is said of it comes later."""
NOT_TOLD = re.compile(
    r"\b(?:is|are|was|were|be|been|remains?|remained|stays?|could|can|do|does|did|has|have|we)?(?: still| yet| been| to)* ?"
    r"(?:(?:not|never|n't)(?: yet| be| been)* (?:shown|seen|found|told|tell|known|know|decided|clear|settled|say|said)"
    r"|cannot (?:be )?(?:told|tell|say|said|shown|known)|un(?:decided|known|clear|certain|determined|settled)|possible|open)\b"
    r"|\b(?:no|nothing|neither|none)\b[^.:;]*\b(?:shown|found|seen|visible|told|known|decided)\b|\btells? (?:us )?nothing\b|\bwho knows\b"
    r"|\binconclusive\b|\b(?:not|n't) (?:settle|decide|show whether|tell whether|say whether)\b",
    re.IGNORECASE,
)
_ASKS = "whether|that|which|who|whose|how|what|where|when|if|why"
ASKED = re.compile(rf"\b(?:{_ASKS}|to)\b", re.IGNORECASE)
ASKING = re.compile(rf"\W*(?:{_ASKS}|it|no|not|nothing|we|the \w+ of)\b", re.IGNORECASE)
SUBORDINATE = re.compile(rf"\W*(?:{_ASKS})\b", re.IGNORECASE)
SCOPE = re.compile(
    r"\b(?:(?:every|any|all) (?:models?|agents?)|most tasks|in general|the world|proven|proves)\b",
    re.IGNORECASE,
)
"""What is said of a population, or for good: a run decides about the mean of what it ran."""
TREATMENTS: tuple[tuple[re.Pattern[str], str, Callable[[Arm], bool]], ...] = (
    (
        re.compile(r"\badapters?\b|\bloras?\b", re.IGNORECASE),
        "an adapter",
        lambda arm: bool(arm.model.adapter) or arm.has_adapter,
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
                *_of_another_metric(contrast),
                *_bounds(contrast),
                *_sides(contrast, base),
                *_directions(contrast, base),
                *_scopes(contrast),
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
                f'{contrast.name}: "{text}" is too short to say what this outcome would mean. Say it in {FEWEST_WORDS} words or more',
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


def _of_another_metric(contrast: Contrast) -> Iterator[tuple[str, str]]:
    """Outcomes that speak of what is resolved where something else is compared."""
    for key in OUTCOMES[:2]:
        if contrast.metric is not Metric.RESOLVED and RESOLVES.search(text := getattr(contrast, key)):
            name = metric_name(contrast.metric)
            yield (
                key,
                f'{contrast.name} compares {name}, and "{text}" speaks of what is resolved. Say it of {name}, or compare another metric',
            )


def _bounds(contrast: Contrast) -> Iterator[tuple[str, str]]:
    """A bound that holds says that a difference is within the margin; nothing is shown of what lies below it."""
    if contrast.expect is Expect.MORE:
        return
    text, clause = contrast.shown, _first_clause(contrast.refuted)
    passed = OUTSIDE.search(text) or (
        (BEYOND.search(text) or REACHED.search(text)) and not DENIED.search(text)
    )
    if passed or not NAMED.search(text):
        yield (
            "shown",
            f'{contrast.name} (expect = "{contrast.expect.value}") is shown where the difference is within the margin, and this does '
            "not say so. Say it with less than {margin}, or within {margin}",
        )
    if NOT_REACHED.search(clause) or (WITHIN.search(clause) and not BEYOND.search(clause)):
        yield (
            "refuted",
            f'{contrast.name} (expect = "{contrast.expect.value}") is refuted where the difference is beyond the margin, and this says '
            "that it is within. Say it with {margin} and more",
        )


def _sides(contrast: Contrast, base: str) -> Iterator[tuple[str, str]]:
    """Bounds that are said of the other side of 0: of a loss where a gain is bounded, of one side where it may be either. Against base it
    is plain which arm a sentence is about, unless it names base."""
    if contrast.expect is Expect.MORE or contrast.metric in LOWER_IS_BETTER:
        return
    either, gains = contrast.expect is Expect.SAME, contrast.expect is Expect.NOT_MORE
    if not either and contrast.against != base:
        return
    for key, size in (("shown", "less than {margin}"), ("refuted", "{margin} and more")):
        clause = _first_clause(getattr(contrast, key))
        gained, lost = bool(GAINED.search(clause)), bool(LOST.search(clause))
        # Who differs by less gains less, too; who differs by more may have done either.
        spared = (
            key == "shown" or EITHER.search(clause)
            if either
            else re.search(rf"\b{base}\b", clause, re.IGNORECASE)
        )
        if spared or gained == lost or (not either and gained == gains):
            continue
        where = (
            f"the arms are {size} apart"
            if either
            else f"{contrast.arm} {'gains' if gains else 'loses'} {size}"
        )
        yield (
            key,
            f'{contrast.name} (expect = "{contrast.expect.value}") is {key} where {where}, and "{getattr(contrast, key)}" is about a '
            f"{'gain' if gained else 'loss'}. Say it of {'either side' if either else 'a gain' if gains else 'a loss'}, or ask another "
            "way (expect)",
        )


def _first_clause(text: str) -> str:
    """Of a sentence what it claims; what to make of it may follow."""
    return re.split(r"[:;]", text)[0]


def _scopes(contrast: Contrast) -> Iterator[tuple[str, str]]:
    """Outcomes that speak of more than the mean difference of what was run."""
    for key in OUTCOMES[:2]:
        if found := SCOPE.search(getattr(contrast, key)):
            yield (
                key,
                f'{contrast.name} says "{found.group()}", and what is decided is a mean difference between its arms at tasks like these. '
                "Leave it out",
            )


def _asserted(contrast: Contrast) -> Iterator[tuple[str, str]]:
    """An outcome that is open and says that something is so: only that it was not shown follows from it."""
    text = re.sub(r"\{[^{}]*\}", "{}", contrast.open)
    clauses = re.split(r"[;:.!?]|,?\s\b(?:but|yet|although|though)\b", text)
    if any(not UNDECIDED.fullmatch(part.strip()) and _is_told(part) for part in clauses):
        yield (
            "open",
            f'{contrast.name} has come out so where nothing could be told, and "{contrast.open}" says more. Say what is open, as in "Whether … is '
            'open.", or "That … was not shown."',
        )


def _is_told(clause: str) -> bool:
    """Whether a clause asserts that something has an effect, or has none."""
    needed = re.search(r"\bneed(?:s|ed)?\b", clause)
    effects = [
        found
        for words in (BETTER, WORSE, HIGHER, LOWER, EFFECT)
        for found in words.finditer(clause)
        if not (words is HIGHER and needed)  # More tasks are.
    ]
    if (unknown := NOT_TOLD.search(clause)) is None:
        possible = POSSIBLE.search(clause)
        if DENIED.search(clause):
            effects = [found for found in effects if not NOUN.search(clause[: found.start()])]
            possible = possible or SUBORDINATE.match(clause)
        return any(possible is None or found.start() < possible.start() for found in effects)
    before = [
        found
        for found in effects
        if found.start() < unknown.start() and not NOUN.search(clause[: found.start()])
    ]
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
    clause = _first_clause(text)
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
    if (
        found := NOTHING_COMES.search(_first_clause(contrast.refuted))
    ) and " not " not in f" {found.group()} ":
        yield (
            "refuted",
            f'{contrast.name} comes out so where {contrast.arm} has less {contrast.metric.value}, and "{contrast.refuted}" says that nothing '
            "came of it. Say that it harms",
        )
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
    expected = [contrast for contrast in plan.contrasts if contrast.expect is Expect.MORE]
    denied = NOTHING_COMES.search(_first_clause(plan.hypothesis))
    if denied and len(expected) == len(plan.contrasts) and not plan.unasked:
        yield (
            ("hypothesis",),
            f'says "{denied.group()}", and every contrast is registered to show a difference. Let both say the same, or expect none '
            '(expect = "not_more")',
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
        if (
            sign
            and not ALIKE.search(plan.hypothesis)
            and (primary.expect is Expect.SAME or sign == (1 if primary.expect is Expect.NOT_MORE else -1))
        ):
            yield (
                ("hypothesis",),
                f"says that a difference is expected, and the primary contrast {primary.name} asks for none (expect = "
                f'"{primary.expect.value}"). Let both say the same',
            )
