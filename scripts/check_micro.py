"""Gold resolves and the empty patch does not, on every task of every level of the embedded suite.

    python scripts/check_micro.py [--workers 2] [--isolation process]

960 tasks, 1,920 verifications: about ten minutes on two cores. The tests do a sample of this.
"""

import argparse
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from looper.bench.verify import VerifierContext, verify
from looper.cli.settings import settings
from looper.edges.datasets.micro import MicroSuite
from looper.edges.environments.harness import HarnessEnvironment
from looper.edges.sandboxes.check import find_sandbox
from looper.edges.workspaces.exports import GitSessions
from looper.records.plan import Isolation, Limits
from looper.records.task import Task
from looper.records.verdict import Outcome

LIMITS = Limits(steps=1, output_tokens=1, context_tokens=2, wall_s=60, command_s=60, verify_s=120)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--level", type=int, action="append")
    parser.add_argument("--isolation", type=Isolation, choices=list(Isolation), default=Isolation.SHARED)
    options = parser.parse_args()
    state, sandbox = settings().state, find_sandbox("auto")
    environments = HarnessEnvironment(state / "environments")
    failures = 0
    for level in options.level or (0, 1, 2):
        tasks, mirrors = MicroSuite(state / "suites", level, options.seed).load()
        with tempfile.TemporaryDirectory(dir=state) as place, ThreadPoolExecutor(options.workers) as pool:
            Path(place).chmod(0o755)
            verifier_context = VerifierContext(
                GitSessions(mirrors, state / "exports", Path(place), sandbox, environments.of),
                LIMITS,
                isolation=options.isolation,
            )

            def outcomes(
                task: Task, verifier_context: VerifierContext = verifier_context
            ) -> tuple[bool, bool]:
                gold = verify(task, task.gold_patch, verifier_context, "gold").outcome is Outcome.RESOLVED
                empty = verify(task, "", verifier_context, "empty").outcome is Outcome.UNRESOLVED
                return gold, empty

            found = list(pool.map(outcomes, tasks))
        gold, empty = (sum(pair[side] for pair in found) for side in (0, 1))
        failures += 2 * len(found) - gold - empty
        print(
            f"level {level}: gold resolves {gold}/{len(found)}, empty does not {empty}/{len(found)}",
            flush=True,
        )
    raise SystemExit(1 if failures else 0)


if __name__ == "__main__":
    main()
