"""What is trained on, how, and what came of it.

A request says everything that decides what comes of a training, and its hash is the adapter's id: the same request is never trained
twice, and a changed setting is another adapter. The card is what is known of one afterwards.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, model_validator

from looper.records.base import (
    DIMENSIONLESS,
    Count,
    Positive,
    PositiveFloat,
    Record,
    Seconds,
    Unit,
    content_hash,
    unsaid,
)
from looper.records.strategy import Anchor
from looper.records.trajectory import ModelIdentity, ToolName


class Turn(Record):
    """One message of an example."""

    role: Literal["system", "user", "assistant"]
    text: str
    supervised: bool = False
    """Whether the loss counts it; assistant turns only."""
    tool: ToolName | None = None
    """Of the action that it says; None for other turns."""
    part: Annotated[int, Field(ge=0)] | None = None
    """Number of the expert that this turn belongs to, in the examples of a mixture."""

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
    weight: PositiveFloat = 1.0
    """Of each of its tokens in the loss, against those of other examples."""


class SelectionSettings(Record):
    """Which successes become examples."""

    per_task: Annotated[Positive, Unit("attempts")] = 1
    """At most so many trajectories of one task, the shortest first."""
    drop_detours: bool = True
    """Leave out steps that changed nothing and led nowhere: errors, and reads of files that were never edited."""
    minimum_tasks: Annotated[int, Field(ge=0), Unit("tasks")] = 20
    """Fewer unique resolved tasks than this train nothing."""
    leaked: bool = False
    """Learn also from tasks whose issue quotes the fix."""


class Selection(Record):
    """What became of every attempt that could have been learned from. The counts add up to `seen`."""

    seen: Count
    unresolved: Count
    without_verdict: Count
    without_steps: Count = 0
    """Resolved, and no step of it with an effect is on record, as of patches that were graded only."""
    outside: Count
    """Of tasks that are not in the training split."""
    duplicates: Count
    """Resolved with the same actions as another attempt at the task."""
    over_cap: Count
    taken: Count
    tasks: tuple[str, ...]
    """Ids of the tasks taken, in order."""
    dropped_steps: Count
    """Of the trajectories taken: steps that had no effect."""

    @model_validator(mode="after")
    def _adds_up(self) -> "Selection":
        parts = (
            self.unresolved
            + self.without_verdict
            + self.without_steps
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
    """Low-rank factors beside each matrix (Hu et al. 2021)."""
    DORA = "dora"
    """The same with the length of each column apart (Liu et al. 2024)."""
    FULL = "full"
    """The weights themselves."""


class Objective(StrEnum):
    """What training makes likelier."""

    IMITATION = "imitation"
    """The actions of successes: mean cross-entropy."""
    PREFERENCE = "preference"
    """Actions of a success over those of a failure at the same task: DPO (Rafailov et al. 2023)."""
    DISTILLATION = "distillation"
    """What base says with something in its prompt, said without: KL divergence from base on the actions' tokens."""


class Format(StrEnum):
    """The text that a success becomes."""

    TRAJECTORY = "trajectory"
    """What the agent was shown and what it did, in its own syntax."""
    SIMPLE_QA = "simple_qa"
    """Questions about the change, and their answers."""
    SELF_QA = "self_qa"
    """The same questions, answered by base with the whole rollout before its eyes."""
    CHAIN_OF_THOUGHT = "chain_of_thought"
    """One question, answered step by step."""
    REFLEXION = "reflexion"
    """What was tried without success, and what helped."""
    CONTEXTUAL = "contextual"
    """Facts of the repository."""
    MIXED = "mixed"
    """Questions and answers, and every fifth success as a trajectory: whether the form is what does the damage."""
    GOLD_DIFF = "gold_diff"
    """The issue, answered with the benchmark's own patch."""


class Library(StrEnum):
    """What a training is computed with. The adapter is the same kind of folder afterwards."""

    MLX = "mlx"
    """Metal on macOS, CUDA or the CPU on Linux; trains everything."""
    TORCH = "torch"
    """transformers and PEFT, for machines with CUDA; plain LoRA by imitation only."""


class TrainingSettings(Record):
    """How an adapter is trained. The change of a weight is ΔW = multiplier · B·A, with multiplier = alpha / rank."""

    kind: AdapterKind = AdapterKind.LORA
    """What is trained."""
    objective: Objective = Objective.IMITATION
    """What training makes likelier; of a plan, an arm's `objective` counts."""
    beta: Annotated[PositiveFloat, DIMENSIONLESS] = 0.1
    """Of the preference objective: how far the model may leave base for a preference."""
    rank: Annotated[Positive, DIMENSIONLESS] = 8
    """Of the change of each matrix."""
    multiplier: Annotated[PositiveFloat, DIMENSIONLESS] = 2.0
    """alpha / rank: the change of a weight is multiplier · B·A."""
    layers: Annotated[int, Field(ge=-1), Unit("layers")] = -1
    """So many of the last layers; -1 for all."""
    learning_rate: Annotated[PositiveFloat, DIMENSIONLESS, Field(examples=[1e-4])]
    """Of the optimiser (Adam), the same throughout."""
    iterations: Annotated[Positive, Unit("iterations"), Field(examples=[200])]
    """Batches that are learned."""
    batch_size: Annotated[Positive, Unit("examples"), Field(examples=[8])]
    """Examples that one update is computed from."""
    max_tokens: Annotated[Positive, Field(examples=[16384])]
    """Longest example; older history is cut from its front, never an action."""
    seed: Annotated[int, Unit("seed")] = 0
    """Of initial factors and order; of a plan, the cell's seed counts."""
    clip_norm: Annotated[PositiveFloat, DIMENSIONLESS] = 1.0
    """Longest gradient; a longer one is shortened to it."""
    validation_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the tasks that are kept aside to see when to stop; 0 trains on all and stops at `iterations`."""
    evaluate_every: Annotated[Positive, Unit("iterations")] = 25
    """Between two looks at the validation loss."""
    patience: Annotated[Positive, Unit("evaluations")] = 4
    """Evaluations in a row without a better validation loss, after which training stops."""
    checkpoint_every: Annotated[Positive, Unit("iterations")] = 25
    """Between two checkpoints, from which an interrupted training goes on."""
    grad_checkpoint: bool = False
    """Recompute activations instead of keeping them: less memory, more time."""
    library: Library = Library.MLX
    """What trains."""

    @model_validator(mode="after")
    def _can_be_computed(self) -> "TrainingSettings":
        plain = self.kind is AdapterKind.LORA and self.objective is Objective.IMITATION
        if self.library is Library.TORCH and not plain:
            raise ValueError(f"library: {self.library.value} trains LoRA by imitation; mlx trains the rest")
        return self


class Make(StrEnum):
    """How the weights of an adapter come about."""

    TRAINED = "trained"
    ZERO = "zero"
    """Changes nothing."""
    RANDOM = "random"
    """Changes as much as the first of `parts`, in no direction."""
    MERGED = "merged"
    """The mean of the changes that `parts` make."""
    CUT = "cut"
    """The one part, of lower rank, as near as possible to what it was: singular value decomposition."""
    SCALED = "scaled"
    """The one part, its change multiplied by `times`."""
    MIXTURE = "mixture"
    """`parts` side by side with a router in each layer; the router is trained on the examples."""
    ROUTED_BY_CHANCE = "routed_by_chance"
    """The same with a router that is drawn and not trained."""


class TrainingRequest(Record):
    """Everything that decides what an adapter becomes. Its hash is the adapter's name."""

    base: ModelIdentity
    make: Make
    settings: TrainingSettings
    examples: tuple[Example, ...] = ()
    """What to say; with the preference objective, what to prefer."""
    rejected: tuple[Example, ...] = ()
    """With the preference objective: for each example what not to say, from the same opening."""
    teachers: tuple[Example, ...] = ()
    """With the distillation objective: each example as the teacher sees it; the supervised turns are the same."""
    start: str = ""
    """Id of the adapter that training goes on from; empty to begin anew."""
    grow: bool = False
    """Leave `start` as it is and train `rank` new factors beside it; the adapter then holds both."""
    anchor: Anchor | None = None
    """Holds the weights near those of `start`, and measures what the next training is to hold."""
    parts: tuple[str, ...] = ()
    """Ids of the adapters that this one is made of or like."""
    times: PositiveFloat | None = None
    """Of a scaled or random adapter: how many times the change of its part."""
    top: Positive | None = None
    """Of a mixture: experts at work on one token; None for all."""

    @model_validator(mode="after")
    def _is_whole(self) -> "TrainingRequest":
        trained = self.make is Make.TRAINED
        for name, of, objective in (
            ("rejected", self.rejected, Objective.PREFERENCE),
            ("teachers", self.teachers, Objective.DISTILLATION),
        ):
            if trained and self.settings.objective is objective:
                if len(self.examples) != len(of):
                    raise ValueError(f"{name}: {len(of)} for {len(self.examples)} examples")
            elif of:
                raise ValueError(f"{name}: only the {objective.value} objective has any use for them")
        if self.teachers and any(
            teacher.turns == example.turns
            for teacher, example in zip(self.teachers, self.examples, strict=True)
        ):
            raise ValueError(
                "teachers: one sees no more than its student, so there is nothing to learn from it"
            )
        one = self.make in (Make.RANDOM, Make.CUT, Make.SCALED)
        if (one and len(self.parts) != 1) or (self.make in (Make.TRAINED, Make.ZERO) and self.parts):
            raise ValueError(f"parts: {len(self.parts)} for an adapter that is {self.make.value}")
        if self.settings.library is Library.TORCH and (self.start or self.make is Make.MIXTURE):
            raise ValueError("library: torch trains adapters from their beginning; set library = mlx")
        if self.settings.library is Library.TORCH and any(found.weight != 1 for found in self.examples):
            raise ValueError("library: torch counts every example alike; set library = mlx")
        if (self.make is Make.SCALED) != (self.times is not None) and self.make is not Make.RANDOM:
            raise ValueError("times: belongs to an adapter that is scaled, or random")
        if self.grow and not self.start:
            raise ValueError("grow: there is no start to grow from")
        return self

    def adapter_id(self) -> str:
        return content_hash(self)[:16]


class Windows(Record):
    """An example as a training by imitation reads it: in pieces, each no longer than the limit and with the opening before it."""

    example: Example
    texts: tuple[tuple[str, tuple[tuple[int, int], ...]], ...]
    """Of each piece: what the model reads, and the first character and the one past the last of every span that the loss counts."""
    too_long: int
    """Actions that fit in no piece and are left out."""
    kept_aside: bool
    """For validation: nothing of it is trained on."""


class LossPoint(Record):
    """A loss in nats per supervised token."""

    iteration: int
    loss: float


class AdapterRecord(Record):
    """The card of an adapter: where it comes from, what was measured while it was made."""

    id: str
    base: ModelIdentity
    make: Make
    settings: TrainingSettings
    """As it was trained: where memory did not suffice, not as it was asked for."""
    rank: int
    """Of the change of each matrix, as it is served; 0 where there is no such bound."""
    start: str
    """Id of the adapter that training went on from; empty for none."""
    parts: tuple[str, ...]
    """Ids of the adapters that this one is made of."""
    examples_hash: str
    tasks: tuple[str, ...]
    """Ids of every task that went in, validation included, also by way of other adapters."""
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
    """‖ΔW‖ / ‖W‖ over all adapted matrices together (Frobenius norms); of a mixture with all experts at equal weight."""
    cut_error: float | None = None
    """‖ΔW − ΔW′‖ / ‖ΔW‖ where the rank was cut; None elsewhere."""
    router_accuracy: float | None = None
    """Share of supervised tokens for which the routers together prefer the expert that was trained on them, on the
    validation examples, or on all where none were kept aside; None without a router."""
    seconds: Seconds
    """Training alone, without loading."""
    cpu_seconds: Annotated[Seconds | None, Field(exclude_if=unsaid)] = None
    """Of the processor, over all its cores, in these seconds; None where nobody counted."""
    peak_memory_bytes: int
    """Of the process that made it, resident."""
    weights_hash: str
    backend: str
    """Library and version that trained."""
    run: Annotated[str | None, Field(exclude_if=unsaid)] = None
    """Name of the run whose attempts went in, where it was trained by hand; None where a run made it, whose records say so."""


class TrainingEvent(Record):
    """What a trainer says while it works."""

    event: Literal["loaded", "loss", "validation", "checkpoint", "less_memory", "finished"]
    iteration: Count = 0
    iterations: Count = 0
    loss: float | None = None
    tokens_per_s: float | None = None
    """Supervised tokens."""
    said: str = ""
    """What was done without, where memory did not suffice."""


class MeasuringRequest(Record):
    """What is to be measured: a model with an adapter or none, on examples."""

    adapter: str
    examples: tuple[Example, ...]


class Measured(Record):
    """What a model makes of one example."""

    source: str
    loss: float
    """Nats per supervised token."""
    place: tuple[float, ...]
    """Mean last hidden state over the supervised tokens."""
