"""What a Ray cluster makes of cells that wait, and what each costs the process that writes their records.

    python scripts/bench_cluster.py RUN [--nodes 1 4] [--cpus 4] [--cells 64] [--wait 2.0]

Nodes are processes of this machine with loopback addresses of their own. A cell tells what the first cell of the finished run RUN
told, each step after a wait in place of its model and its commands; every record is written and flushed to the disk as in a run. Said
for each number of nodes: cells per second from the beginning to the last record, CPU time of this process per cell and per record, and
its largest memory. With --wait 2 that shows how cells that wait for a model scale; with --wait 0.02 what the driver costs.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from looper.edges.engines.ray import RayCluster, RayEngine
from looper.journal import Stream, read_stream
from looper.records.job import CellJob, Event, Told
from looper.records.plan import Cell
from looper.records.trajectory import Step, Trajectory
from looper.records.verdict import Verdict
from looper.views.runs import find_run, read_run

NODES = """
import sys
from ray.cluster_utils import Cluster
head = {"num_cpus": 0, "include_dashboard": False, "node_ip_address": "127.0.0.2"}
cluster = Cluster(initialize_head=True, head_node_args=head)
for number in range(int(sys.argv[1])):
    cluster.add_node(num_cpus=int(sys.argv[2]), node_ip_address=f"127.0.0.{number + 3}")
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


class Attempts:
    """On a node: the recorded cell once more, each step after the wait."""

    def __init__(self, spec: bytes) -> None:
        told = json.loads(spec)
        self._wait_s = told["wait_s"]
        self._events = [(kind, text.encode()) for kind, text in told["events"]]
        self._at = 0

    def begin(self, job: bytes, beside: int) -> tuple[list[Told], bool]:
        self._at = 0
        return self.go_on(None, beside)

    def go_on(self, given: bytes | None, beside: int) -> tuple[list[Told], bool]:
        begun = self._at
        while self._at < len(self._events):
            self._at += 1
            if self._events[self._at - 1][0] == "Step":
                time.sleep(self._wait_s)
                break
        return self._events[begun : self._at], self._at == len(self._events)

    def end(self) -> None:
        pass


def events_of(folder: Path, key: str) -> list[Event]:
    kinds: list[tuple[str, type[Step] | type[Trajectory] | type[Verdict]]] = [
        ("steps", Step),
        ("trajectories", Trajectory),
        ("verdicts", Verdict),
    ]
    return [found for name, kind in kinds for found in read_stream(folder, name, kind) if found.cell == key]


def measure(nodes: int, cpus: int, cells: int, wait_s: float, run: Path) -> str:
    view = read_run(run)
    first = next(read_stream(run, "verdicts", Verdict)).cell
    events = events_of(run, first)
    arm_name, _, instance = first.split("/")
    arm = next(arm for arm in view.manifest.plan.every_arm if arm.name == arm_name)
    from looper.cli.preparing import load_tasks
    from looper.cli.settings import settings

    tasks, _ = load_tasks(view.manifest.plan.selection, settings())
    task = next(task for task in tasks if task.instance_id == instance)
    limits = view.manifest.plan.limits_of(arm).model_copy(update={"memory_mb": 64})
    spec = json.dumps(
        {
            "wait_s": wait_s,
            "events": [(type(event).__name__, event.to_json().decode()) for event in events],
        }
    )
    jobs = [
        CellJob(cell=Cell(arm=arm.name, seed=seed, instance_id=instance), arm=arm, task=task, limits=limits)
        for seed in range(cells)
    ]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        path = f"{Path(__file__).parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        started = subprocess.Popen(
            [sys.executable, "-c", NODES, str(nodes), str(cpus)],
            env={**os.environ, "PYTHONPATH": path, "RAY_worker_niceness": "0"},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert started.stdout
            address = started.stdout.readline().strip()
            assert address, "the nodes did not start; on a busy machine try again"
            return _timed(address, cpus * nodes, jobs, spec.encode(), folder)
        finally:
            started.communicate()


def _timed(address: str, slots: int, jobs: list[CellJob], spec: bytes, folder: Path) -> str:
    from bench_cluster import Attempts as OnNodes  # By the name that nodes know this file by.

    streams = {kind: Stream(folder, kind.__name__, kind) for kind in (Step, Trajectory, Verdict)}
    times: list[float] = []

    def record(event: Event) -> None:
        streams[type(event)].append(event)
        times.append(time.monotonic())

    cluster = RayCluster(address)
    engine = RayEngine(cluster, slots, OnNodes, spec, lambda job, tell: None, threading.Event(), print)
    engine.run([[job] for job in jobs[:slots]], record)  # So that every worker process is there.
    times.clear()
    before, begun = time.process_time(), time.monotonic()
    engine.run([[job] for job in jobs], record)
    spent = time.process_time() - before
    cluster.close()
    took = times[-1] - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return (
        f"{slots} cells at once: {len(jobs)} cells in {took:.1f} s, {len(jobs) / took:.2f} a second; driver {1e3 * spent / len(jobs):.2f} ms "
        f"of CPU per cell, {1e3 * spent / len(times):.2f} per record; {peak} MiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run")
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--cpus", type=int, default=4)
    parser.add_argument("--cells", type=int, default=64)
    parser.add_argument("--wait", type=float, default=2.0)
    given = parser.parse_args()
    run = find_run(Path("runs"), given.run)
    with tempfile.TemporaryDirectory() as place:
        # One for all: Ray reads it once in a process.
        token = Path(place) / "token"
        token.write_text(os.urandom(32).hex())
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        for nodes in given.nodes:
            print(
                f"{nodes} nodes, {measure(nodes, given.cpus, given.cells, given.wait, run)}",
                flush=True,
            )


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
