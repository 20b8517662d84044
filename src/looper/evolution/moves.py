"""One generation from one phase to the next, as an event."""

from looper.evolution.ledger import EventLog
from looper.evolution.state import Generation
from looper.protocols import Sources
from looper.records.generation import Cause, Moved, Phase


def move(
    ledger: EventLog,
    found: Generation,
    after: Phase,
    *,
    cause: Cause = Cause.NONE,
    evidence: str = "",
    base_commit: str = "",
    candidate_commit: str = "",
    candidate_hash: str = "",
    judge: str = "",
) -> Generation:
    """The generation afterwards. Raises NotAllowed where somebody else has moved it, or where this cannot follow."""
    ledger.record(
        lambda now: Moved(
            generation=found.number,
            before=found.phase,
            after=after,
            attempt=found.attempt + (found.phase is Phase.INFRA_ERROR),
            evidence=evidence,
            cause=cause,
            base_commit=base_commit,
            candidate_commit=candidate_commit,
            candidate_hash=candidate_hash,
            judge=judge,
        )
    )
    return ledger.state().generation(found.number)


def ref_of(number: int) -> str:
    """Where a candidate is kept, whatever becomes of it."""
    return f"refs/heads/evolve/gen-{number}"


def reported(ledger: EventLog, sources: Sources, found: Generation, base: str, commit: str) -> Generation:
    """A running generation with its candidate pinned; a process that was killed here has made the very same commit."""
    ref = ref_of(found.number)
    sources.move(ref, commit, sources.at(ref))
    return move(
        ledger,
        found,
        Phase.REPORTED,
        base_commit=base,
        candidate_commit=commit,
        candidate_hash=sources.tree_of(commit),
    )
