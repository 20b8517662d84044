"""One generation after another: propose, build, judge cheap things first, promote or keep aside."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from looper.errors import BadInput, GatesUnfit, InfrastructureError
from looper.evolution.benchmark import AlphaAccount, benchmarked
from looper.evolution.canaries import Canary, Lane, missed
from looper.evolution.contract import contract_text
from looper.evolution.gates import Scope, frozen, manifest_gate, scope_gate
from looper.evolution.promotion import Promoter
from looper.evolution.search import FILE, MOVES, Move, Settings, moved, neighbours, settings_of, text_of
from looper.evolution.state import Generation, State
from looper.records.base import content_hash
from looper.records.gate import Benchmarked, BenchmarkRule, GateOutcome
from looper.records.generation import (
    CanariesSang,
    Cause,
    Challenged,
    Contract,
    Criterion,
    Moved,
    Phase,
    Proposed,
    Source,
    Stopped,
)

ALARM = 3
"""Equal failures in a row that end a campaign."""
JUDGE = "1"
"""Version of the gates and their order; part of every decision."""


Screen = Callable[[str, Mapping[str, Settings]], Mapping[str, float]]
"""Commit of the parent and settings by name → how many tasks of a small lane of its own each of them resolves, as a share. Chooses
what is proposed, decides nothing, and spends no alpha."""


@dataclass(frozen=True)
class Campaign:
    """What a campaign works with, fixed before its first generation."""

    promoter: Promoter
    lane: Lane
    screen: Screen
    scope: Scope
    development: BenchmarkRule
    sealed: BenchmarkRule
    """Confirms, on tasks that no proposal has been chosen by, what passed the development lane."""
    canaries: tuple[Canary, ...]
    say: Callable[[str], None]
    seed: int = 0
    plateau: int = 0
    """End after so many decided generations in a row without a promotion; 0 for never."""


def run(campaign: Campaign, generations: int) -> str:
    """Go on until so many generations are decided, or something ends it earlier; the reason. Safe to interrupt and to repeat."""
    ledger = campaign.promoter.ledger
    campaign.promoter.recover()
    _sing(campaign)
    while True:
        state = ledger.state()
        if reason := _ended(campaign, state, generations):
            if state.stopped != reason:
                ledger.record(lambda now: Stopped(reason=reason))
            return reason
        found = _open(state) or _propose(campaign, state)
        if found is None:
            ledger.record(lambda now: Stopped(reason="nothing left to try"))
            return "nothing left to try"
        _carry_on(campaign, found)


def _sing(campaign: Campaign) -> None:
    """Once for each version of the gates. Raises GatesUnfit where a canary ends otherwise than it must."""
    ledger, sources = campaign.promoter.ledger, campaign.promoter.sources
    sung = ledger.state().canaries.get(JUDGE)
    if sung is None:
        root = sources.commit_of(campaign.promoter.branch)
        sung = tuple(missed(sources, root, campaign.canaries, campaign.lane, campaign.scope))
        found = CanariesSang(judge=JUDGE, missed=sung)
        ledger.record(lambda now: found)
        campaign.say(
            f"{len(campaign.canaries) - len(sung)} of {len(campaign.canaries)} canaries ended as they must"
        )
    if sung:
        raise GatesUnfit(f"The gates are not fit to judge, so no campaign starts: {'; '.join(sung)}.")


def _ended(campaign: Campaign, state: State, generations: int) -> str:
    if _open(state) is not None:
        return ""
    if state.decided >= generations:
        return "generations"
    if state.tested.get("development", 0) >= campaign.development.challengers:
        return "alpha spent"
    last = [found for found in state.generations.values() if found.phase.over][
        -max(ALARM, campaign.plateau) :
    ]
    if _alarm(last[-ALARM:]):
        return f"suspect the harness: {ALARM} candidates in a row ended with: {last[-1].evidence}"
    flat = campaign.plateau and len(last) >= campaign.plateau
    if flat and not any(found.phase is Phase.PROMOTED for found in last[-campaign.plateau :]):
        return "plateau"
    return ""


def _alarm(last: Sequence[Generation]) -> bool:
    """Whether the last few failed alike, before any benchmark: that is one fault of the campaign, not several of candidates."""
    return (
        len(last) == ALARM
        and len({found.evidence for found in last}) == 1
        and all(found.phase is Phase.ARCHIVED and not found.tested for found in last)
    )


def _open(state: State) -> Generation | None:
    """The generation that is not at its end; one that the outside world failed is tried again."""
    return next(
        (
            found
            for found in state.generations.values()
            if not found.phase.over or found.phase is Phase.INFRA_ERROR
        ),
        None,
    )


def _propose(campaign: Campaign, state: State) -> Generation | None:
    parent = state.versions[-1].generation
    move = _next_move(campaign, state, parent)
    if move is None:
        return None
    contract = contract_of(move)
    campaign.promoter.ledger.record(
        lambda now: Proposed(
            generation=now.next_number,
            parent=parent,
            source=Source.SEARCH,
            request=f"{move.name} from {parent}",
            title=move.name,
            contract_hash=content_hash(contract_text(contract)),
        )
    )
    return campaign.promoter.ledger.state().of_request(f"{move.name} from {parent}")


def _next_move(campaign: Campaign, state: State, parent: int) -> Move | None:
    """Of the moves that were tried least, the one that looks best on the screen; among equals one drawn, by the seed and the number,
    so that a campaign can be repeated."""
    sources, branch = campaign.promoter.sources, campaign.promoter.branch
    commit = sources.commit_of(branch)
    settings = settings_of(sources.file(commit, FILE))
    tried = [(found.title, found.parent) for found in state.generations.values()]
    found = neighbours(settings, tried, parent)
    if not found:
        return None
    rates = campaign.screen(
        commit, {move.name: moved(settings, move) for move in MOVES if moved(settings, move) != settings}
    )
    best = max((rates[move.name] for move in found if move.name in rates), default=None)
    first = [move for move in found if move.name in rates and rates[move.name] == best]
    if not first:
        return None
    return random.Random(f"{campaign.seed}/{state.next_number}").choice(first)


def contract_of(move: Move) -> Contract:
    """What a move promises, in the form of every contract."""
    return Contract(
        title=move.name,
        objective=move.why,
        requirements=(f"{FILE}: {dict(move.change)}",),
        criteria=(Criterion(id="A1", text="more tasks of the development lane are resolved than before"),),
        files=(FILE,),
    )


def _carry_on(campaign: Campaign, found: Generation) -> None:
    """From wherever a generation stands to its end."""
    match found.phase:
        case Phase.PROPOSED:
            _move(campaign, found, Phase.ADMITTED)
        case Phase.ADMITTED | Phase.INFRA_ERROR:
            _move(campaign, found, Phase.PREPARING)
        case Phase.PREPARING:
            _move(campaign, found, Phase.RUNNING)
        case Phase.RUNNING:
            _build(campaign, found)
        case Phase.REPORTED:
            _move(campaign, found, Phase.JUDGING)
        case Phase.JUDGING:
            try:
                _judge(campaign, found)
            except InfrastructureError as error:
                _move(campaign, found, Phase.INFRA_ERROR, evidence=str(error), cause=Cause.JUDGE)
                raise
        case Phase.ACCEPTED:
            ended = campaign.promoter.promote(found.number, found.candidate_hash)
            campaign.say(
                f"generation {found.number}, {found.title}: {ended.after.value} {ended.evidence}".rstrip()
            )
        case _:
            _move(campaign, found, Phase.ARCHIVED)


def _build(campaign: Campaign, found: Generation) -> None:
    """The candidate as a commit on the active version, under a ref of its own."""
    sources = campaign.promoter.sources
    base = sources.commit_of(campaign.promoter.branch)
    move = _move_named(found.title)
    settings = settings_of(sources.file(base, FILE))
    commit = sources.with_files(
        base, {FILE: text_of(moved(settings, move))}, f"generation {found.number}: {move.name}"
    )
    # A process that was killed here has made the very same commit.
    ref = f"refs/heads/evolve/gen-{found.number}"
    sources.move(ref, commit, sources.at(ref))
    _move(
        campaign,
        found,
        Phase.REPORTED,
        base_commit=base,
        candidate_commit=commit,
        candidate_hash=sources.tree_of(commit),
    )


def _move_named(title: str) -> Move:
    found = next((move for move in MOVES if move.name == title), None)
    if found is None:
        raise BadInput(f'No move is called "{title}"; it was proposed by another version of Looper.')
    return found


def _judge(campaign: Campaign, found: Generation) -> None:
    sources = campaign.promoter.sources
    fixed = frozen(sources, found.base_commit, campaign.scope)
    cheap = [
        manifest_gate(sources, found.candidate_commit, fixed, campaign.scope),
        scope_gate(sources, found.base_commit, found.candidate_commit, campaign.scope),
    ]
    for gate in cheap:
        if gate.outcome is not GateOutcome.PASS:
            cause = Cause.PROTECTED_PATH if gate.gate == "manifest" else Cause.GATE
            _decided(campaign, found, Phase.REJECTED, f"{gate.gate}: {gate.evidence}", cause)
            return
    for name, rule in (("development", campaign.development), ("sealed", campaign.sealed)):
        result = _challenge(campaign, found, name, rule)
        evidence = f"{name}: {_words(result)}"
        if result.outcome is GateOutcome.FAIL:
            _decided(campaign, found, Phase.REJECTED, evidence, Cause.GATE)
            return
        if result.outcome is not GateOutcome.PASS:
            _decided(campaign, found, Phase.INCONCLUSIVE, evidence, Cause.GATE)
            return
        campaign.say(f"generation {found.number}, {found.title}: {evidence}")
    _move(campaign, found, Phase.ACCEPTED, judge=JUDGE)


def _challenge(campaign: Campaign, found: Generation, lane: str, rule: BenchmarkRule) -> Benchmarked:
    """Of this lane, once: what is on record, or a test that spends its alpha."""
    ledger = campaign.promoter.ledger
    state = ledger.state()
    known = state.generation(found.number).tested.get(lane)
    if known is not None:
        return known
    account = AlphaAccount(rule, state.tested.get(lane, 0))
    candidate, parent = campaign.lane(lane, found.candidate_commit, found.base_commit)
    result = benchmarked(candidate, parent, account)
    ledger.record(
        lambda now: Challenged(
            generation=found.number, lane=lane, candidate_hash=found.candidate_hash, found=result
        )
    )
    return result


def _words(found: Benchmarked) -> str:
    return (
        f"{found.outcome.value}, {100 * found.estimate:+.1f} points on {found.pairs} tasks ({found.wins} won, {found.losses} lost), "
        f"p = {found.p_value:.2g} at {found.alpha_spent:.2g}"
    )


def _decided(campaign: Campaign, found: Generation, phase: Phase, evidence: str, cause: Cause) -> None:
    _move(campaign, found, phase, evidence=evidence, cause=cause)
    campaign.say(f"generation {found.number}, {found.title}: {phase.value}, {evidence}")


def _move(
    campaign: Campaign,
    found: Generation,
    after: Phase,
    *,
    evidence: str = "",
    cause: Cause = Cause.NONE,
    **pinned: str,
) -> None:
    move = Moved(
        generation=found.number,
        before=found.phase,
        after=after,
        attempt=found.attempt + (found.phase is Phase.INFRA_ERROR),
        evidence=evidence,
        cause=cause,
    ).model_copy(update=pinned)
    campaign.promoter.ledger.record(lambda now: move)
