"""What a run's arms were given before their tasks, and the proof that it reached the model.

`Consolidation` is what an arm learned, `Proof` a check of what it was given; `GateStop` says why a run ended in place of either, in words that
are made of its figures.
"""

from enum import StrEnum

from looper.records.base import Count, Positive, Record, Seconds
from looper.records.learning import Source, Treatment
from looper.records.plan import Gate
from looper.records.text import counted
from looper.records.training import Selection


class Consolidation(Record):
    """Experience of one repository, turned into what one arm works with."""

    arm: str
    seed: int
    repo: str
    """Empty where one adapter serves all repositories."""
    round: Positive = 1
    treatment: Treatment
    selection: Selection
    used: Count
    """Of the successes taken: those that went in, after matching with other arms."""
    adapter: str = ""
    """Id of the adapter; empty for memory."""
    made: tuple[str, ...] = ()
    """Ids of all adapters that were made on the way to it, in order, itself included."""
    after: tuple[str, ...] = ()
    """Of them, the one that stood after each batch of a strategy; one alone where there were no batches, or all were
    learned together."""
    trained_tokens: Count = 0
    """Supervised tokens over all their iterations."""
    training_s: Seconds = 0.0
    """Spent in training loops, whenever that was; what had been trained before is counted too."""
    items: tuple[str, ...] = ()
    """Ids of the memory items; empty for adapters."""
    seconds: Seconds

    @property
    def key(self) -> tuple[str, int, str, int]:
        return self.arm, self.seed, self.repo, self.round


class ProofKind(StrEnum):
    """What is shown before an arm's first task."""

    CONTEXT = "context"
    """The model reads a prompt of full length from its first word on."""
    ADAPTER_ARRIVED = "adapter_arrived"
    """Served with its adapter the model computes something else than without; of an arm that brings an adapter along to a server, that this says
    what MLX does with it, which may be what base says."""
    ZERO_IS_BASE = "zero_is_base"
    """Served with the adapter that changes nothing the model says what base says."""
    VALID_ACTIONS = "valid_actions"
    """With one adapter the model still speaks the protocol, nearly as well as base. `before` and `after` are shares."""
    ACTION_GATE = "action_gate"
    """The same of an arm, by the mean over its adapters; one that fails runs no task."""
    RETENTION = "retention"
    """What the changed model makes of successes in other repositories than it was changed for. Shown, never failed."""
    MEMORY_DELIVERED = "memory_delivered"
    """The arm's memory has something to say to its tasks."""
    ACTS = "acts"
    """At work the model answers with actions. Recorded when an arm fails at it."""


VALID_MARGIN = 0.05
"""A share of valid actions may lie so far below base's."""


class Proof(Record):
    """One check of one arm. An arm without its proofs runs no task."""

    kind: ProofKind
    arm: str
    subject: str
    """What was looked at: model and adapter digests."""
    passed: bool
    stops: bool = True
    """Whether an arm that does not pass runs no task; a plan may ask to see the answer and go on."""
    said: str
    """The finding in words, with its figures."""
    before: float | None = None
    """Of base, where something was measured; None elsewhere."""
    after: float | None = None


class StoppingGate(StrEnum):
    """A gate that ends a run, and not one arm of it, before what the run is for."""

    DATA = "data"
    """Enough resolved tasks of each repository to learn from. Figures are tasks."""
    MATERIAL = "material"
    """Something of the kind that an arm learns from: pairs to prefer, texts in its format. Without figures."""
    CONTEXT = "context"
    """As the proof of that name, like the next two. Without figures."""
    ADAPTER_ARRIVED = "adapter_arrived"
    ZERO_IS_BASE = "zero_is_base"
    UNSEEN = "unseen"
    """An adapter has seen no evaluated task. Without figures."""
    MEMORY_DELIVERED = "memory_delivered"
    """As the proof of that name. Figures are shares of tasks."""

    @property
    def is_of_the_records(self) -> bool:
        """Whether it is answered by what a run has recorded, and so again in the same way; else by servers and files, which can be put right."""
        return self in (
            StoppingGate.DATA,
            StoppingGate.MATERIAL,
            StoppingGate.UNSEEN,
            StoppingGate.MEMORY_DELIVERED,
        )

    @property
    def has_figures(self) -> bool:
        return self in (StoppingGate.DATA, StoppingGate.MEMORY_DELIVERED)

    @property
    def looks_when_all_is_learned(self) -> bool:
        """Else it looks before anything is done, or while arms learn side by side."""
        return self in (
            StoppingGate.ADAPTER_ARRIVED,
            StoppingGate.ZERO_IS_BASE,
            StoppingGate.UNSEEN,
            StoppingGate.MEMORY_DELIVERED,
        )

    @property
    def override(self) -> Gate | None:
        """The gate that `--override` knows it by; None for one that nothing passes over."""
        return {StoppingGate.DATA: Gate.DATA, StoppingGate.MEMORY_DELIVERED: Gate.MEMORY}.get(self)


class GateStop(Record):
    """A gate that ended a run. Whoever goes on with it asks again, and what passes then takes the place of this."""

    gate: StoppingGate
    arm: str
    seed: Count | None = None
    """With this and the next two it is about one consolidation; None where it is about an arm as a whole."""
    repo: str = ""
    """As in `Consolidation`."""
    round: Positive = 1
    subject: str = ""
    """As in `Proof`."""
    value: float | None = None
    """What was measured, in the gate's unit; None where the gate has no figure."""
    least: float | None = None
    """What was wanted, likewise."""
    said: str
    """The finding in words, with its figures."""
    at: str = ""
    """UTC, ISO 8601."""

    @property
    def key(self) -> tuple[StoppingGate, str, int | None, str, int, str]:
        return self.gate, self.arm, self.seed, self.repo, self.round, self.subject


def too_few_resolved(repo: str, tasks: float, seed: int, source: Source) -> str:
    """What the gate of data says of a repository, beside what is wanted."""
    tried = "" if source is Source.OWN else f" of its {source.value} experience"
    return f"{repo} has {tasks:g} resolved training tasks{tried} with seed {seed}"


def too_few_told(given: int, total: int) -> str:
    """What the gate of memory says of an arm, beside what is wanted."""
    return f"{given} of {counted(total, 'task')} told something"
