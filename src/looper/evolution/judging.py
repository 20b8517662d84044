"""A reported candidate → accepted, rejected or undecided: gates in order, cheap first, each on record before the next looks.

`cycle` and `looper evolve verify` hand a generation over and get it back judged. Gates of bytes come first (`gates`), then those that
run (`judge`), the reviewer, and the lanes of the benchmark, which alone spend alpha.
"""

from collections.abc import Callable
from dataclasses import dataclass

from looper.errors import LooperError, VerifierBroken
from looper.evolution.benchmark import AlphaAccount, Lane, benchmarked
from looper.evolution.costs import Costs, cost_verdict
from looper.evolution.gates import ChangeScope, frozen, manifest_gate, scope_gate
from looper.evolution.judge import Candidate, Found, Gate
from looper.evolution.ledger import EventLog
from looper.evolution.moves import move, ref_of
from looper.evolution.state import Generation
from looper.protocols import Sources
from looper.records.gate import Benchmarked, BenchmarkRule, GateOutcome, GateResult
from looper.records.generation import Cause, Challenged, Contract, GateJudged, Happened, Phase
from looper.records.text import counted

JUDGE = "2"
"""Version of the gates and their order; part of every decision."""
LANES = ("development", "sealed")
"""The first is what proposals are chosen by; the second confirms, once, what passed it."""

_PHASES = {GateOutcome.FAIL: Phase.REJECTED, GateOutcome.UNDECIDED: Phase.INCONCLUSIVE}


@dataclass(frozen=True)
class Gatekeeper:
    """Every gate of a campaign, fixed before its first candidate."""

    ledger: EventLog
    sources: Sources
    scope: ChangeScope
    gates: tuple[Gate, ...]
    """That run a candidate or have it read, after those that only look at its bytes."""
    lane: Lane | None
    """Benchmark; None where a repository has none."""
    rule: BenchmarkRule
    contract_of: Callable[[str], Contract]
    """By hash of its text."""
    say: Callable[[str], None]
    costs: Costs | None = None
    """What candidate and parent spent on a lane that was run; None where nobody counts."""
    most_cost_ratio: float = 4.0
    """Tokens of a candidate for one of its parent, at most."""

    def gates_in_order(self) -> tuple[Gate, ...]:
        return (self._manifest, self._scope, *self.gates)

    def judge(self, found: Generation) -> Generation:
        """From `judging` to its verdict. What is on record is not asked again. Raises what the world does wrong; then nothing is decided."""
        candidate = Candidate(
            found.number, found.base_commit, found.candidate_commit, self.contract_of(found.contract_hash)
        )
        known = {one.gate for one in found.judged if one.outcome is GateOutcome.PASS}
        for gate in self.gates_in_order():
            if now := self._moved(found):
                return self._decided(found, Phase.REJECTED, now, Cause.TAMPERED)
            if (name := gate_name(gate)) in known:
                continue
            result, cause = self._ask(gate, name, found, candidate)
            self._record(GateJudged(generation=found.number, found=result))
            self.say(f"generation {found.number}: {name}: {result.outcome.value}: {result.evidence}")
            if result.outcome is not GateOutcome.PASS:
                return self._decided(found, _PHASES[result.outcome], f"{name}: {result.evidence}", cause)
        for lane in LANES if self.lane else ():
            tested = self._challenge(found, lane)
            said = f"{lane}: {words(tested)}"
            if tested.outcome is not GateOutcome.PASS:
                return self._decided(found, _PHASES[tested.outcome], said, Cause.GATE)
            self.say(f"generation {found.number}, {found.title}: {said}")
        if self.lane and self.costs:
            outcome, said = self._cost(found, self.costs)
            if outcome is not GateOutcome.PASS:
                return self._decided(found, _PHASES[outcome], f"cost: {said}", Cause.GATE)
        return move(self.ledger, found, Phase.ACCEPTED, judge=JUDGE)

    def _ask(self, gate: Gate, name: str, found: Generation, candidate: Candidate) -> Found:
        """A gate that breaks is on record as broken, and says nothing of the candidate."""
        try:
            return gate(candidate)
        except Exception as error:
            broken = GateResult(
                gate=name,
                outcome=GateOutcome.ERROR,
                evidence=f"{type(error).__name__}: {error}",
                candidate_hash=found.candidate_hash,
            )
            self._record(GateJudged(generation=found.number, found=broken))
            if isinstance(error, LooperError):
                raise
            raise VerifierBroken(f"The {name} gate broke: {type(error).__name__}: {error}") from error

    def _moved(self, found: Generation) -> str:
        """Why the candidate is not what was reported any more; empty where it is."""
        now = self.sources.at(ref_of(found.number))
        if now == found.candidate_commit:
            return ""
        return (
            f"it was reported as {found.candidate_commit[:12]}, and its ref is at {now[:12] or 'nothing'} now"
        )

    def _manifest(self, candidate: Candidate) -> Found:
        fixed = frozen(self.sources, candidate.base, self.scope)
        return manifest_gate(self.sources, candidate.commit, fixed, self.scope), Cause.PROTECTED_PATH

    def _scope(self, candidate: Candidate) -> Found:
        return scope_gate(self.sources, candidate.base, candidate.commit, self.scope), Cause.GATE

    def _challenge(self, found: Generation, lane: str) -> Benchmarked:
        """Of this lane, once: what is on record, or a test that spends its alpha."""
        assert self.lane is not None
        state = self.ledger.state()
        known = state.generation(found.number).tested.get(lane)
        if known is not None:
            return known
        account = AlphaAccount(self.rule, state.tested.get(lane, 0))
        candidate, parent = self.lane(lane, found.candidate_commit, found.base_commit)
        result = benchmarked(candidate, parent, account)
        self._record(
            Challenged(generation=found.number, lane=lane, candidate_hash=found.candidate_hash, found=result)
        )
        return result

    def _cost(self, found: Generation, costs: Costs) -> tuple[GateOutcome, str]:
        """On the lanes that were just run, so nothing runs for it."""
        candidate, parent = costs(LANES[0], found.candidate_commit, found.base_commit)
        outcome, said = cost_verdict(candidate, parent, self.most_cost_ratio)
        result = GateResult(gate="cost", outcome=outcome, evidence=said, candidate_hash=found.candidate_hash)
        self._record(GateJudged(generation=found.number, found=result))
        self.say(f"generation {found.number}: cost: {outcome.value}: {said}")
        return outcome, said

    def _record(self, happened: Happened) -> None:
        self.ledger.record(lambda now: happened)

    def _decided(self, found: Generation, phase: Phase, evidence: str, cause: Cause) -> Generation:
        self.say(f"generation {found.number}, {found.title}: {phase.value}, {evidence}")
        return move(self.ledger, found, phase, evidence=evidence, cause=cause)


def gate_name(gate: Gate) -> str:
    """`manifest`, `scope`, `tests`, `contract`, `review`: what its results are called by."""
    return gate.__name__.removeprefix("_").removesuffix("_gate")


def words(found: Benchmarked) -> str:
    return (
        f"{found.outcome.value}, {100 * found.estimate:+.1f} points on {counted(found.pairs, 'task')} ({found.wins} won, {found.losses} lost), "
        f"p = {found.p_value:.2g} at {found.alpha_spent:.2g}"
    )
