"""What each command of `looper evolve` does to a repository: propose, spawn, work, verify, promote, roll back, and all of it by itself.

`evolve_commands` and the pages (`served`) call it. Each step reads where the ledger stands, lets `evolution` decide, and ends by
writing the derived files.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from looper.cli.evolve_settings import as_variables
from looper.cli.repositories import (
    OpenRepository,
    budget_left,
    changeable,
    model_of,
    priorities,
    record,
    reports,
)
from looper.cli.repository_gates import (
    bench_of,
    keeper_of,
    plain_promoter,
    promoter_of,
    run_canaries,
    site_of,
)
from looper.cli.wiring import (
    LabProcess,
    end_group,
    sources,
    stoppable,
)
from looper.errors import BadInput, ModelError
from looper.evolution.authors import LabAuthor, Process, in_lab, lab_folder, running
from looper.evolution.contract import parse_contract
from looper.evolution.cycle import Campaign, Proposal, admitted, carry_on, judged, run
from looper.evolution.judge import Candidate
from looper.evolution.judging import Gatekeeper, gate_name
from looper.evolution.lab import Lab
from looper.evolution.moves import move
from looper.evolution.promotion import Promoter
from looper.evolution.proposers import Prime
from looper.evolution.state import Generation, NotAllowed
from looper.journal import RunLock
from looper.protocols import ChatRequest
from looper.records.gate import BenchmarkRule, GateResult
from looper.records.generation import Begun, Contract, Origin, Phase, Role
from looper.records.task import Task

KINDS = {
    "ModelDenied": "bad key",
    "ModelUnpaid": "no credit",
    "ModelMissing": "bad model",
    "ModelOverloaded": "rate-limited",
    "ModelUnreachable": "unreachable",
    "BadInput": "not set",
}


def pause(seconds: float) -> None:
    """Between two tries at a model that fails."""
    time.sleep(seconds)


def begin(found: OpenRepository, promoter: Promoter) -> None:
    """The first version: what the base branch holds. Raises BadInput where it is missing, or is not what is committed."""
    own = promoter.sources
    promoter.recover()
    if found.ledger.state().active:
        return
    base = f"refs/heads/{found.settings.base}" if found.settings.base else "HEAD"
    commit = own.commit_of(base)
    if names := own.uncommitted(found.settings.allowed):
        raise BadInput(
            f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''} differ from what is committed, and a "
            "candidate is made from commits. Commit or stash them, then run again."
        )
    promoter.begin(commit)


def proposed(found: OpenRepository, lookback: int | None) -> tuple[Contract, str]:
    """What the prime proposes now; nothing is begun."""
    with stoppable():
        return prime_of(found, lookback).contract(found.ledger.state())


def prime_of(found: OpenRepository, lookback: int | None = None) -> Prime:
    """Who proposes, told what is on record when it is asked."""
    return Prime(
        partial(model_of, found, Role.PRIME, 0),
        found.contracts,
        partial(changeable, found),
        partial(priorities, found),
        found.settings.allowed,
        lookback or found.settings.lookback,
        partial(budget_left, found),
        found.say,
    )


def spawn(found: OpenRepository, text: str, request: str, source: Origin, *, detach: bool) -> Generation:
    """A generation from a contract, worked on until it is reported, or begun where it is detached. Raises what ended it."""
    contract = parse_contract(text, found.settings.allowed)
    model_of(found, Role.LAB, 0).close()
    promoter = plain_promoter(found)
    with stoppable() as stop:
        begin(found, promoter)
        campaign = campaign_of(found, promoter, None, stop.is_set)
        parent = found.ledger.state().versions[-1].generation
        one = admitted(campaign, Proposal(contract.title, text, source, request, parent))
        found.say(f"generation {one.number}: {one.title}")
        while one.phase in (Phase.PROPOSED, Phase.ADMITTED):
            carry_on(campaign, one)
            one = found.ledger.state().generation(one.number)
        if detach:
            start_lab(found, one.number)
            return one
        while one.phase in (Phase.PREPARING, Phase.RUNNING):
            carry_on(campaign, one)
            one = found.ledger.state().generation(one.number)
    reports(found)
    return one


def start_lab(found: OpenRepository, number: int) -> Process:
    """The process that works on a generation; what was chosen on this command line it is told through its environment."""
    return LabProcess(
        ["evolve", "lab", str(number), "--repo", str(found.root)],
        lab_folder(found.folder, number) / "log",
        as_variables(found.chosen),
    )


def campaign_of(
    found: OpenRepository, promoter: Promoter, keeper: Gatekeeper | None, cancelled: Callable[[], bool]
) -> Campaign:
    author = LabAuthor(
        found.ledger,
        found.folder,
        partial(start_lab, found),
        found.settings.lab_timeout_s,
        cancelled,
        time.sleep,
    )
    keeper = keeper or Gatekeeper(
        found.ledger,
        promoter.sources,
        found.scope,
        (),
        None,
        BenchmarkRule(),
        found.contracts.contract,
        found.say,
    )
    return Campaign(
        promoter,
        keeper,
        prime_of(found),
        author,
        found.contracts.keep,
        lambda: run_canaries(found, promoter, keeper),
        found.say,
        pause,
        found.settings.plateau_window,
        cancelled,
    )


def work_in_lab(found: OpenRepository, number: int) -> Generation:
    """Inside a lab's own process."""
    with site_of(found) as verifier_context, stoppable() as stop:
        bench = bench_of(found, verifier_context)
        state = found.ledger.state()
        one = state.generation(number)
        model = model_of(found, Role.LAB, number)
        text = found.contracts.text(one.contract_hash)

        def make(base: str) -> tuple[Lab, Task]:
            task = bench.task(base, text)
            lab = Lab(
                verifier_context.sessions.open(task, f"gen-{number}"),
                model,
                verifier_context.limits,
                0.0,
                found.settings.allowed,
                lab_folder(found.folder, number),
                time.monotonic,
                stop.is_set,
            )
            return lab, task

        try:
            return in_lab(found.ledger, sources(found.root), found.branch, found.folder, one, make, number)
        finally:
            model.close()


def verify(found: OpenRepository, number: int) -> Generation:
    """Judge a reported generation; one that was judged before is as it was. Raises NotAllowed, and what the world does wrong."""
    one = found.ledger.state().generation(number)
    if one.verdict is not None:
        return one
    if one.phase is Phase.INFRA_ERROR and one.candidate_hash:
        one = move(found.ledger, one, Phase.JUDGING)
    if one.phase is Phase.REPORTED:
        one = move(found.ledger, one, Phase.JUDGING)
    if one.phase is not Phase.JUDGING:
        raise NotAllowed(
            f"Generation {number} is {one.phase.value}; only work that was reported can be verified."
        )
    judging = RunLock(found.folder / "judging" / f"gen-{number}", "judging of")
    with contextlib.closing(judging), site_of(found) as verifier_context:
        keeper = keeper_of(found, verifier_context)
        if keeper.lane:
            _fix_rule(found, keeper.rule)
        one = judged(keeper, one)
    reports(found)
    return one


def looked_at(found: OpenRepository, number: int, wanted: Sequence[str]) -> Iterator[GateResult]:
    """What single gates say of a generation; nothing is recorded. Raises BadInput for a gate that is not there."""
    one = found.ledger.state().generation(number)
    if not one.candidate_commit:
        raise NotAllowed(f"Generation {number} is {one.phase.value}; there is nothing to look at yet.")
    contract = found.contracts.contract(one.contract_hash)
    candidate = Candidate(number, one.base_commit, one.candidate_commit, contract)
    with site_of(found) as verifier_context:
        gates = {gate_name(gate): gate for gate in keeper_of(found, verifier_context).gates_in_order()}
        for name in wanted:
            if name not in gates:
                raise BadInput(f"There is no gate {name}. There are: {', '.join(gates)}.")
            yield gates[name](candidate)[0]


def probed(found: OpenRepository) -> Iterator[tuple[str, str, bool]]:
    """Role, what its model said, and whether that is well."""
    for role in (Role.PRIME, Role.LAB, Role.REVIEWER):
        try:
            with contextlib.closing(model_of(found, role, 0)) as model:
                model.reply(ChatRequest("probe", (("user", "Say: yes"),), 16, 1000, 0.0, 0, 30.0))
                yield role.value, f"OK, {model.identity().name}", True
        except (ModelError, BadInput) as error:
            yield role.value, f"{KINDS.get(type(error).__name__, 'failed')}: {error}", False


def promote(found: OpenRepository, number: int, candidate_hash: str) -> Generation:
    with promoter_of(found) as promoter:
        promoter.promote(number, candidate_hash)
    reports(found)
    return found.ledger.state().generation(number)


def roll_back(found: OpenRepository, number: int | None) -> Generation:
    """Back to the version before; a generation that is still worked on is ended in its place."""
    one = found.ledger.state().generation(number) if number is not None else None
    if one is not None and one.phase in (Phase.PREPARING, Phase.RUNNING):
        return cancel(found, one)
    # No site is needed, and none is asked for: this must work where nothing else does.
    ended = plain_promoter(found).roll_back(number)
    reports(found)
    return found.ledger.state().generation(ended.generation)


def cancel(found: OpenRepository, one: Generation) -> Generation:
    """End the work on a generation, once that is on record."""
    pid = running(found.folder, one.number)
    one = move(found.ledger, one, Phase.CANCELLED, evidence="cancelled by a person")
    if pid:
        end_group(pid)
    return one


def campaign(found: OpenRepository) -> str:
    """The autonomous cycle; the reason of its end."""
    with contextlib.closing(RunLock(found.folder / "campaign", "campaign")):
        for role in (Role.PRIME, Role.LAB, *([Role.REVIEWER] if found.settings.review else [])):
            model_of(found, role, 0).close()
        with (
            promoter_of(found) as promoter,
            stoppable() as stop,
            site_of(found) as verifier_context,
        ):
            begin(found, promoter)
            keeper = keeper_of(found, verifier_context)
            if keeper.lane:
                _fix_rule(found, keeper.rule)
            try:
                most = found.settings.generations or 1_000_000
                return run(campaign_of(found, promoter, keeper, stop.is_set), most)
            finally:
                reports(found)


def _fix_rule(found: OpenRepository, rule: BenchmarkRule) -> None:
    """What alpha is divided by does not change once a campaign has begun. Raises NotAllowed."""
    asked = Begun(generations=rule.challengers, tasks=found.settings.tasks, alpha=rule.alpha, seed=0)
    if found.ledger.state().begun != asked:
        record(found, asked)
