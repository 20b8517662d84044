"""Candidates for the agent's own source and what became of them: every fact of a campaign, one event each.

Events are only ever appended; `evolution/state` folds them into where a campaign stands.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from looper.records.base import Count, Record, Seconds
from looper.records.gate import Benchmarked, GateResult
from looper.records.review import Review


class Phase(StrEnum):
    """Where a generation stands."""

    PROPOSED = "proposed"
    ADMITTED = "admitted"
    PREPARING = "preparing"
    RUNNING = "running"
    REPORTED = "reported"
    """The work has ended, somehow; there is a snapshot of it."""
    JUDGING = "judging"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    INCONCLUSIVE = "inconclusive"
    PROMOTED = "promoted"
    ARCHIVED = "archived"
    """Kept aside under its ref, never deleted."""
    ROLLED_BACK = "rolled_back"
    INFRA_ERROR = "infra_error"
    """The outside world failed: no verdict, no lesson, in no rate. May be tried again."""
    CANCELLED = "cancelled"

    @property
    def decided(self) -> bool:
        """Whether it counts as one of a campaign's generations."""
        return self in DECIDED

    @property
    def over(self) -> bool:
        """Whether nothing more will happen without a person's word."""
        return not NEXT[self] or self in (Phase.PROMOTED, Phase.INFRA_ERROR)


DECIDED = frozenset({Phase.ACCEPTED, Phase.REJECTED, Phase.INCONCLUSIVE, Phase.PROMOTED, Phase.ROLLED_BACK})
_ENDS = frozenset({Phase.INFRA_ERROR, Phase.CANCELLED})
NEXT: dict[Phase, frozenset[Phase]] = {
    Phase.PROPOSED: frozenset({Phase.ADMITTED, Phase.ARCHIVED}) | _ENDS,
    Phase.ADMITTED: frozenset({Phase.PREPARING}) | _ENDS,
    Phase.PREPARING: frozenset({Phase.RUNNING}) | _ENDS,
    Phase.RUNNING: frozenset({Phase.REPORTED, Phase.REJECTED}) | _ENDS,
    Phase.REPORTED: frozenset({Phase.JUDGING, Phase.REJECTED}) | _ENDS,
    Phase.JUDGING: frozenset({Phase.ACCEPTED, Phase.REJECTED, Phase.INCONCLUSIVE}) | _ENDS,
    Phase.ACCEPTED: frozenset({Phase.PROMOTED, Phase.ARCHIVED}) | _ENDS,
    Phase.REJECTED: frozenset({Phase.ARCHIVED}),
    Phase.INCONCLUSIVE: frozenset({Phase.ARCHIVED}),
    Phase.PROMOTED: frozenset({Phase.ROLLED_BACK}),
    Phase.ARCHIVED: frozenset(),
    Phase.ROLLED_BACK: frozenset(),
    Phase.INFRA_ERROR: frozenset({Phase.PREPARING, Phase.JUDGING, Phase.ARCHIVED}),
    Phase.CANCELLED: frozenset(),
}
"""What may follow what."""


class Cause(StrEnum):
    """Why a generation ended as it did, where its phase does not say it."""

    NONE = ""
    # Of the candidate, its author or its contract.
    PROPOSAL_INVALID = "proposal_invalid"
    TIMEOUT = "timeout"
    INCOMPLETE = "incomplete"
    """The author reached a limit of rounds, of tokens or of one reply."""
    NO_CHANGE = "no_change"
    PROTECTED_PATH = "protected_path"
    UNSAFE_TREE = "unsafe_tree"
    GATE = "gate"
    TESTS_TIMEOUT = "tests_timeout"
    TAMPERED = "tampered"
    CONFLICT = "conflict"
    START_CHECK = "start_check"
    HEALTH = "health"
    # Of the outside world.
    MODEL = "model"
    AUTH = "auth"
    CREDIT = "credit"
    SETUP = "setup"
    LAB_DIED = "lab_died"
    JUDGE = "judge"
    REVIEW = "review"

    @property
    def of_the_world(self) -> bool:
        return self in _OF_THE_WORLD


_OF_THE_WORLD = frozenset(
    {
        Cause.MODEL,
        Cause.AUTH,
        Cause.CREDIT,
        Cause.SETUP,
        Cause.LAB_DIED,
        Cause.JUDGE,
        Cause.REVIEW,
    }
)


class Origin(StrEnum):
    """Who wanted a generation."""

    USER = "user"
    CLI = "cli"
    REFLECT = "reflect"
    SEARCH = "search"


class Role(StrEnum):
    """Who spends tokens."""

    PRIME = "prime"
    LAB = "lab"
    REVIEWER = "reviewer"


class Criterion(Record):
    """One thing that a contract asks for."""

    id: str
    text: str
    command: str = ""
    """Run by the judge; empty for what a reviewer looks at."""


class Contract(Record):
    """What a generation is to do, as `program.md` says it."""

    title: str
    objective: str = ""
    requirements: tuple[str, ...] = ()
    criteria: Annotated[tuple[Criterion, ...], Field(min_length=1)]
    constraints: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    """That it means to change; empty where it does not say."""


class Proposed(Record):
    """A generation has its number, before anything is set up for it."""

    kind: Literal["proposed"] = "proposed"
    generation: Annotated[int, Field(gt=0)]
    parent: Count
    """0 for the version that a campaign began with."""
    source: Origin
    request: str
    """Given by whoever asked: asking twice with the same is asking once."""
    title: str
    contract_hash: str


class Moved(Record):
    """A generation has come to another phase."""

    kind: Literal["moved"] = "moved"
    generation: int
    before: Phase
    after: Phase
    cause: Cause = Cause.NONE
    evidence: str = ""
    """What was seen, in a line."""
    attempt: Annotated[int, Field(gt=0)] = 1
    base_commit: str = ""
    candidate_commit: str = ""
    candidate_hash: str = ""
    """Of the candidate's tree; what was judged is what is promoted."""
    judge: str = ""
    """Version of the gates."""


class ToolUse(Record):
    """How often an author used a tool, and how often the tool said no."""

    calls: Count
    errors: Count


class Reported(Record):
    """How the work on a candidate ended; its snapshot is the commit that the next step names."""

    kind: Literal["reported"] = "reported"
    generation: int
    stop_reason: str
    """Of the author's rollout."""
    steps: Count
    tools: dict[str, ToolUse]
    wall_s: Seconds
    insertions: Count
    deletions: Count


class GateJudged(Record):
    """A gate has looked at a candidate."""

    kind: Literal["judged"] = "judged"
    generation: int
    found: GateResult


class Reviewed(Record):
    """What a reviewer said of a candidate, over the whole of its diff."""

    kind: Literal["reviewed"] = "reviewed"
    generation: int
    model: str
    found: Review


class Spent(Record):
    """Tokens and calls of one role, settled."""

    kind: Literal["spent"] = "spent"
    generation: int
    role: Role
    calls: Count
    prompt_tokens: Count
    completion_tokens: Count
    cost_usd: float | None = None
    """None where nobody knows the price."""


class Challenged(Record):
    """A challenger has used its part of a lane's alpha."""

    kind: Literal["challenged"] = "challenged"
    generation: int
    lane: str
    candidate_hash: str
    found: Benchmarked


class Promoting(Record):
    """A promotion has passed every check: from here on it is carried out, by whoever finds it half done."""

    kind: Literal["promoting"] = "promoting"
    generation: int
    branch: str
    base_commit: str
    """Where the branch is expected."""
    commit: str
    """Where it will be."""
    version: str
    """Hash of the tree of that commit."""


class RollingBack(Record):
    """A version that worked before is to work again: carried out by whoever finds it half done."""

    kind: Literal["rolling_back"] = "rolling_back"
    generation: int
    branch: str
    base_commit: str
    commit: str
    """With the tree of that version; empty where somebody has built on the branch since, so that it is left alone."""
    version: str
    to: Count
    """Generation of that version."""
    cause: Cause = Cause.NONE
    evidence: str = ""


class Activated(Record):
    """Another version is the one that works."""

    kind: Literal["activated"] = "activated"
    version: str
    """Hash of its tree."""
    generation: Count
    """0 for the version that a campaign began with."""
    back: bool = False
    """By rolling back."""


class Checked(Record):
    """The version that a generation made active works, as its health check saw."""

    kind: Literal["checked"] = "checked"
    generation: int


class Begun(Record):
    """What a campaign on the benchmark was begun with; fixed, because alpha is divided by it."""

    kind: Literal["begun"] = "begun"
    generations: int
    tasks: int
    alpha: float
    seed: int


class CanariesChecked(Record):
    """Candidates whose end is known went through the gates."""

    kind: Literal["canaries"] = "canaries"
    judge: str
    missed: tuple[str, ...]
    """Those that ended otherwise than they must, in words."""


class Paused(Record):
    """A model failed, and a campaign waits before it asks again."""

    kind: Literal["paused"] = "paused"
    why: str
    seconds: Seconds


class Stopped(Record):
    """A campaign has ended, and why."""

    kind: Literal["stopped"] = "stopped"
    reason: str


Happened = Annotated[
    Proposed
    | Moved
    | Reported
    | GateJudged
    | Reviewed
    | Spent
    | Challenged
    | Promoting
    | RollingBack
    | Activated
    | Checked
    | Begun
    | CanariesChecked
    | Paused
    | Stopped,
    Field(discriminator="kind"),
]


class Event(Record):
    """One line of a campaign's ledger."""

    happened: Happened
    at: str
    """UTC, to the second; nothing is decided by it."""
