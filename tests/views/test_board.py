"""What a real run leaves for those who watch it: who was at it, how its trainings went."""

from tests.experiment.test_run import Project

from looper.records.plan import ArmRole
from looper.views.board import curves, squares
from looper.views.runs import read_run


def test_a_run_says_who_was_at_it_and_how_its_trainings_went(finished: Project) -> None:
    run = read_run(finished.run)
    assert [session.workers for session in run.sessions] == [2] and run.sessions[0].done_before == 0
    shown = curves(run)
    assert shown["losses"] and all(training["loss"] for training in shown["losses"])
    named = {training["what"] for training in shown["losses"]}
    assert all(any(arm in what for what in named) for arm in ("lora", "in_batches"))
    for arm in run.manifest.plan.arms:
        outcomes = run.outcomes(arm.name).values()
        assert abs(shown["shares"][arm.name][-1] - sum(outcomes) / len(outcomes)) < 1e-3


def test_every_cell_is_a_square_in_the_row_of_its_arm_and_seed(finished: Project) -> None:
    run = read_run(finished.run)
    rows = dict(squares(run))
    base = next(arm for arm in run.manifest.plan.arms if arm.role is ArmRole.BASE)
    assert set(rows) == {f"{arm.name} · {seed}" for arm in run.manifest.plan.arms for seed in (0, 1)}
    for square in rows[f"{base.name} · 1"]:
        assert square.mark == ("y" if run.outcomes(base.name)[square.cell.partition("/")[2]] else "n")
