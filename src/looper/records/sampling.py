"""Where the sampling seed of a rollout comes from."""

from looper.records.base import content_hash
from looper.records.plan import Arm, Cell


def sampling_seed(cell: Cell, arm: Arm) -> int:
    """Differs by task, plan seed and repetition, never by the arm's name: arms of one seed share it."""
    return int(content_hash(str(cell.seed), str(arm.repetition), cell.instance_id)[:8], 16)
