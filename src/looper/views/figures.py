"""How the arms of a run worked, as tables: shares, effort, repeats, the sequence, likelihoods. None of it is registered unless a
contrast names it.

Each table is made whole here, as texts with its heads and a note of how it is read, so that a page and a report only lay it out.
What was not measured is a dash and never a zero.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from looper.metrics import continual
from looper.metrics.attempts import pass_all_k, pass_at_k
from looper.metrics.effort import effort
from looper.metrics.paired import repository_of
from looper.records.plan import ArmRole, Metric
from looper.records.trajectory import Trajectory
from looper.views.findings import NOT_MEASURED, number_text
from looper.views.runs import RunView, by_task

MOST_ATTEMPTS = 5


@dataclass(frozen=True)
class Table:
    """Heads, and a row of as many texts for each arm."""

    name: str
    head: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(run: RunView) -> list[Table]:
    """Those that have something to say."""
    found = (behaviour(run), effort_table(run), repeats(run), sequence(run), likelihoods(run))
    return [table for table in found if table.rows]


def behaviour(run: RunView) -> Table:
    """How the arms that a model drives worked. What happened in no arm is left out."""
    names = _driven(run)
    found = {arm: rates for arm, rates in run.behaviour.items() if arm in names}
    shown = [
        name
        for name in next(iter(found.values()), ({}, None, None))[0]
        if any(rates[name].value for rates, _, _ in found.values())
    ]
    priced = run.manifest.plan.price
    rows = []
    for arm, (rates, tests, tokens) in found.items():
        recall = list(run.measured(arm, Metric.FILE_RECALL).values())
        shares = [*(rates[name].value for name in shown), tests, fmean(recall) if recall else None]
        cost = [] if priced is None else [_cost(run, arm)]
        rows.append((arm, *(_points(share) for share in shares), number_text(tokens, 0), *cost))
    columns = ["arm", *(name.replace("_", " ") for name in shown), "target tests passed", "file recall"]
    columns += ["tokens per resolved"]
    if priced is not None:
        columns.append(f"{priced.currency} per resolved")
    # A contrast takes them rollout by rollout, so that the same name has two figures.
    note = (
        "In percent, but for the last. Rates of steps are of all steps of an arm together; a contrast of interventions or valid actions "
        "is of means over rollouts, each by its own steps."
    )
    return Table("behaviour", "How they worked", note, tuple(columns), tuple(rows))


def _cost(run: RunView, arm: str) -> str:
    """What each resolved task cost, attempts that failed included."""
    price, ends = run.manifest.plan.price, _ends(run, arm)
    resolved = sum(run.outcomes(arm).values())
    if price is None or not resolved or any(end.prompt_tokens is None for end in ends.values()):
        return NOT_MEASURED
    spent = sum(price.of(end.prompt_tokens or 0, end.completion_tokens or 0) for end in ends.values())
    return f"{spent / resolved:.4f}"


def effort_table(run: RunView) -> Table:
    """Steps, tokens and seconds of a rollout, without its tests, against base's."""
    base = _base(run)
    rows = []
    for arm, against, _ in run.contrasts:
        if arm in run.failed_arms:
            continue
        texts = []
        for name in ("steps", "tokens", "wall_s"):
            found = effort(_quantity(run, arm, name), _quantity(run, against, name), run.unit)
            if found is None:
                texts += [NOT_MEASURED] * 3
                continue
            effect = NOT_MEASURED if found.effect is None else f"{found.effect:+z.2f}"
            texts += [f"{found.base:.4g} → {found.arm:.4g}", effect, f"{found.p:.2g}"]
        rows.append((arm, *texts))
    columns = ["arm"]
    for name in ("steps", "tokens", "agent s"):
        columns += [f"{name}, median of {base} → arm", "rank-biserial", "p"]
    note = f"Over tasks, each with the mean over its seeds; p of no mean difference by {run.unit}, not adjusted: exploratory."
    return Table("effort", "What it took", note, tuple(columns), tuple(rows))


def _quantity(run: RunView, arm: str, name: str) -> dict[str, float]:
    values = {end.cell.partition("/")[2]: getattr(end, name) for end in _ends(run, arm).values()}
    return {where: value for where, value in values.items() if value is not None}


def _ends(run: RunView, arm: str) -> dict[str, Trajectory]:
    """Of the cells of an arm that have a verdict: the rollout that was judged."""
    return {
        cell: end
        for cell in run.cells(arm)
        if (verdict := run.final.get(cell)) is not None
        and verdict.outcome.is_verdict
        and (end := run.ends.get((cell, verdict.attempt))) is not None
    }


def repeats(run: RunView) -> Table:
    """What several attempts at a task are worth: seeds of an arm, and of base those of its repeats too."""
    base = _base(run)
    again = [arm.name for arm in run.manifest.plan.arms if arm.role is ArmRole.AGAIN]
    groups = {arm: [arm, *(again if arm == base else [])] for arm in _driven(run) if arm not in again}
    counted = {name: _counted(run, arms) for name, arms in groups.items()}
    most = min(MOST_ATTEMPTS, max((attempts for attempts, _ in counted.values()), default=0))
    rows = []
    for name, (attempts, resolved) in counted.items():
        if attempts < 2 or not resolved:
            continue
        texts = []
        for k in range(1, most + 1):
            for chance in (pass_at_k, pass_all_k):
                values = [chance(attempts, hits, k) for hits in resolved]
                known = [value for value in values if value is not None]
                texts.append(_points(fmean(known) if len(known) == len(values) else None))
        label = f"{name} and its repeats" if len(groups[name]) > 1 else name
        rows.append((label, str(attempts), *texts))
    columns = ["arm", "attempts"]
    for k in range(1, most + 1):
        columns += [f"pass@{k}", f"pass all {k}"]
    note = "In percent: at least one of k attempts resolves, and all of them do; mean over tasks."
    return Table("repeats", "Several attempts", note, tuple(columns), tuple(rows))


def _counted(run: RunView, arms: Sequence[str]) -> tuple[int, list[int]]:
    """Attempts at each task, and for every task that has so many: how many resolved it."""
    attempts = by_task(pair for arm in arms for pair in run.outcomes(arm).items())
    most = max(map(len, attempts.values()), default=0)
    return most, [sum(found) for found in attempts.values() if len(found) == most]


def sequence(run: RunView) -> Table:
    """Figures of SWE-Bench-CL that a single pass allows. Repositories are sequences, and count the same."""
    base = _base(run)
    own = {arm: _by_sequence(run, arm) for arm in _driven(run)}
    zero = own.get(base, {})
    rows = []
    for arm, sequences in own.items():
        if not sequences or {repo: set(found) for repo, found in sequences.items()} != {
            repo: set(found) for repo, found in zero.items()
        }:
            continue
        pairs = [(list(found.values()), list(zero[repo].values())) for repo, found in sequences.items()]
        moved = [[ours - theirs for ours, theirs in zip(*pair, strict=True)] for pair in pairs]
        buckets = [_buckets(run, found, each) for found, each in zip(sequences.values(), moved, strict=True)]
        ends = _ends(run, arm)
        resolved = [
            ends[cell]
            for where, done in run.outcomes(arm).items()
            if done and (cell := f"{arm}/{where}") in ends
        ]
        steps = sum(end.steps for end in ends.values())
        rows.append(
            (
                arm,
                _points(_macro([fmean(ours) for ours, _ in pairs])),
                _points(
                    _macro([continual.area_under_learning_curve([ours] * len(ours)) for ours, _ in pairs])
                ),
                _points(_macro([continual.forward_transfer_stream(*pair) for pair in pairs])),
                _points(_macro([continual.learning_slope(each) for each in moved]), 2),
                _points(_macro([continual.learning_slope_within(each) for each in buckets]), 2),
                number_text(
                    continual.tool_use_efficiency_paper(
                        [end.wall_s for end in resolved], [end.wall_s for end in ends.values()]
                    ),
                    2,
                ),
                number_text(len(resolved) / steps if steps else None, 3),
            )
        )
    columns = (
        "arm", "plasticity.stream", "aulc.stream", "forward_transfer.paper.stream", "learning_slope.paired",
        "learning_slope.within_difficulty", "tue.paper", "tue.memeval",
    )  # fmt: skip
    note = (
        "In points, slopes in points per position; macro averages over repositories. No task is worked on again after "
        "others, so acc, forgetting, backward transfer, stability, CL-F and every CL-Score are not measured (not_run)."
    )
    return Table("sequence", "Over the sequence, in figures", note, columns, tuple(rows))


def _by_sequence(run: RunView, arm: str) -> dict[str, dict[str, float]]:
    """Repository → task → share resolved over the seeds, in the order of the tasks."""
    outcomes = by_task(run.outcomes(arm).items())
    found: dict[str, dict[str, float]] = {}
    for task in run.tasks:
        if task in outcomes:
            found.setdefault(repository_of(task), {})[task] = fmean(outcomes[task])
    return found


def _buckets(run: RunView, tasks: Mapping[str, float], moved: Sequence[float]) -> list[list[float]]:
    """Differences by the difficulty of their tasks; nothing where that is not on record."""
    found: dict[int, list[float]] = {}
    for task, value in zip(tasks, moved, strict=True):
        if task not in run.manifest.difficulty:
            return []
        found.setdefault(run.manifest.difficulty[task], []).append(value)
    return list(found.values())


def likelihoods(run: RunView) -> Table:
    """What the arms make of actions that succeeded, in nats per token."""
    base = run.measured(_base(run), Metric.ACTION_LOG_LIKELIHOOD)
    rows = []
    for arm in dict.fromkeys(found.arm for found in run.likelihoods):
        held_out = run.measured(arm, Metric.ACTION_LOG_LIKELIHOOD)
        common = held_out.keys() & base.keys()
        moved = [held_out[key] - base[key] for key in common]
        apart = [value for found in run.asked(arm) for value in found.kl_from_base.values()]
        matrices = run.batch_matrices(arm)
        rows.append(
            (
                arm,
                _nats(list(held_out.values())),
                _nats(moved),
                _nats(apart),
                _nats(list(run.measured(arm, Metric.RETENTION).values())),
                _nats([continual.plasticity(scores) for scores, _ in matrices]),
                _nats([continual.forgetting_paper(scores) for scores, _ in matrices]),
                _nats([continual.forgetting_standard(scores) for scores, _ in matrices]),
                _nats([continual.forgetting_chaudhry(scores) for scores, _ in matrices]),
                _nats([continual.backward_transfer_paper(scores) for scores, _ in matrices]),
                _nats([continual.forward_transfer_paper(scores, zero) for scores, zero in matrices]),
            )
        )
    columns = (
        "arm", "action log likelihood", "less base's", "KL from base", "retention", "plasticity",
        "forgetting.paper", "forgetting.standard", "forgetting.chaudhry", "backward_transfer.paper",
        "forward_transfer.paper",
    )  # fmt: skip
    note = (
        "Log likelihood of one success for each task of the evaluation that base or a repeat of it resolved, under what each arm works "
        "with; KL of the arm from base at the same places. From retention on: of what each batch taught, asked after every batch; the means "
        "over the tasks of a batch are the scores of a matrix, which arms that learn all together do not have."
    )
    asked = {row[0] for row in rows}
    if others := [name for name in _driven(run) if name not in asked]:
        note += f" Asked are base and the arms that learned in the run without an overseer, so these are not: {', '.join(others)}."
    return Table("likelihood", "What they find likely, in nats per token", note, columns, tuple(rows))


def _driven(run: RunView) -> list[str]:
    """Arms that a model drives and that did not fail."""
    return [
        arm.name
        for arm in run.manifest.plan.arms
        if not arm.model.is_control and arm.name not in run.failed_arms
    ]


def _base(run: RunView) -> str:
    return run.manifest.plan.base.name if run.manifest.plan.base else ""


def _macro(values: Sequence[float | None]) -> float | None:
    """Mean over sequences; None where one of them has none."""
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def _nats(values: Sequence[float | None]) -> str:
    return number_text(_macro(values), 3)


def _points(value: float | None, digits: int = 1) -> str:
    return number_text(None if value is None else 100 * value, digits)
