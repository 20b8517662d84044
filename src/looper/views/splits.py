"""One experiment under several divisions of its tasks into those to learn from and those to evaluate."""

from collections.abc import Iterator, Mapping

from looper.metrics.registered import DECIDED, Registered
from looper.records.plan import Expect
from looper.records.text import counted
from looper.views.findings import asked_text, finding_text, in_units
from looper.views.runs import RunView


def split_lines(runs: Mapping[str, RunView]) -> Iterator[str]:
    """What the primary contrast came to under each division, by its letter, and in how many the difference is as it was expected.

    The divisions share their tasks, so they are described together and never tested as if they were independent.
    """
    measured: list[Registered] = []
    for letter, run in runs.items():
        found = run.registered[0] if run.registered else None
        if found is None or found.difference is None:
            yield f"split {letter}: {'' if found is None else f'{found.contrast.name} '}not measured"
            continue
        measured.append(found)
        yield f"split {letter}: {found.contrast.name}{asked_text(found.contrast)}{in_units(found)}, {finding_text(run, found)}"
    if len(measured) < len(runs) or not measured:
        yield f"{len(measured)} of {counted(len(runs), 'split was', 'splits were')} measured: they are not described together"
        return
    contrast = measured[0].contrast
    expected = sum(_as_expected(found) for found in measured)
    # What each split decides is said above; together they decide nothing.
    decide = all(
        run.finished == run.planned and found.finding in DECIDED
        for run, found in zip(runs.values(), measured, strict=True)
    )
    some = "" if decide else ", and not each of them decides anything by itself"
    yield (
        f"{contrast.name} is {asked_text(contrast).removeprefix(', ') or 'above 0'}, as expected, in {expected} of {len(measured)} "
        f"splits: described only, since they share their tasks{some}"
    )


def _as_expected(found: Registered) -> bool:
    """Whether the difference itself lies where the contrast expects it, however sure that is."""
    contrast = found.contrast
    value = found.difference.difference if found.difference is not None else 0.0
    return {
        Expect.MORE: value > 0,
        Expect.SAME: abs(value) < contrast.margin,
        Expect.NOT_MORE: value < contrast.margin,
        Expect.NOT_LESS: value > -contrast.margin,
    }[contrast.expect]
