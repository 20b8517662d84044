"""One experiment under several divisions of its tasks into those to learn from and those to evaluate."""

from collections.abc import Iterator, Mapping

from looper.metrics.registered import Decision, Registered
from looper.views.findings import in_units
from looper.views.runs import RunView

ROBUST, WEAK = 0.8, 0.4
"""Shares of the divisions in which a difference is above 0."""


def _decides_nothing(run: RunView) -> bool:
    return run.pilot or run.finished < run.planned or run.registered[0].finding is Decision.UNTRUSTED


def split_lines(runs: Mapping[str, RunView]) -> Iterator[str]:
    """What the primary contrast came to under each division, by its letter, and how often it was above 0.

    The divisions share their tasks, so they are described together and never tested as if they were independent.
    """
    above = measured = 0
    for letter, run in runs.items():
        found = run.registered[0] if run.registered else None
        if found is None or found.difference is None:
            yield f"split {letter}: {_name(found)}not measured"
            continue
        measured += 1
        above += found.difference.difference > 0
        yield f"split {letter}: {_name(found)}{in_units(found).removeprefix(': ')}, {found.finding.value}"
    if measured < len(runs) or not measured:
        yield f"{measured} of {len(runs)} splits were measured: how robust this is cannot be said"
        return
    if any(_decides_nothing(run) for run in runs.values()):
        yield f"above 0 in {above} of {measured} splits, of which some are pilots, unfinished or not to be trusted: how robust this is cannot be said"
        return
    share = above / measured
    word = "robust" if share >= ROBUST else "weak" if share >= WEAK else "not seen"
    yield f"above 0 in {above} of {measured} splits, which share their tasks: {word}"


def _name(found: Registered | None) -> str:
    return "" if found is None else f"{found.contrast.name} "
