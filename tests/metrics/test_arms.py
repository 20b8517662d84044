"""What an arm's rates count."""

import json

import pytest
from tests.training.test_select import CHECK, FIX, attempt

from looper.metrics.arms import arm_figures
from looper.metrics.behaviour import tokens_per_resolved
from looper.records.trajectory import Trajectory, Usage
from looper.records.verdict import Outcome


def test_g14_what_failed_outside_of_the_agent_is_in_no_rate_and_is_counted() -> None:
    attempts = [
        attempt("a", Outcome.RESOLVED, CHECK, FIX),
        attempt("b", Outcome.UNRESOLVED, CHECK),
        attempt("c", Outcome.INFRA_ERROR, CHECK),
        attempt("d", Outcome.TAMPERED, CHECK),
    ]
    verdicts = [found.verdict for found in attempts]
    cells = [verdict.cell for verdict in verdicts]
    figures = arm_figures(
        "base", [*cells, "base/0/never run"], verdicts, [one.trajectory for one in attempts]
    )
    assert (figures.resolved.numerator, figures.resolved.denominator) == (1, 3)
    assert figures.infra_errors == 1 and figures.cells == 5
    assert figures.patched.denominator == 3, "nor is what it cost or left behind"


def test_the_last_verdict_of_a_cell_counts() -> None:
    failed = attempt("a", Outcome.INFRA_ERROR, CHECK).verdict
    again = failed.model_copy(update={"attempt": 2, "outcome": Outcome.RESOLVED})
    figures = arm_figures("base", [failed.cell], [failed, again], [])
    assert figures.resolved.numerator == 1 and figures.infra_errors == 0


@pytest.mark.parametrize("recorded", [int(1e308), 10**400], ids=["as large as a float", "larger"])
def test_c7_a_recorded_count_that_is_none_is_read_as_not_counted(recorded: int) -> None:
    found = attempt("a", Outcome.RESOLVED, CHECK, FIX)
    fields = json.loads(found.trajectory.to_json())
    line = json.dumps(
        {**fields, "prompt_tokens": recorded, "completion_tokens": recorded, "memory_tokens": recorded}
    )
    end, cell = Trajectory.from_json(line), found.verdict.cell
    figures = arm_figures("base", [cell], [found.verdict], [end])
    assert figures.prompt_tokens is None and figures.completion_tokens is None and figures.steps is not None
    assert tokens_per_resolved([found.verdict], {(end.cell, end.attempt): end}) is None
    assert end.memory_tokens is None and Trajectory.from_json(end.to_json()) == end
    usage = {"prompt_tokens": recorded, "completion_tokens": 5, "counted_by": "x"}
    assert Usage.from_json(json.dumps(usage)).completion_tokens == 5
