"""What the sentences of a plan say about its settings, computed from the settings themselves.

A sentence has no number of its own. Braces are filled in when a plan is read: `{trained.multiplier}` is a setting of an arm,
`{wide.rank / narrow.rank}` a ratio of two, `{margin}` what its contrast takes for nothing, `{2}` a number that is no setting, in a
name such as "{2} ways" and never as a measure.
What a sentence claims in words stands in `asserts`, as `mixture.parameters == single.parameters`.
"""

import ast
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import assert_never

from looper.errors import NOT_PYTHON
from looper.experiment.plan_errors import did_you_mean
from looper.records.learning import Learning, TrainingChange
from looper.records.plan import AS_COMPUTED, Arm, Contrast, Plan
from looper.records.strategy import (
    AdaptiveRank,
    Anchored,
    Division,
    FullReplay,
    Mixture,
    PartialReplay,
    Sequential,
)

OPERATORS: dict[type[ast.AST], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
RELATIONS: dict[type[ast.AST], Callable[[float, float], bool]] = {
    ast.Eq: lambda first, second: abs(first - second) <= 1e-9 * max(abs(first), abs(second)),
    ast.NotEq: lambda first, second: first != second,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
SHOWN = 120
"""Characters of an expression, in an error."""
TOOLS = 3
"""Parts that actions are divided into by tool: commands, reads, changes."""
BRACES = re.compile(r"\{([^{}]*)\}")
_COUNTS = (
    "two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen"
    "|nineteen|(?:twen|thir|for|fif|six|seven|eigh|nine)ty|hundred|thousand|million|billion"
)
_PARTS = "third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|hundredth|thousandth|quarter"
_MEASURES = (
    r"(?:points?|percent|per\s?cent|times|fold|nats?|tasks?|items?|tokens?|seeds?|repositor(?:y|ies)|success(?:es)?|attempts?|rounds?"
    r"|iterations?|episodes?|steps?|batch(?:es)?|questions?|bits?|bytes|seconds|minutes|experts?|parameters|replies|examples)\b"
)
"""What is counted or measured here: a number before one of these is a claim."""
NUMBER = re.compile(
    # Digits of any script, with sign, point, exponent and what is written on to them; not those inside of a name, as in exp01.
    r"(?<!\w)(?<!\w[.,])(?<!\w-)[-+−±]?[.,]?(?:\d[\w.,]*\w|\d)%?|[×]\s?\d+|\bx\d+|[²³¹¼-¾⁰-₉⅐-↋①-⓿]"
    rf"|\b(?:(?:{_COUNTS}|many)-?fold|(?:{_COUNTS}|dozen|twice|thrice|zero)s?|(?:{_PARTS})s|(?:a|one)[ -](?:{_PARTS})|a couple"
    r"|half(?=\s(?:as|of|the|a)\b)|by half|hal(?:ve[sd]?|ving)|(?:doubl|tripl|quadrupl)(?:e[sd]?|ing))\b"
    rf"|\bone\s(?!repository\b){_MEASURES}"
    # Roman ones below a hundred, but for what is an abbreviation.
    r"|(?-i:\b(?!(?:LI|XL|VI|IV)\b)(?=[LXVI]{2})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})\b)",
    re.IGNORECASE,
)
MEASURED = re.compile(rf"\s*(?:%|[x×]\b|-?fold\b|(?:[\w-]+\s+)?{_MEASURES})", re.IGNORECASE)
"""What makes a number in braces before it a measure."""
COMPARED = re.compile(
    r"(?:at least|at most|more than|less than|fewer than|up to|about|by|factor of|over|under|×)\s*$",
    re.IGNORECASE,
)
"""What makes a number in braces behind it a measure."""
IN_UNIT = re.compile(
    r"\s*(?:%|(?:points?|percent|per\s?cent|nats?|billions?|B)\b|of (?:the|all) (?:tasks|cells|cases|rollouts|repositories)\b)",
    re.IGNORECASE,
)
"""Units that no setting has; {margin} and {expected} bring their own."""
LARGEST_NAME = 12
"""A number that is no setting is part of a name, as in "{2} ways"."""


COUNTED: dict[str, str] = {
    **dict.fromkeys(("top_k", "output_tokens", "context_tokens", "total_tokens", "max_tokens"), r"tokens"),
    "steps": r"steps?|repl(?:y|ies)",
    "seeds": r"seeds?",
    "rounds": r"rounds?",
    "times": r"times",
    "multiplier": r"times",
    "items": r"items?|success(?:es)?",
    "bytes": r"bytes",
    "episodes": r"success(?:es)?|episodes?|tasks?",
    "pairs": r"questions?",
    "recovered": r"success(?:es)?",
    "buffer": r"success(?:es)?",
    "batches": r"batch(?:es)?",
    "iterations": r"iterations?",
    "batch_size": r"examples",
    "experts": r"experts?",
    "parameters": r"parameters",
    "attempts": r"attempts?",
    "bits": r"bits?",
}
"""What a setting counts; the others count nothing."""
OF_THE_CONTRAST = re.compile(
    r"\b(?:the two|two (?:runs|arms|agents|ways)|both)\b(?! (?:points|percent|times))", re.IGNORECASE
)
"""Who is compared, and no number of anything."""
VERSION = re.compile(
    rf"\b[A-Z][A-Za-z+#]*[ -]\d+(?:\.\d+)+\b(?!\s*(?:%|[x×]|{_MEASURES}))"
    rf"|(?<=[a-z] )[A-Z][A-Za-z+#]* \d+\b(?![.,]\d)(?!\s*(?:%|[x×]|{_MEASURES}))"
)
"""A name with its version."""


class UnresolvedExpression(ValueError):
    """What stands in braces or in an assertion cannot be computed."""


@dataclass(frozen=True)
class PlanSettings:
    """The settings of a plan, by the name of an arm or a choice and of a setting."""

    plan: Plan

    def of(self, name: str) -> dict[str, float]:
        """Every setting of an arm or a choice that is a number. Raises UnresolvedExpression for names that are none."""
        for choice in self.plan.choices:
            if choice.name == name:
                return {"attempts": len(choice.of)}
        for arm in self.plan.arms:
            if arm.name == name:
                return dict(_settings(self.plan, arm))
        known = [*(arm.name for arm in self.plan.arms), *(choice.name for choice in self.plan.choices)]
        raise UnresolvedExpression(f'there is no arm "{name}"{did_you_mean(name, known)}')

    def value(self, text: str, named: Mapping[str, float] = MappingProxyType({})) -> float | bool:
        """Of an expression; `named` are words of their own. Raises UnresolvedExpression."""
        with _calculated(text):
            return self._value(ast.parse(text.strip(), mode="eval").body, named)

    def sides(self, text: str) -> tuple[float, ...]:
        """Both sides of a comparison. Raises UnresolvedExpression where it is none."""
        with _calculated(text):
            tree = ast.parse(text.strip(), mode="eval").body
            if not isinstance(tree, ast.Compare) or len(tree.ops) != 1:
                raise UnresolvedExpression(
                    f"{_shown(text)} compares nothing; write one of == != < <= > >= between two settings"
                )
            return tuple(float(self._value(side, {})) for side in (tree.left, tree.comparators[0]))

    def _value(self, tree: ast.AST, named: Mapping[str, float]) -> float | bool:
        match tree:
            case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
                return float(number)
            case ast.Name(id=name) if name in named:
                return named[name]
            case ast.Attribute(value=ast.Name(id=name), attr=setting):
                found = self.of(name)
                if setting not in found:
                    known = did_you_mean(setting, list(found)) or f"; it has {', '.join(found) or 'none'}"
                    raise UnresolvedExpression(f"{name} has no {setting}{known}")
                return found[setting]
            case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
                return OPERATORS[type(op)](self._value(left, named), self._value(right, named))
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in RELATIONS:
                return RELATIONS[type(op)](self._value(left, named), self._value(right, named))
        raise UnresolvedExpression(f"{ast.unparse(tree)} is no setting; write ARM.SETTING{_words(named)}")

    def filled(self, sentence: str, contrast: Contrast | None = None) -> str:
        """A sentence with its braces computed. Raises UnresolvedExpression, also for a number that the sentence has of its own, in
        whatever spelling, and for one in braces that no setting holds and that measures something."""
        named = {} if contrast is None else {"margin": contrast.margin, "expected": contrast.expected}
        plain = VERSION.sub(" ", OF_THE_CONTRAST.sub(" ", BRACES.sub(" {} ", sentence)))
        if own := next((one for one in NUMBER.finditer(plain) if not self._is_one(one.group())), None):
            raise UnresolvedExpression(
                f'says "{own.group().strip()}" of its own, and nothing holds it to the settings'
                f"{self._difference(contrast)}. Write the number as {{ARM.SETTING}}, {{margin}} or a ratio, or {{2}} for one that is no setting"
            )

        def said(found: re.Match[str]) -> str:
            word = found[1].strip()
            if contrast is not None and word in named:
                return in_metric(contrast, named[word])
            _holds(word, sentence[: found.start()], sentence[found.end() :])
            value = self.value(word, named)
            _counts(word, sentence[: found.start()], sentence[found.end() :])
            return plainly(value)

        return BRACES.sub(said, sentence)

    def _is_one(self, said: str) -> bool:
        """Whether "one item" is what an arm's setting of that unit is."""
        one, _, unit = said.casefold().partition(" ")
        return one == "one" and any(
            self.of(arm.name).get(setting) == 1
            for setting, counted in COUNTED.items()
            if re.fullmatch(counted, unit)
            for arm in self.plan.arms
        )

    def _difference(self, contrast: Contrast | None) -> str:
        """What the two arms of a contrast differ in, with its numbers."""
        if contrast is None:
            return ""
        first, second = self.of(contrast.arm), self.of(contrast.against)
        differing = [
            f"{name} {plainly(second[name])} against {plainly(first[name])}"
            for name in first
            if name in second and first[name] != second[name]
        ]
        return f" ({', '.join(differing)})" if differing else ""


@contextmanager
def _calculated(text: str) -> Iterator[None]:
    """What keeps an expression from having a value becomes UnresolvedExpression, which shows it."""
    try:
        yield
    except UnresolvedExpression:
        raise
    except ZeroDivisionError as error:
        raise UnresolvedExpression(f"{_shown(text)} divides by 0") from error
    except (OverflowError, RecursionError, MemoryError) as error:
        raise UnresolvedExpression(f"{_shown(text)} is too long or too large to be calculated") from error
    except NOT_PYTHON as error:
        raise UnresolvedExpression(
            f"{_shown(text)} cannot be read; write ARM.SETTING, numbers, + - * / and one comparison"
        ) from error


def _holds(expression: str, before: str, after: str) -> None:
    """Raises UnresolvedExpression for what stands in the braces of a sentence, between two parts of it, and is no setting, no ratio of
    settings and no name."""
    with _calculated(expression):
        parts = list(ast.walk(ast.parse(expression, mode="eval")))
    numbers = [each.value for each in parts if isinstance(each, ast.Constant)]
    if not numbers:
        if IN_UNIT.match(after):
            raise UnresolvedExpression(
                f"{{{_shown(expression)}}} stands before a unit that no setting has. Write {{margin}} or {{expected}}, which bring theirs"
            )
        return
    if any(isinstance(each, ast.Name | ast.BinOp) for each in parts):
        raise UnresolvedExpression(
            f"{{{_shown(expression)}}} calculates with a number that is no setting. Write settings alone, as {{ARM.SETTING}} or "
            "{ARM.SETTING / ARM.SETTING}"
        )
    (number,) = numbers or [None]
    whole = isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= LARGEST_NAME
    if not whole or MEASURED.match(after) or COMPARED.search(before):
        raise UnresolvedExpression(
            f"{{{_shown(expression)}}} measures something, and no setting holds it. Write {{ARM.SETTING}}, {{margin}} or a ratio; a number "
            f'that is no setting is one of 1 to {LARGEST_NAME} in a name, as in "{{2}} ways"'
        )


def _counts(expression: str, before: str, after: str) -> None:
    """Raises UnresolvedExpression for a setting that stands behind the name of another, or before what it does not count; a ratio counts
    times."""
    called = re.search(
        r"\b(temperature|rank|budget|buffer|multiplier|learning rate)(?: of| =)? $", before, re.IGNORECASE
    )
    name = re.fullmatch(r"\w+\.(\w+)", expression)
    if called and name and name[1] not in ("parameters", called[1].casefold().replace(" ", "_")):
        raise UnresolvedExpression(
            f"{{{_shown(expression)}}} is no {called[1]}. Write the setting of that name"
        )
    said = re.match(rf"\s*(?:[\w-]+\s+)?({_MEASURES})", after, re.IGNORECASE)
    if said is None:
        return
    counted = COUNTED.get(name[1], "") if name else r"times" if "/" in expression else r".*"
    if not re.fullmatch(counted, said[1], re.IGNORECASE):
        raise UnresolvedExpression(
            f"{{{_shown(expression)}}} stands before {said[1]}, which it does not count. Write a setting that does, or none"
        )


def _shown(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _words(named: Mapping[str, float]) -> str:
    return f", or {' or '.join(named)}" if named else ""


def plainly(value: float) -> str:
    return f"{value:.6g}"


def in_metric(contrast: Contrast, value: float) -> str:
    """A difference in the unit of what a contrast compares."""
    return (
        f"{plainly(100 * value)} points" if contrast.metric.is_share else f"{plainly(value)} nats per token"
    )


def _settings(plan: Plan, arm: Arm) -> Iterator[tuple[str, float]]:
    yield "temperature", arm.temperature
    yield from (arm.sampling or AS_COMPUTED).model_dump().items()
    yield "steps", plan.limits_of(arm).steps
    yield "seeds", len(plan.seeds_of(arm))
    if arm.model.backend == "nano" and arm.model.name.endswith("bit"):
        yield "bits", float(arm.model.name.removesuffix("bit"))
    learning = arm.learning
    if learning is None:
        return
    yield "rounds", learning.rounds
    yield "times", learning.times or 1.0
    if (how := learning.remembers) is not None and plan.experience is not None:
        told = plan.experience.told(how)
        yield "items", told.items
        if told.bytes is not None:
            yield "bytes", told.bytes
    for name in ("episodes", "pairs", "recovered", "batches", "failure_weight"):
        if (value := getattr(learning, name)) is not None:
            yield name, value
    match learning.strategy:
        case PartialReplay(buffer=buffer):
            yield "buffer", buffer
        case Anchored(anchor=anchor):
            yield "strength", anchor.strength
    if not learning.treatment.is_adapter or plan.experience is None or plan.experience.training is None:
        return
    training = (learning.training or TrainingChange()).of(plan.experience.training)
    yield "multiplier", training.multiplier
    yield "learning_rate", training.learning_rate
    yield "iterations", training.iterations
    yield "batch_size", training.batch_size
    yield from _ranks(learning, training.rank)


def _ranks(learning: Learning, rank: int) -> Iterator[tuple[str, float]]:
    """Of what is served. A rank costs as many parameters in one adapter as in another, so their sum counts parameters; a router's
    own are not among them. Nothing where it depends on how many batches there are."""
    match learning.strategy:
        case Mixture(division=division, expert_rank=each, experts=wanted):
            experts = TOOLS if division is Division.TOOL else wanted
            yield "rank", each
            if experts is not None:
                yield "experts", experts
                yield "parameters", experts * each
        case AdaptiveRank(budget=budget):
            yield "rank", budget
            yield "parameters", budget
        case None | FullReplay() | Sequential() | PartialReplay() | Anchored():
            yield "rank", rank
            yield "parameters", rank
        case _:
            assert_never(learning.strategy)
