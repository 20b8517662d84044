"""One generation after another: propose, build, judge cheap things first, promote or keep aside.

The ledger says where a campaign stands, so the same command goes on after any end. What the outside world does wrong is tried
again, and ends the campaign only where it does not pass; what a candidate does wrong ends that candidate.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, assert_never

from looper.errors import (
    BudgetSpent,
    Cancelled,
    GatesUnfit,
    InfrastructureError,
    ModelDenied,
    ModelError,
    ModelUnpaid,
)
from looper.evolution.judging import JUDGE, Gatekeeper
from looper.evolution.moves import move
from looper.evolution.promotion import Promoter
from looper.evolution.reflect import ProposalInvalid
from looper.evolution.review import ReviewFailed
from looper.evolution.state import Generation, State
from looper.records.generation import CanariesChecked, Cause, Origin, Paused, Phase, Proposed, Stopped
from looper.records.text import counted

ALARM = 3
"""Equal failures in a row that end a campaign."""
ATTEMPTS = 3
"""At one generation, where the outside world fails."""
FIRST_PAUSE_S = 2.0


@dataclass(frozen=True)
class Proposal:
    """What a generation is to do, before it has a number."""

    title: str
    text: str
    """Of its contract."""
    source: Origin
    request: str
    """Asking twice with the same is asking once."""
    parent: int


class Proposer(Protocol):
    """Who says what is tried next."""

    def propose(self, state: State) -> Proposal | None:
        """None where nothing is left to try. Raises ProposalInvalid, BudgetSpent and what a model raises."""
        ...


class Author(Protocol):
    """Who carries a contract out."""

    def work(self, found: Generation) -> None:
        """From `preparing` until the generation is reported, or ended otherwise, in the ledger. Raises what the world does wrong."""
        ...


@dataclass(frozen=True)
class Campaign:
    """What a campaign works with, fixed before its first generation."""

    promoter: Promoter
    keeper: Gatekeeper
    proposer: Proposer
    author: Author
    keep: Callable[[str], str]
    """Store a contract's text durably; its hash."""
    canaries: Callable[[], list[str]]
    """Put candidates whose end is known through the gates; those that ended otherwise, in words."""
    say: Callable[[str], None]
    pause: Callable[[float], None]
    plateau: int = 0
    """End after so many decided generations in a row without a promotion; 0 for never."""
    cancelled: Callable[[], bool] = lambda: False
    """Whether somebody wants it to stop between two steps."""


def run(campaign: Campaign, generations: int) -> str:
    """Go on until so many generations are decided, or something ends it earlier; the reason. Safe to interrupt and to repeat."""
    campaign.promoter.recover()
    _run_canaries(campaign)
    while True:
        if campaign.cancelled():
            raise Cancelled
        state = campaign.promoter.ledger.state()
        if reason := _ended(campaign, state, generations):
            return _stopped(campaign, reason)
        try:
            found = open_generation(state) or _propose(campaign, state)
            if found is None:
                return _stopped(campaign, "nothing left to try")
            carry_on(campaign, found)
        except ProposalInvalid as error:
            _invalid(campaign, error)
        except BudgetSpent as error:
            return _stopped(campaign, f"budget: {error}")
        except (ModelDenied, ModelUnpaid) as error:
            _stopped(campaign, f"{cause_of(error).value}: {error}")
            raise
        except ModelError as error:
            _wait_or_give_up(campaign, error)


def _stopped(campaign: Campaign, reason: str) -> str:
    if campaign.promoter.ledger.state().stopped != reason:
        campaign.promoter.ledger.record(lambda now: Stopped(reason=reason))
    return reason


def _run_canaries(campaign: Campaign) -> None:
    """Once for each version of the gates. Raises GatesUnfit where a canary ends otherwise than it must."""
    ledger = campaign.promoter.ledger
    sung = ledger.state().canaries.get(JUDGE)
    if sung is None:
        sung = tuple(campaign.canaries())
        found = CanariesChecked(judge=JUDGE, missed=sung)
        ledger.record(lambda now: found)
        campaign.say(
            "the canaries ended as they must"
            if not sung
            else f"{counted(len(sung), 'canary', 'canaries')} did not end as they must"
        )
    if sung:
        raise GatesUnfit(f"The gates are not fit to judge, so no campaign starts: {'; '.join(sung)}.")


def _ended(campaign: Campaign, state: State, generations: int) -> str:
    if open_generation(state) is not None:
        return ""
    if state.decided >= generations:
        return "generations"
    if campaign.keeper.lane and state.tested.get("development", 0) >= campaign.keeper.rule.challengers:
        return "alpha spent"
    last = [found for found in state.generations.values() if found.phase.over][
        -max(ALARM, campaign.plateau) :
    ]
    if alarm(last[-ALARM:]):
        return f"suspect the harness: {ALARM} candidates in a row ended with: {last[-1].evidence}"
    flat = campaign.plateau and len(last) >= campaign.plateau
    if flat and not any(found.phase is Phase.PROMOTED for found in last[-campaign.plateau :]):
        return "plateau"
    return ""


def alarm(last: Sequence[Generation]) -> bool:
    """Whether the last few failed alike, before any benchmark: that is one fault of the campaign, not several of candidates."""
    return (
        len(last) == ALARM
        and len({_normal(found.evidence) for found in last}) == 1
        and all(found.phase is Phase.ARCHIVED and not found.tested for found in last)
    )


def _normal(evidence: str) -> str:
    """Without what differs from time to time: hashes and numbers."""
    return re.sub(r"\b[0-9a-f]{7,}\b|\d+", "#", evidence)


def open_generation(state: State) -> Generation | None:
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
    proposal = campaign.proposer.propose(state)
    return None if proposal is None else admitted(campaign, proposal)


def admitted(campaign: Campaign, proposal: Proposal) -> Generation:
    """The generation of a proposal, with its number; the one that the same request was given before."""
    ledger = campaign.promoter.ledger
    known = ledger.state().of_request(proposal.request)
    if known is not None:
        return known
    contract_hash = campaign.keep(proposal.text)
    ledger.record(
        lambda now: Proposed(
            generation=now.next_number,
            parent=proposal.parent,
            source=proposal.source,
            request=proposal.request,
            title=proposal.title,
            contract_hash=contract_hash,
        )
    )
    found = ledger.state().of_request(proposal.request)
    assert found is not None
    return found


def _invalid(campaign: Campaign, error: ProposalInvalid) -> None:
    """On record as a generation of its own, so that three in a row are seen."""
    ledger = campaign.promoter.ledger
    state = ledger.state()
    number = state.next_number
    campaign.say(f"generation {number}: {error}")
    parent = state.active_generation or 0
    proposal = Proposal("no contract", str(error), Origin.REFLECT, f"invalid proposal {number}", parent)
    move(
        ledger,
        admitted(campaign, proposal),
        Phase.ARCHIVED,
        cause=Cause.PROPOSAL_INVALID,
        evidence="no contract came of the model's answers",
    )


def _wait_or_give_up(campaign: Campaign, error: ModelError) -> None:
    """A pause that grows with each failure since anything went well. Raises the error where there were too many."""
    ledger = campaign.promoter.ledger
    failed = ledger.state().paused
    if failed + 1 >= ATTEMPTS:
        _stopped(campaign, f"model: {error}")
        raise error
    seconds = max(error.retry_after_s or 0.0, FIRST_PAUSE_S * 2.0**failed)
    campaign.say(f"{error} Going on in {seconds:.0f} s.")
    ledger.record(lambda now: Paused(why=str(error), seconds=seconds))
    campaign.pause(seconds)


def carry_on(campaign: Campaign, found: Generation) -> None:
    """From wherever a generation stands to its next durable phase."""
    ledger = campaign.promoter.ledger
    match found.phase:
        case Phase.PROPOSED:
            move(ledger, found, Phase.ADMITTED)
        case Phase.ADMITTED:
            move(ledger, found, Phase.PREPARING)
        case Phase.INFRA_ERROR if found.attempt >= ATTEMPTS:
            move(
                ledger,
                found,
                Phase.ARCHIVED,
                cause=found.cause,
                evidence=f"given up after {ATTEMPTS} attempts: {found.evidence}",
            )
        case Phase.INFRA_ERROR:
            move(ledger, found, Phase.JUDGING if found.candidate_hash else Phase.PREPARING)
        case Phase.PREPARING | Phase.RUNNING:
            _work(campaign, found)
        case Phase.REPORTED:
            move(ledger, found, Phase.JUDGING)
        case Phase.JUDGING:
            judged(campaign.keeper, found)
        case Phase.ACCEPTED:
            ended = campaign.promoter.promote(found.number, found.candidate_hash)
            campaign.say(
                f"generation {found.number}, {found.title}: {ended.after.value} {ended.evidence}".rstrip()
            )
        case Phase.REJECTED | Phase.INCONCLUSIVE:
            move(ledger, found, Phase.ARCHIVED)
        case Phase.PROMOTED | Phase.ROLLED_BACK | Phase.ARCHIVED | Phase.CANCELLED:
            # Over, and the ledger says so.
            move(ledger, found, Phase.ARCHIVED)
        case _:
            assert_never(found.phase)


def judged(keeper: Gatekeeper, found: Generation) -> Generation:
    """As the gatekeeper judges; what keeps it from judging is on record, as no verdict, and raised."""
    try:
        return keeper.judge(found)
    except InfrastructureError as error:
        move(keeper.ledger, found, Phase.INFRA_ERROR, evidence=str(error), cause=cause_of(error, Cause.JUDGE))
        raise


def _work(campaign: Campaign, found: Generation) -> None:
    try:
        campaign.author.work(found)
    except InfrastructureError as error:
        now = campaign.promoter.ledger.state().generation(found.number)
        if not now.phase.over:
            move(
                campaign.promoter.ledger,
                now,
                Phase.INFRA_ERROR,
                evidence=str(error),
                cause=cause_of(error, Cause.SETUP),
            )
        raise


def cause_of(error: InfrastructureError, otherwise: Cause = Cause.MODEL) -> Cause:
    """Which part of the outside world failed."""
    match error:
        case ModelDenied():
            return Cause.AUTH
        case ModelUnpaid():
            return Cause.CREDIT
        case ModelError():
            return Cause.MODEL
        case ReviewFailed():
            return Cause.REVIEW
        case _:
            return otherwise
