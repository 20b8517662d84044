"""Recomputes every registered figure of finished runs from their records, by other means than Looper's, and compares.

    python scripts/recompute.py RUN_FOLDER [RUN_FOLDER ...] [--printed FILE]

It shares no code with Looper: records are read as plain JSON lines, figures come from numpy and scipy, rules from their published
descriptions. What Looper says of a run is asked of `looper export RUN --format registered`, or read from the file after `--printed`,
where that was written before. Ends with status 0 where all agrees, 1 where anything differs, 2 where there is nothing to compare.

How each figure is found here:
- difference: gains less losses over pairs; of what is no yes or no, the mean over tasks of the mean over seeds
- effective pairs: pairs over Kish's design effect, with the variance of a regression on nothing but a constant, robust to clusters (CR2)
- interval: of rates, Newcombe 1998, method 10, on effective pairs and with Student's quantile (Korn and Graubard 1998); of means,
  Student's t; its degrees are Satterthwaite's; it holds 0 where the exact sign-flip test does not leave it out
- p: of rates, the root of the interval's end as a function of its level; of means, the tail of t; never less than the sign-flip test's,
  which is a convolution of its signs; of margins, two one-sided tests (Schuirmann 1987), of which one half and more count as one half
- family: Holm 1979 over all that is registered; what is not measured, or must not be concluded from, has p = 1
- claim: arms, metric, what was expected, margin and finding, put together anew; the sentence in quotation marks is the plan's own
- power, for what is a pilot: a simulation of its own of yes and no, the noncentral t of means

Left out: the smallest difference that is visible, which the line about power names; whether a pilot is one where both simulations
of its power lie too near to 80 % to tell; whether the cells that gather experience are finished.
"""

import argparse
import json
import math
import random
import re
import subprocess
import sys
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.stats import t

LEVEL = 0.05
COVERAGE = 0.95
OF_EACH_CELL = ("valid_actions", "interventions", "f2p_fraction", "file_recall")
FEWEST_REPOSITORIES = 10
POWER = 0.8
TAKEN_DISCORDANCE, TAKEN_SPREAD = 0.3, 0.1
"""Of a plan that says nothing of them."""
LARGEST_EFFECT = 0.3
"""However much a plan expects, its power is asked for no more."""
LEAST_P, MOST_P = 1e-15, 0.999
SIMULATED = 4000
POWER_SLACK = 0.06
"""More than three standard errors of the difference of two simulations, of 1000 and of 4000 runs."""
EXACT_UNITS = 22
"""Of values that are no whole numbers all sign patterns of so many are looked at; of more, draws are compared with draws."""
DRAWN_SLACK = 0.008
"""Five standard errors of a probability that 100,000 draws estimate, at its widest."""
JUDGED = ("resolved", "unresolved", "tampered")
IN_NATS = ("action_log_likelihood", "retention", "forgetting.standard")
NOTHING_FOLLOWS = {
    "pilot": "an estimate, which decides nothing: the plan was not shown to be large enough",
    "not trusted": "a control did not come out as it must: nothing is concluded",
    "indecisive": "fewer than 95 % of the cells have a verdict, or those without one could turn the decision: nothing is concluded",
    "not exercised": "what differs never came into play at these tasks, or so few or so many of them are resolved that no difference "
    "of the margin's size could show: nothing is concluded",
    "not measured": "nothing to compare: no task has what is compared in all of the arms, or one of them is a failed arm",
}
"""What Looper says where nothing was decided."""
Json = dict[str, Any]
Values = dict[str, float]
"""By seed and task, written SEED/TASK."""


class NothingToCompare(Exception):
    """Why, in one line."""


# Reading


LINE = re.compile(rb'\{"seq":\d+,"schema":\d+,"crc":"([0-9a-f]{8})","record":(.*)\}', re.DOTALL)


def read(folder: Path, name: str) -> Iterator[Json]:
    """Records whose checksum holds; a last line without its end is being written."""
    path = folder / f"{name}.jsonl"
    for line in path.read_bytes().split(b"\n")[:-1] if path.is_file() else ():
        found = LINE.fullmatch(line)
        if found and f"{zlib.crc32(found[2]):08x}" == found[1].decode():
            yield json.loads(found[2])


@dataclass
class Run:
    """A run folder as plain records, with one end for each cell and one rollout for each attempt."""

    folder: Path
    manifest: Json
    tasks: list[str]
    ends: dict[str, Json] = field(default_factory=dict)
    rollouts: dict[tuple[str, int], Json] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)

    @property
    def plan(self) -> Json:
        return self.manifest["plan"]  # type: ignore[no-any-return]

    @property
    def choices(self) -> dict[str, Json]:
        return {choice["name"]: choice for choice in self.plan.get("choices", ())}

    @property
    def repositories(self) -> int:
        return len(set(map(repository, self.tasks)))

    @property
    def by_repository(self) -> bool:
        """Whether what is compared was learned by repository, and there are enough of them that nobody named."""
        compared = self.workers([name for found in self.plan["contrasts"] for name in arms_of(found)])
        learns = [
            arm["learning"]
            for arm in self.plan["arms"]
            if arm.get("learning") and (arm["name"] in compared or not compared)
        ]
        named = self.plan["selection"].get("repos") or self.plan["selection"].get("tasks")
        each = any(not found.get("strategy") for found in learns)
        return each and not named and self.worth >= FEWEST_REPOSITORIES

    @property
    def worth(self) -> float:
        """So many repositories of one size would say as much (Kish)."""
        _, sizes = np.unique([repository(task) for task in self.tasks], return_counts=True)
        return float(sizes.sum() ** 2 / (sizes**2).sum()) if self.tasks else 0.0

    def unit(self, task: str) -> str:
        return repository(task) if self.by_repository else task

    def cells(self, arm: str) -> list[str]:
        only = next(found.get("only_seeds") for found in self.plan["arms"] if found["name"] == arm)
        return [f"{arm}/{seed}/{task}" for seed in self.plan["seeds"][:only] for task in self.tasks]

    def judged(self, arm: str) -> Iterator[tuple[str, Json]]:
        """Where it stands, and the verdict."""
        for cell in self.cells(arm):
            if self.ends.get(cell, {}).get("outcome") in JUDGED:
                yield cell.split("/", 1)[1], self.ends[cell]

    def workers(self, names: Sequence[str]) -> set[str]:
        """The arms that ran something, of arms and choices."""
        return {arm for name in names for arm in self.choices.get(name, {"of": [name]})["of"]}


def repository(task: str) -> str:
    return task[: task.rindex("-")]


def open_run(folder: Path) -> Run:
    manifest = next(read(folder, "manifest"), None)
    if manifest is None:
        raise NothingToCompare(f"{folder} has no manifest that can be read, so it is no run folder.")
    run = Run(folder, manifest, list(manifest["tasks"]))
    for verdict in read(folder, "verdicts"):
        if run.ends.get(verdict["cell"], {}).get("outcome") not in JUDGED:
            run.ends[verdict["cell"]] = verdict
    for rollout in read(folder, "trajectories"):
        end = run.ends.get(rollout["cell"], {})
        if not (end.get("outcome") in JUDGED and rollout["attempt"] > end["attempt"]):
            run.rollouts.setdefault((rollout["cell"], rollout["attempt"]), rollout)
    run.failed = {
        each["arm"] for each in read(folder, "proofs") if each.get("stops", True) and not each["passed"]
    }
    return run


# What an arm's cells came to


def resolved(run: Run, arm: str) -> Values:
    if arm in run.choices:
        return chosen(run, run.choices[arm])
    return {where: float(end["outcome"] == "resolved") for where, end in run.judged(arm)}


def chosen(run: Run, choice: Json) -> Values:
    """Whether what a choice takes is resolved; only where all that its chooser looks at was measured."""
    likely = {
        (each["cell"], each["attempt"]): float(each["log_likelihood"])
        for each in read(run.folder, "attempt_likelihoods")
    }
    ended_well = last_checks(run) if choice["by"] == "checked" else {}
    taken: Values = {}
    for where, _ in run.judged(choice["of"][0]):
        attempts = []
        for arm in choice["of"]:
            end = run.ends.get(f"{arm}/{where}", {})
            key = (f"{arm}/{where}", end.get("attempt", 0))
            if end.get("outcome") in JUDGED and key in run.rollouts:
                rollout = run.rollouts[key]
                attempts.append((rollout, key, end["outcome"] == "resolved"))
        if len(attempts) < len(choice["of"]):
            continue
        some = [each for each in attempts if each[0]["patch"]] or attempts
        by: str = choice["by"]
        if by == "likeliest" and any(each[0]["patch"] and each[1] not in likely for each in attempts):
            continue
        if by == "random":
            pick = random.Random(f"{choice['name']}/{where}").choice(attempts)
        elif by == "any":
            pick = max(attempts, key=lambda each: each[2])
        elif by == "majority":
            votes = Counter(each[0]["patch_hash"] for each in some)
            pick = max(some, key=lambda each: votes[each[0]["patch_hash"]])
        elif by == "checked":
            pick = max(some, key=lambda each: ended_well.get(each[1], False))
        else:
            pick = max(some, key=lambda each: likely.get(each[1], 0.0))
        taken[where] = float(pick[2])
    return taken


def last_checks(run: Run) -> dict[tuple[str, int], bool]:
    """Whether the last command of an attempt, after its last change, ended with status 0."""
    found: dict[tuple[str, int], bool] = {}
    for step in read(run.folder, "steps"):
        key, tool = (step["cell"], step["attempt"]), (step["action"] or {}).get("tool")
        if tool == "bash":
            found[key] = step["observation"].get("exit_code") == 0
        elif tool in ("edit", "write") and step["observation"]["kind"] == "ok":
            found[key] = False
    return found


def share_of_steps(hit: Callable[[Json], bool]) -> Callable[[Run, str], Values]:
    def found(run: Run, arm: str) -> Values:
        judged = {(end["cell"], end["attempt"]): where for where, end in run.judged(arm)}
        hits = defaultdict[str, list[bool]](list)
        for step in read(run.folder, "steps"):
            if (step["cell"], step["attempt"]) in judged:
                hits[judged[step["cell"], step["attempt"]]].append(hit(step))
        return {where: float(np.mean(each)) for where, each in hits.items()}

    return found


def supported(run: Run, arm: str) -> Values:
    """Of the last round; an interrupted run asks again, and its last answer counts."""
    asked = {
        (each["seed"], each["round"], each["source"]): each
        for each in read(run.folder, "questions")
        if each["arm"] == arm
    }
    last = max((number for _, number, _ in asked), default=1)
    said = defaultdict[str, list[bool]](list)
    for (seed, number, source), each in asked.items():
        if number == last:
            task = source[: source.rindex("#")].rsplit("/", 1)[-1]
            said[f"{seed}/{task}"].append(each["supported"])
    return {where: float(np.mean(each)) for where, each in said.items()}


def target_tests(run: Run, arm: str) -> Values:
    return {
        where: float(np.mean([each in ("passed", "xfailed") for each in end["fail_to_pass"].values()]))
        for where, end in run.judged(arm)
        if end["fail_to_pass"]
    }


def file_recall(run: Run, arm: str) -> Values:
    return {where: end["file_recall"] for where, end in run.judged(arm) if end.get("file_recall") is not None}


def likelihood(key: str) -> Callable[[Run, str], Values]:
    def found(run: Run, arm: str) -> Values:
        return {
            f"{each['seed']}/{task}": float(value)
            for each in read(run.folder, "likelihoods")
            if each["arm"] == arm and each["last"]
            for task, value in each.get(key, {}).items()
        }

    return found


def forgetting(run: Run, arm: str) -> Values:
    found: Values = {}
    for seed in run.plan["seeds"]:
        after = {
            each["batches"]: each
            for each in read(run.folder, "likelihoods")
            if each["arm"] == arm and each["seed"] == seed and each["batches"]
        }
        if not after or sorted(after) != list(range(1, len(after) + 1)):
            continue
        for task, batch in after[len(after)]["batch_of"].items():
            training_context = [float(after[at]["learned"][task]) for at in range(batch, len(after) + 1)]
            if len(training_context) > 1:
                found[f"{seed}/{task}"] = max(training_context[:-1]) - training_context[-1]
    return found


METRICS: dict[str, Callable[[Run, str], Values]] = {
    "resolved": resolved,
    "valid_actions": share_of_steps(lambda step: step["action"] is not None),
    "interventions": share_of_steps(lambda step: bool(step["reply"].get("overseen"))),
    "answers_supported": supported,
    "f2p_fraction": target_tests,
    "file_recall": file_recall,
    "action_log_likelihood": likelihood("held_out"),
    "retention": likelihood("learned"),
    "forgetting.standard": forgetting,
}


# Differences


@cache
def quantile(tail: float, freedom: float) -> float:
    """Of Student's t, that leaves `tail` above it."""
    return float(t.isf(tail, freedom))


def clustered(values: Sequence[float], clusters: Sequence[str]) -> tuple[float, float]:
    """Of the constant in a regression of the values on nothing else: its variance (CR2, by the roots of the clusters' blocks of the
    residual maker), and Satterthwaite's degrees of freedom where members of a cluster are one."""
    y = np.asarray(values, float)
    names, at = np.unique(np.asarray(clusters), return_inverse=True)
    if len(names) < 2:
        return 0.0, 0.0
    members = (at == np.arange(len(names))[:, None]).astype(float)
    maker = np.eye(len(y)) - 1 / len(y)
    rows = []
    for mine in members.astype(bool):
        values_of, vectors = np.linalg.eigh(maker[np.ix_(mine, mine)])
        root = vectors @ np.diag(values_of**-0.5) @ vectors.T
        rows.append(root.sum(axis=0) @ maker[mine] / len(y))
    found = np.asarray(rows)
    spread = found @ members.T
    shape = spread @ spread.T
    variance = float(((found @ y) ** 2).sum())
    # What rounding leaves of equal values is no variance.
    return (0.0 if variance < 1e-18 / len(y) else variance), float(np.trace(shape) ** 2 / (shape**2).sum())


def sign_flip(values: Sequence[float]) -> tuple[float, float]:
    """Two-sided p of the sum where every sign could be the other one, and how far two ways of finding it may be apart."""
    moved = np.asarray([value for value in values if abs(value) > 1e-9])
    if not len(moved):
        return 1.0, 0.0
    whole = np.rint(moved).astype(int)
    if np.allclose(moved, whole, atol=1e-9):
        chances = np.ones(1)
        for size in np.abs(whole):
            chances = np.convolve(chances, np.r_[0.5, np.zeros(2 * size - 1), 0.5])
        sums = np.arange(len(chances)) - np.abs(whole).sum()
        return min(1.0, float(chances[np.abs(sums) >= abs(whole.sum())].sum())), 0.0
    if len(moved) <= EXACT_UNITS:
        totals = np.zeros(1)
        for size in moved:
            totals = np.r_[totals - size, totals + size]
        p = float(np.mean(np.abs(totals) >= abs(moved.sum()) - 1e-9 * (len(moved) + 1)))
        # With few of them the other side is exact as well.
        return p, 0.0 if len(moved) <= 14 else DRAWN_SLACK
    signs = np.random.default_rng(1).integers(0, 2, (200_000, len(moved)), dtype=np.int8) * 2 - 1
    return float(np.mean(np.abs(signs @ moved) >= abs(moved.sum()) - 1e-9)), DRAWN_SLACK


@dataclass
class Rates:
    """Two rates on common cells."""

    cells: tuple[int, int, int, int]
    """Resolved by both, by the first, by the second, by none."""
    units: int
    effective: float
    freedom: float
    p_flip: float
    slack: float = 0.0

    @property
    def pairs(self) -> int:
        return sum(self.cells)

    @property
    def difference(self) -> float:
        return (self.cells[1] - self.cells[2]) / self.pairs

    def ends(self, tail: float) -> tuple[float, float]:
        """Of the interval that leaves out `tail` on either side, before the exact test is asked."""
        if self.units < 2:
            return -1.0, 1.0
        a, b, c, d = (cell / self.pairs for cell in self.cells)
        n, z = self.effective, quantile(tail, self.freedom)

        def score(share: float) -> tuple[float, float]:
            # The roots of (p - share)² = z² p (1 - p) / n.
            first, second = 1 + z * z / n, 2 * share + z * z / n
            apart = math.sqrt(second * second - 4 * first * share * share)
            low, high = (second - apart) / (2 * first), (second + apart) / (2 * first)
            return (0.0 if share == 0 else low), (1.0 if share == 1 else high)

        (low_1, high_1), (low_2, high_2) = score(a + b), score(a + c)
        under = (a + b) * (c + d) * (a + c) * (b + d)
        over = a * d - b * c
        over = max(over - 1 / (2 * n), 0.0) if over > 0 else over
        phi = over / math.sqrt(under) if under > 0 else 0.0
        down, up = (
            max(0.0, x * x - 2 * phi * x * y + y * y)
            for x, y in ((a + b - low_1, high_2 - a - c), (a + c - low_2, high_1 - a - b))
        )
        return max(-1.0, b - c - math.sqrt(down)), min(1.0, b - c + math.sqrt(up))

    def level_where(self, end: int, value: float) -> float:
        """The two-sided level at which an end of the interval, 0 the lower, passes a value."""
        sign = 1.0 if end == 0 else -1.0

        def beyond(log_level: float) -> float:
            return sign * (self.ends(float(np.exp(log_level)) / 2)[end] - value)

        low, high = np.log(LEAST_P), np.log(MOST_P)
        if beyond(high) <= 0:
            return 1.0
        return LEAST_P if beyond(low) > 0 else float(np.exp(brentq(beyond, low, high, xtol=1e-13)))


@dataclass
class Means:
    """A mean difference by unit."""

    pairs: int
    difference: float
    error: float
    freedom: float
    units: int
    p_flip: float
    slack: float

    def ends(self, tail: float) -> tuple[float, float] | None:
        if self.error == 0 or self.units < 2:
            return None
        half = quantile(tail, self.freedom) * self.error
        return self.difference - half, self.difference + half

    def level_where(self, end: int, value: float) -> float:
        if self.error == 0 or self.units < 2:
            return 1.0
        far = (self.difference - value) / self.error * (1 if end == 0 else -1)
        level = 2 * float(t.sf(far, self.freedom))
        return 1.0 if level > MOST_P else max(level, LEAST_P)


Found = Rates | Means


def compared(run: Run, contrast: Json) -> Found | None:
    names = arms_of(contrast)
    if run.workers(names) & run.failed:
        return None
    measure = METRICS[contrast.get("metric", "resolved")]
    return of_values(run, contrast, [measure(run, name) for name in names])


def of_values(run: Run, contrast: Json, values: Sequence[Values]) -> Found | None:
    """By rising dose."""
    common = sorted(set.intersection(*map(set, values)))
    if not common:
        return None
    if contrast.get("through"):
        doses = np.arange(len(values))
        slopes = {key: np.polyfit(doses, [each[key] for each in values], 1)[0] for key in common}
        return means(run, {key: float(slope) * (len(values) - 1) for key, slope in slopes.items()})
    against, arm = values
    moved = {key: arm[key] - against[key] for key in common}
    if contrast.get("metric", "resolved") != "resolved":
        return means(run, moved)
    return rates(run, moved, both=sum(arm[key] + against[key] == 2 for key in common))


def arms_of(contrast: Json) -> list[str]:
    return [contrast["against"], *contrast.get("through", ()), contrast["arm"]]


def rates(run: Run, moved: Mapping[str, float], both: int) -> Rates:
    d = np.asarray(list(moved.values()))
    units = [run.unit(key.split("/", 1)[1]) for key in moved]
    gains, losses, pairs = int((d > 0).sum()), int((d < 0).sum()), len(d)
    sums = defaultdict[str, float](float)
    for unit, value in zip(units, d, strict=True):
        sums[unit] += value
    simple = float(d.var()) / pairs
    most = pairs / len(sums)
    variance, freedom = clustered(list(d), units)
    effect = variance / simple if simple > 1e-18 else most
    p, slack = sign_flip(list(sums.values()))
    cells = (both, gains, losses, pairs - both - gains - losses)
    return Rates(cells, len(sums), pairs / float(np.clip(effect, 1.0, most)), freedom, p, slack)


def means(run: Run, moved: Mapping[str, float]) -> Means:
    """Every task counts as one."""
    seeds = defaultdict[str, list[float]](list)
    for key, value in moved.items():
        seeds[key.split("/", 1)[1]].append(value)
    tasks = {task: float(np.mean(values)) for task, values in seeds.items()}
    sums = defaultdict[str, float](float)
    for task, value in tasks.items():
        sums[run.unit(task)] += value
    variance, freedom = clustered(list(tasks.values()), [run.unit(task) for task in tasks])
    p, slack = sign_flip(list(sums.values()))
    return Means(
        len(moved), float(np.mean(list(tasks.values()))), variance**0.5, freedom, len(sums), p, slack
    )


# Decisions


@dataclass
class Decided:
    """A contrast with all that is said of it."""

    contrast: Json
    found: Found | None
    veto: str
    p: float
    adjusted: float = 1.0
    confidence: float = 1 - LEVEL
    interval: tuple[float, float] | None = None
    finding: str = ""


def p_of_difference(found: Found) -> float:
    return max(found.p_flip, min(found.level_where(0, 0.0), found.level_where(1, 0.0)))


def p_of_decision(contrast: Json, found: Found) -> float:
    """Of a difference, or of a margin the larger of its two one-sided tests, whichever way it is decided."""
    margin, expect = contrast.get("margin", 0.1), contrast.get("expect", "more")
    if expect == "more":
        return p_of_difference(found)
    below_margin, above_minus = found.level_where(1, margin), found.level_where(0, -margin)
    above_margin, below_minus = found.level_where(0, margin), found.level_where(1, -margin)
    inside, outside = {
        "same": (max(below_margin, above_minus), min(above_margin, below_minus)),
        "not_more": (below_margin, above_margin),
        "not_less": (above_minus, below_minus),
    }[expect]
    # What lies beyond a margin leaves out 0, which the exact test must do too.
    return min(inside, max(outside, found.p_flip)) / 2


def veto_of(run: Run, contrast: Json, pairs: int) -> str:
    """What forbids a conclusion; empty where nothing does."""
    arms = run.workers(arms_of(contrast))
    whole = [run.cells(arm) for arm in arms]
    shares = [np.mean([run.ends.get(cell, {}).get("outcome") in JUDGED for cell in cells]) for cells in whole]
    if contrast.get("metric") in OF_EACH_CELL:
        # A figure that every cell should have must be there in nearly all.
        shares.append(pairs / min(map(len, whole)))
    if min(shares) < COVERAGE:
        return "indecisive"
    if contrast.get("metric", "resolved") == "resolved":
        rates_of = [
            np.mean(list(found.values())) for name in arms_of(contrast) if (found := resolved(run, name))
        ]
        margin, expect = contrast.get("margin", 0.1), contrast.get("expect", "more")
        # Who resolves nearly everything has lost little; otherwise nothing of the margin's size could move.
        ceiling = rates_of and min(rates_of) > 1 - margin and expect != "not_less"
        if expect != "more" and rates_of and (max(rates_of) < margin or ceiling):
            return "not exercised"
    fired = {guard for each in run.rollouts.values() if each["arm"] in arms for guard in each["guards"]}
    wanted = set(contrast.get("exercised", ()))
    return "not exercised" if wanted and not wanted & fired else ""


def decide(run: Run) -> list[Decided]:
    """All contrasts in one family, before anybody asks whether the run is a pilot."""
    results = []
    for contrast in run.plan.get("contrasts", ()):
        found = compared(run, contrast)
        veto = "not measured" if found is None else veto_of(run, contrast, found.pairs)
        p = 1.0 if found is None or veto else p_of_decision(contrast, found)
        results.append(Decided(contrast, found, veto, p))
    step_down(results)
    while doubtful := [each for each in results if hangs_on_missing(run, each)]:
        for each in doubtful:
            each.veto, each.p = "indecisive", 1.0
        step_down(results)
    return results


def step_down(results: list[Decided]) -> None:
    """Holm's procedure: sets what each contrast is decided by, and how it comes out."""
    count = len(results)
    order = np.argsort([each.p for each in results], kind="stable")
    steps = np.minimum(1.0, [(count - rank) * results[at].p for rank, at in enumerate(order)])
    stop = int((np.maximum.accumulate(steps) < LEVEL).sum()) if count else 0
    for rank, at in enumerate(order):
        each = results[at]
        each.adjusted = float(np.maximum.accumulate(steps)[rank])
        level = LEVEL / (count - min(rank, stop))
        # A margin is two tests of one side, so its interval leaves out twice as much.
        sides = 1 if each.contrast.get("expect", "more") == "more" else 2
        each.confidence = 1 - sides * level
        each.interval = interval_of(each.found, sides * level)
        each.finding = each.veto or outcome(each.contrast, each.interval if rank < stop else None)


def hangs_on_missing(run: Run, each: Decided) -> bool:
    """Of rates: whether cells without a verdict could have made it another finding, had all gone for one arm and against the other."""
    if each.finding not in ("shown", "refuted") or each.contrast.get("metric", "resolved") != "resolved":
        return False
    names = arms_of(each.contrast)
    for luck in (0.0, 1.0):
        # Along a line the arms with the higher doses are helped, the others harmed.
        lots = [luck if at >= len(names) / 2 else 1 - luck for at in range(len(names))]
        filled = [supposing(run, name, lot) for name, lot in zip(names, lots, strict=True)]
        other = of_values(run, each.contrast, filled)
        if outcome(each.contrast, interval_of(other, 1 - each.confidence)) != each.finding:
            return True
    return False


def supposing(run: Run, name: str, luck: float) -> dict[str, float]:
    cells = [cell for arm in run.workers([name]) for cell in run.cells(arm)]
    return {cell.split("/", 1)[1]: luck for cell in cells} | {
        k: float(v) for k, v in resolved(run, name).items()
    }


def interval_of(found: Found | None, level: float) -> tuple[float, float] | None:
    ends = found.ends(level / 2) if found else None
    if found is None or ends is None:
        return None
    return (min(ends[0], 0.0), max(ends[1], 0.0)) if found.p_flip > level else ends


def outcome(contrast: Json, interval: tuple[float, float] | None) -> str:
    if interval is None:
        return "open"
    (low, high), margin = interval, contrast.get("margin", 0.1)
    match contrast.get("expect", "more"):
        case "more":
            shown, refuted = low > 0, high < 0
        case "same":
            shown, refuted = low > -margin and high < margin, low > margin or high < -margin
        case "not_more":
            shown, refuted = high < margin, low > margin
        case _:
            shown, refuted = low > -margin, high < -margin
    return "shown" if shown else "refuted" if refuted else "open"


# Power


def discordance(run: Run) -> float | None:
    """Of base and its first repeat."""
    arms = {
        role: next((a["name"] for a in run.plan["arms"] if a["role"] == role), None)
        for role in ("base", "again")
    }
    if None in arms.values():
        return None
    base, again = (resolved(run, str(arms[role])) for role in ("base", "again"))
    common = base.keys() & again.keys()
    return float(np.mean([base[key] != again[key] for key in common])) if common else None


def power_of(run: Run, at: int = 0) -> tuple[float, float] | None:
    """Chance that such a plan shows a contrast, were it as expected, by what it takes for granted before the data; and how
    far off that may be. None where the plan registers nothing, or of what is no yes or no."""
    contrasts = run.plan.get("contrasts", ())
    if not contrasts or contrasts[at].get("metric", "resolved") != "resolved" or not run.tasks:
        return None
    contrast, level = contrasts[at], LEVEL / len(contrasts)
    differs = contrast.get("expect", "more") == "more"
    units = round(run.worth) if run.by_repository else len(run.tasks)
    if units < 2:
        return 0.0, 0.0
    members = max(1, round(len(run.tasks) * seeds_of(run, at) / units))
    share = run.plan.get("discordance", TAKEN_DISCORDANCE)
    effect = min(contrast.get("expected", 0.1), LARGEST_EFFECT) if differs else 0.0
    varies = run.by_repository and contrast.get("expect") != "same"
    spread = run.plan.get("spread", TAKEN_SPREAD) if varies else 0.0
    rng = np.random.default_rng(20)
    true = rng.normal(effect, spread, (SIMULATED, units)) if spread else np.full((SIMULATED, units), effect)
    true = np.clip(true, -1, 1)
    # Where chance and difference would change more cells than there are, the difference stays and chance gives way.
    noise = np.minimum(share, 1 - np.abs(true)) / 2
    up, down = noise + np.where(true > 0, true, 0), noise - np.where(true < 0, true, 0)
    chances = np.stack([up, down, np.maximum(0.0, 1 - up - down)], axis=-1)
    drawn = rng.multinomial(members, chances / chances.sum(axis=-1, keepdims=True))
    hits = sum(_would_show(contrast, each, members, level) for each in drawn)
    return hits / SIMULATED, POWER_SLACK


def seeds_of(run: Run, at: int = 0) -> int:
    """Of a contrast's arm that has fewest."""
    seeds = len(run.plan["seeds"])
    contrasts = run.plan.get("contrasts", ())
    arms = [arm for arm in run.plan["arms"] if contrasts and arm["name"] in arms_of(contrasts[at])]
    return min((min(arm.get("only_seeds") or seeds, seeds) for arm in arms), default=seeds)


def _would_show(contrast: Json, drawn: Any, members: int, level: float) -> bool:
    """`drawn` has for each unit its gains, losses and the rest."""
    gains, losses, rest = (int(column) for column in drawn.sum(axis=0))
    units, pairs = len(drawn), gains + losses + rest
    sums = drawn[:, 0] - drawn[:, 1]
    d = (gains - losses) / pairs
    simple = ((gains + losses) / pairs - d * d) / pairs
    varies = float(sums.var(ddof=1)) * units / pairs**2
    effect = varies / simple if simple > 1e-18 else members
    cells = (rest // 2, gains, losses, rest - rest // 2)
    found = Rates(cells, units, pairs / min(max(effect, 1.0), members), units - 1, 0.0)
    differs = contrast.get("expect", "more") == "more"
    if outcome(contrast, interval_of(found, level if differs else 2 * level)) != "shown":
        return False
    # A margin holds 0, which the exact test may leave in the interval or not.
    return not differs or sign_flip(list(sums))[0] <= level


# Comparing


@dataclass
class Table:
    """Figure by figure: theirs, ours, and whether they are the same."""

    rows: list[tuple[str, str, str, str]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def add(self, name: str, theirs: Any, ours: Any, slack: float = 0.0) -> None:
        self.rows.append(
            (name, text(theirs), text(ours), "equal" if same(theirs, ours, slack) else "DIFFERS")
        )

    @property
    def differing(self) -> int:
        return sum(row[3] != "equal" for row in self.rows)

    def lines(self) -> Iterator[str]:
        head = ("figure", "theirs", "ours", "")
        wide = [max(len(row[at]) for row in [head, *self.rows]) for at in range(3)]
        for row in [head, *self.rows]:
            yield "  ".join(part.ljust(wide[at]) if at < 3 else part for at, part in enumerate(row)).rstrip()
        yield from (f"left out: {what}" for what in self.left_out)


def text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " to ".join(map(text, value))
    return f"{value:.10g}" if isinstance(value, float) else "none" if value is None else str(value)


def same(theirs: Any, ours: Any, slack: float) -> bool:
    if isinstance(ours, list | tuple):
        return (
            isinstance(theirs, list | tuple)
            and len(theirs) == len(ours)
            and all(same(one, other, slack) for one, other in zip(theirs, ours, strict=True))
        )
    if isinstance(ours, float) and isinstance(theirs, int | float):
        return bool(abs(theirs - ours) <= slack + 1e-9 + 1e-6 * abs(ours))
    return bool(theirs == ours)


def compare_part(table: Table, run: Run, theirs: Json, before: str) -> list[Decided]:
    """All figures of a run, or of it without the tasks that quote their fix."""
    table.add(f"{before}tasks", theirs["tasks"], len(run.tasks))
    table.add(f"{before}repositories", theirs["repositories"], run.repositories)
    table.add(f"{before}seeds", theirs["seeds"], seeds_of(run))
    table.add(f"{before}unit", theirs["unit"], "repository" if run.by_repository else "task")
    table.add(f"{before}discordance of equal arms", theirs["discordance"], discordance(run))
    decided = decide(run)
    wrong = failed_controls(run)
    table.add(f"{before}failed controls", theirs["failed_controls"], wrong)
    pilot = compare_power(table, run, theirs, before)
    names = [name_of(each.contrast) for each in decided]
    table.add(f"{before}contrasts", [each["contrast"] for each in theirs["contrasts"]], names)
    pairs = list(zip(decided, theirs["contrasts"], strict=False))
    smalls = [pilot or estimated_only(table, run, at, said, before) for at, (_, said) in enumerate(pairs)]
    broken = [
        each
        for (each, _), small in zip(pairs, smalls, strict=True)
        if each.finding == "refuted" and of_a_control(run, each.contrast) and not small
    ]
    for (each, said), small in zip(pairs, smalls, strict=True):
        distrust = wrong or (broken and each not in broken)
        if each.finding in ("shown", "refuted", "open"):
            each.finding = "not trusted" if distrust else "pilot" if small else each.finding
        compare_contrast(table, run, each, said, before)
    return decided


def compare_power(table: Table, run: Run, theirs: Json, before: str) -> bool:
    """Whether the run is a pilot."""
    power = power_of(run)
    table.add(f"{before}power", theirs["power"], power and power[0], power[1] if power else 0.0)
    if power and abs(power[0] - POWER) <= power[1]:
        table.left_out.append(f"{before}whether it is a pilot, since {power[0]:.2f} is too near to {POWER}")
        return bool(theirs["pilot"])
    ours = bool(run.plan.get("contrasts")) and (power is None or power[0] < POWER)
    table.add(f"{before}pilot", theirs["pilot"], ours)
    return ours


def estimated_only(table: Table, run: Run, at: int, said: Json, before: str) -> bool:
    """Whether the plan could not see a difference of the size that this contrast expects."""
    contrast = run.plan["contrasts"][at]
    if contrast.get("metric", "resolved") != "resolved":
        return True
    if contrast.get("expect", "more") != "more":
        return False
    power = power_of(run, at)
    name = f"{before}{name_of(contrast)}: power"
    table.add(name, said["power"], power and power[0], power[1] if power else 0.0)
    if power and abs(power[0] - POWER) <= power[1]:
        table.left_out.append(f"{name}, whether it is decided, since {power[0]:.2f} is too near to {POWER}")
        return bool(said["finding"] == "pilot")
    return power is None or power[0] < POWER


def of_a_control(run: Run, contrast: Json) -> bool:
    """Whether it says that what must not differ, or must not gain, does not."""
    roles = {arm["name"]: arm["role"] for arm in run.plan["arms"]}
    of = [roles.get(name) for name in arms_of(contrast)]
    rates = contrast.get("metric", "resolved") == "resolved" and contrast.get("expect") in (
        "same",
        "not_more",
    )
    return rates and "base" in of and ("again" in of or "control" in of)


def failed_controls(run: Run) -> list[str]:
    """Arms that play the known patch and do not resolve all, that do nothing and resolve any, or whose adapter changes nothing and
    that make other patches than base."""
    wrong = []
    learner = next((arm["name"] for arm in run.plan["arms"] if arm["role"] == "base"), None)
    patches = {
        f"{each['cell']}": each["patch_hash"] for each in (run.rollouts[key] for key in sorted(run.rollouts))
    }
    for arm in run.plan["arms"]:
        rate = list(resolved(run, arm["name"]).values())
        must = {"gold": 1.0, "noop": 0.0}.get(arm["model"]["backend"])
        learned = (arm.get("learning") or {}).get("treatment")
        cells = run.cells(arm["name"])
        bad = must is not None and (any(each != must for each in rate) or len(rate) < COVERAGE * len(cells))
        if learned == "zero_adapter":
            ours = {cell: patches[cell] for cell in run.cells(arm["name"]) if cell in patches}
            base = {cell: patches.get(f"{learner}/{cell.split('/', 1)[1]}") for cell in ours}
            both = sum(each is not None for each in base.values())
            few = arm["name"] not in run.failed and both < COVERAGE * len(cells)
            bad = bad or few or any(base[cell] not in (None, ours[cell]) for cell in ours)
        if bad:
            wrong.append(arm["name"])
    return sorted(wrong)


def compare_contrast(table: Table, run: Run, ours: Decided, theirs: Json, before: str) -> None:
    found, contrast, name = ours.found, ours.contrast, f"{before}{name_of(ours.contrast)}: "
    slack = found.slack if found else 0.0
    paired = found if isinstance(found, Rates) else None
    unit = "repository" if run.by_repository else "task"
    table.add(f"{name}metric", theirs["metric"], contrast.get("metric", "resolved"))
    table.add(f"{name}expected", theirs["expect"], contrast.get("expect", "more"))
    table.add(f"{name}pairs", theirs["pairs"], found and found.pairs)
    table.add(f"{name}gains", theirs["gains"], paired and paired.cells[1])
    table.add(f"{name}losses", theirs["losses"], paired and paired.cells[2])
    table.add(f"{name}difference", theirs["difference"], found and found.difference)
    table.add(f"{name}unit", theirs["unit"], found and unit)
    table.add(f"{name}units", theirs["units"], found and found.units)
    table.add(f"{name}effective pairs", theirs["effective"], paired and paired.effective)
    table.add(f"{name}confidence", theirs["confidence"], ours.confidence)
    table.add(f"{name}interval", theirs["interval"], ours.interval)
    table.add(f"{name}p by itself", theirs["p"], found and p_of_difference(found), slack)
    table.add(f"{name}p in its family", theirs["p_adjusted"], ours.adjusted, slack * 10)
    table.add(f"{name}finding", theirs["finding"], ours.finding)
    table.add(f"{name}claim", theirs["claim"], claim_of(contrast, ours.finding))
    table.add(f"{name}sentence", theirs["sentence"], sentence_of(contrast, ours.finding))


def sentence_of(contrast: Json, finding: str) -> str:
    """What the plan's author wrote for an outcome."""
    return " ".join(contrast[finding].split()) if finding in ("shown", "refuted", "open") else ""


def claim_of(contrast: Json, finding: str) -> str:
    """What follows from a finding, in the words of docs/statistics.md."""
    if finding in NOTHING_FOLLOWS:
        return NOTHING_FOLLOWS[finding]
    metric, expect = contrast.get("metric", "resolved"), contrast.get("expect", "more")
    arm, against = contrast["arm"], contrast["against"]
    scale, places, unit = (1, 3, "nats per token") if metric in IN_NATS else (100, 1, "points")
    margin = Decimal(f"{scale * contrast.get('margin', 0.1):.9f}").normalize()
    bound = f"{margin:.{max(places, -int(margin.as_tuple().exponent))}f} {unit}"
    rates, along = metric == "resolved", bool(contrast.get("through"))
    what = metric.replace("_", " ").replace(".", " ")
    side = {"not_more": 0, "not_less": 1}.get(expect, 0 if finding == "shown" else 1)
    if finding == "open":
        if expect != "more":
            change = {"same": "difference", "not_more": "gain", "not_less": "loss"}[expect]
            return f"a {change} of {bound} or more is neither shown nor excluded"
        both = ("a rise", "a fall") if along else ("more", "fewer") if rates else ("higher", "lower")
        return f"neither {both[0]} nor {both[1]} is shown"
    held = expect != "more" and finding == "shown"
    if along:
        what = "tasks resolved" if rates else what
        verb = ("rise", "fall")[side]
        moves = {
            "more": f"{verb}s",
            "same": f"neither rises nor falls by {bound}" if held else f"rises or falls by at least {bound}",
        }.get(expect, f"does not {verb} by {bound}" if held else f"{verb}s by at least {bound}")
        return f"the line through {len(arms_of(contrast))} arms from {against} to {arm} {moves} in {what}"
    if expect == "same":
        size = f"{'less than' if held else 'at least'} {bound} apart"
        return f"{arm} and {against} resolve {size}" if rates else f"{arm} and {against} are {size} in {what}"
    if rates:
        much = ("more", "fewer")[side] + " tasks" if expect == "more" else f"{bound} {('more', 'less')[side]}"
        verb = "does not resolve" if held else "resolves" if expect == "more" else "resolves at least"
        return f"{arm} {verb} {much} than {against}"
    much = ("higher", "lower")[side]
    if expect != "more":
        much = f"{'not' if held else 'at least'} {bound} {much}"
    return f"{arm} is {much} in {what} than {against}"


def name_of(contrast: Json) -> str:
    count = len(arms_of(contrast))
    along = f", as a line through {count} arms" if contrast.get("through") else ""
    return f"{contrast['arm']} − {contrast['against']}{along}"


NUMBER = r"([+-]?[0-9.]+(?:e[+-]?[0-9]+)?)"


def compare_printed(table: Table, run: Run, decided: Sequence[Decided], printed: Sequence[str]) -> None:
    """The sentences that people read, number by number, to half of their last digit."""
    lines = [line for line in printed if line.startswith(("primary: ", "secondary: "))]
    table.add("lines printed", len(lines), len(decided))
    for each, line in zip(decided, lines, strict=False):
        name = f"printed, {name_of(each.contrast)}: "
        scale, unit = (
            (1.0, " nats per token") if each.contrast.get("metric") in IN_NATS else (100.0, " points")
        )
        half = 0.5001 * (0.001 if scale == 1 else 0.1)
        _, _, said = line.partition(name_of(each.contrast))
        if each.found is not None:
            figures = re.match(rf": {NUMBER}{unit}", said)
            table.add(f"{name}difference", number(figures), scale * each.found.difference, half)
            # Nothing else of a line is preceded by p and an equals sign.
            p = re.search(rf"p = {NUMBER} adjusted", said)
            # Where a conclusion is forbidden no p-value was worked out.
            ours = None if each.finding in ("indecisive", "not exercised") else each.adjusted
            table.add(f"{name}p", number(p), ours, 0.051 * each.adjusted + each.found.slack * 10)
        if each.interval is not None:
            ends = re.search(rf"{NUMBER} % {NUMBER} to {NUMBER}, ", said)
            table.add(f"{name}confidence", number(ends), 100 * each.confidence, 0.0501)
            for at, end in enumerate(each.interval):
                table.add(f"{name}{('low', 'high')[at]} end", number(ends, at + 2), scale * end, half)
        words = re.search(
            r"(shown|refuted|open|pilot|not trusted|not measured|indecisive|not exercised)( on these repositories)?: ",
            said,
        )
        here = each.finding in ("shown", "refuted") and not run.by_repository
        table.add(f"{name}finding", words and words[0], f"{each.finding}{' on these repositories' * here}: ")
        wrote = sentence_of(each.contrast, each.finding).replace("“", "‘").replace("”", "’")
        ours = f"{claim_of(each.contrast, each.finding)}." + (f" The plan: “{wrote}”" if wrote else "")
        table.add(f"{name}words", words and said[words.end() :], ours)


def number(found: "re.Match[str] | None", group: int = 1) -> float | None:
    return float(found[group]) if found else None


def said_of(folder: Path) -> Json:
    """What Looper says of a run, asked of it as a person would."""
    argv = [sys.executable, "-m", "looper.cli.main", "export", str(folder), "--format", "registered"]
    asked = subprocess.run(argv, capture_output=True, text=True, check=False)
    if asked.returncode:
        raise NothingToCompare(f"Looper says nothing of {folder}: {(asked.stderr or asked.stdout).strip()}")
    return json.loads(asked.stdout)  # type: ignore[no-any-return]


def compare(folder: Path, theirs: Json) -> Table:
    """Raises NothingToCompare where a run is not finished, or registered nothing."""
    run, table = open_run(folder), Table()
    if not run.plan.get("contrasts"):
        raise NothingToCompare(f"{folder.name} registered nothing.")
    cells = {
        cell for arm in run.plan["arms"] if arm["name"] not in run.failed for cell in run.cells(arm["name"])
    }
    missing = len(cells - run.ends.keys())
    if missing or theirs["finished"] < theirs["planned"]:
        raise NothingToCompare(f"{folder.name} is not finished: {missing} of {len(cells)} cells are to do.")
    decided = compare_part(table, run, theirs, "")
    compare_printed(table, run, decided, theirs["printed"])
    leaked = set(run.manifest.get("leaked", ()))
    rest = [task for task in run.tasks if task not in leaked]
    if rest and len(rest) < len(run.tasks):
        run.tasks = rest
        if theirs["without_leaked"] is None:
            table.add("without leaked tasks: figures", None, len(rest))
        else:
            compare_part(table, run, theirs["without_leaked"], "without leaked tasks: ")
    return table


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_FOLDER")
    parser.add_argument(
        "--printed", type=Path, help="what `looper export RUN --format registered` wrote before"
    )
    asked = parser.parse_args()
    status = 0
    for folder in asked.runs:
        try:
            theirs = json.loads(asked.printed.read_text("utf-8")) if asked.printed else said_of(folder)
            table = compare(folder, theirs)
        except (NothingToCompare, OSError, ValueError) as reason:
            print(f"{folder}: nothing to compare. {reason}", file=sys.stderr)
            status = max(status, 2)
            continue
        print(f"{folder.name}")
        print("\n".join(table.lines()))
        print(f"{len(table.rows)} figures, {table.differing} differ, {len(table.left_out)} left out")
        status = 1 if table.differing else status
    return status


if __name__ == "__main__":
    sys.exit(main())
