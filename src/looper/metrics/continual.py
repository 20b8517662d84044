"""Figures of SWE-Bench-CL and of continual learning, each under the name of its source.

`scores[i][j]` is the score on task j after task i of a sequence was worked on (0 or 1, or passed / all tests); `zero_shot[j]` the
score on it with memory or adapter off. Both have N rows or entries, N the length of the sequence. A figure that cannot be
worked out is None, never 0: without re-tests there is no forgetting, with one task nothing to transfer to.

Sources: Joshi, Chowdhury and Uysal 2025, §7 ("paper"), their first evaluator ("v1"), Chaudhry et al. 2018, Lopez-Paz and
Ranzato 2017. There is no "CL-Score" here: it adds up quantities of unlike meaning, and three published variants of it differ.
"""

from collections.abc import Callable, Sequence
from statistics import fmean, median

Matrix = Sequence[Sequence[float]]


def plasticity(scores: Matrix) -> float:
    """Mean over all tasks, each right after its own turn."""
    return fmean(scores[at][at] for at in range(len(scores)))


def area_under_learning_curve(scores: Matrix) -> float:
    """Mean of the running means of what each task scored at its own turn."""
    own = [scores[at][at] for at in range(len(scores))]
    return fmean(fmean(own[: count + 1]) for count in range(len(own)))


def _forgetting(scores: Matrix, before: Callable[[int], float]) -> float | None:
    """Mean over all tasks but the last of what they scored before, less what they score at the end."""
    if len(scores) < 2:
        return None
    return fmean(before(task) - scores[-1][task] for task in range(len(scores) - 1))


def forgetting_paper(scores: Matrix) -> float | None:
    """Against the best up to the task's own turn."""
    return _forgetting(scores, lambda task: max(scores[at][task] for at in range(task + 1)))


def forgetting_standard(scores: Matrix) -> float | None:
    """Against the best from the task's own turn on."""
    return _forgetting(scores, lambda task: max(scores[at][task] for at in range(task, len(scores) - 1)))


def forgotten(since: Sequence[float]) -> float | None:
    """Of one task, as `forgetting_standard` has it: `since` are its scores from its own turn to the end. None for the last
    task, which nothing came after."""
    return max(since[:-1]) - since[-1] if len(since) > 1 else None


def forgetting_chaudhry(scores: Matrix) -> float | None:
    """Against the best at any time before the end."""
    return _forgetting(scores, lambda task: max(scores[at][task] for at in range(len(scores) - 1)))


def forgetting_v1(scores: Matrix) -> float | None:
    """Against the task's own turn."""
    return _forgetting(scores, lambda task: scores[task][task])


def forward_transfer_paper(scores: Matrix, zero_shot: Sequence[float]) -> float | None:
    """Mean over all tasks but the first of the score just before the task's turn, less the score without any experience."""
    if len(scores) < 2:
        return None
    return fmean(scores[task][task + 1] - zero_shot[task + 1] for task in range(len(scores) - 1))


def backward_transfer_paper(scores: Matrix) -> float | None:
    """Mean over all tasks but the last of the score at the end, less the score at the task's own turn."""
    forgotten = forgetting_v1(scores)
    return None if forgotten is None else -forgotten


def learning_slope(differences: Sequence[float]) -> float | None:
    """Slope of treatment − base on the position of the task, per position; None for fewer than two tasks."""
    return learning_slope_within([differences])


def learning_slope_within(buckets: Sequence[Sequence[float]]) -> float | None:
    """The same with positions and differences centred in each bucket of equally difficult tasks, then pooled. Positions go on
    from bucket to bucket. Where a sequence is sorted by difficulty, the plain slope is one of difficulty too."""
    up = spread = 0.0
    for bucket in buckets:
        # Only distances count, so each bucket may begin anywhere.
        middle, mean = (len(bucket) - 1) / 2, fmean(bucket) if bucket else 0.0
        up += sum((at - middle) * (value - mean) for at, value in enumerate(bucket))
        spread += sum((at - middle) ** 2 for at in range(len(bucket)))
    return up / spread if spread else None


def forward_transfer_stream(own: Sequence[float], zero_shot: Sequence[float]) -> float | None:
    """`forward_transfer_paper` of a single pass, in which the score at a task's own turn stands for the one before it."""
    return forward_transfer_paper([own] * len(own), zero_shot) if own else None


def tool_use_efficiency_paper(resolved_s: Sequence[float], all_s: Sequence[float]) -> float | None:
    """Median time of the resolved attempts over that of all; None without a success. A time, whatever its name."""
    return median(resolved_s) / median(all_s) if resolved_s else None
