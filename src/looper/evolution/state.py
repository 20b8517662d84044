"""A campaign's events → where everything stands. The fold is the only truth; every counter comes from it.

`after` makes of a state and one event the next state, and nothing else changes one: a command reads the ledger and folds it anew,
and every counter follows from the events.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from looper.errors import BadInput
from looper.records.gate import Benchmarked, GateResult
from looper.records.generation import (
    NEXT,
    Activated,
    Begun,
    CanariesChecked,
    Cause,
    Challenged,
    Checked,
    Event,
    GateJudged,
    Moved,
    Origin,
    Paused,
    Phase,
    Promoting,
    Proposed,
    Reported,
    Reviewed,
    Role,
    RollingBack,
    Spent,
    Stopped,
)
from looper.records.review import Review


class NotAllowed(BadInput):
    """A step that cannot follow what is there."""


@dataclass(frozen=True)
class Generation:
    """One candidate, from its contract to its end."""

    number: int
    parent: int
    source: Origin
    title: str
    contract_hash: str
    request: str
    phase: Phase = Phase.PROPOSED
    cause: Cause = Cause.NONE
    evidence: str = ""
    attempt: int = 1
    base_commit: str = ""
    candidate_commit: str = ""
    candidate_hash: str = ""
    judge: str = ""
    tested: Mapping[str, Benchmarked] = field(default_factory=dict)
    """By lane."""
    tokens: Mapping[Role, int] = field(default_factory=dict)
    verdict: Phase | None = None
    """What was decided, before it was kept aside."""
    reported: Reported | None = None
    """Of the last attempt."""
    judged: tuple[GateResult, ...] = ()
    """By the gates that have looked at what is there now, in order."""
    reviewed: Review | None = None


@dataclass(frozen=True)
class State:
    """Everything that a campaign's ledger says."""

    generations: Mapping[int, Generation] = field(default_factory=dict)
    active: str = ""
    """Version that works; empty before the first."""
    versions: tuple[Activated, ...] = ()
    """Each that ever worked, in order."""
    tokens: Mapping[Role, int] = field(default_factory=dict)
    calls: int = 0
    cost_usd: float | None = 0.0
    """None once a call's price was unknown: a sum without it would be a wrong one."""
    tested: Mapping[str, int] = field(default_factory=dict)
    """Challengers by lane."""
    stopped: str = ""
    paused: int = 0
    """Pauses in a row, since anything went well."""
    unfinished: Promoting | RollingBack | None = None
    """Begun and not at its end."""
    begun: Begun | None = None
    canaries: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By version of the gates: those that ended otherwise than they must."""
    unchecked: int = 0
    """Generation that was promoted last and whose health nobody has looked at yet; 0 for none."""
    promotions: Mapping[int, Promoting] = field(default_factory=dict)
    """By generation."""

    @property
    def active_generation(self) -> int | None:
        """0 for the version that the campaign began with; None before it has any."""
        return self.versions[-1].generation if self.versions else None

    @property
    def next_number(self) -> int:
        return max(self.generations, default=0) + 1

    @property
    def decided(self) -> int:
        """Generations that count: what the world's failures ended does not."""
        return sum(
            found.phase.decided or (found.phase is Phase.ARCHIVED and not found.cause.of_the_world)
            for found in self.generations.values()
        )

    @property
    def total_tokens(self) -> int:
        return sum(self.tokens.values())

    def generation(self, number: int) -> Generation:
        """Raises BadInput where there is none of that number."""
        if number not in self.generations:
            known = ", ".join(map(str, sorted(self.generations))) or "none yet"
            raise BadInput(f"There is no generation {number}. There are: {known}.")
        return self.generations[number]

    def of_request(self, request: str) -> Generation | None:
        return next((found for found in self.generations.values() if found.request == request), None)


def folded(events: Iterable[Event]) -> State:
    """Raises NotAllowed where an event cannot follow those before it."""
    state = State()
    for event in events:
        state = after(state, event)
    return state


def after(state: State, event: Event) -> State:
    """The state once this has happened too. Raises NotAllowed."""
    match event.happened:
        case Proposed() as found:
            return _proposed(state, found)
        case Moved() as found:
            state = _with(state, _moved(state.generation(found.generation), found))
            if found.after in (Phase.PROMOTED, Phase.ROLLED_BACK):
                state = replace(state, unchecked=found.generation if found.after is Phase.PROMOTED else 0)
            over = state.unfinished is not None and state.unfinished.generation == found.generation
            return replace(state, unfinished=None) if over else state
        case Checked():
            return replace(state, unchecked=0)
        case Promoting() | RollingBack() as found:
            return _begun(state, found)
        case Reported() as found:
            state = replace(state, paused=0)
            return _with(state, replace(state.generation(found.generation), reported=found))
        case GateJudged(generation=number, found=result):
            return _with(replace(state, paused=0), _judged(state.generation(number), result))
        case Reviewed(generation=number, found=review):
            return _with(state, replace(state.generation(number), reviewed=review))
        case Spent() as found:
            return _spent(state, found)
        case Challenged() as found:
            return _challenged(state, found)
        case Activated() as found:
            return replace(state, active=found.version, versions=(*state.versions, found))
        case Begun() as found:
            if state.begun is not None and state.begun != found:
                raise NotAllowed(
                    f"This campaign was begun with {_words(state.begun)}, and now {_words(found)} are asked for. Go on as it was begun, "
                    "or begin another one in another folder: its alpha was divided beforehand."
                )
            return replace(state, begun=found)
        case CanariesChecked(judge=judge, missed=missed):
            return replace(state, canaries={**state.canaries, judge: missed})
        case Paused():
            return replace(state, paused=state.paused + 1)
        case Stopped(reason=reason):
            return replace(state, stopped=reason, paused=0)


def _words(found: Begun) -> str:
    return (
        f"--generations {found.generations} --tasks {found.tasks} --alpha {found.alpha:g} --seed {found.seed}"
    )


def _with(state: State, found: Generation) -> State:
    return replace(state, generations={**state.generations, found.number: found})


def _proposed(state: State, found: Proposed) -> State:
    if found.generation != state.next_number:
        raise NotAllowed(f"The next generation is {state.next_number}, not {found.generation}.")
    if found.parent and found.parent not in state.generations:
        raise NotAllowed(f"There is no generation {found.parent} to be the parent.")
    return _with(
        replace(state, stopped="", paused=0),
        Generation(
            found.generation, found.parent, found.source, found.title, found.contract_hash, found.request
        ),
    )


def _moved(found: Generation, move: Moved) -> Generation:
    if move.before is not found.phase:
        raise NotAllowed(
            f"Generation {found.number} is {found.phase.value}, not {move.before.value}: another process has moved it."
        )
    if move.after not in NEXT[found.phase]:
        raise NotAllowed(
            f"Generation {found.number} is {found.phase.value} and cannot become {move.after.value}."
        )
    if move.after is Phase.INFRA_ERROR and not move.cause.of_the_world:
        raise NotAllowed(f"{move.cause.value or 'no cause'} is no failure of the outside world.")
    judged = found.candidate_hash
    if (
        judged
        and move.candidate_hash
        and move.candidate_hash != judged
        and found.phase is not Phase.INFRA_ERROR
    ):
        raise NotAllowed(
            f"Generation {found.number} was reported as {judged[:12]} and is {move.candidate_hash[:12]} now: what was judged is "
            "what is promoted."
        )
    if found.phase is Phase.INFRA_ERROR and move.after is not Phase.ARCHIVED:
        # It is tried again, so what went wrong outside of it says nothing any more.
        found = replace(found, cause=Cause.NONE, evidence="")
    return replace(
        found,
        phase=move.after,
        cause=move.cause if move.cause is not Cause.NONE else found.cause,
        evidence=move.evidence or found.evidence,
        verdict=move.after if _decides(move) else found.verdict,
        attempt=max(found.attempt, move.attempt),
        base_commit=move.base_commit or found.base_commit,
        candidate_commit=move.candidate_commit or found.candidate_commit,
        candidate_hash=move.candidate_hash or found.candidate_hash,
        judge=move.judge or found.judge,
    )


def _decides(move: Moved) -> bool:
    """Whether a candidate, or who made it, is told something by this; being kept aside afterwards says nothing new."""
    late = move.after is Phase.ARCHIVED and move.cause is not Cause.NONE and not move.cause.of_the_world
    return move.after.decided or late


def _judged(found: Generation, result: GateResult) -> Generation:
    if result.candidate_hash != found.candidate_hash:
        raise NotAllowed(
            f"Generation {found.number} was reported as {found.candidate_hash[:12]}, and a gate looked at {result.candidate_hash[:12]}."
        )
    return replace(found, judged=(*(one for one in found.judged if one.gate != result.gate), result))


def _begun(state: State, found: Promoting | RollingBack) -> State:
    wanted = Phase.ACCEPTED if isinstance(found, Promoting) else Phase.PROMOTED
    phase = state.generation(found.generation).phase
    if phase is not wanted:
        raise NotAllowed(f"Generation {found.generation} is {phase.value}, not {wanted.value}.")
    if state.unfinished is not None:
        raise NotAllowed(
            f"Generation {state.unfinished.generation} is being promoted or rolled back; that comes first."
        )
    promotions = state.promotions
    if isinstance(found, Promoting):
        promotions = {**promotions, found.generation: found}
    return replace(state, unfinished=found, promotions=promotions)


def _spent(state: State, found: Spent) -> State:
    tokens = found.prompt_tokens + found.completion_tokens
    known = state.cost_usd is not None and found.cost_usd is not None
    state = replace(
        state,
        tokens={**state.tokens, found.role: state.tokens.get(found.role, 0) + tokens},
        calls=state.calls + found.calls,
        cost_usd=(state.cost_usd or 0.0) + (found.cost_usd or 0.0) if known else None,
    )
    if not found.generation:
        return state
    generation = state.generation(found.generation)
    mine = {**generation.tokens, found.role: generation.tokens.get(found.role, 0) + tokens}
    return _with(state, replace(generation, tokens=mine))


def _challenged(state: State, found: Challenged) -> State:
    generation = state.generation(found.generation)
    if found.lane in generation.tested:
        raise NotAllowed(
            f"Generation {found.generation} was tested on the {found.lane} lane before; it is tested once."
        )
    state = replace(state, tested={**state.tested, found.lane: state.tested.get(found.lane, 0) + 1})
    return _with(state, replace(generation, tested={**generation.tested, found.lane: found.found}))
