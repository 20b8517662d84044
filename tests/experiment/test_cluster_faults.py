"""What a network and its machines do to a run on a cluster: hosts with addresses of their own that are cut off, killed and started again."""

import contextlib
import os
import random
import shlex
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.experiment import hosts as network
from tests.experiment.hosts import Host, Hosts
from tests.experiment.test_run import Project

from looper.journal import read_stream
from looper.records.session import ClusterNode, NodeState
from looper.records.trajectory import Step
from looper.records.verdict import Outcome

pytestmark = [
    pytest.mark.proof,
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed"),
]
STEPS = """<bash>cat *.py */*.py | cksum > note.txt; cat note.txt; sleep 2.001</bash>
---
<bash>read -r sum _ < note.txt; exec -a "second-of-$sum" sleep 2.002</bash>
---
<done>that is all</done>"""
"""The first step shows a number that is its task's own, and the second one has it in its name, where it is seen from outside."""
KILLS = 20


class RayHosts:
    """A head, on which a run is started, and three nodes for one cell at a time each."""

    def __init__(self, hosts: Hosts, folder: Path, state: Path) -> None:
        self.hosts, self._folder = hosts, folder
        (folder / "token").write_text("0123456789abcdef" * 4)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "LOOPER_"))} | {
            "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token"), "LOOPER_HOME": str(state),
            "RAY_worker_niceness": "0", "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "300", "RAY_USAGE_STATS_ENABLED": "0",
        }  # fmt: skip
        self._running: dict[str, subprocess.Popen[str]] = {}
        self.address = f"{hosts[0].address}:6379"
        head = (
            "--head",
            f"--node-ip-address={hosts[0].address}",
            "--port=6379",
            "--include-dashboard=false",
            "--no-monitor",
        )
        self._begin(hosts[0], *head, "--num-cpus=0")
        for host in list(hosts)[1:]:
            self.add(host)

    def _begin(self, host: Host, *words: str) -> None:
        """Once more where it was too slow for Ray: a busy machine."""
        log = self._folder / f"{host.name}.log"
        for _ in range(6):
            self._start(host, *words)
            _until(lambda: "Ray runtime started" in log.read_text() or self.ended(host), 300)
            if not self.ended(host):
                return
        raise AssertionError(log.read_text())

    def _start(self, host: Host, *words: str) -> None:
        start = (
            sys.executable,
            "-m",
            "ray.scripts.scripts",
            "start",
            "--block",
            "--object-store-memory=150000000",
        )
        with (self._folder / f"{host.name}.log").open("w") as log:
            self._running[host.name] = host.run(*start, *words, env=self.environment, stdout=log, stderr=log)

    def add(self, host: Host) -> None:
        self._begin(host, f"--address={self.address}", "--num-cpus=1")

    def ended(self, host: Host) -> bool:
        return self._running[host.name].poll() is not None


def _until(true: Callable[[], object], within_s: float) -> None:
    until = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, state: Path) -> Iterator[RayHosts]:
    if why := network.missing():
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("hosts")
    with contextlib.closing(Hosts(folder, "head", "one", "two", "three")) as hosts:
        yield RayHosts(hosts, folder, state)


@pytest.fixture
def project(tmp_path: Path, state: Path) -> Project:
    found = Project(tmp_path, state)
    (tmp_path / "script.txt").write_text(STEPS)
    plan = tmp_path / "experiments" / "test.toml"
    text = plan.read_text().replace("scripted:script.txt", f"scripted:{tmp_path / 'script.txt'}")
    plan.write_text(text.replace("seeds = [0]", "seeds = [0, 1]"))
    return found


class Run:
    """`looper run` on the first host, as a process that can be signalled there."""

    def __init__(self, cluster: RayHosts, project: Project) -> None:
        self._host, self._number = cluster.hosts[0], project.folder / "pid"
        self._number.unlink(missing_ok=True)
        run = [
            sys.executable,
            "-m",
            "looper",
            "run",
            "test",
            "--workers",
            "3",
            "--engine",
            f"ray:{cluster.address}",
        ]
        self.said = project.folder / "said"
        with self.said.open("a") as said:
            self.process = self._host.run(
                "sh", "-c", f"echo $$ > {self._number}; exec {shlex.join(run)}", cwd=project.folder,
                env={**cluster.environment, "LOOPER_RUNS": str(project.folder / "runs")}, stdout=said, stderr=said,
            )  # fmt: skip

    @property
    def begun(self) -> int:
        """How often a run had said what it has to do."""
        return self.said.read_text().count(" done before, ")

    def kill(self) -> None:
        self._host.run("kill", "-9", self._number.read_text().strip(), stderr=subprocess.DEVNULL).wait()
        self.process.wait()


class Watched:
    """Every command of a second step that was seen at work, held against the first steps that were recorded by then."""

    def __init__(self, project: Project) -> None:
        self._project, self._over = project, threading.Event()
        self.seen, self.unrecorded = Counter[str](), list[str]()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "Watched":
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            at_work = Counter[str]()
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    words = path.read_bytes().split(b"\0")
                    if words[1:2] in ([b"2.001"], [b"2.002"]):
                        at_work[words[0].decode()] += 1
            first = [step.observation.text for step in steps(self._project) if step.index == 1]
            for name, count in at_work.items():
                self.seen[name] = max(self.seen[name], count)
                recorded = sum(name.rpartition("-")[2] in shown.split() for shown in first)
                if name != "sleep" and count > recorded:
                    self.unrecorded.append(
                        f"{count} are at work on {name}, {recorded} first steps are recorded"
                    )


def steps(project: Project) -> list[Step]:
    runs = project.folder / "runs"
    if not runs.exists() or not any(runs.iterdir()):
        return []
    return list(read_stream(project.run, "steps", Step))


def ready(project: Project) -> set[str]:
    """Addresses of nodes that have shown that they judge."""
    if not any((project.folder / "runs").glob("*/nodes.jsonl")):
        return set()
    nodes = read_stream(project.run, "nodes", ClusterNode)
    return {node.address for node in nodes if node.state is NodeState.READY}


def complete(project: Project, said: str) -> None:
    verdicts = project.verdicts()
    cells = [found.cell for found in verdicts if found.outcome.is_verdict]
    assert len(cells) == len(set(cells)) == 24, said
    seen = [(step.cell, step.attempt, step.index) for step in steps(project)]
    assert len(seen) == len(set(seen)), "no step is recorded twice"
    lost = [found.cause for found in verdicts if found.outcome is Outcome.INFRA_ERROR]
    assert all(cause.startswith("WorkerLost: ") for cause in lost), lost


def test_a_driver_that_is_killed_again_and_again_loses_nothing_and_does_nothing_twice(
    cluster: RayHosts, project: Project
) -> None:
    chance = random.Random(20)
    with Watched(project) as watched:
        for number in range(KILLS):
            run = Run(cluster, project)
            begun = run.begun
            if number % 4:  # Else while it prepares.
                _until(lambda: run.begun > begun or run.process.poll() is not None, 300)
            time.sleep(chance.uniform(0, 12))
            run.kill()
        last = Run(cluster, project)
        assert last.process.wait(timeout=400) == 0, last.said.read_text()
    complete(project, last.said.read_text())
    assert len(watched.seen) > 2, "first steps, and second ones of two tasks and more"
    assert not watched.unrecorded
    assert len(list((project.folder / "runs").iterdir())) == 1


def test_a_node_that_is_cut_off_and_comes_back_and_one_that_is_killed_cost_their_attempts_alone(
    cluster: RayHosts, project: Project
) -> None:
    _, one, two, _ = cluster.hosts
    with Watched(project) as watched:
        run = Run(cluster, project)
        # From then on each of them has an attempt at work until the last cell.
        _until(lambda: {one.address, two.address} <= ready(project), 400)
        # For a moment: nothing is lost.
        one.cut()
        time.sleep(3)
        one.mend()
        _until(lambda: len(watched.seen) > 1, 400)
        # For longer than Ray waits for it, while another is killed.
        one.cut()
        two.kill()
        _until(lambda: f"node {one.address} is lost" in run.said.read_text(), 200)
        one.mend()
        _until(lambda: cluster.ended(one), 200)
        cluster.add(one)
        assert run.process.wait(timeout=500) == 0, run.said.read_text()
    complete(project, run.said.read_text())
    assert not watched.unrecorded
    lost = [found.node for found in project.verdicts() if found.outcome is Outcome.INFRA_ERROR]
    # A worker that was lost before its attempt told a step has none to lose: that one begins elsewhere, without a verdict.
    assert lost and set(lost) <= {one.address, two.address}, run.said.read_text()
    nodes = list(read_stream(project.run, "nodes", ClusterNode))
    assert {node.address for node in nodes if node.state is NodeState.LOST} == {one.address, two.address}
