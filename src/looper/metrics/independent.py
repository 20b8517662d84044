"""Rates of two arms that share no tasks."""

from math import sqrt

from looper.metrics.paired import wilson


def newcombe_independent(first: int, of_first: int, second: int, of_second: int) -> tuple[float, float]:
    """95 % interval of the difference of two independent rates, first less second. Source: Newcombe 1998, method 10."""
    rate_1, rate_2 = first / of_first, second / of_second
    (low_1, high_1), (low_2, high_2) = wilson(first, of_first), wilson(second, of_second)
    difference = rate_1 - rate_2
    return (
        difference - sqrt((rate_1 - low_1) ** 2 + (high_2 - rate_2) ** 2),
        difference + sqrt((high_1 - rate_1) ** 2 + (rate_2 - low_2) ** 2),
    )
