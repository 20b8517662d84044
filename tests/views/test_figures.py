"""Tables of how the arms of a run worked, and what the arms find likely, from a run in which one learned in batches."""

from dataclasses import replace
from statistics import fmean

import pytest
from tests.experiment.test_run import Project

from looper.metrics.continual import forgetting_standard
from looper.metrics.registered import Decision
from looper.records.likelihood import Likelihood
from looper.records.plan import ArmRole, Contrast, Expect, Metric, Price
from looper.records.trajectory import Guard, Trajectory
from looper.records.verdict import Outcome, Verdict
from looper.views.figures import behaviour, effort_table, likelihoods, repeats, sequence, tables
from looper.views.findings import control_lines, in_units, number_text, stratified_lines
from looper.views.runs import RunView, read_run
from looper.views.splits import split_lines


@pytest.fixture(scope="module")
def run(finished: Project) -> RunView:
    return read_run(finished.run)


def test_every_table_has_a_text_for_every_column(run: RunView) -> None:
    found = tables(run)
    assert [table.name for table in found] == ["behaviour", "effort", "repeats", "sequence", "likelihood"]
    for table in found:
        assert table.rows and all(len(row) == len(table.columns) for row in table.rows)


def test_arms_that_learned_and_base_are_asked_about_the_same_successes(run: RunView) -> None:
    asked = {arm: run.measured(arm, Metric.ACTION_LOG_LIKELIHOOD) for arm in ("base", "lora", "in_batches")}
    resolved = {where.partition("/")[2] for where, done in run.outcomes("base").items() if done}
    assert resolved and {where.partition("/")[2] for where in asked["base"]} == resolved
    assert asked["lora"].keys() == asked["base"].keys() == asked["in_batches"].keys()
    assert all(value < 0 for found in asked.values() for value in found.values())
    assert asked["lora"] != asked["base"], "the adapter was there when it was asked"


def test_the_divergence_from_base_is_of_adapters_only_and_positive(run: RunView) -> None:
    apart = {
        arm: [value for found in run.asked(arm) for value in found.kl_from_base.values()]
        for arm in ("base", "lora")
    }
    assert not apart["base"] and apart["lora"] and all(value > 0 for value in apart["lora"])


def test_a_strategy_is_asked_before_its_first_batch_and_after_each(run: RunView) -> None:
    for seed in run.manifest.plan.seeds:
        asked = [found for found in run.asked("in_batches") if found.seed == seed]
        batches = max(found.batches for found in asked)
        assert batches >= 2 and [found.batches for found in asked] == list(range(batches + 1))
        assert [found.last for found in asked] == [False] * batches + [True]
        assert set(asked[0].batch_of.values()) == set(range(1, batches + 1))
        assert asked[0].adapters == () and len({found.adapters for found in asked}) == batches + 1


def of_batches(*rows: dict[str, float]) -> list[Likelihood]:
    """Task a came with the first batch, b with the second, and so on."""
    return [
        Likelihood(
            arm="in_batches",
            seed=0,
            batches=number,
            last=number == len(rows) - 1,
            adapters=(),
            learned=row,
            batch_of={task: at for at, task in enumerate(row, 1)},
        )
        for number, row in enumerate(rows)
    ]


def test_what_was_forgotten_is_the_fall_from_the_best_since_its_own_turn(run: RunView) -> None:
    rows = of_batches(
        {"a": -9, "b": -9, "c": -9},
        {"a": -1, "b": -1, "c": -8},
        {"a": -0.5, "b": -2, "c": -8},
        {"a": -3, "b": -4, "c": -1},
    )
    asked = replace(run, likelihoods=tuple(rows))
    assert asked.measured("in_batches", Metric.FORGETTING) == {"0/a": 2.5, "0/b": 2.0}
    assert asked.measured("in_batches", Metric.RETENTION) == {"0/a": -3, "0/b": -4, "0/c": -1}
    ((scores, zero),) = asked.batch_matrices("in_batches")
    assert zero == [-9] * 3 and forgetting_standard(scores) == pytest.approx(fmean([2.5, 2.0]))
    row = next(row for row in likelihoods(asked).rows if row[0] == "in_batches")
    assert row[likelihoods(asked).columns.index("forgetting.standard")] == "2.250"


def test_an_arm_that_learned_all_together_has_kept_something_and_forgotten_nothing_that_is_known(
    run: RunView,
) -> None:
    before, _, after = of_batches({"a": -9, "b": -9}, {"a": -1, "b": -8}, {"a": -2, "b": -1})
    asked = replace(run, likelihoods=(before, after))
    assert asked.measured("in_batches", Metric.RETENTION) == {"0/a": -2, "0/b": -1}
    assert asked.measured("in_batches", Metric.FORGETTING) == {} and not asked.batch_matrices("in_batches")


def test_a_contrast_on_likelihoods_is_in_nats_and_one_that_was_not_measured_says_so(run: RunView) -> None:
    registered = run.registered[1]
    assert registered.contrast.metric is Metric.ACTION_LOG_LIKELIHOOD and registered.difference is not None
    ours, theirs = (run.measured(arm, Metric.ACTION_LOG_LIKELIHOOD) for arm in ("in_batches", "base"))
    by_task: dict[str, list[float]] = {}
    for where, value in ours.items():
        by_task.setdefault(where.partition("/")[2], []).append(value - theirs[where])
    assert registered.difference.difference == pytest.approx(fmean(map(fmean, by_task.values())))
    gone = replace(run, likelihoods=())
    assert gone.registered[1].difference is None and gone.registered[1].finding.value == "not measured"


def test_what_never_came_into_play_concludes_nothing(run: RunView) -> None:
    """A guard that fired in neither arm cannot have made the difference; one that fired in one of them can."""
    first = run.manifest.plan.contrasts[0]

    def found(guard: Guard, *, fired: bool) -> Decision:
        plan = run.manifest.plan.model_copy(
            update={"contrasts": (first.model_copy(update={"exercised": (guard,)}),)}
        )
        ends = tuple(
            end.model_copy(update={"guards": {guard: 1} if fired and end.arm == first.arm else {}})
            for end in run.trajectories
        )
        manifest = run.manifest.model_copy(update={"plan": plan})
        return replace(run, manifest=manifest, trajectories=ends).registered[0].finding

    assert found(Guard.BROKEN_PYTHON, fired=False) is Decision.NOT_EXERCISED
    assert found(Guard.BROKEN_PYTHON, fired=True) is run.registered[0].finding


def test_successes_of_repeats_are_named_and_two_figures_of_one_name_told_apart(run: RunView) -> None:
    notes = {table.name: table.note for table in tables(run)}
    assert "that base or a repeat of it resolved" in notes["likelihood"]
    assert "Rates of steps are of all steps of an arm together" in notes["behaviour"]
    assert "a contrast of interventions or valid actions is of means over rollouts" in notes["behaviour"]


def test_a_table_of_likelihoods_names_the_arms_that_were_not_asked(run: RunView) -> None:
    assert "Asked are" not in likelihoods(run).note
    plan = run.manifest.plan
    assert plan.base is not None
    again = plan.base.model_copy(update={"name": "base_again", "role": ArmRole.AGAIN, "repetition": 1})
    more = replace(
        run,
        manifest=run.manifest.model_copy(
            update={"plan": plan.model_copy(update={"arms": (*plan.arms, again)})}
        ),
    )
    assert likelihoods(more).note.endswith(
        "Asked are base and the arms that learned in the run without an overseer, so these are not: base_again."
    )


def test_what_rounds_to_nothing_has_no_sign_of_less() -> None:
    assert [number_text(value, 2) for value in (-0.004, -0.006, None)] == ["0.00", "-0.01", "–"]


def test_the_tasks_that_do_not_quote_their_fix_are_described(run: RunView) -> None:
    assert stratified_lines(run) == []
    quoted = run.tasks[0]
    marked = replace(run, manifest=run.manifest.model_copy(update={"leaked": (quoted, "elsewhere-1")}))
    lines = stratified_lines(marked)
    assert len(lines) == len(run.manifest.plan.contrasts)
    assert lines[0].startswith(
        f"described and not decided, without the 1 of {len(run.tasks)} tasks whose issue quotes the fix: lora − base: "
    )
    rest = replace(run, tasks=run.tasks[1:])
    assert rest.registered[0].difference != run.registered[0].difference or len(run.tasks) == 1
    assert in_units(rest.registered[0]) in lines[0]
    every = replace(run, manifest=run.manifest.model_copy(update={"leaked": run.tasks}))
    assert stratified_lines(every) == [
        "every task quotes its fix in its issue: nothing is left without such tasks"
    ]


def test_repeats_are_seeds_of_an_arm(run: RunView) -> None:
    table = repeats(run)
    done = list(run.outcomes("base").items())
    once = 100 * fmean(resolved for _, resolved in done)
    (row,) = (row for row in table.rows if row[0] == "base")
    assert row[1] == "2" and row[table.columns.index("pass@1")] == f"{once:.1f}"
    assert float(row[table.columns.index("pass@2")]) >= once


def test_a_single_pass_has_no_forgetting_and_says_so(run: RunView) -> None:
    table = sequence(run)
    assert "not measured (not_run)" in table.note
    (base,) = (row for row in table.rows if row[0] == "base")
    assert base[table.columns.index("forward_transfer.paper.stream")] == "0.0"
    assert base[table.columns.index("learning_slope.paired")] == "0.00"


def test_effort_is_against_base_and_leaves_cells_without_a_verdict_out(run: RunView) -> None:
    table = effort_table(run)
    assert [row[0] for row in table.rows] == ["lora", "in_batches"]
    lost = tuple(
        verdict.model_copy(update={"outcome": Outcome.INFRA_ERROR})
        if verdict.cell.startswith("lora/")
        else verdict
        for verdict in run.verdicts
    )
    (row, _) = effort_table(replace(run, verdicts=lost)).rows
    assert row == ("lora", *["–"] * 9)


def test_a_price_gives_what_each_resolved_task_cost(run: RunView) -> None:
    plan = run.manifest.plan.model_copy(update={"price": Price(input=1.0, output=10.0, currency="EUR")})
    table = behaviour(replace(run, manifest=run.manifest.model_copy(update={"plan": plan})))
    assert table.columns[-1] == "EUR per resolved" and "EUR" not in "".join(behaviour(run).columns)
    ends = [end for end in run.trajectories if end.arm == "base"]
    spent = sum((end.prompt_tokens or 0) + 10 * (end.completion_tokens or 0) for end in ends) / 1e6
    (row,) = (row for row in table.rows if row[0] == "base")
    assert float(row[-1]) == pytest.approx(spent / sum(run.outcomes("base").values()), abs=1e-4)


def test_files_that_gold_changes_are_looked_for_in_the_patch(run: RunView) -> None:
    ends: dict[str, Trajectory] = {end.cell: end for end in run.trajectories}
    judged: list[Verdict] = [found for found in run.verdicts if found.outcome.is_verdict]
    assert all(found.file_recall == 1 for found in judged if found.outcome is Outcome.RESOLVED)
    assert all(found.file_recall == 0 for found in judged if not ends[found.cell].patch)


def asked(run: RunView, expect: Expect) -> RunView:
    plan = run.manifest.plan
    contrasts = (plan.contrasts[0].model_copy(update={"expect": expect}),)
    plan = plan.model_copy(update={"contrasts": contrasts})
    return replace(run, manifest=run.manifest.model_copy(update={"plan": plan}))


def test_splits_are_described_together_as_what_the_contrast_expects_and_decide_nothing(run: RunView) -> None:
    def with_difference(value: float) -> RunView:
        (contrast, *_) = run.manifest.plan.contrasts
        swapped = Contrast(**{**contrast.model_dump(), "arm": "lora", "against": "base"})
        plan = run.manifest.plan.model_copy(update={"contrasts": (swapped,)})
        verdicts = tuple(
            found.model_copy(
                update={
                    "outcome": Outcome.RESOLVED
                    if (value > 0) == found.cell.startswith("lora/")
                    else Outcome.UNRESOLVED
                }
            )
            for found in run.verdicts
        )
        manifest = run.manifest.model_copy(update={"plan": plan})
        return replace(run, manifest=manifest, verdicts=verdicts)

    up, down = with_difference(1), with_difference(-1)
    lines = list(split_lines(dict(zip("ABCDE", (up, up, up, down, up), strict=True))))
    assert lines[0].startswith("split A: lora − base: +100.0 points") and lines[0].endswith(", pilot")
    assert lines[3].startswith("split D: lora − base: -100.0")
    assert lines[-1] == (
        "lora − base is above 0, as expected, in 4 of 5 splits: described only, since they share their tasks, and not each of them "
        "decides anything by itself"
    )
    for expect, words, fits in (
        (Expect.SAME, "the same within 10.0 points", 0),
        (Expect.NOT_MORE, "not more by 10.0 points", 1),
        (Expect.NOT_LESS, "not less by 10.0 points", 1),
    ):
        lines = list(split_lines({"A": asked(up, expect), "B": asked(down, expect)}))
        assert lines[-1].startswith(
            f"lora − base is {words}, as expected, in {fits} of 2 splits: described only, "
        )
    lost = replace(up, verdicts=())
    assert "1 of 2 splits were measured" in list(split_lines({"A": up, "B": lost}))[-1]


def test_the_spread_of_equal_arms_is_said_as_the_floor_of_any_effect(run: RunView) -> None:
    assert not any("A/A: " in line for line in control_lines(run)), "no arm repeats base here"
    arms = tuple(
        arm.model_copy(update={"role": ArmRole.AGAIN}) if arm.name == "lora" else arm
        for arm in run.manifest.plan.arms
    )
    plan = run.manifest.plan.model_copy(update={"arms": arms})
    repeated = replace(run, manifest=run.manifest.model_copy(update={"plan": plan}))
    (one,) = (one for arm, _, one in run.contrasts if arm == "lora" and one is not None)
    (line,) = (line for line in control_lines(repeated) if "A/A: " in line)
    assert f"may differ by up to {100 * max(map(abs, one.interval())):.1f} points (95 %)" in line
