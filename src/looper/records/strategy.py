"""How one adapter is made from one batch of experience after another."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from looper.records.base import DIMENSIONLESS, Positive, Record, Unit


class FullReplay(Record):
    """Train anew on everything so far: the upper bound of keeping, and of cost."""

    name: Literal["full_replay"] = "full_replay"
    """Of the strategy."""


class Sequential(Record):
    """Go on training on the newest batch alone: what forgets."""

    name: Literal["sequential"] = "sequential"
    """Of the strategy."""


class Priority(StrEnum):
    """Which earlier examples stay in a buffer."""

    RECENCY = "recency"
    """The newest."""
    DIFFICULTY = "difficulty"
    """Those that the current adapter is worst at."""
    CONFIDENCE = "confidence"
    """Those that base was surest of when it said them."""
    DIVERSITY = "diversity"
    """Each time the one that is farthest from all chosen so far, in the base's last hidden state."""
    RANDOM = "random"
    """The control for all others."""


class PartialReplay(Record):
    """Go on training on the newest batch, mixed with a buffer of earlier examples."""

    name: Literal["partial_replay"] = "partial_replay"
    """Of the strategy."""
    buffer: Annotated[Positive, Unit("examples"), Field(examples=[20])]
    """Examples that are kept of all earlier batches together."""
    priority: Priority = Priority.RANDOM
    """Which earlier examples stay in the buffer."""
    old_per_new: Annotated[float, Field(gt=0), DIMENSIONLESS] = 1.0
    """How often the buffer is shown for each showing of the newest batch, in examples."""


class Pull(StrEnum):
    """What decides how strongly each weight is held."""

    FISHER = "fisher"
    """How much the earlier batches depend on it: elastic weight consolidation (Kirkpatrick et al. 2017)."""
    EQUAL = "equal"
    """Nothing: the control for any pull to the old weights."""


class Gathering(StrEnum):
    """What becomes of the Fisher information of earlier batches when a new one comes."""

    LATEST = "latest"
    """It is replaced."""
    MEAN = "mean"
    """All batches count alike."""
    SUM = "sum"
    """It is added to, so that weights are held ever more strongly."""


class Anchor(Record):
    """A pull towards the weights that training starts from: strength · Fᵢ · (θᵢ − θ*ᵢ)² / 2, F with mean 1."""

    pull: Pull
    """What decides how strongly each weight is held."""
    strength: Annotated[float, Field(ge=0, examples=[0.1]), DIMENSIONLESS]
    """Of the pull as a whole; 0 for none."""
    samples: Annotated[Positive, Unit("examples")] = 100
    """Examples that the Fisher information is estimated from, at most."""
    gathering: Gathering = Gathering.MEAN
    """What becomes of the Fisher information of earlier batches when a new one comes."""


class Anchored(Record):
    """Go on training on the newest batch while the old weights are held."""

    name: Literal["anchored"] = "anchored"
    """Of the strategy."""
    anchor: Anchor
    """The pull towards the old weights."""


class Division(StrEnum):
    """What the parts of a mixture are trained on."""

    BATCH = "batch"
    """One batch each."""
    TOOL = "tool"
    """Commands, reads and changes, each of all batches."""
    RANDOM = "random"
    """As many parts as there are batches, actions dealt out by chance: the control for any division."""


class Mixture(Record):
    """Experts of their own, joined by a router in each layer, or merged without one."""

    name: Literal["mixture"] = "mixture"
    """Of the strategy."""
    division: Division = Division.BATCH
    """What the parts are trained on."""
    expert_rank: Annotated[Positive, DIMENSIONLESS, Field(examples=[4])]
    """Rank of each expert."""
    experts: Annotated[Positive | None, Unit("experts"), Field(examples=[4])] = None
    """So many, each with as many successes in a row, or with actions dealt out by chance; None for one for each batch. By tool there
    is one for each kind of tool."""
    router: Literal["trained", "random", "none"] = "trained"
    """How experts are joined. `none` merges: the mean of the products B·A, which is not the product of the means."""
    top: Annotated[Positive | None, Unit("experts"), Field(examples=[1])] = None
    """Experts at work on one token; None for all, weighted."""
    router_iterations: Annotated[Positive, Unit("iterations")] = 40
    """Batches that the router learns from."""


class AdaptiveRank(Record):
    """For each batch factors of their own beside the old ones, as many as it needs; the old ones are cut by SVD where the
    sum would pass the budget."""

    name: Literal["adaptive_rank"] = "adaptive_rank"
    """Of the strategy."""
    ranks: Annotated[tuple[Positive, ...], Field(min_length=1), DIMENSIONLESS] = (1, 2, 4, 8)
    """Ranks to try, in order; a larger one is taken while it lowers the validation loss by more than `knee`."""
    knee: Annotated[float, Field(gt=0, lt=1), Unit("share")] = 0.05
    """Least share of the validation loss that a larger rank must take off."""
    budget: Annotated[Positive, DIMENSIONLESS, Field(examples=[16])]
    """Rank of the adapter at the end of every batch, at most."""
    drawn: bool = False
    """Take one of the ranks by chance: the control for choosing."""


Strategy = Annotated[
    FullReplay | Sequential | PartialReplay | Anchored | Mixture | AdaptiveRank, Field(discriminator="name")
]
