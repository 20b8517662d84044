"""How likely an arm finds actions that succeeded: what learning changes, long before it changes a verdict."""

from pydantic import Field

from looper.records.base import Count, Positive, Record

Key = tuple[str, int, int, bool]
"""Arm, seed, batches learned so far, whether the arm worked with it."""


class AttemptLikelihood(Record):
    """One attempt of an evaluation, as base sees it without being told anything."""

    cell: str
    attempt: Positive
    log_likelihood: float
    """Mean log probability of its actions, nats per token."""


class Likelihood(Record):
    """One arm with one seed, asked about successes of base. All figures are by task, in nats per supervised token."""

    arm: str
    seed: int
    batches: Count
    """Of a strategy, learned so far; 0 before the first, and where there are no batches."""
    last: bool
    """Whether the arm worked with what was asked here."""
    adapters: tuple[str, ...]
    """Ids; none for the model as it is."""
    held_out: dict[str, float] = Field(default_factory=dict)
    """Mean log probability of one success for each task of the evaluation that base or a repeat of it resolved. Asked of what the arm worked with."""
    kl_from_base: dict[str, float] = Field(default_factory=dict)
    """KL(arm ‖ base) over the vocabulary, mean over the same places; empty where the arm has no adapter."""
    learned: dict[str, float] = Field(default_factory=dict)
    """Mean log probability of what a strategy's batches teach."""
    batch_of: dict[str, Positive] = Field(default_factory=dict)
    """For the tasks of `learned`: the batch, from 1, that has them."""

    @property
    def key(self) -> Key:
        return self.arm, self.seed, self.batches, self.last
