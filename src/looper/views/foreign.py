"""Runs of other harnesses, with the statistics that our own get."""

from collections.abc import Iterator, Sequence
from statistics import fmean, median

from looper.metrics.design import smallest_of_tasks
from looper.metrics.paired import paired_difference, wilson
from looper.records.foreign import ForeignRun
from looper.records.text import counted
from looper.views.findings import EXPLORATORY, NOT_MEASURED, difference_text
from looper.views.predictions import prediction_line


def foreign_lines(runs: Sequence[ForeignRun]) -> Iterator[str]:
    """Each run, then each later one against the first, on the tasks that both were judged on."""
    for run in runs:
        yield from _run_lines(run)
    first, *others = runs
    for other in others:
        yield from _against(other, first)


def _run_lines(run: ForeignRun) -> Iterator[str]:
    attempts = run.attempts
    judged = [attempt for attempt in attempts if attempt.resolved is not None]
    model = f", {run.model}" if run.model else ""
    yield f"{run.name} ({run.harness}{model}): {counted(len(attempts), 'attempt')}, {sum(not attempt.patch.strip() for attempt in attempts)} without a patch"
    yield from (f"  left out: {why}" for why in run.unread)
    if judged:
        resolved = sum(bool(attempt.resolved) for attempt in judged)
        low, high = wilson(resolved, len(judged))
        yield f"  resolved {resolved} of {len(judged)}, {100 * resolved / len(judged):.0f} %, 95 % {100 * low:.0f} to {100 * high:.0f}"
    if len(judged) < len(attempts):
        yield f"  {counted(len(attempts) - len(judged), 'attempt is', 'attempts are')} not judged; name a report (PATH=REPORT), or judge them: looper bench verify"
    steps = [attempt.steps for attempt in attempts if attempt.steps is not None]
    costs = [attempt.cost for attempt in attempts if attempt.cost is not None]
    yield f"  steps {f'{median(steps):.0f} (median of {len(steps)})' if steps else NOT_MEASURED}, cost {f'{fmean(costs):.3f} (mean of {len(costs)})' if costs else NOT_MEASURED}"


def _against(run: ForeignRun, first: ForeignRun) -> Iterator[str]:
    ours, theirs = (
        {
            f"0/{attempt.instance_id}": attempt.resolved
            for attempt in one.attempts
            if attempt.resolved is not None
        }
        for one in (run, first)
    )
    found = paired_difference(ours, theirs)
    if found is None:
        yield f"{run.name} − {first.name}: no task is judged in both"
        return
    yield f"{run.name} − {first.name} ({EXPLORATORY}): {difference_text(found)}"
    least = smallest_of_tasks(found.pairs, max(0.01, found.discordance))
    could = "no difference at all" if least is None else f"{100 * least:.0f} points"
    yield f"  smallest difference that {found.pairs} such tasks show with 80 % power: {could}"


def foreign_predictions(run: ForeignRun) -> Iterator[str]:
    """As SWE-bench defines them, to be judged here: `looper bench verify`."""
    for attempt in run.attempts:
        yield prediction_line(attempt.instance_id, run.model or run.name, attempt.patch)
