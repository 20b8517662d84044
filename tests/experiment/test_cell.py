"""What one cell of a plan is worked on with."""

from looper.experiment.cell import sampling_seed
from looper.records.plan import Arm, Cell


def test_arms_of_one_seed_share_their_luck_and_repeats_do_not(arm: Arm) -> None:
    cell = Cell(arm="base", seed=0, instance_id="t-1")
    other = arm.model_copy(update={"name": "other"})
    again = arm.model_copy(update={"name": "again", "repetition": 1})
    mine = sampling_seed(cell, arm)
    assert sampling_seed(cell.model_copy(update={"arm": "other"}), other) == mine
    different = [
        sampling_seed(cell, again),
        sampling_seed(cell.model_copy(update={"seed": 1}), arm),
        sampling_seed(cell.model_copy(update={"instance_id": "t-2"}), arm),
    ]
    assert len({mine, *different}) == 4
