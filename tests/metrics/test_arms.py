"""What an arm's rates count."""

from tests.training.test_select import CHECK, FIX, attempt

from looper.metrics.arms import arm_figures
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
