"""What an arm has been through before its tasks, as a plan says it.

One table of settings for every treatment. Which of them belong together, and which plans cannot be what they say, is refused here
where one arm alone shows it, and in `experiment/coherence` where it takes several.
"""

from enum import StrEnum
from typing import Annotated, Any, assert_never

from pydantic import Field, model_validator

from looper.records.base import DIMENSIONLESS, Positive, PositiveFloat, Record, Unit, unsaid
from looper.records.memory import Moment, Remembering, Retrieval, RetrievalSettings
from looper.records.model import ModelSpec
from looper.records.strategy import Strategy
from looper.records.training import AdapterKind, Format, Objective, SelectionSettings, TrainingSettings


class Treatment(StrEnum):
    """What experience is turned into, or what stands in its place."""

    ADAPTER = "adapter"
    """Weights trained on successes, one adapter per repository and seed."""
    ZERO_ADAPTER = "zero_adapter"
    """An adapter that changes nothing: must give what base gives, token for token."""
    RANDOM_ADAPTER = "random_adapter"
    """As much change as the trained adapter, in no direction."""
    MEMORY = "memory"
    """Earlier successes in the prompt."""
    OVERSIGHT = "oversight"
    """Earlier successes in the prompt of an overseer, which may put its own action in the place of the agent's."""

    @property
    def is_adapter(self) -> bool:
        match self:
            case Treatment.ADAPTER | Treatment.ZERO_ADAPTER | Treatment.RANDOM_ADAPTER:
                return True
            case Treatment.MEMORY | Treatment.OVERSIGHT:
                return False
            case _:
                assert_never(self)


class Source(StrEnum):
    """Where experience comes from."""

    OWN = "own"
    """The training tasks of the very repositories that are evaluated."""
    REDRAWN = "redrawn"
    """Tasks of the same form whose hidden conventions are drawn anew for every task: nothing there to learn but form."""
    GOLD = "gold"
    """The training tasks again, with the benchmark's own patch played by the agent's tools: perfect experience."""
    STALE_MINOR = "stale_minor"
    """Tasks of an older state of the repositories, of which a small part has changed since. Of real repositories: their older
    training tasks, in three ages, and `own` are then the newest."""
    STALE_MODERATE = "stale_moderate"
    """The same, of a state from before more had changed."""
    STALE_MAJOR = "stale_major"
    """The same, of a state from before most had changed."""
    GUIDED = "guided"
    """The training tasks, with an overseer that remembers and puts its own action in the place of a worse one."""


AGES = (Source.STALE_MAJOR, Source.STALE_MODERATE, Source.STALE_MINOR, Source.OWN)
"""Oldest first."""


class Writer(StrEnum):
    """Who answers the questions that an arm is then trained on."""

    BASE = "base"
    SELF = "self"
    """The arm as it is after its last round; base before the first."""
    FIRST = "first"
    """The arm as it was after its first round, so that nothing feeds on itself."""
    HYBRID = "hybrid"
    """The arm drafts as it is after its last round, and base keeps the half that it finds likelier."""


class TrainingChange(Record):
    """Where an arm's training differs from the plan's; None for as there."""

    rank: Annotated[Positive | None, DIMENSIONLESS, Field(examples=[16])] = None
    """Of the change of each matrix."""
    multiplier: Annotated[PositiveFloat | None, DIMENSIONLESS, Field(examples=[2.0])] = None
    """alpha / rank."""
    multiplier_times: Annotated[PositiveFloat | None, DIMENSIONLESS, Field(examples=[0.5])] = None
    """So many times the plan's multiplier."""
    learning_rate: Annotated[PositiveFloat | None, DIMENSIONLESS, Field(examples=[1e-4])] = None
    """Of the optimiser (Adam), the same throughout."""
    iterations: Annotated[Positive | None, Unit("iterations"), Field(examples=[60])] = None
    """Batches that are learned."""
    share: Annotated[Annotated[float, Field(gt=0, lt=1)] | None, Unit("share"), Field(examples=[0.5])] = None
    """Of the plan's iterations."""
    kind: Annotated[AdapterKind | None, Field(exclude_if=unsaid)] = None
    """What is trained."""
    layers: Annotated[
        Annotated[int, Field(ge=-1)] | None, Unit("layers"), Field(examples=[4], exclude_if=unsaid)
    ] = None
    """So many of the last layers; -1 for all."""
    batch_size: Annotated[Positive | None, Unit("examples"), Field(examples=[4], exclude_if=unsaid)] = None
    """Examples that one update is computed from."""
    max_tokens: Annotated[Positive | None, Field(examples=[1024], exclude_if=unsaid)] = None
    """Longest example; older history is cut from its front, never an action."""
    beta: Annotated[PositiveFloat | None, DIMENSIONLESS, Field(examples=[0.3], exclude_if=unsaid)] = None
    """Of the preference objective: how far the model may leave base for a preference."""
    validation_share: Annotated[
        Annotated[float, Field(ge=0, lt=1)] | None, Field(examples=[0.2], exclude_if=unsaid)
    ] = None
    """Share of the tasks that are kept aside to see when to stop; 0 for none."""

    @model_validator(mode="after")
    def _one_multiplier(self) -> "TrainingChange":
        if self.multiplier is not None and self.multiplier_times is not None:
            raise ValueError("multiplier_times: takes the place of multiplier; leave one of them out")
        return self

    def of(self, settings: TrainingSettings) -> TrainingSettings:
        """The arm's own settings. Raises pydantic.ValidationError for those that cannot be computed together."""
        own = self.model_dump(exclude_none=True, exclude={"share", "multiplier_times"})
        if self.multiplier_times is not None:
            own["multiplier"] = self.multiplier_times * settings.multiplier
        changed = TrainingSettings.model_validate(settings.model_dump() | own)
        if self.share is None:
            return changed
        return changed.model_copy(update={"iterations": max(1, round(self.share * changed.iterations))})


_OF_TRAINING = ("objective", "format", "writer", "rounds")
"""Keys of `Learning` that have a value in every arm and mean something for what is trained alone."""


class Learning(Record):
    """What an arm has been through before its tasks."""

    treatment: Treatment
    """What experience is turned into, or what stands in its place."""
    source: Source = Source.OWN
    """Where experience comes from."""
    episodes: Annotated[Positive | None, Unit("successes"), Field(examples=[2])] = None
    """Learn from at most so many successes of each repository; None for as many as every other arm. The dose of a
    dose-response."""
    objective: Objective = Objective.IMITATION
    """Of an adapter's training: what it makes likelier."""
    memory: Remembering | None = None
    """What is told in the prompt; beside an adapter too. None for nothing, and for lessons where that is the treatment."""
    teacher: Remembering | None = None
    """Of the distillation objective: what stood in the prompt of base when it said what the arm learns to say."""
    format: Format = Format.TRAJECTORY
    """The text that a success becomes, to train an adapter on."""
    pairs: Annotated[Positive | None, Unit("questions"), Field(examples=[5])] = None
    """With questions and answers: at most so many of each success."""
    shuffled: bool = False
    """Each action is taken from another place where the same tool was used: form without sense. Of preferences: which of
    a pair is the better one is drawn."""
    failures: bool = False
    """Failed attempts are learned from as well, as many as there are successes: what selection is worth."""
    failure_weight: Annotated[
        Annotated[float, Field(gt=0, lt=1)] | None, DIMENSIONLESS, Field(examples=[0.2])
    ] = None
    """Of a failed attempt against a success, where failures are learned from; None for the same."""
    masked: bool = False
    """Successes are shown whole, detours included, and only the steps that had an effect are learned."""
    recovered: Annotated[Positive | None, Unit("successes"), Field(examples=[3])] = None
    """So many of the arm's own successes after those of its source."""
    writer: Writer = Writer.BASE
    """Who answers the questions that an arm is trained on."""
    training: TrainingChange | None = None
    """Where this arm's training differs from the profile's; None for nowhere."""
    times: Annotated[PositiveFloat | None, Unit("times"), Field(examples=[0.5])] = None
    """Serve so many times the change that was trained; None for the change itself."""
    overseer: ModelSpec | None = None
    """Of oversight: who oversees; None for the arm's own model. It is the overseer that remembers."""
    overseen: bool = False
    """Work under the plan's overseer with what was trained: whether there is less for it to do."""
    blind: bool = False
    """Of an overseer: it steps in as often, at drawn steps, and has nothing to say."""
    rounds: Annotated[Positive, Unit("rounds")] = 1
    """After each round the arm itself works on the training tasks, and the next one learns from all successes so far."""
    elsewhere: bool = False
    """Work on each repository with what was learned in the next one: shows what learning makes forget."""
    strategy: Strategy | None = None
    """One adapter for all repositories, made from one batch after another; None for one adapter per repository."""
    batches: Annotated[Positive | None, Unit("batches"), Field(examples=[2])] = None
    """With a strategy: stop after so many batches; None for all."""

    @property
    def needs_experience(self) -> bool:
        return self.memory is None or self.memory.kind.traits.needs_experience

    @property
    def made_from_another(self) -> bool:
        """Whether its adapter is made from that of an arm that is plainly trained."""
        return self.treatment is Treatment.RANDOM_ADAPTER or (
            self.treatment is Treatment.ADAPTER and self.times is not None
        )

    @property
    def has_overseer(self) -> bool:
        return self.overseen or self.treatment is Treatment.OVERSIGHT

    @property
    def remembers(self) -> Remembering | None:
        if self.memory is None and self.treatment in (Treatment.MEMORY, Treatment.OVERSIGHT):
            return Remembering()
        return self.memory

    def in_force(self) -> dict[str, Any]:
        """Its keys that can make a difference, as JSON: of what is not trained none of a training, of a memory without items none of how
        they are chosen, and what is told as it is resolved."""
        found, how = self.model_dump(mode="json"), self.remembers
        if self.treatment is not Treatment.ADAPTER:
            found = {key: value for key, value in found.items() if key not in _OF_TRAINING}
        elif self.format is not Format.SELF_QA:
            del found["writer"]
        if not self.needs_experience:
            del found["source"]
        if how is not None:
            chosen = how.model_dump(mode="json")
            found["memory"] = chosen if how.kind.traits.has_items else {"kind": chosen["kind"]}
        return found

    @model_validator(mode="after")
    def _fits_together(self) -> "Learning":
        trained = self.treatment is Treatment.ADAPTER
        plain, distils = (self.objective is one for one in (Objective.IMITATION, Objective.DISTILLATION))
        wrong = {
            "teacher: belongs to the distillation objective, which needs one": distils
            != (self.teacher is not None),
            "teacher: reads its memory at the start; leave moment out": self.teacher is not None
            and self.teacher.moment is not Moment.START,
            "strategy: is for adapters that are trained by imitation": self.strategy is not None
            and not (trained and plain),
            "strategy: has one adapter for all repositories and one round": self.strategy is not None
            and (self.elsewhere or self.rounds > 1),
            "format: is for adapters that are trained by imitation": self.format is not Format.TRAJECTORY
            and not (trained and plain),
            "pairs: belongs to questions and answers": self.pairs is not None
            and self.format in (Format.TRAJECTORY, Format.GOLD_DIFF),
            "batches: belongs to a strategy": self.batches is not None and self.strategy is None,
            "shuffled: is for adapters that are trained by imitation or preference": self.shuffled
            and not (trained and not distils),
            "failures: are for adapters that imitate trajectories": self.failures
            and not (trained and plain and self.format is Format.TRAJECTORY),
            "failure_weight: belongs to failures": self.failure_weight is not None and not self.failures,
            "masked: is for adapters that imitate successes": (
                self.masked
                and not (trained and plain and self.format is Format.TRAJECTORY and not self.failures)
            ),
            "writer: belongs to self_qa in two rounds or more": self.writer is not Writer.BASE
            and (self.format is not Format.SELF_QA or self.rounds < 2),
            "training: belongs to what is trained": self.training is not None and not trained,
            "times: belongs to one adapter for each repository, trained in one round": (
                self.times is not None
                and (not self.treatment.is_adapter or self.strategy is not None or self.rounds > 1)
            ),
            "recovered: the arm's own successes are its source already": self.recovered is not None
            and self.source is Source.OWN,
            "blind: belongs to oversight": self.blind and self.treatment is not Treatment.OVERSIGHT,
            "overseer: belongs to oversight": self.overseer is not None
            and self.treatment is not Treatment.OVERSIGHT,
            "overseen: is for adapters that have no memory; oversight has its overseer anyway": self.overseen
            and not (self.treatment.is_adapter and self.memory is None),
            "memory: the gold patch is told to an arm that learns nothing else": not self.needs_experience
            and self.treatment is not Treatment.MEMORY,
            "rounds: only what is trained has rounds": self.rounds > 1 and not trained,
            "rounds: are for an arm's own experience": self.rounds > 1 and self.source is not Source.OWN,
        }
        for said, holds in wrong.items():
            if holds:
                raise ValueError(said)
        return self


class Split(StrEnum):
    """Which tasks of a repository are for learning."""

    FIRST = "first"
    """The earliest."""
    LAST = "last"
    """The latest."""
    ODD = "odd"
    """The first, third, fifth …"""
    DRAWN = "drawn"
    """By chance, the same with the same seed."""
    COUPLED = "coupled"
    """The first that others depend on; those others are what is evaluated."""


SPLITS: dict[str, tuple[Split, int]] = {
    "A": (Split.FIRST, 0),
    "B": (Split.LAST, 0),
    "C": (Split.ODD, 0),
    "D": (Split.DRAWN, 42),
    "E": (Split.DRAWN, 123),
}
"""Divisions of a sequence that experiments are repeated under, by letter: how, and the seed of what is drawn."""


class Experience(Record):
    """How experience is gathered and what is made of it."""

    per_repo: Annotated[Positive, Unit("tasks"), Field(examples=[25])]
    """So many tasks of each repository are for learning; they are never evaluated."""
    split: Split = Split.FIRST
    """Which tasks of a repository are for learning."""
    split_seed: Annotated[int, Unit("seed")] = 0
    """Of a drawn split."""
    samples: Annotated[Positive, Unit("attempts"), Field(examples=[3])]
    """Attempts at each of them, with different sampling seeds."""
    temperature: Annotated[float, Field(ge=0, examples=[1.0]), DIMENSIONLESS]
    """Of sampling while experience is gathered."""
    selection: SelectionSettings = SelectionSettings()
    """Which successes are learned from."""
    training: TrainingSettings | None = None
    """How adapters are trained; None where no arm has one."""
    memory_items: Annotated[Positive, Unit("items")] = 1
    """At most so many items in a prompt, for arms with memory."""
    memory_bytes: Annotated[Positive | None, Field(examples=[600])] = None
    """At most so long are their texts together; None for no such limit."""
    retrieval: Retrieval = "bm25"
    """How items are found: `bm25`, by their words, or `ollama:NAME`, by the embeddings of a model that Ollama serves."""
    delivered: Annotated[float, Field(gt=0, le=1), Unit("share")] = 0.9
    """Share of its tasks that an arm's memory must have something to say to."""
    batch: Annotated[Positive | None, Unit("successes"), Field(examples=[8])] = None
    """So many successes of a repository are a batch of a strategy; None for all of them."""

    def told(self, how: Remembering) -> RetrievalSettings:
        """What an arm that remembers so is told at most: its own settings, and these where it has none."""
        return RetrievalSettings(
            items=how.items or self.memory_items,
            bytes=how.bytes or self.memory_bytes,
            retrieval=how.retrieval or self.retrieval,
        )
