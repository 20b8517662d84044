"""Whether two who judged the same things said the same."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Agreement:
    """Of two judges on things that both have judged."""

    judged: int
    same: int
    kappa: float | None
    """Cohen's kappa: agreement beyond what their rates alone would give. None where these leave no room for any."""


def agreement(pairs: Sequence[tuple[bool, bool]]) -> Agreement:
    """Source of kappa: Cohen 1960, for two judges and yes or no."""
    same = sum(first == second for first, second in pairs)
    if not pairs:
        return Agreement(0, 0, None)
    first = sum(first for first, _ in pairs) / len(pairs)
    second = sum(second for _, second in pairs) / len(pairs)
    by_chance = first * second + (1 - first) * (1 - second)
    kappa = (same / len(pairs) - by_chance) / (1 - by_chance) if by_chance < 1 else None
    return Agreement(len(pairs), same, kappa)
