"""Figures of SWE-Bench-CL and of continual learning, each under the name of its source.

`scores[i][j]` is the score on task j after task i of a sequence was worked on (0 or 1, or passed / all tests); `zero_shot[j]` the
score on it with memory or adapter off. Both have N rows or entries, N the length of the sequence. A figure that cannot be
worked out is None, never 0: without re-tests there is no forgetting, with one task nothing to transfer to.

Sources: Joshi, Chowdhury and Uysal 2025, §7 ("paper"), their first evaluator ("v1"), Chaudhry et al. 2018, Lopez-Paz and
Ranzato 2017. There is no plain "CL-Score": its variants differ, and a table names the one it shows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

Matrix = Sequence[Sequence[float]]


def accuracy(scores: Matrix) -> float:
    """Mean over all tasks after the last one."""
    return fmean(scores[-1])


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


def cl_f(plastic: float, forgotten: float | None, beta: float = 1.0) -> float | None:
    """Weighted harmonic mean of plasticity and stability, stability = 1 − forgetting; beta above 1 stresses stability."""
    if forgotten is None:
        return None
    stable = 1 - forgotten
    below = beta**2 * plastic + stable
    return (1 + beta**2) * plastic * stable / below if below else 0.0


@dataclass(frozen=True)
class Weights:
    """Of the paper's score."""

    forgetting: float = 1.0
    forward: float = 1.0
    backward: float = 1.0
    curve: float = 1.0
    beta: float = 1.0


def cl_score_paper(scores: Matrix, zero_shot: Sequence[float], weights: Weights) -> float | None:
    """Accuracy, forgetting, both transfers, the learning curve and CL-F in one sum."""
    forgotten, forward = forgetting_paper(scores), forward_transfer_paper(scores, zero_shot)
    backward = backward_transfer_paper(scores)
    balance = cl_f(plasticity(scores), forgotten, weights.beta)
    if forgotten is None or forward is None or backward is None or balance is None:
        return None
    return (
        accuracy(scores)
        - weights.forgetting * forgotten
        + weights.forward * forward
        + weights.backward * backward
        + weights.curve * area_under_learning_curve(scores)
        + balance
    )


def cl_score_v1(scores: Matrix, zero_shot: Sequence[float]) -> float | None:
    """The first evaluator's sum: no CL-F, and forgetting counted twice, once as backward transfer."""
    forgotten, forward = forgetting_v1(scores), forward_transfer_paper(scores, zero_shot)
    if forgotten is None or forward is None:
        return None
    return accuracy(scores) - forgotten + forward - forgotten + area_under_learning_curve(scores)
