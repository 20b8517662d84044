"""How an arm worked: every share with its own denominator, and nothing where nothing was counted."""

from tests.training.test_select import CHECK, DONE, FIX, LOOK, REFUSED, attempt, step

from looper.metrics.behaviour import (
    StepCounts,
    f2p_fraction,
    rollout_rates,
    step_rates,
    tokens_per_resolved,
    verdict_rates,
)
from looper.records.trajectory import Guard, Observation, ObservationKind, ReplyProblem, StopReason
from looper.records.verdict import Outcome, TestOutcome
from looper.views.index import StepIndex

TASKS = frozenset({"t"})


def test_shares_of_steps_have_their_own_denominators() -> None:
    cut = step(1, None).model_copy(update={"problem": ReplyProblem.TRUNCATED})
    near = step(5, FIX).model_copy(
        update={"observation": Observation(kind=ObservationKind.OK, text="ok", tolerant=True)}
    )
    several = step(6, None).model_copy(update={"problem": ReplyProblem.SEVERAL_ACTIONS})
    steps = [
        *(step(1, CHECK), step(2, LOOK), step(3, FIX, REFUSED), step(4, FIX)),
        *(near, near, step(4, FIX), cut, several, several, step(7, LOOK)),
    ]
    index = StepIndex()
    for place, one in enumerate(steps):
        index.add(place, one)
    counts = StepCounts.together(entry.counts for entry in index.attempts.values())
    rates = step_rates(counts, TASKS)
    counted = {name: (rate.numerator, rate.denominator) for name, rate in rates.items()}
    assert counted == {
        "valid_action_rate": (8, 11),
        "truncated_action_rate": (1, 11),
        "ambiguous_action_rate": (2, 11),
        "intervention_rate": (0, 11),
        "tool_success_rate": (7, 8),
        "edit_exact_rate": (2, 5),
        "edit_tolerant_rate": (2, 5),
        "edit_refused_rate": (1, 5),
    }
    assert step_rates(StepCounts(), TASKS)["valid_action_rate"].value is None


def test_shares_of_rollouts_name_how_they_ended() -> None:
    done = attempt("t", Outcome.RESOLVED, CHECK, DONE).trajectory
    stalled = done.model_copy(
        update={"stop_reason": StopReason.STALLED, "patch": "", "guards": {Guard.PREMATURE_DONE: 1}}
    )
    rates = rollout_rates([done, stalled, stalled], TASKS)
    assert (rates["stalled_rate"].numerator, rates["stalled_rate"].denominator) == (2, 3)
    assert rates["empty_patch_rate"].numerator == 2 and rates["premature_done_rate"].numerator == 2
    assert rates["step_limit_rate"].numerator == 0


def test_verdicts_say_what_was_fixed_broken_or_changed_in_vain() -> None:
    passed, failed = TestOutcome.PASSED, TestOutcome.FAILED
    good = attempt("a", Outcome.RESOLVED, FIX)
    bad = attempt("b", Outcome.UNRESOLVED, FIX)
    lost = attempt("c", Outcome.INFRA_ERROR, FIX)
    verdicts = [
        good.verdict.model_copy(update={"fail_to_pass": {"x": passed}, "pass_to_pass": {"y": passed}}),
        bad.verdict.model_copy(
            update={"fail_to_pass": {"x": passed, "z": failed}, "pass_to_pass": {"y": failed}}
        ),
        lost.verdict,
    ]
    ends = {(item.trajectory.cell, 1): item.trajectory for item in (good, bad, lost)}
    rates = verdict_rates(verdicts, ends)
    assert (rates["wrong_fix_rate"].numerator, rates["wrong_fix_rate"].denominator) == (1, 2)
    assert (rates["p2p_break_rate"].numerator, rates["p2p_break_rate"].tasks) == (1, frozenset({"a", "b"}))
    assert f2p_fraction(verdicts) == 0.75 and f2p_fraction([lost.verdict]) is None
    assert tokens_per_resolved(verdicts, ends) is None, "tokens were not counted"
    counted = {
        key: end.model_copy(update={"prompt_tokens": 90, "completion_tokens": 11})
        for key, end in ends.items()
    }
    assert tokens_per_resolved(verdicts, counted) == 202
    assert tokens_per_resolved([*verdicts, verdicts[0]], counted) == 151.5, (
        "two attempts share what all three cost"
    )
    assert tokens_per_resolved(verdicts[1:], counted) is None, "nothing was resolved"
