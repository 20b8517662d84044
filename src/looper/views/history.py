"""Earlier experiments as tables: every share with its interval, every comparison with what it can carry, every row with the
audit's mark. None is shown as an effect that its numbers do not carry."""

import tomllib
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from looper.errors import BadInput
from looper.metrics.paired import mcnemar_exact, newcombe_paired, wilson
from looper.records.history import History, PastComparison, PastRate
from looper.untrusted import parsed_toml

ALPHA = 0.05
SOUND = ("valid", "valid_stop")
"""Marks with which a row may be read as it stands."""


def read_history(path: Path) -> History:
    """Raises BadInput where the file says something else."""
    try:
        return History.model_validate(parsed_toml(path.read_text("utf-8")))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"{path} cannot be read: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise BadInput(f"{path}, {'.'.join(map(str, first['loc']))}: {first['msg']}.") from error


def history_lines(found: History) -> Iterator[str]:
    yield "| experiment | asks as | said then | audit | why |"
    yield "|---|---|---|---|---|"
    for one in found.experiments:
        yield f"| {one.id} {one.name}, {one.date} | {one.plan} | {one.said} | {one.audit} | {one.note} |"
    yield ""
    yield "| experiment | arm | what | measured | 95 % | tasks | audit |"
    yield "|---|---|---|---:|---:|---|---|"
    for rate in found.rates:
        tasks = found.task_sets.get(rate.tasks, rate.tasks or "–")
        yield f"| {rate.experiment} | {rate.arm} | {rate.what} | {_share(rate)} | {tasks} | {_mark(rate)} |"
    yield ""
    yield "What two arms on the same tasks can carry, by exact McNemar and Newcombe's interval:"
    yield ""
    yield "| comparison | tasks | points | 95 % | p | audit | so |"
    yield "|---|---:|---:|---:|---:|---|---|"
    for pair in found.comparisons:
        yield _comparison(pair)
    yield ""
    yield "Marks: " + "; ".join(f"{name}: {said}" for name, said in found.marks.items()) + "."


def _share(rate: PastRate) -> str:
    if rate.count is None or rate.of is None:
        return "not measured | –"
    low, high = wilson(rate.count, rate.of)
    return f"{rate.count}/{rate.of} | {100 * low:.0f} to {100 * high:.0f} %"


def _mark(rate: PastRate) -> str:
    return f"{rate.audit}: {rate.note}" if rate.note else rate.audit


def _comparison(pair: PastComparison) -> str:
    table = pair.both, pair.first_only, pair.second_only, pair.neither
    low, high = newcombe_paired(*table)
    p = mcnemar_exact(pair.first_only, pair.second_only)
    difference = (pair.first_only - pair.second_only) / sum(table)
    return (
        f"| {pair.name} | {sum(table)} | {100 * difference:+.1f} | {100 * low:+.1f} to {100 * high:+.1f} | {p:.2g} | "
        f"{pair.audit} | {carried(pair, p)} |"
    )


def carried(pair: PastComparison, p: float) -> str:
    """What may be said. An arm that is not what it is called carries nothing, whatever its figures."""
    if pair.audit not in SOUND:
        return (
            f"nothing about the arm: {pair.audit}"
            if p < ALPHA
            else "no effect shown, and none could be: " + pair.audit
        )
    return "a difference" if p < ALPHA else "no effect shown"
