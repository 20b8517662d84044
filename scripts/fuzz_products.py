"""Hostile products through real verification: each ends as its own cell's verdict, none is resolved, none hangs, none stops a run.

    python scripts/fuzz_products.py [--least 400] [--workers 2] [--verify-s 10] [--isolation process]

Products are an attack at a moment (tests/fakes/hostile_products.py), in tasks of the embedded suite's levels 0 and 1, run by
pytest with our options and as a repository configures it; with our options alone where tests have a process of their own. Twelve
minutes on two busy cores.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.fakes.hostile_products import Hostile, products

from looper.bench.verify import TestReport, VerifierContext, verify
from looper.cli.settings import settings
from looper.edges.datasets.micro import MicroSuite
from looper.edges.environments.harness import HarnessEnvironment
from looper.edges.sandboxes.check import find_sandbox
from looper.edges.workspaces.exports import GitSessions
from looper.protocols import Sessions
from looper.records.plan import Isolation, Limits
from looper.records.task import Task
from looper.records.verdict import Outcome

GRACE_S = 20.0
"""Beyond the limit of a test run: workspace, patch, clearing up, and the other things that the machine does."""


@dataclass(frozen=True)
class Trial:
    """One hostile product in one task."""

    task: Task
    product: Hostile


@dataclass(frozen=True)
class End:
    """How a trial ended; what is wrong with that is empty where nothing is."""

    trial: Trial
    outcome: str
    cause: str
    seconds: float
    wrong: str


def configured(task: Task) -> Task:
    """The same task, run as a repository of its own configures pytest."""
    files = {name.partition("::")[0] for name in (*task.fail_to_pass, *task.pass_to_pass)}
    return task.model_copy(update={"environment": f"{task.repo}@1", "test_targets": tuple(sorted(files))})


def trials(tasks: Sequence[Task], sessions: Sessions, least: int, seed: int) -> Iterator[Trial]:
    """Every product in some task, and again in others where that is too few."""
    draw = random.Random(seed)
    sources = {task: (sessions.base_file(task, task.modified_files[0]) or b"").decode() for task in tasks}
    for number in range(least):
        task = draw.choice(tasks)
        found = list(products(sources[task]))
        yield Trial(task, found[number % len(found)])


def judged(trial: Trial, verifier_context: VerifierContext) -> End:
    begun = time.monotonic()
    task = trial.task
    limit = verifier_context.limits.verify_s + GRACE_S
    try:
        found: TestReport = verify(task, _patch(trial, verifier_context), verifier_context, "fuzz")
        outcome, cause = found.outcome.value, found.cause
        wrong = "" if found.outcome in (Outcome.UNRESOLVED, Outcome.TAMPERED) else "is resolved"
    except Exception as error:
        outcome, cause, wrong = type(error).__name__, str(error), "is no verdict"
    seconds = time.monotonic() - begun
    return End(trial, outcome, cause, seconds, wrong or ("hangs" if seconds > limit else ""))


def _patch(trial: Trial, verifier_context: VerifierContext) -> str:
    session = verifier_context.sessions.open(trial.task, "make")
    try:
        session.write(trial.task.modified_files[0], trial.product.source.encode())
        return session.patch()[0]
    finally:
        session.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--least", type=int, default=400)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--verify-s", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="products whose name holds this")
    parser.add_argument("--sandbox", default="auto")
    parser.add_argument("--isolation", type=Isolation, choices=Isolation, default=Isolation.SHARED)
    options = parser.parse_args()
    state, sandbox = settings().state, find_sandbox(options.sandbox)
    state.mkdir(parents=True, exist_ok=True)
    environments = HarnessEnvironment(state / "environments")
    limits = Limits(
        steps=1, output_tokens=1, context_tokens=2, wall_s=60, command_s=60, verify_s=options.verify_s
    )
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(dir=state) as name, ThreadPoolExecutor(options.workers) as pool:
        place = Path(name)
        place.chmod(0o755)
        tasks: list[Task] = []
        everywhere: dict[str, Path] = {}
        for level in (0, 1):
            known, mirrors = MicroSuite(state / "suites", level, 0).load()
            everywhere |= mirrors
            tasks += [
                configured(task) if at % 2 == 0 and options.isolation is Isolation.SHARED else task
                for at, task in enumerate(known[::40])
            ]
        # As a run has them: one product's tree is the next one's.
        sessions = GitSessions(everywhere, state / "exports", place, sandbox, environments.of)
        verifier_context = VerifierContext(sessions, limits, isolation=options.isolation)
        for task in tasks:
            honest = verify(task, task.gold_patch, verifier_context, "gold")
            assert honest.outcome is Outcome.RESOLVED, honest
        every = trials(tasks, sessions, options.least, options.seed)
        chosen = [trial for trial in every if options.only in trial.product.name]
        if not chosen:
            raise SystemExit(f"None of {options.least} products is called {options.only}: more with --least.")
        ends = []
        for end in pool.map(lambda trial: judged(trial, verifier_context), chosen):
            ends.append(end)
            if end.wrong or options.only:
                print(
                    f"{'WRONG ' if end.wrong else ''}{end.trial.task.instance_id} ({end.trial.task.environment}): "
                    f"{end.trial.product.name}: {end.wrong or 'ends'}: {end.outcome}, {end.cause[:300]} ({end.seconds:.1f} s)",
                    flush=True,
                )
        left = [
            path.name
            for path in place.iterdir()
            if not path.name.startswith("runners-") and path.suffix != ".idle"
        ]
    counts = Counter(end.outcome for end in ends)
    wrong = sum(bool(end.wrong) for end in ends)
    print(
        f"{len(ends)} hostile products in {sandbox.name}, {options.isolation.value}: {', '.join(f'{many} {name}' for name, many in counts.most_common())}; "
        f"{wrong} wrong; {len(left)} folders left; longest {max(end.seconds for end in ends):.1f} s; "
        f"{time.monotonic() - begun:.0f} s in all"
    )
    raise SystemExit(1 if wrong or left else 0)


if __name__ == "__main__":
    main()
