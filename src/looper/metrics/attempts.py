"""Several attempts at one task."""

from math import comb


def pass_at_k(attempts: int, resolved: int, k: int) -> float | None:
    """Chance that at least one of k attempts resolves, drawn without replacement; None for more than there were.

    Unbiased over the draws. Source: Chen et al. 2021.
    """
    if k > attempts:
        return None
    return 1 - comb(attempts - resolved, k) / comb(attempts, k)


def pass_all_k(attempts: int, resolved: int, k: int) -> float | None:
    """Chance that all of k attempts resolve; None for more than there were."""
    if k > attempts:
        return None
    return comb(resolved, k) / comb(attempts, k)
