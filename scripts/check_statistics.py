"""How often each test rejects where there is nothing, and how often each interval holds the truth. Writes docs/statistics.md.

    python scripts/check_statistics.py [--draws 10000]

Ends with 1 where a test rejects more often than it says, beyond what so many draws of so many rows can be off by.
"""

import argparse
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from statistics import NormalDist, fmean
from typing import Any

import numpy as np

from looper.metrics.clustered import sign_flip
from looper.metrics.continuous import bca
from looper.metrics.design import Design, power_of, smallest_visible
from looper.metrics.paired import (
    ENOUGH_REPOSITORIES,
    AnalysisUnit,
    Difference,
    PairedDifference,
    effective_pairs,
    line_rise,
    mcnemar_exact,
    mean_difference,
    newcombe_paired,
    paired_difference,
    rise,
    wilson,
)
from looper.metrics.power import power
from looper.metrics.registered import Decision, Registered, judge
from looper.records.plan import Contrast, Expect

Array = np.ndarray[Any, Any]
TARGET = Path(__file__).resolve().parents[1] / "docs" / "statistics.md"
ALPHA = 0.05
MOST = 0.055
"""No test may reject more often where there is nothing."""
LEAST = 0.93
"""No printed interval may hold the truth less often."""
NEAR = 0.05
"""So far off may the power be that a plan was promised."""
PROCEDURE = """Whole runs are drawn and decided by the code that decides them: every contrast of a plan in one family, with the unit that
the plan has. Margins lie at what they must rule out, differences at 0; repositories differ by 15 points (standard
deviation) in what a treatment does to them, tasks by 10. Where the unit is the repository, the truth is that of all repositories; else
that of those in the run. `exp00` has three differences, one equality and four bounds; in `half failed` three of its arms have no figures.

Not in these draws, and not covered by what they show: figures other than verdicts that are missing for a reason that has to
do with them (a decision that missing verdicts could turn is taken back); a treatment that harms few repositories much (of ten repositories, one in three runs meets none where each has a chance of a tenth, and no
bound can then hold); what is learned once for all repositories, whose luck one run cannot know, so that such a plan speaks of that learning
alone. Repositories of unlike sizes, means, and lines through arms have rows of their own, of a family of one difference and two bounds;
a pilot decides nothing, whatever is drawn. What is decided here is the claim that Looper prints, made of the contrast and its result; the
sentence in quotation marks behind a claim is the plan's author's, and no test covers it.
"""
WRONG_UNIT = """
### What the wrong unit does

The same runs of five repositories, decided by task, if the claim were about *all* repositories, whose mean effect is none: what is
never decided, and why the finding of such a run says "on these repositories".

"""
HEAD = """# How the tests and intervals behave

Written by `python scripts/check_statistics.py`{options}. A test that is fooled more often than it says makes findings out of
nothing; an interval that misses the truth more often than it says does so too. Data are drawn here in which the truth is
known. Beside each share stand two standard errors; the script ends with 1 where one of all these rows is off by more than chance does to
any of them in one table of twenty.

"""


@dataclass(frozen=True)
class Row:
    """One line of a table: what, under which truth, how often, out of how many draws, and how often it should be."""

    what: str
    truth: str
    share: float
    draws: int
    expected: str

    @property
    def error(self) -> float:
        """Standard error of the share."""
        return sqrt(max(self.share, 1 / self.draws) * (1 - self.share) / self.draws)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=10_000, help="of tests and intervals by themselves")
    parser.add_argument(
        "--runs", type=int, default=2_000, help="of whole runs, decided as they are registered"
    )
    options = parser.parse_args()
    draws, runs = options.draws, options.runs
    sizes, coverages = list(size_rows(draws)), list(coverage_rows(draws))
    decisions, intervals, powers = procedure_rows(runs)
    wrong_decisions, wrong_intervals = wrong_unit_rows(runs)
    options = "".join(
        f" --{name} {number}"
        for name, number, usual in (("draws", draws, 10_000), ("runs", runs, 2_000))
        if number != usual
    )
    TARGET.write_text(
        HEAD.format(options=options)
        + "## The decision as it is registered\n\n"
        + PROCEDURE
        + "\n### Anything false is said, of all that a plan registers\n\n"
        + table(decisions, "false")
        + "\n### The interval that is printed with each decision\n\n"
        + table(intervals, "holds the truth")
        + WRONG_UNIT
        + table(wrong_decisions, "false")
        + "\n"
        + table(wrong_intervals, "holds the truth")
        + "\n### Power, as `looper plan` says it\n\n"
        + table(powers, "shown")
        + "\n## Tests where there is nothing to find, at 0.05\n\n"
        + table(sizes, "rejects")
        + "\n## Intervals of 95 %\n\n"
        + table(coverages, "holds the truth")
        + "\nThe exact test is far below its level on small runs, which is what exact means.\n\n"
        "The binomial tests and intervals (exact McNemar, Wilson, power) are scipy's. "
        "What scipy does not have, or has without the exact enumeration of small samples, is Looper's own, and its tests hold it "
        "against scipy and against published values.\n",
        "utf-8",
    )
    print(TARGET.read_text("utf-8"))
    # Of two hundred rows that are all as they should be, five lie two standard errors off.
    rows = len(sizes) + len(decisions) + len(intervals) + len(powers)
    most = NormalDist().inv_cdf(1 - ALPHA / 2 / rows)
    wrong = [
        *(
            f"{row.what}, {row.truth}: rejects {row.share:.3f}"
            for row in sizes
            if row.share - most * row.error > MOST
        ),
        *(
            f"{row.what}, {row.truth}: false {row.share:.3f}"
            for row in decisions
            if row.share - most * row.error > ALPHA
        ),
        *(
            f"{row.what}, {row.truth}: covers {row.share:.3f}"
            for row in intervals
            if row.share + most * row.error < LEAST
        ),
        *(
            f"{row.what}, {row.truth}: shown {row.share:.3f}, {row.expected}"
            for row in powers
            if abs(row.share - float(row.expected.split()[-1])) > NEAR + most * row.error
        ),
    ]
    sys.stderr.writelines(f"{line}\n" for line in wrong)
    sys.exit(bool(wrong))


def table(rows: list[Row], head: str) -> str:
    lines = [f"| what | truth | {head} | draws | should |", "|---|---|---:|---:|---|"]
    lines += [
        f"| {row.what} | {row.truth} | {row.share:.3f} ± {2 * row.error:.3f} | {row.draws} | {row.expected} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


MORE = Contrast(arm="a", against="b", shown="", refuted="", open="")
EXP00 = [Expect.MORE, Expect.MORE, Expect.MORE, Expect.SAME, *[Expect.NOT_MORE] * 4]
FAMILIES = {
    "one difference": [Expect.MORE],
    "four differences": [Expect.MORE] * 4,
    "one bound": [Expect.NOT_LESS],
    "exp00": EXP00,
    "exp00, half failed": EXP00,
}


@dataclass(frozen=True)
class Runs:
    """Runs of one design, drawn."""

    repositories: int
    each: int
    seeds: int
    discordance: float

    @property
    def unit(self) -> AnalysisUnit:
        return AnalysisUnit.REPOSITORY if self.repositories >= ENOUGH_REPOSITORIES else AnalysisUnit.TASK

    def __str__(self) -> str:
        tasks = f"{self.repositories} × {self.each} tasks, {self.seeds} seed{'s' * (self.seeds > 1)}"
        return f"{tasks}, {100 * self.discordance:.0f} % discordant, by {self.unit.value}"

    def difference(
        self, rng: np.random.Generator, effect: float, between: float, within: float, of_all: bool = False
    ) -> PairedDifference:
        """Of two arms that gain and lose alike in `discordance` of the cells, and beside that differ by `effect`, which varies by so
        much between repositories and between tasks. `of_all`: the effect is that of all repositories, not of those drawn."""
        shape = (self.repositories, self.each, self.seeds)
        shift = between * rng.standard_normal((self.repositories, 1, 1))
        shift = shift + within * rng.standard_normal((self.repositories, self.each, 1))
        if self.unit is AnalysisUnit.TASK and not of_all:
            shift -= shift.mean()
        true, luck = np.clip(effect + shift, -1, 1), rng.random(shape)
        # Where chance and difference would change more cells than there are, chance gives way.
        chance = np.minimum(self.discordance, 1 - np.abs(true)) / 2
        gained = luck < chance + np.maximum(true, 0)
        lost = ~gained & (luck > 1 - chance - np.maximum(-true, 0))
        both = rng.random(shape) < 0.5
        arm, base = (gained | both) & ~lost, (lost | both) & ~gained
        units = arm.size // self.seeds if self.unit is AnalysisUnit.TASK else self.repositories
        return _difference(arm.reshape(units, -1), base.reshape(units, -1), self.unit)


def _difference(arm: Array, base: Array, unit: AnalysisUnit) -> PairedDifference:
    """As `paired_difference` makes it of the same cells, which `agrees` holds it against; a row is a unit."""
    moved = arm.astype(int) - base
    units = len(moved)
    pairs, gains, losses = moved.size, int((moved > 0).sum()), int((moved < 0).sum())
    both = int((arm & base).sum())
    varies = float(moved.mean(axis=1).var(ddof=1)) / units
    return PairedDifference(
        both=both,
        gains=gains,
        losses=losses,
        neither=pairs - both - gains - losses,
        unit=unit,
        units=units,
        effective=effective_pairs(pairs, gains, losses, units, varies),
        degrees=units - 1,
        p_flip=sign_flip([float(value) for value in moved.sum(axis=1)]),
    )


def agrees(design: Runs) -> bool:
    """Whether a drawn difference is what the package makes of the same cells."""
    rng = np.random.default_rng(1)
    arm, base = (rng.random((design.repositories, design.each, design.seeds)) < share for share in (0.6, 0.4))
    keys = {f"{at[2]}/r{at[0]}-{at[1]}": at for at in np.ndindex(*arm.shape)}
    theirs = paired_difference(
        {key: bool(arm[at]) for key, at in keys.items()},
        {key: bool(base[at]) for key, at in keys.items()},
        design.unit,
    )
    units = arm.size // design.seeds if design.unit is AnalysisUnit.TASK else design.repositories
    ours = _difference(arm.reshape(units, -1), base.reshape(units, -1), design.unit)
    return theirs is not None and np.allclose(
        [ours.effective, ours.p_flip, *ours.interval(0.99)],
        [theirs.effective, theirs.p_flip, *theirs.interval(0.99)],
    )


DESIGNS = [
    Runs(repositories, each, seeds, discordance)
    for repositories, each, seeds in (
        (2, 6, 1),
        (4, 10, 1),
        (5, 24, 3),
        (8, 34, 1),
        (10, 6, 1),
        (24, 6, 1),
        (24, 6, 3),
    )
    for discordance in (0.05, 0.3, 0.5)
]


def procedure_rows(runs: int) -> tuple[list[Row], list[Row], list[Row]]:
    """False decisions by design and family, coverage by design, power by design."""
    decisions, intervals, powers = [], [], []
    for design in DESIGNS:
        assert agrees(design), design
        covered = asked = 0
        for name, expects in FAMILIES.items():
            rng = np.random.default_rng([DESIGNS.index(design), len(name)])
            truths = [{Expect.MORE: 0.0, Expect.NOT_LESS: -0.1}.get(expect, 0.1) for expect in expects]
            false = 0
            for _ in range(runs):
                found: list[PairedDifference | None] = [
                    design.difference(rng, true, 0.15, 0.1) for true in truths
                ]
                if "failed" in name:
                    found[1:4] = [None] * 3
                results = judge(
                    [
                        (MORE.model_copy(update={"expect": expect}), each, None)
                        for expect, each in zip(expects, found, strict=True)
                    ]
                )
                false += any(result.finding in _false(result) for result in results)
                for result, true in zip(results, truths, strict=True):
                    if result.interval is not None:
                        asked += 1
                        covered += _within(true, result.interval)
            decisions.append(Row(name, str(design), false / runs, runs, "at most 0.050"))
        intervals.append(
            Row("of the registered contrasts", str(design), covered / asked, asked, "at least 0.930")
        )
        powers += _power_rows(design, runs)
    for kind in KINDS:
        rows, interval = _kind_rows(kind, runs)
        decisions += rows
        intervals.append(interval)
    return decisions, intervals, powers


def wrong_unit_rows(runs: int) -> tuple[list[Row], list[Row]]:
    """False decisions and coverage where tasks are taken for independent and the claim is about all repositories."""
    decisions, intervals = [], []
    for design in (each for each in DESIGNS if each.repositories == 5):
        rng = np.random.default_rng([DESIGNS.index(design), 1])
        found = [design.difference(rng, 0.0, 0.15, 0.1, of_all=True) for _ in range(runs)]
        results = [judge([(MORE, each, None)])[0] for each in found]
        false = sum(result.finding in _false(result) for result in results)
        covered = sum(result.interval is not None and _within(0.0, result.interval) for result in results)
        decisions.append(Row("one difference", str(design), false / runs, runs, "at most 0.050"))
        intervals.append(Row("of that difference", str(design), covered / runs, runs, "at least 0.930"))
    return decisions, intervals


Draw = Callable[[np.random.Generator, Sequence[int], float, float], Difference | None]


def _cells(rng: np.random.Generator, sizes: Sequence[int], between: float) -> dict[str, float]:
    """Keys of cells, and what is true of their repository: a normal deviate times `between`."""
    shift = between * rng.standard_normal(len(sizes))
    return {f"0/r{at}-{task}": shift[at] for at, size in enumerate(sizes) for task in range(size)}


def draw_verdicts(
    rng: np.random.Generator, sizes: Sequence[int], effect: float, between: float
) -> Difference | None:
    """As `Runs.difference`, three of ten cells discordant."""
    arm, base = dict[str, bool](), dict[str, bool]()
    for key, shift in _cells(rng, sizes, between).items():
        true, luck, both = effect + shift, rng.random(), rng.random() < 0.5
        gained = luck < 0.15 + max(true, 0)
        lost = not gained and luck > 1 - 0.15 - max(-true, 0)
        arm[key], base[key] = (gained or both) and not lost, (lost or both) and not gained
    return paired_difference(arm, base, AnalysisUnit.REPOSITORY)


def draw_means(
    rng: np.random.Generator, sizes: Sequence[int], effect: float, between: float
) -> Difference | None:
    """Of what is no yes or no; what tasks differ by is skewed (exponential)."""
    cells = _cells(rng, sizes, between)
    arm = {key: effect + shift + 0.2 * (rng.exponential() - 1) for key, shift in cells.items()}
    return mean_difference(arm, dict.fromkeys(cells, 0.0), AnalysisUnit.REPOSITORY)


def draw_line(
    rng: np.random.Generator, sizes: Sequence[int], effect: float, between: float
) -> Difference | None:
    """Through four arms of verdicts, of which each resolves a third of the effect more than the one before it."""
    cells = _cells(rng, sizes, between)
    arms = [
        {
            key: float(rng.random() < min(max(0.5 + (effect + shift) * step / 3, 0), 1))
            for key, shift in cells.items()
        }
        for step in range(4)
    ]
    return rise(arms, AnalysisUnit.REPOSITORY)


@dataclass(frozen=True)
class Kind:
    """What the even designs above leave out."""

    what: str
    draw: Draw
    sizes: tuple[int, ...]

    def __str__(self) -> str:
        low, high = min(self.sizes), max(self.sizes)
        each = f"{low}" if low == high else f"{low} to {high}"
        return f"{len(self.sizes)} × {each} tasks, 1 seed, by repository"


EVEN, UNEVEN = (6,) * 24, (2, 4, 6, 12) * 6
KINDS = [
    Kind("verdicts, unlike sizes", draw_verdicts, UNEVEN),
    Kind("means", draw_means, (6,) * 10),
    Kind("means, unlike sizes", draw_means, UNEVEN),
    Kind("line through four arms", draw_line, EVEN),
]


def _kind_rows(kind: Kind, runs: int) -> tuple[list[Row], Row]:
    """False decisions of a family of a difference and two bounds at their margins, whole and with a member that a veto holds
    (not exercised, or a failed arm), and how often the intervals hold the truth."""
    rows, covered, asked = [], 0, 0
    family = ((Expect.MORE, 0.0), (Expect.NOT_MORE, 0.1), (Expect.NOT_LESS, -0.1))
    for name, veto in (("", None), (", the first vetoed", Decision.NOT_EXERCISED)):
        rng = np.random.default_rng([KINDS.index(kind), len(name)])
        false = 0
        for _ in range(runs):
            results = judge(
                [
                    (
                        MORE.model_copy(update={"expect": expect}),
                        kind.draw(rng, kind.sizes, true, 0.15),
                        veto if at == 0 else None,
                    )
                    for at, (expect, true) in enumerate(family)
                ]
            )
            false += any(result.finding in _false(result) for result in results)
            for result, (_, true) in zip(results, family, strict=True):
                if result.interval is not None:
                    asked, covered = asked + 1, covered + _within(true, result.interval)
        rows.append(Row(f"{kind.what}{name}", str(kind), false / runs, runs, "at most 0.050"))
    return rows, Row(kind.what, str(kind), covered / asked, asked, "at least 0.930")


def _false(result: Registered) -> tuple[Decision, ...]:
    """What must not be said of a difference of 0, or of one at its margin."""
    return (Decision.SHOWN, Decision.REFUTED) if result.contrast.expect is Expect.MORE else (Decision.SHOWN,)


def _power_rows(design: Runs, runs: int) -> Iterator[Row]:
    for family in (1, 7):
        promised_for = Design(
            tasks=design.repositories * design.each,
            seeds=design.seeds,
            worth=design.repositories,
            unit=design.unit,
            family=family,
            discordance=design.discordance,
        )
        least = smallest_visible(promised_for)
        if least is None or least > 0.3:  # More than that leaves base no room to fail in.
            continue
        between = promised_for.spread if design.unit is AnalysisUnit.REPOSITORY else 0.0
        rng = np.random.default_rng(family)
        shown = 0
        for _ in range(runs):
            found = design.difference(rng, least, between, 0.0)
            # The others of the family have nothing to show, and leave the first its first step.
            results = judge([(MORE, found, None), *[(MORE, None, None)] * (family - 1)])
            shown += results[0].finding is Decision.SHOWN
        promise = power_of(promised_for, MORE, least)
        yield Row(
            f"{100 * least:+.0f} points, {family} registered",
            str(design),
            shown / runs,
            runs,
            f"promised {promise:.3f}",
        )


def size_rows(draws: int) -> Iterator[Row]:
    for tasks in (25, 50, 100, 273):
        for discordance in (0.1, 0.3):
            rng = random.Random(f"mcnemar/{tasks}/{discordance}")
            pairs = [_discordant(rng, tasks, discordance) for _ in range(draws)]
            yield Row(
                "exact McNemar",
                f"{tasks} tasks, {100 * discordance:.0f} % discordant",
                fmean(mcnemar_exact(*pair) < ALPHA for pair in pairs),
                draws,
                f"{power(tasks, discordance, 0.0):.3f}, summed over all outcomes",
            )
    for tasks, seeds in ((20, 3), (60, 3), (120, 3), (60, 1)):
        rng = random.Random(f"flip/{tasks}/{seeds}")
        few = draws if tasks < 100 else draws // 10
        hits = sum(sign_flip(_task_differences(rng, tasks, seeds)) < ALPHA for _ in range(few))
        yield Row("sign flip by task", f"{tasks} tasks, {seeds} seeds", hits / few, few, "at most 0.050")
    for tasks in (12, 60):
        rng = random.Random(f"rise/{tasks}")
        hits = sum(sign_flip(_task_rises(rng, tasks, arms=4)) < ALPHA for _ in range(draws))
        yield Row("rise over four arms", f"{tasks} tasks", hits / draws, draws, "at most 0.050")


def _task_rises(rng: random.Random, tasks: int, arms: int) -> list[float]:
    """Of yes or no in arms that are alike, each task with a chance of its own."""
    found = []
    for _ in range(tasks):
        chance = rng.random()
        found.append(line_rise([float(rng.random() < chance) for _ in range(arms)]))
    return found


def coverage_rows(draws: int) -> Iterator[Row]:
    for tasks, rate in ((25, 0.1), (25, 0.5), (100, 0.1), (273, 0.3)):
        rng = random.Random(f"wilson/{tasks}/{rate}")
        hits = sum(_within(rate, wilson(_hits(rng, tasks, rate), tasks)) for _ in range(draws))
        yield Row("Wilson, one rate", f"{tasks} tasks, {100 * rate:.0f} %", hits / draws, draws, "about 0.95")
    for tasks, true in ((25, 0.0), (100, 0.0), (100, 0.1), (273, 0.1)):
        rng = random.Random(f"newcombe/{tasks}/{true}")
        hits = sum(_within(true, newcombe_paired(*_paired(rng, tasks, true))) for _ in range(draws))
        yield Row(
            "Newcombe, paired difference",
            f"{tasks} tasks, {100 * true:+.0f} points",
            hits / draws,
            draws,
            "about 0.95",
        )
    few = max(200, draws // 20)
    for tasks in (20, 60):
        rng = random.Random(f"bca/{tasks}")
        found = [bca(_task_differences(rng, tasks, 3)) for _ in range(few)]
        hits = sum(interval is not None and _within(0.0, interval) for interval in found)
        yield Row(
            "BCa, mean over tasks", f"{tasks} tasks, 3 seeds, no difference", hits / few, few, "about 0.95"
        )


def _hits(rng: random.Random, count: int, rate: float) -> int:
    return sum(rng.random() < rate for _ in range(count))


def _discordant(rng: random.Random, tasks: int, discordance: float) -> tuple[int, int]:
    found = _hits(rng, tasks, discordance)
    gains = _hits(rng, found, 0.5)
    return gains, found - gains


def _paired(rng: random.Random, tasks: int, true: float) -> tuple[int, int, int, int]:
    """A table in which three tasks of ten are discordant, and half of the others resolved by both."""
    counts = [0, 0, 0, 0]
    shares = [0.35, 0.15 + true / 2, 0.15 - true / 2, 0.35]
    for at in rng.choices(range(4), shares, k=tasks):
        counts[at] += 1
    return counts[0], counts[1], counts[2], counts[3]


def _within(true: float, interval: tuple[float, float]) -> bool:
    return interval[0] <= true <= interval[1]


def _task_differences(rng: random.Random, tasks: int, seeds: int) -> list[float]:
    """Two equal arms: each task has a chance of its own, and seeds of a task are alike in it."""
    found = []
    for _ in range(tasks):
        chance = rng.betavariate(0.6, 0.6)
        found.append(fmean((rng.random() < chance) - (rng.random() < chance) for _ in range(seeds)))
    return found


if __name__ == "__main__":
    main()
