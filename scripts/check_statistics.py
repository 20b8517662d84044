"""How often each test rejects where there is nothing, and how often each interval holds the truth. Writes docs/statistics.md.

    python scripts/check_statistics.py [--draws 10000]

Ends with 1 where a test rejects more often than it says, beyond what so many draws can be off by.
"""

import argparse
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import comb, sqrt
from pathlib import Path
from statistics import fmean

from looper.metrics.clustered import cluster_bootstrap, sign_flip
from looper.metrics.continuous import bca
from looper.metrics.family import holm
from looper.metrics.paired import line_rise, mcnemar_exact, mcnemar_mid_p, newcombe_paired, wilson

TARGET = Path(__file__).resolve().parents[1] / "docs" / "statistics.md"
ALPHA = 0.05
MOST = 0.055
"""No test may reject more often where there is nothing."""
HEAD = """# How the tests and intervals behave

Written by `python scripts/check_statistics.py`{options}. A test that is fooled more often than it says makes findings out of
nothing; an interval that misses the truth more often than it says does so too. Data are drawn here in which the truth is
known.

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
    def spread(self) -> float:
        """Two standard errors of the share."""
        return 2 * sqrt(max(self.share, 1 / self.draws) * (1 - self.share) / self.draws)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=10_000)
    draws = parser.parse_args().draws
    sizes, coverages = list(size_rows(draws)), list(coverage_rows(draws))
    options = "" if draws == 10_000 else f" --draws {draws}"
    TARGET.write_text(
        HEAD.format(options=options)
        + "## Tests where there is nothing to find, at 0.05\n\n"
        + table(sizes, "rejects")
        + "\n## Intervals of 95 %\n\n"
        + table(coverages, "holds the truth")
        + "\nThe exact test is far below its level on small runs, which is what exact means; the mid-p value comes nearer. With "
        "eight repositories the cluster bootstrap is too narrow, and the report says how many there are.\n\n"
        "The binomial tests and intervals (exact McNemar, Wilson, Clopper-Pearson, power) and the signed-rank test are scipy's. "
        "What scipy does not have, or has without the exact enumeration of small samples, is Looper's own, and its tests hold it "
        "against scipy and against published values.\n",
        "utf-8",
    )
    print(TARGET.read_text("utf-8"))
    too_often = [row for row in sizes if row.share - row.spread > MOST]
    for row in too_often:
        sys.stderr.write(f"{row.what}, {row.truth}: rejects {row.share:.3f}\n")
    sys.exit(bool(too_often))


def table(rows: list[Row], head: str) -> str:
    lines = [f"| what | truth | {head} | draws | should |", "|---|---|---:|---:|---|"]
    lines += [
        f"| {row.what} | {row.truth} | {row.share:.3f} ± {row.spread:.3f} | {row.draws} | {row.expected} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def size_rows(draws: int) -> Iterator[Row]:
    for tasks in (25, 50, 100, 273):
        for discordance in (0.1, 0.3):
            rng = random.Random(f"mcnemar/{tasks}/{discordance}")
            pairs = [_discordant(rng, tasks, discordance) for _ in range(draws)]
            for name, test in (("exact McNemar", mcnemar_exact), ("mid-p McNemar", mcnemar_mid_p)):
                yield Row(
                    name,
                    f"{tasks} tasks, {100 * discordance:.0f} % discordant",
                    fmean(test(*pair) < ALPHA for pair in pairs),
                    draws,
                    f"{exact_size(tasks, discordance, test):.3f}, summed over all outcomes",
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
    rng = random.Random("holm")
    hits = sum(
        min(holm([mcnemar_mid_p(*_discordant(rng, 100, 0.3)) for _ in range(6)])) < ALPHA
        for _ in range(draws)
    )
    yield Row(
        "Holm over six mid-p tests, any rejected",
        "100 tasks, 30 % discordant",
        hits / draws,
        draws,
        "at most 0.050",
    )
    for tasks in (100, 273):
        rng = random.Random(f"tost/{tasks}")
        hits = sum(_equivalent(rng, tasks, true=0.1, margin=0.1) for _ in range(draws))
        yield Row(
            "equivalence within 10 points",
            f"{tasks} tasks, differ by 10",
            hits / draws,
            draws,
            "at most 0.050",
        )


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
    for clusters in (4, 8):
        rng = random.Random(f"cluster/{clusters}")
        found = [cluster_bootstrap(_clusters(rng, clusters)) for _ in range(few)]
        hits = sum(interval is not None and _within(0.0, interval) for interval in found)
        yield Row(
            "cluster bootstrap",
            f"{clusters} repositories of 25 tasks",
            hits / few,
            few,
            "below 0.95 with so few",
        )


def exact_size(tasks: int, discordance: float, test: Callable[[int, int], float]) -> float:
    """Over every table that there can be."""
    total = 0.0
    for found in range(tasks + 1):
        share = comb(tasks, found) * discordance**found * (1 - discordance) ** (tasks - found)
        total += share * sum(
            comb(found, gains) / 2**found for gains in range(found + 1) if test(gains, found - gains) < ALPHA
        )
    return total


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


def _equivalent(rng: random.Random, tasks: int, true: float, margin: float) -> bool:
    low, high = newcombe_paired(*_paired(rng, tasks, true), confidence=0.9)
    return -margin < low and high < margin


def _within(true: float, interval: tuple[float, float]) -> bool:
    return interval[0] <= true <= interval[1]


def _task_differences(rng: random.Random, tasks: int, seeds: int) -> list[float]:
    """Two equal arms: each task has a chance of its own, and seeds of a task are alike in it."""
    found = []
    for _ in range(tasks):
        chance = rng.betavariate(0.6, 0.6)
        found.append(fmean((rng.random() < chance) - (rng.random() < chance) for _ in range(seeds)))
    return found


def _clusters(rng: random.Random, count: int) -> list[list[float]]:
    """Two arms that differ in each repository by something of its own, and in none on the whole."""
    found = []
    for _ in range(count):
        shift = rng.gauss(0, 0.1)
        found.append([(rng.random() < 0.5 + shift / 2) - (rng.random() < 0.5 - shift / 2) for _ in range(25)])
    return found


if __name__ == "__main__":
    main()
