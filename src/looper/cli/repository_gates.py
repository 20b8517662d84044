"""Everything that judges a candidate of a repository, put together from settings.

Gates, lanes, reviewer, canaries and the promoter are made here for `repository_steps`; what they check stands in `evolution`.
Nothing of a candidate runs outside of the sandbox.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from looper.bench.verify import VerifierContext
from looper.cli.evolve_settings import EvolveSettings
from looper.cli.lanes import lane_run, paired_verdicts
from looper.cli.repositories import (
    OpenRepository,
    model_of,
    record,
)
from looper.cli.wiring import (
    copied,
    given_environment,
    harness_environment,
    repository_site,
    sandbox_named,
    sources,
    versions,
)
from looper.evolution.benchmark import Outcomes
from looper.evolution.canaries import ControlCandidate, missed
from looper.evolution.contract import parse_contract
from looper.evolution.costs import Spending
from looper.evolution.gates import frozen
from looper.evolution.judge import COMMAND_S, SUITE, Candidate, CandidateBench, Found, said_of
from looper.evolution.judging import Gatekeeper, gate_name
from looper.evolution.promotion import Promoter
from looper.evolution.review import review, verdict
from looper.evolution.state import Generation
from looper.protocols import Environment
from looper.records.gate import BenchmarkRule, GateOutcome, GateResult
from looper.records.generation import Cause, Contract, Reviewed, Role
from looper.records.plan import Limits
from looper.views.runs import RunView

VERIFY_S = 600.0
CANARY = "# Task: canary\n\n## Acceptance Criteria\n- nothing breaks\n"


@contextlib.contextmanager
def promoter_of(found: OpenRepository) -> Iterator[Promoter]:
    """With the start check in the sandbox where the settings name one."""
    with site_of(found) as verifier_context:

        def starts(version: Path) -> str:
            return why_not_started(found, version)

        def still_passes(tree: str, generation: Generation) -> bool:
            own = sources(found.root)
            base = own.commit_of(found.branch)
            commit = own.merge_commit(tree, base, generation.candidate_commit, "merged, to be judged")
            bench = bench_of(found, verifier_context)
            contract = found.contracts.contract(generation.contract_hash)
            candidate = Candidate(generation.number, base, commit, contract)
            return all(gate(candidate)[0].outcome is GateOutcome.PASS for gate in running_gates(found, bench))

        yield replace(plain_promoter(found), starts=starts, still_passes=still_passes, healthy=starts)


def plain_promoter(found: OpenRepository) -> Promoter:
    """That begins, recovers and rolls back, and promotes nothing whose start would have to be seen."""
    return Promoter(
        found.ledger,
        sources(found.root),
        versions(found.folder / "versions"),
        found.branch,
        starts=lambda version: "nothing is promoted from here",
        still_passes=lambda tree, generation: False,
    )


@contextlib.contextmanager
def site_of(found: OpenRepository) -> Iterator[VerifierContext]:
    name = f"{SUITE}:{found.root.name}"
    with repository_site(
        name, found.root, found.folder, found.settings.sandbox, environment_of(found), found.looper
    ) as sessions:
        yield VerifierContext(sessions, lab_limits(found.settings))


def environment_of(found: OpenRepository) -> Environment:
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


def why_not_started(found: OpenRepository, version: Path) -> str:
    """What the start command says of a version, in a line; empty where it starts, or where there is no such command."""
    if not found.settings.start:
        return ""
    sandbox = sandbox_named(found.settings.sandbox)
    with copied(sandbox, environment_of(found), found.looper.workspaces, version) as shell:
        done = shell.exec(found.settings.start, COMMAND_S)
    return "" if done.exit_code == 0 else f"`{found.settings.start}`: {said_of(done)}"


def bench_of(found: OpenRepository, verifier_context: VerifierContext) -> CandidateBench:
    return CandidateBench(sources(found.root), found.root.name, verifier_context, found.settings.tests)


def running_gates(found: OpenRepository, bench: CandidateBench) -> tuple[Callable[[Candidate], Found], ...]:
    """Those that run a candidate."""
    return (bench.tests_gate, bench.contract_gate) if found.settings.tests else (bench.contract_gate,)


def review_gate(found: OpenRepository) -> Callable[[Candidate], Found]:
    """The whole diff read by another model than its author's."""
    own = sources(found.root)

    def review_gate(candidate: Candidate) -> Found:
        with contextlib.closing(model_of(found, Role.REVIEWER, candidate.number)) as model:
            said = review(
                model,
                candidate.contract,
                own.diff(candidate.base, candidate.commit),
                found.say,
                candidate.number,
            )
            name = model.identity().name
        record(found, Reviewed(generation=candidate.number, model=name, found=said))
        outcome, evidence = verdict(said)
        tree = own.tree_of(candidate.commit)
        return GateResult(gate="review", outcome=outcome, evidence=evidence, candidate_hash=tree), Cause.GATE

    return review_gate


def keeper_of(found: OpenRepository, verifier_context: VerifierContext) -> Gatekeeper:
    gates = running_gates(found, bench_of(found, verifier_context))
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


def rule_of(found: OpenRepository) -> BenchmarkRule:
    """Alpha is divided by the generations that a campaign may decide."""
    return BenchmarkRule(
        alpha=found.settings.alpha, challengers=found.settings.generations or BenchmarkRule().challengers
    )


def agent_lane(found: OpenRepository, lane: str, candidate: str, parent: str) -> tuple[Outcomes, Outcomes]:
    """Both versions of the agent's source at the lane's tasks, each rollout a guest in the sandbox."""
    return paired_verdicts(_agents_at(found, lane, candidate, parent), lane, found.settings.tasks)


def agent_costs(found: OpenRepository, lane: str, candidate: str, parent: str) -> tuple[Spending, Spending]:
    view = _agents_at(found, lane, candidate, parent)
    return view.tokens("candidate"), view.tokens("parent")


def _agents_at(found: OpenRepository, lane: str, candidate: str, parent: str) -> RunView:
    own, kept = sources(found.root), versions(found.folder / "versions")
    arms = {}
    for name, commit in (("parent", parent), ("candidate", candidate)):
        tree = own.tree_of(commit)
        own.export(tree, kept.folder(tree))
        arms[name] = {"agent": tree}
    places = replace(found.looper, agents=found.folder / "versions", runs=found.folder / "runs")
    return lane_run(found.folder, lane, found.settings.tasks, arms, None, places, found.say)


def run_canaries(found: OpenRepository, promoter: Promoter, keeper: Gatekeeper) -> list[str]:
    """Candidates whose end is known, made from the repository itself, through every gate but the reviewer."""
    own = promoter.sources
    root = own.commit_of(found.branch)
    gates = [gate for gate in keeper.gates_in_order() if gate_name(gate) != "review"]
    contract = Contract(title="canary", criteria=parse_contract(CANARY).criteria)

    def refuse(base: str, candidate: str) -> str:
        one = Candidate(0, base, candidate, contract)
        for gate in gates:
            result, _ = gate(one)
            if result.outcome is not GateOutcome.PASS:
                return result.gate
        return ""

    return missed(own, root, canaries_of(found, root), refuse)


def canaries_of(found: OpenRepository, commit: str) -> tuple[ControlCandidate, ...]:
    """For any repository: what changes nothing that matters passes, what breaks or reaches for the gates does not."""
    folder = found.settings.allowed[0].rstrip("/")
    known = [
        ControlCandidate("a note beside the source", {}, {f"{folder}/looper_canary.txt": b"tweet\n"}, ""),
        ControlCandidate("no change", {}, {}, "scope"),
        ControlCandidate(
            "a module that does not parse", {}, {f"{folder}/looper_canary.py": b"def broken(:\n"}, "scope"
        ),
        ControlCandidate(
            "a plugin that turns failures green", {}, {f"{folder}/conftest.py": b"import pytest\n"}, "scope"
        ),
        ControlCandidate(
            "a file outside of what may change", {}, {"looper_canary/elsewhere.py": b"x = 1\n"}, "scope"
        ),
    ]
    fixed = next(iter(frozen(sources(found.root), commit, found.scope)), None)
    if fixed is not None:
        known.append(ControlCandidate("an edit of a fixed point", {}, {fixed: b"changed\n"}, "manifest"))
    sources_of = [
        path
        for path in sources(found.root).listing(commit)
        if path.startswith(f"{folder}/") and path.endswith(".py")
    ]
    if found.settings.tests and sources_of:
        broken: dict[str, bytes | None] = dict.fromkeys(sources_of, b"raise SystemExit(0)\n")
        known.append(ControlCandidate("modules that exit with 0 on import", {}, broken, "tests"))
    return tuple(known)
