"""What is trained on, how, and what came of it."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, model_validator

from looper.records.base import Record, content_hash
from looper.records.trajectory import ModelIdentity

Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]


class Turn(Record):
    """One message of an example."""

    role: Literal["system", "user", "assistant"]
    text: str
    supervised: bool = False
    """Whether the loss counts it; assistant turns only."""

    @model_validator(mode="after")
    def _only_the_model_is_taught_its_own_words(self) -> "Turn":
        if self.supervised and self.role != "assistant":
            raise ValueError(f"supervised: a {self.role} turn is never trained on")
        return self


class Example(Record):
    """One conversation to learn from."""

    source: str
    """Where it comes from: cell and attempt of a rollout."""
    instance_id: str
    """The task behind it; evaluation refuses tasks that stand here."""
    repo: str
    turns: tuple[Turn, ...]


class SelectionSettings(Record):
    """Which successes become examples."""

    per_task: Positive = 1
    """At most so many trajectories of one task, the shortest first."""
    drop_detours: bool = True
    """Leave out steps that changed nothing and led nowhere: errors, and reads of files that were never edited."""
    minimum_tasks: Annotated[int, Field(ge=0)] = 20
    """Fewer unique resolved tasks than this train nothing."""


class Selection(Record):
    """What became of every attempt that could have been learned from. The counts add up to `seen`."""

    seen: int
    unresolved: int
    without_verdict: int
    outside: int
    """Of tasks that are not in the training split."""
    duplicates: int
    """Resolved with the same actions as another attempt at the task."""
    over_cap: int
    taken: int
    tasks: tuple[str, ...]
    """Ids of the tasks taken, in order."""
    dropped_steps: int
    """Of the trajectories taken: steps that had no effect."""

    @model_validator(mode="after")
    def _adds_up(self) -> "Selection":
        parts = (
            self.unresolved
            + self.without_verdict
            + self.outside
            + self.duplicates
            + self.over_cap
            + self.taken
        )
        if parts != self.seen:
            raise ValueError(f"seen: {self.seen} attempts, but {parts} are accounted for")
        return self


class AdapterKind(StrEnum):
    """What is trained."""

    LORA = "lora"
    DORA = "dora"
    FULL = "full"


class Objective(StrEnum):
    """What training makes likelier."""

    IMITATION = "imitation"
    """The actions of successes: mean cross-entropy."""
    PREFERENCE = "preference"
    """Actions of a success over those of a failure at the same task: DPO (Rafailov et al. 2023)."""


class TrainingSettings(Record):
    """How an adapter is trained. The change of a weight is ΔW = multiplier · B·A, with multiplier = alpha / rank."""

    kind: AdapterKind = AdapterKind.LORA
    objective: Objective = Objective.IMITATION
    beta: PositiveFloat = 0.1
    """Of the preference objective: how far the model may leave base for a preference."""
    rank: Positive = 8
    multiplier: PositiveFloat = 2.0
    layers: Annotated[int, Field(ge=-1)] = -1
    """So many of the last layers; -1 for all."""
    learning_rate: PositiveFloat
    iterations: Positive
    batch_size: Positive
    max_tokens: Positive
    """Longest example; older history is cut from its front, never an action."""
    seed: int = 0
    clip_norm: PositiveFloat = 1.0
    validation_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the tasks that are kept aside to see when to stop; 0 trains on all and stops at `iterations`."""
    evaluate_every: Positive = 25
    patience: Positive = 4
    """Evaluations in a row without a better validation loss, after which training stops."""
    checkpoint_every: Positive = 25
    grad_checkpoint: bool = False
    """Recompute activations instead of keeping them: less memory, more time."""


class TrainingRequest(Record):
    """Everything that decides what an adapter becomes. Its hash is the adapter's name."""

    base: ModelIdentity
    make: Literal["trained", "zero", "random"]
    """`zero` changes nothing, `random` changes as much as the adapter named in `like`, in no direction."""
    settings: TrainingSettings
    examples: tuple[Example, ...]
    """What to say; with the preference objective, what to prefer."""
    rejected: tuple[Example, ...] = ()
    """With the preference objective: for each example what not to say, from the same opening."""
    like: str = ""
    """Id of the adapter whose shape and norms a random one takes."""

    @model_validator(mode="after")
    def _pairs_are_whole(self) -> "TrainingRequest":
        if self.make == "trained" and self.settings.objective is Objective.PREFERENCE:
            if len(self.examples) != len(self.rejected):
                raise ValueError(f"rejected: {len(self.rejected)} for {len(self.examples)} examples")
        elif self.rejected:
            raise ValueError("rejected: only the preference objective has any use for them")
        return self

    def adapter_id(self) -> str:
        return content_hash(self)[:16]


class LossPoint(Record):
    """A loss in nats per supervised token."""

    iteration: int
    loss: float


class AdapterRecord(Record):
    """The card of an adapter: where it comes from, what was measured while it was made."""

    id: str
    base: ModelIdentity
    make: Literal["trained", "zero", "random"]
    settings: TrainingSettings
    examples_hash: str
    tasks: tuple[str, ...]
    """Ids of every task that went in, validation included."""
    sources: tuple[str, ...]
    train_examples: int
    validation_examples: int
    supervised_tokens: int
    """In one pass over the training examples."""
    trained_tokens: int
    """Supervised tokens over all iterations."""
    too_long: int
    """Actions that fit in no window and were left out."""
    length_histogram: dict[str, int]
    """Examples by tokens: upper bound → count."""
    train_losses: tuple[LossPoint, ...]
    validation_losses: tuple[LossPoint, ...]
    kept_iteration: int
    """The weights are those after this iteration."""
    relative_change: float
    """‖ΔW‖ / ‖W‖ over all adapted matrices together (Frobenius norms)."""
    seconds: float
    """Training alone, without loading."""
    peak_memory_bytes: int
    """Of the process that made it, resident."""
    weights_hash: str
    backend: str
    """Library and version that trained."""


class TrainingEvent(Record):
    """What a trainer says while it works."""

    event: Literal["loaded", "loss", "validation", "checkpoint", "finished"]
    iteration: int = 0
    iterations: int = 0
    loss: float | None = None
    tokens_per_s: float | None = None
    """Supervised tokens."""
