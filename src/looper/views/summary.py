"""All written results in one table, read from their blocks: what was asked, of how much, what came of it, and what could have been seen.

The table is made from the written pages and not from the runs, whose folders need not be here. Blocks are data that earlier
versions wrote as well, so they are read by patterns that know how each version said it; what a block does not say stays a dash.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from looper.metrics.design import LARGEST_EFFECT, smallest_of_tasks
from looper.metrics.paired import ENOUGH_REPOSITORIES
from looper.records.text import counted
from looper.views.findings import HYPOTHESIS

LEARNINGS = Path("LEARNINGS.md")
SUMMARY = "looper report --summary"
PILOT = "pilot"
UNKNOWN = "–"
DECISIONS = ("shown", "refuted", "open")
COLUMNS = (
    "experiment", "hypothesis", "design: primary contrast", "tasks × seeds", "repositories", "difference", "decision",
    "smallest visible",
)  # fmt: skip

# Blocks are data: those that older versions wrote are read too, which say their repositories elsewhere, and their power less.
_HEAD = re.compile(r"(\d+) tasks, seeds ([\d, ]+),")
_SCOPE = re.compile(r"\d+ tasks? of (\d+) repositor.*; the unit is the (task|repository)")
_PRIMARY = re.compile(
    r"- primary: (?P<contrast>[^:]*?)"
    r"(?:: (?P<figure>[-+][\d.]+ (?:points|nats per token)[^,]*, (?:[\d.]+ % [-+][\d.]+ to [-+][\d.]+|no interval)))?"
    r"(?:, [^:]+?)?, (?P<decision>shown|refuted|open|pilot|not trusted|not exercised|not measured|indecisive)"
    r"(?P<here> on these repositories)?\b"
)
# Of what older ones say to be found with 80 % power they asked no difference larger than the share of cells in which equal arms differ.
_SEEN = re.compile(r"shown in \d+ % of runs is (none|\d+ points)")
_BLIND = re.compile(r"no difference is shown in \d+ % of runs")
_AGAIN = re.compile(r"\(A/A, expected 0(?:, [^)]*)?\): .*? (\d+) pairs, (\d+) gained, (\d+) lost")
_REPOSITORIES = re.compile(r"; by repository .*?, (\d+) of them")
_CONTROL = re.compile(
    r"- (\w+) − base \((?:A/A, expected 0|control(?:, no gain expected)?)(?:, (registered[^)]*|exploratory))?\): ([-+][\d.]+) points, (?:95 % (?:interval )?"
    r"([-+][\d.]+ to [-+][\d.]+), )?(?:(?:p = |by ).*?, )?(\d+) pairs?"
)
_FAMILY = re.compile(r"(\d+) contrasts? in one family")
_RECIPE = re.compile(r"^- `(\w+)` is (.*)\.$", re.MULTILINE)
"""What a page says of a control outside of its block, where another experiment has one of that name that is made otherwise."""
_MUST = re.compile(r"- control (\w+) must (.*): (.*)")


@dataclass(frozen=True)
class Result:
    """One block of results, as its table row says it."""

    name: str
    page: str
    asked: str
    block: str
    recipes: tuple[tuple[str, str], ...] = ()
    """Controls that the page describes outside of the block: name and what it is."""

    @property
    def short(self) -> str:
        """As a person says it: most are of the profile micro."""
        name, _, seed = self.name.partition(" micro@")
        return f"{name} (master seed {seed})" if seed else name.removesuffix(" micro")

    @property
    def tasks(self) -> int | None:
        found = _HEAD.search(self.block)
        return int(found[1]) if found else None

    @property
    def seeds(self) -> int | None:
        found = _HEAD.search(self.block)
        return len(found[2].split(",")) if found else None

    @property
    def repositories(self) -> int | None:
        found = _SCOPE.search(self.block) or _REPOSITORIES.search(self.block)
        return int(found[1]) if found else None

    @property
    def least(self) -> str:
        """Smallest difference of verdicts seen with 80 % power; `none` where not even the largest is. What the block does not say is
        worked out as if tasks were independent, and not where the repository is the unit."""
        said, again = _SEEN.search(self.block), _AGAIN.search(self.block)
        if said:
            return said[1]
        if _BLIND.search(self.block):
            return "none"
        if again is None or self.tasks is None or self._unit == "repository":
            return UNKNOWN
        pairs, gained, lost = map(int, again.groups())
        least = smallest_of_tasks(self.tasks, (gained + lost) / pairs)
        return "none" if least is None else f"{100 * least:.0f} points"

    @property
    def primary(self) -> tuple[str, str, str]:
        """The first registered contrast, its difference with interval, and what was decided."""
        found = _PRIMARY.search(self.block)
        if found is None:
            return UNKNOWN, UNKNOWN, "unfinished" if "UNFINISHED" in self.block else UNKNOWN
        here = ", on these repositories" if found["here"] else ""
        return found["contrast"], found["figure"] or UNKNOWN, f"{found['decision']}{here}"

    @property
    def _unit(self) -> str | None:
        """What the block says is its unit; blocks that do not say it do not say either whether a plan of margins is a pilot."""
        found = _SCOPE.search(self.block)
        return found[2] if found else None

    @property
    def decision(self) -> str:
        """A run that says itself that it is a pilot, or could have seen no difference that a plan may count on, decides nothing."""
        said = self.primary[2]
        points = re.match(r"\d+", self.least)
        blind = self._unit is None and (points is None or int(points[0]) > 100 * LARGEST_EFFECT)
        if "PILOT" in self.block or (said in DECISIONS and blind):
            return PILOT
        few = self._unit != "repository" and (self.repositories or 0) < ENOUGH_REPOSITORIES
        return f"{said}, on these repositories" if few and said in ("shown", "refuted") else said


def read_results(blocks: Mapping[str, tuple[Path, str]]) -> list[Result]:
    """By the name of experiment and profile: its page and its block. What is asked stands under the page's title."""
    return [
        Result(
            name,
            page.name,
            _asked(page.read_text("utf-8")),
            block,
            tuple(_RECIPE.findall(page.read_text("utf-8"))),
        )
        for name, (page, block) in blocks.items()
        if not name.startswith("history ")
    ]


def _asked(text: str) -> str:
    """The first sentence under the title, which the table's head names as the hypothesis."""
    parts = [part for part in text.split("\n\n") if part and not part.startswith(("#", "<!--"))]
    asked = " ".join(parts[0].split()).removeprefix(HYPOTHESIS) if parts else UNKNOWN
    return re.split(r"(?<=\.) ", asked)[0]


def summary_lines(results: Iterable[Result]) -> list[str]:
    """As Markdown: a row for each result, then the controls that several of them share."""
    found = list(results)
    return [
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
        *(f"| {' | '.join(_row(one))} |" for one in found),
        *_control_lines(found),
    ]


def _row(one: Result) -> tuple[str, ...]:
    contrast, figure, _ = one.primary
    return (
        f"[{one.short}](docs/results/{one.page})",
        one.asked,
        contrast,
        f"{_number(one.tasks)} × {_number(one.seeds)}",
        _number(one.repositories),
        figure,
        f"*{PILOT}*" if one.decision == PILOT else one.decision,
        one.least,
    )


def _number(found: int | None) -> str:
    return UNKNOWN if found is None else str(found)


def _control_lines(results: list[Result]) -> Iterator[str]:
    """Each figure of a control that several results share, once, with the results that it stands in; of one name and several recipes
    with what it is."""
    said = [
        ((arm, f"{dict(one.recipes)[arm]}: {what}" if arm in dict(one.recipes) else what), one.short)
        for one in results
        for arm, what in _controls(one)
    ]
    used: dict[str, set[str]] = {}
    for (arm, _), name in said:
        used.setdefault(arm, set()).add(name)
    said = [found for found in said if len(used[found[0][0]]) > 1]
    if not said:
        return
    yield ""
    yield "| control | against base, or what it must do | stands in |"
    yield "|---|---|---|"
    for (arm, what), group in groupby(sorted(said), key=lambda row: row[0]):
        yield f"| `{arm}` | {what} | {_spans([name for _, name in group])} |"


def _controls(one: Result) -> Iterator[tuple[str, str]]:
    """What was registered with its decision and the interval of that; all else by itself, as what it is."""
    family = _FAMILY.search(one.block)
    for arm, standing, points, interval, pairs in _CONTROL.findall(one.block):
        by_itself = f"95 % {interval}, {counted(pairs, 'pair')}"
        if one.decision == PILOT and interval:
            yield arm, f"*{PILOT}*: {points} points, {by_itself}"
        elif ":" in standing:
            among = f", one of {family[1]} in its family" if family else ""
            yield arm, f"{points} points, {counted(pairs, 'pair')}, {standing}{among}"
        else:
            yield arm, f"{points} points, {by_itself}, {standing or 'by itself'}"
    for arm, must, does in _MUST.findall(one.block):
        yield arm, f"must {must}: {does}"


def _spans(names: list[str]) -> str:
    """exp01, exp02, exp03, exp05 as `exp01 to exp03, exp05`; names without a number stay as they are."""
    runs: list[list[str]] = []
    for name in dict.fromkeys(names):
        if runs and _next(runs[-1][-1]) == name:
            runs[-1].append(name)
        else:
            runs.append([name])
    return ", ".join(run[0] if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)


def _next(name: str) -> str:
    found = re.fullmatch(r"(.*?)(\d+)", name)
    return f"{found[1]}{int(found[2]) + 1:0{len(found[2])}d}" if found else ""
