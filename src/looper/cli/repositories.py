"""What `looper evolve` does to a repository of the user's: its parts, put together from settings."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from looper.bench.verify import Court
from looper.cli.campaigns import PLACE
from looper.cli.evolve_settings import EvolveSettings, as_variables, evolve_settings, price
from looper.cli.lanes import both, lane_run
from looper.cli.settings import Settings
from looper.cli.wiring import (
    end_lab,
    given_environment,
    harness_environment,
    lab_process,
    repository_site,
    role_model,
    scratch,
    sources,
    stoppable,
    versions,
)
from looper.errors import BadInput, ModelError
from looper.evolution.authors import LabAuthor, Process, in_lab, lab_folder, running
from looper.evolution.benchmark import Outcomes
from looper.evolution.budget import Account, Allowance, Metered, Price
from looper.evolution.canaries import Canary, missed
from looper.evolution.contract import Contracts, parse_contract
from looper.evolution.costs import Spending
from looper.evolution.cycle import Campaign, Proposal, admitted, carry_on, judged, run
from looper.evolution.gates import Scope
from looper.evolution.judge import SUITE, Bench, Candidate, Found, run_in, said_of
from looper.evolution.judging import Gatekeeper, gate_name
from looper.evolution.lab import Lab
from looper.evolution.ledger import Ledger
from looper.evolution.moves import move
from looper.evolution.promotion import Promoter
from looper.evolution.proposers import Prime
from looper.evolution.review import review, verdict
from looper.evolution.state import Generation, NotAllowed
from looper.experiment.plans import parse_model
from looper.journal import RunLock, replace_file
from looper.protocols import ChatModel, ChatRequest, Environment, Sandbox
from looper.records.gate import BenchmarkRule, GateOutcome, GateResult
from looper.records.generation import Begun, Cause, Contract, Happened, Phase, Reviewed, Role, Source, Spent
from looper.records.plan import Limits
from looper.views.evolution import derived
from looper.views.runs import RunView

CONTEXT_TOKENS = 200_000
VERIFY_S = 600.0
Say = Callable[[str], None]


@dataclass(frozen=True)
class Opened:
    """A repository that evolves, with everything that its commands need and no model yet."""

    root: Path
    folder: Path
    settings: EvolveSettings
    looper: Settings
    chosen: Mapping[str, Any]
    """On the command line, so that the process of a lab is told too."""
    ledger: Ledger
    contracts: Contracts
    say: Say

    @property
    def branch(self) -> str:
        return f"refs/heads/{self.settings.branch}"

    @property
    def scope(self) -> Scope:
        found = self.settings
        return Scope(found.allowed, found.protected, found.file_bytes, found.changed_lines)


def opened(root: Path, chosen: Mapping[str, Any], looper: Settings, say: Say) -> Opened:
    """Raises BadInput where there is no repository, or where settings cannot be used."""
    root = root.absolute()
    sources(root)
    folder = root / PLACE
    folder.mkdir(parents=True, exist_ok=True)
    (folder.parent / ".gitignore").write_text("*\n")
    found = evolve_settings(root, chosen)
    return Opened(
        root, folder, found, looper, chosen, Ledger(folder / "ledger"), Contracts(folder / "contracts"), say
    )


# Models


def model_of(found: Opened, role: Role, generation: int) -> Metered:
    """The model of a role, within the campaign's budget. Raises BadInput where none is set, BudgetSpent."""
    settings = found.settings
    name = role.value
    own = getattr(settings, name)
    # A reviewer that nobody chose is the model that proposes, with all that belongs to it.
    source = "prime" if role is Role.REVIEWER and not own else name
    text = getattr(settings, source)
    if not text:
        raise BadInput(
            f"No model is set for the {name}. Name one: --{name} anthropic:NAME, LOOPER_EVOLVE_{name.upper()}, or {name} in [evolve] of "
            "looper.toml."
        )
    if role is Role.REVIEWER and text == settings.lab:
        raise BadInput(
            f"{text} would review its own work. Give the reviewer another model: --reviewer, or the lab."
        )
    spec = parse_model(text)
    if endpoint := getattr(settings, f"{source}_endpoint"):
        spec = spec.model_copy(update={"base_url": endpoint})
    fallback = {"anthropic": found.looper.anthropic_key, "openai": found.looper.openai_key}.get(
        spec.backend, ""
    )
    key = getattr(settings, f"{source}_key").get_secret_value() or fallback
    context = settings.max_context if role is Role.LAB else CONTEXT_TOKENS
    inner: ChatModel = role_model(spec, key, context, settings.patience_s)
    cost = price(getattr(settings, f"{source}_price"))
    return Metered(
        inner,
        account_of(found),
        Price(*cost) if cost else None,
        role,
        generation,
        lambda spent: _record(found, spent),
    )


def _record(found: Opened, happened: Happened) -> None:
    found.ledger.record(lambda now: happened)


def account_of(found: Opened) -> Account:
    """What is left, by what the ledger says was spent."""
    settings, state = found.settings, found.ledger.state()
    allowance = Allowance(
        settings.token_budget or None,
        settings.call_budget or None,
        settings.call_window_s,
        settings.money_budget or None,
    )
    if allowance.usd is not None and state.cost_usd is None:
        raise BadInput("Money is limited, and the price of earlier calls is not known. Limit tokens instead.")
    made = [
        _seconds(event.at)
        for event in found.ledger.events()
        if isinstance(event.happened, Spent)
        for _ in range(event.happened.calls)
    ]
    return Account(allowance, state.total_tokens, state.cost_usd or 0.0, made)


def _seconds(at: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(at).timestamp()


# Judging


@contextlib.contextmanager
def promoter_of(found: Opened) -> Iterator[Promoter]:
    """With the start check in the sandbox where the settings name one."""
    with _site(found) as (court, environment):

        def starts(version: Path) -> str:
            return why_not_started(found, court.sandbox, environment, version)

        def still_passes(tree: str, generation: Generation) -> bool:
            own = sources(found.root)
            base = own.commit_of(found.branch)
            commit = own.merge_commit(tree, base, generation.candidate_commit, "merged, to be judged")
            bench = bench_of(found, court, environment)
            contract = found.contracts.contract(generation.contract_hash)
            candidate = Candidate(generation.number, base, commit, contract)
            return all(gate(candidate)[0].outcome is GateOutcome.PASS for gate in running_gates(found, bench))

        yield Promoter(
            found.ledger,
            sources(found.root),
            versions(found.folder / "versions"),
            found.branch,
            starts=starts,
            still_passes=still_passes,
            healthy=starts,
        )


@contextlib.contextmanager
def _site(found: Opened) -> Iterator[tuple[Court, Environment]]:
    place = repository_site(
        f"{SUITE}:{found.root.name}", found.root, found.folder, found.settings.sandbox, found.looper
    )
    with place as (workspaces, sandbox):
        yield Court(workspaces, sandbox, lab_limits(found.settings)), environment_of(found)


def environment_of(found: Opened) -> Environment:
    """The interpreter that labs and tests have."""
    settings = found.settings
    variables = {"PYTHONPATH": f"{{root}}/{settings.pythonpath}"} if settings.pythonpath else {}
    if settings.python:
        return given_environment(found.root / settings.python, variables)
    plain = harness_environment(found.looper)
    return replace(plain, variables={**plain.variables, **variables})


def lab_limits(settings: EvolveSettings) -> Limits:
    return Limits(
        steps=settings.max_iterations,
        output_tokens=settings.max_output,
        context_tokens=settings.max_context,
        wall_s=settings.lab_timeout_s,
        command_s=min(120.0, settings.lab_timeout_s),
        verify_s=VERIFY_S,
    )


def why_not_started(found: Opened, sandbox: Sandbox, environment: Environment, version: Path) -> str:
    """What the start command says of a version, in a line; empty where it starts, or where there is no such command."""
    if not found.settings.start:
        return ""
    with scratch(sandbox, found.looper.workspaces) as root:
        command = f"cp -r {version}/. . && {found.settings.start}"
        done = run_in(sandbox, environment, root, command, (version,))
    return "" if done.exit_code == 0 else f"`{found.settings.start}`: {said_of(done)}"


def bench_of(found: Opened, court: Court, environment: Environment) -> Bench:
    return Bench(sources(found.root), found.root.name, environment, court, found.settings.tests)


def running_gates(found: Opened, bench: Bench) -> tuple[Callable[[Candidate], Found], ...]:
    """Those that run a candidate."""
    return (bench.tests_gate, bench.contract_gate) if found.settings.tests else (bench.contract_gate,)


def review_gate(found: Opened) -> Callable[[Candidate], Found]:
    """The whole diff read by another model than its author's."""
    own = sources(found.root)

    def review_gate(candidate: Candidate) -> Found:
        model = model_of(found, Role.REVIEWER, candidate.number)
        try:
            said = review(
                model,
                candidate.contract,
                own.diff(candidate.base, candidate.commit),
                found.say,
                candidate.number,
            )
            name = model.identity().name
        finally:
            model.close()
        _record(found, Reviewed(generation=candidate.number, model=name, found=said))
        outcome, evidence = verdict(said)
        tree = own.tree_of(candidate.commit)
        return GateResult(gate="review", outcome=outcome, evidence=evidence, candidate_hash=tree), Cause.GATE

    return review_gate


def keeper_of(found: Opened, court: Court, environment: Environment) -> Gatekeeper:
    gates = running_gates(found, bench_of(found, court, environment))
    if found.settings.review:
        gates = (*gates, review_gate(found))
    benchmark = bool(found.settings.benchmark)
    return Gatekeeper(
        found.ledger,
        sources(found.root),
        found.scope,
        gates,
        partial(agent_lane, found) if benchmark else None,
        rule_of(found),
        found.contracts.contract,
        found.say,
        partial(agent_costs, found) if benchmark else None,
    )


def rule_of(found: Opened) -> BenchmarkRule:
    """Alpha is divided by the generations that a campaign may decide."""
    return BenchmarkRule(
        alpha=found.settings.alpha, challengers=found.settings.generations or BenchmarkRule().challengers
    )


def agent_lane(found: Opened, lane: str, candidate: str, parent: str) -> tuple[Outcomes, Outcomes]:
    """Both versions of the agent's source at the lane's tasks, each rollout a guest in the sandbox."""
    return both(_agents_at(found, lane, candidate, parent), lane, found.settings.tasks)


def agent_costs(found: Opened, lane: str, candidate: str, parent: str) -> tuple[Spending, Spending]:
    view = _agents_at(found, lane, candidate, parent)
    return view.tokens("candidate"), view.tokens("parent")


def _agents_at(found: Opened, lane: str, candidate: str, parent: str) -> RunView:
    own, kept = sources(found.root), versions(found.folder / "versions")
    arms = {}
    for name, commit in (("parent", parent), ("candidate", candidate)):
        tree = own.tree_of(commit)
        own.export(tree, kept.folder(tree))
        arms[name] = {"agent": tree}
    places = replace(found.looper, agents=found.folder / "versions", runs=found.folder / "runs")
    return lane_run(found.folder, lane, found.settings.tasks, arms, None, places, found.say)


# Commands


def pause(seconds: float) -> None:
    """Between two tries at a model that fails."""
    time.sleep(seconds)


def begin(found: Opened, promoter: Promoter) -> None:
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


def proposed(found: Opened, lookback: int | None) -> tuple[Contract, str]:
    """What the prime proposes now; nothing is begun."""
    with stoppable():
        return Prime(
            partial(model_of, found, Role.PRIME, 0),
            found.contracts,
            partial(changeable, found),
            partial(priorities, found),
            found.settings.allowed,
            lookback or found.settings.lookback,
            partial(budget_left, found),
            found.say,
        ).contract(found.ledger.state())


def changeable(found: Opened) -> dict[str, str]:
    """The source that a candidate may change, as it is now."""
    own = sources(found.root)
    state = found.ledger.state()
    commit = own.commit_of(found.branch if state.active else "HEAD")
    texts = {}
    for path in own.listing(commit):
        if any(path.startswith(f"{folder.rstrip('/')}/") for folder in found.settings.allowed):
            content = own.file(commit, path)
            if content is not None and b"\0" not in content[:8192]:
                texts[path] = content.decode("utf-8", "replace")
    return texts


def priorities(found: Opened) -> str:
    path = found.root / "priorities.md"
    return path.read_text("utf-8", "replace") if path.is_file() else ""


def budget_left(found: Opened) -> str:
    settings, state = found.settings, found.ledger.state()
    if not settings.token_budget:
        return ""
    return f"{max(0, settings.token_budget - state.total_tokens)} of {settings.token_budget} tokens"


def spawn(found: Opened, text: str, request: str, source: Source, *, detach: bool) -> Generation:
    """A generation from a contract, worked on until it is reported, or begun where it is detached. Raises what ended it."""
    contract = parse_contract(text, found.settings.allowed)
    model_of(found, Role.LAB, 0).close()
    with promoter_of(found) as promoter, stoppable() as stop:
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


def start_lab(found: Opened, number: int) -> Process:
    """The process that works on a generation; what was chosen on this command line it is told through its environment."""
    return lab_process(
        ["evolve", "lab", str(number), "--repo", str(found.root)],
        lab_folder(found.folder, number) / "log",
        as_variables(found.chosen),
    )


def campaign_of(
    found: Opened, promoter: Promoter, keeper: Gatekeeper | None, cancelled: Callable[[], bool]
) -> Campaign:
    prime = Prime(
        lambda: model_of(found, Role.PRIME, 0),
        found.contracts,
        partial(changeable, found),
        partial(priorities, found),
        found.settings.allowed,
        found.settings.lookback,
        partial(budget_left, found),
        found.say,
    )
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
        prime,
        author,
        found.contracts.keep,
        lambda: sing(found, promoter, keeper),
        found.say,
        pause,
        found.settings.plateau_window,
        cancelled,
    )


def work_in_lab(found: Opened, number: int) -> Generation:
    """Inside a lab's own process."""
    with _site(found) as (court, environment), stoppable() as stop:
        bench = bench_of(found, court, environment)
        state = found.ledger.state()
        one = state.generation(number)
        model = model_of(found, Role.LAB, number)
        text = found.contracts.text(one.contract_hash)

        def make(base: str) -> tuple[Lab, Any]:
            task = bench.task(base, text)
            lab = Lab(
                court.workspaces.create(task, f"gen-{number}"),
                court.sandbox,
                environment,
                model,
                court.limits,
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


def verify(found: Opened, number: int) -> Generation:
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
    lock = RunLock(found.folder / "judging" / f"gen-{number}", "judging of")
    try:
        with _site(found) as (court, environment):
            one = judged(keeper_of(found, court, environment), one)
    finally:
        lock.close()
    reports(found)
    return one


def looked_at(found: Opened, number: int, wanted: Sequence[str]) -> Iterator[GateResult]:
    """What single gates say of a generation; nothing is recorded. Raises BadInput for a gate that is not there."""
    one = found.ledger.state().generation(number)
    if not one.candidate_commit:
        raise NotAllowed(f"Generation {number} is {one.phase.value}; there is nothing to look at yet.")
    contract = found.contracts.contract(one.contract_hash)
    candidate = Candidate(number, one.base_commit, one.candidate_commit, contract)
    with _site(found) as (court, environment):
        gates = {gate_name(gate): gate for gate in keeper_of(found, court, environment).looks()}
        for name in wanted:
            if name not in gates:
                raise BadInput(f"There is no gate {name}. There are: {', '.join(gates)}.")
            yield gates[name](candidate)[0]


def probed(found: Opened) -> Iterator[tuple[str, str, bool]]:
    """Role, what its model said, and whether that is well."""
    for role in (Role.PRIME, Role.LAB, Role.REVIEWER):
        try:
            model = model_of(found, role, 0)
            try:
                model.reply(ChatRequest("probe", (("user", "Say: yes"),), 16, 1000, 0.0, 0, 30.0))
                yield role.value, f"OK, {model.identity().name}", True
            finally:
                model.close()
        except (ModelError, BadInput) as error:
            yield role.value, f"{KINDS.get(type(error).__name__, 'failed')}: {error}", False


KINDS = {
    "ModelDenied": "bad key",
    "ModelUnpaid": "no credit",
    "ModelMissing": "bad model",
    "ModelOverloaded": "rate-limited",
    "ModelUnreachable": "unreachable",
    "BadInput": "not set",
}


def promote(found: Opened, number: int, candidate_hash: str) -> Generation:
    with promoter_of(found) as promoter:
        promoter.promote(number, candidate_hash)
    reports(found)
    return found.ledger.state().generation(number)


def roll_back(found: Opened, number: int | None) -> Generation:
    """Back to the version before; a generation that is still worked on is ended in its place."""
    one = found.ledger.state().generation(number) if number is not None else None
    if one is not None and one.phase in (Phase.PREPARING, Phase.RUNNING):
        return cancel(found, one)
    # No site is needed, and none is asked for: this must work where nothing else does.
    plain = Promoter(
        found.ledger,
        sources(found.root),
        versions(found.folder / "versions"),
        found.branch,
        starts=lambda version: "",
        still_passes=lambda tree, generation: False,
    )
    ended = plain.roll_back(number)
    reports(found)
    return found.ledger.state().generation(ended.generation)


def cancel(found: Opened, one: Generation) -> Generation:
    """End the work on a generation, once that is on record."""
    pid = running(found.folder, one.number)
    one = move(found.ledger, one, Phase.CANCELLED, evidence="cancelled by a person")
    if pid:
        end_lab(pid)
    return one


def campaign(found: Opened) -> str:
    """The autonomous cycle; the reason of its end."""
    lock = RunLock(found.folder / "campaign", "campaign")
    try:
        for role in (Role.PRIME, Role.LAB, *([Role.REVIEWER] if found.settings.review else [])):
            model_of(found, role, 0).close()
        with promoter_of(found) as promoter, stoppable() as stop, _site(found) as (court, environment):
            begin(found, promoter)
            keeper = keeper_of(found, court, environment)
            if keeper.lane:
                _fix_rule(found, keeper.rule)
            try:
                most = found.settings.generations or 1_000_000
                return run(campaign_of(found, promoter, keeper, stop.is_set), most)
            finally:
                reports(found)
    finally:
        lock.close()


def _fix_rule(found: Opened, rule: BenchmarkRule) -> None:
    """What alpha is divided by does not change once a campaign has begun. Raises NotAllowed."""
    asked = Begun(generations=rule.challengers, tasks=found.settings.tasks, alpha=rule.alpha, seed=0)
    if found.ledger.state().begun != asked:
        _record(found, asked)


def sing(found: Opened, promoter: Promoter, keeper: Gatekeeper) -> list[str]:
    """Candidates whose end is known, made from the repository itself, through every gate but the reviewer."""
    own = promoter.sources
    root = own.commit_of(found.branch)
    gates = [gate for gate in keeper.looks() if gate_name(gate) != "review"]
    contract = Contract(title="canary", criteria=parse_contract(CANARY).criteria)

    def refuse(base: str, candidate: str) -> str:
        one = Candidate(0, base, candidate, contract)
        for gate in gates:
            result, _ = gate(one)
            if result.outcome is not GateOutcome.PASS:
                return result.gate
        return ""

    return missed(own, root, canaries_of(found, own.listing(root)), refuse)


CANARY = "# Task: canary\n\n## Acceptance Criteria\n- nothing breaks\n"


def canaries_of(found: Opened, listing: Mapping[str, str]) -> tuple[Canary, ...]:
    """For any repository: what changes nothing that matters passes, what breaks or reaches for the gates does not."""
    folder = found.settings.allowed[0].rstrip("/")
    known = [
        Canary("a note beside the source", {}, {f"{folder}/looper_canary.txt": b"tweet\n"}, ""),
        Canary("no change", {}, {}, "scope"),
        Canary(
            "a module that does not parse", {}, {f"{folder}/looper_canary.py": b"def broken(:\n"}, "scope"
        ),
        Canary(
            "a plugin that turns failures green", {}, {f"{folder}/conftest.py": b"import pytest\n"}, "scope"
        ),
        Canary("a file outside of what may change", {}, {"looper_canary/elsewhere.py": b"x = 1\n"}, "scope"),
    ]
    fixed = next((path for path in listing if keeper_fixed(path, found.scope)), None)
    if fixed is not None:
        known.append(Canary("an edit of a fixed point", {}, {fixed: b"changed\n"}, "manifest"))
    sources_of = [path for path in listing if path.startswith(f"{folder}/") and path.endswith(".py")]
    if found.settings.tests and sources_of:
        broken: dict[str, bytes | None] = dict.fromkeys(sources_of, b"raise SystemExit(0)\n")
        known.append(Canary("modules that exit with 0 on import", {}, broken, "tests"))
    return tuple(known)


def keeper_fixed(path: str, scope: Scope) -> bool:
    from fnmatch import fnmatchcase

    return any(fnmatchcase(path, pattern) for pattern in scope.protected)


def reports(found: Opened) -> None:
    """Everything that is derived from the ledger, written anew."""
    events, state = found.ledger.events(), found.ledger.state()
    for path, text in derived(events, state, found.contracts.text):
        target = found.folder / path
        target.parent.mkdir(exist_ok=True)
        if not target.is_file() or target.read_text("utf-8") != text:
            replace_file(target, text.encode())
