"""What the harness itself costs: per agent turn beside mini-swe-agent, `looper --help`, and tasks through the runner.

    python -m venv /tmp/peer && /tmp/peer/bin/pip install mini-swe-agent
    python scripts/bench_overhead.py --peer /tmp/peer/bin/python
    python scripts/bench_overhead.py --before /tmp/older/src     (an older tree: what grading costs there and here, nothing else)

Each turn is a scripted model that asks for `true`; every step of both systems is written to disk, Looper's with fsync.
The systems take turns within one run, and the figures are medians over the rounds, so that a noisy machine bothers both.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from looper.agent.loop import Assignment, rollout
from looper.agent.scaffold import packaged_scaffold
from looper.agent.tools import ToolContext
from looper.cli.settings import settings
from looper.edges.datasets.micro import MicroSuite
from looper.edges.environments.harness import HarnessEnvironment
from looper.edges.models.scripted import ScriptedModel
from looper.edges.sandboxes.bare import NoSandbox
from looper.edges.sandboxes.check import find_sandbox
from looper.edges.workspaces.exports import GitSessions
from looper.journal import Stream
from looper.protocols import Sandbox
from looper.records.memory import Delivery
from looper.records.plan import GuardSettings, Limits
from looper.records.trajectory import Step

TURNS = 20
PEER = """
import json, sys, tempfile, time
from pathlib import Path
from minisweagent.agents.default import DefaultAgent
from minisweagent.environments.local import LocalEnvironment
from minisweagent.models.test_models import DeterministicModel, make_output
turns, folder = int(sys.argv[1]), Path(sys.argv[2])
outputs = [make_output("run", [{"command": "true"}], cost=0.0) for _ in range(turns)]
outputs.append(make_output("end", [{"command": "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"}], cost=0.0))
agent = DefaultAgent(
    DeterministicModel(outputs=outputs), LocalEnvironment(cwd=str(folder)),
    system_template="You fix things.", instance_template="{{task}}", cost_limit=0.0, step_limit=0,
    output_path=folder / "trajectory.json",
)
begun = time.perf_counter()
agent.run("fix it")
print(json.dumps({"seconds": time.perf_counter() - begun, "calls": agent.n_calls}))
"""

GRADING = """
import sys, time
from pathlib import Path
from looper.bench import verify as verifying
from looper.edges.datasets.micro import MicroSuite
from looper.edges.environments.harness import HarnessEnvironment
from looper.edges.sandboxes.check import find_sandbox
from looper.edges.workspaces import exports
from looper.records.plan import Limits
state, level, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
tasks, mirrors = MicroSuite(state / "suites", level, 0).load()
sandbox = find_sandbox("auto")
environments, places = HarnessEnvironment(state / "environments"), (mirrors, state / "exports", state / "workspaces")
limits = Limits(steps=8, output_tokens=256, context_tokens=4096, wall_s=60, command_s=10, verify_s=60)
if hasattr(exports, "GitSessions"):
    given = (verifying.VerifierContext(exports.GitSessions(*places, sandbox, environments.of), limits), "v")
else:  # Versions before sessions hand the environment around; the first ones have another name for the context.
    context = getattr(verifying, "VerifierContext", None) or verifying.Court
    given = (environments.of(tasks[0]), context(exports.GitWorkspaces(*places, sandbox.owner), sandbox, limits), "v")
def judge(task, patch, outcome):
    assert verifying.verify(task, patch, *given).outcome == outcome, task.instance_id
judge(tasks[0], tasks[0].gold_patch, "resolved")
wanted = [(task, patch, outcome) for task in tasks[:count] for patch, outcome in ((task.gold_patch, "resolved"), ("", "unresolved"))]
print("ready", flush=True)
for number, _ in enumerate(sys.stdin):
    judge(*wanted[number % len(wanted)])
    print("judged", flush=True)
"""
ACCOUNT = Path("/sys/fs/cgroup/cpuacct")
"""Of CPU time by group: what runs inside bubblewrap is nobody's child in the end, so `getrusage` does not see it."""


class Grader:
    """Judges one patch after another, when it is told to, in a group of its own."""

    def __init__(self, name: str, source: Path, state: Path, level: int, tasks: int) -> None:
        self._group = ACCOUNT / f"looper-bench-{os.getpid()}-{name}"
        self._group.mkdir()
        self._child = subprocess.Popen(
            [sys.executable, "-c", GRADING, str(state / f"grading-{name}"), str(level), str(tasks)],
            env={**os.environ, "PYTHONPATH": str(source)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        (self._group / "cgroup.procs").write_text(str(self._child.pid))
        self._wait_for("ready")

    def _wait_for(self, word: str) -> None:
        assert self._child.stdout is not None
        assert self._child.stdout.readline().strip() == word

    def judge(self) -> float:
        """Milliseconds of CPU time of the next verdict."""
        assert self._child.stdin is not None
        before = int((self._group / "cpuacct.usage").read_text())
        self._child.stdin.write("\n")
        self._child.stdin.flush()
        self._wait_for("judged")
        return (int((self._group / "cpuacct.usage").read_text()) - before) / 1e6

    def close(self) -> None:
        self._child.communicate()
        while (self._group / "cgroup.procs").read_text():
            time.sleep(0.1)
        self._group.rmdir()


def compare_grading(before: Path, state: Path, rounds: int, tasks: int) -> None:
    """Verdict by verdict in turn: a machine's speed changes by a third within seconds."""
    now = Path(__file__).parents[1] / "src"
    print(
        f"CPU per verdict, gold and nothing on {tasks} tasks, {rounds} rounds, the two versions in turn:",
        flush=True,
    )
    for level in (0, 1, 2):
        # States of their own: each version's exports are its own.
        graders = [
            Grader(name, source, state, level, tasks) for name, source in (("before", before), ("now", now))
        ]
        pairs = []
        for number in range(2 * tasks * rounds):
            order = graders if number % 2 else graders[::-1]
            used = {grader: grader.judge() for grader in order}
            pairs.append([used[grader] for grader in graders])
        for grader in graders:
            grader.close()
        old, new = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
        ratio = statistics.median(pair[1] / pair[0] for pair in pairs)
        sums = sum(pair[1] for pair in pairs) / sum(pair[0] for pair in pairs)
        print(
            f"  level {level}: before {old:.1f} ms, now {new:.1f} ms, median ratio of a pair {ratio:.3f}, ratio of sums {sums:.3f}",
            flush=True,
        )


def looper_turn_ms(sandbox: Sandbox, state: Path) -> float:
    """Milliseconds per turn of one rollout of TURNS turns, each step durable before the next."""
    tasks, mirrors = MicroSuite(state / "suites", 0, 0).load()
    with tempfile.TemporaryDirectory(dir=state) as place:
        Path(place).chmod(0o755)
        environments = HarnessEnvironment(state / "environments")
        sessions = GitSessions(mirrors, state / "exports", Path(place), sandbox, environments.of)
        session = sessions.open(tasks[0], "bench")
        scaffold = packaged_scaffold("full").model_copy(
            update={"guards": GuardSettings(repeat_nudge=None, repeat_refuse=None, repeat_stop=None)}
        )
        limits = Limits(
            steps=TURNS, output_tokens=100, context_tokens=8000, wall_s=600, command_s=30, verify_s=60
        )
        stream = Stream(Path(place), "steps", Step)
        assignment = Assignment(
            cell="bench",
            attempt=1,
            task=tasks[0],
            seed=0,
            temperature=0.0,
            memory=Delivery(candidates=0),
            tool_context=ToolContext(session, scaffold, limits),
            model=ScriptedModel(["<bash>true</bash>"]),
            clock=time.monotonic,
            record=stream.append,
            cancelled=lambda: False,
        )
        begun = time.perf_counter()
        done = rollout(assignment)
        seconds = time.perf_counter() - begun
        assert done.steps == TURNS
        stream.close()
        session.close()
    return 1000 * seconds / TURNS


def peer_turn_ms(python: Path) -> float:
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "MSWEA_SILENT_STARTUP": "1", "MSWEA_GLOBAL_CONFIG_DIR": folder}
        argv = [str(python), "-c", PEER, str(TURNS), folder]
        done = subprocess.run(argv, capture_output=True, text=True, env=environment, check=True)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return 1000 * float(found["seconds"]) / int(found["calls"])


def help_seconds() -> float:
    begun = time.perf_counter()
    subprocess.run([str(Path(sys.executable).with_name("looper")), "--help"], capture_output=True, check=True)
    return time.perf_counter() - begun


def runner_ms_per_task(state: Path, workers: int) -> float:
    """320 tasks through the whole runner with a model that only says done: workspace, rollout, patch, verification."""
    plan = """
title = "No-op"
hypothesis = "Costs of the runner."
factor = "none"
[[arms]]
name = "noop"
role = "control"
[profiles.micro]
model = "noop"
scaffold = "full"
temperature = 0.0
seeds = [0]
order = "parallel"
[profiles.micro.tasks]
suite = "micro"
[profiles.micro.limits]
steps = 4
output_tokens = 100
context_tokens = 4000
wall_s = 60.0
command_s = 10.0
verify_s = 60.0
"""
    with tempfile.TemporaryDirectory(dir=state) as folder:
        (Path(folder) / "noop.toml").write_text(plan)
        environment = {**os.environ, "LOOPER_HOME": str(state), "LOOPER_RUNS": f"{folder}/runs"}
        argv = [
            sys.executable,
            "-m",
            "looper.cli.main",
            "run",
            f"{folder}/noop.toml",
            "--workers",
            str(workers),
        ]
        begun = time.perf_counter()
        done = subprocess.run(argv, env=environment, capture_output=True, text=True)
        assert done.returncode == 0 and "0/320" in done.stdout, done.stderr
    return 1000 * (time.perf_counter() - begun) / 320


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", type=Path, help="Python of an environment with mini-swe-agent")
    parser.add_argument("--before", type=Path, help="`src` of an older version")
    parser.add_argument("--tasks", type=int, default=12, help="to grade, with --before")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    state = settings().state
    state.mkdir(parents=True, exist_ok=True)
    if options.before:
        return compare_grading(options.before.resolve(), state, options.rounds, options.tasks)
    sandboxed, bare = find_sandbox("auto"), NoSandbox()
    looper_turn_ms(bare, state)  # Makes suite, export and environment.
    figures: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        if options.peer:
            figures.setdefault("mini-swe-agent", []).append(peer_turn_ms(options.peer))
        figures.setdefault("looper, sandbox off", []).append(looper_turn_ms(bare, state))
        figures.setdefault(f"looper, {sandboxed.name}", []).append(looper_turn_ms(sandboxed, state))
    print(f"per turn, {TURNS} turns of `true`, median of {options.rounds} rounds (smallest to largest):")
    for name, values in figures.items():
        print(f"  {name:24} {statistics.median(values):6.2f} ms  ({min(values):.2f} to {max(values):.2f})")
    helps = [help_seconds() for _ in range(options.rounds)]
    print(f"looper --help: {statistics.median(helps):.3f} s")
    print(f"320 no-op tasks through the runner: {runner_ms_per_task(state, options.workers):.1f} ms per task")


if __name__ == "__main__":
    main()
