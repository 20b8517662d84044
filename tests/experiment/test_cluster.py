"""The same run on a Ray cluster: its records, its order, and what is lost on the way. Nodes are processes with loopback addresses of
their own."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.experiment.test_run import Project, without_gold
from tests.experiment.test_served_runs import rollouts_by_server, serving, two_arms_on
from tests.fakes.routes import vllm
from tests.fakes.scripted_http import free_port

import looper
from looper.journal import read_stream
from looper.records.base import Record
from looper.records.session import ClusterNode, NodeState
from looper.records.trajectory import Step, Trajectory
from looper.records.verdict import Outcome, Verdict
from looper.views.findings import arm_rows
from looper.views.runs import read_run

pytestmark = pytest.mark.slow
with_ray = pytest.mark.skipif(
    find_spec("ray") is None, reason="Ray is not installed: python -m pip install -e '.[ray]'"
)

BUBBLEWRAP = shutil.which("bwrap")
NODES = """
import ctypes, os, subprocess, sys, time
import ray
import ray._private.services as services
from ray.cluster_utils import Cluster
looked = services.get_node
def get_node(*arguments):
    until = time.monotonic() + 300  # Ray waits 30 s for a node, which takes longer on a busy machine.
    while True:
        try:
            return looked(*arguments)
        except RuntimeError:
            if time.monotonic() > until:
                raise
services.get_node = get_node
ray.__version__ = sys.argv[2] or ray.__version__
where = (f"127.0.0.{number}" for number in range(2, 100))
# A node that was killed is missed after three seconds, and one that is slow after thirty.
missed = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 1000, "health_check_failure_threshold": 3}
head = {"num_cpus": 0, "include_dashboard": False, "node_ip_address": next(where), "_system_config": missed}
cluster = Cluster(initialize_head=True, head_node_args=head)
nodes = []
def add(address=""):
    nodes.append(cluster.add_node(num_cpus=1, node_ip_address=address or next(where)))
for _ in range(int(sys.argv[1])):
    add()
print(cluster.address, flush=True)
for line in sys.stdin:
    word, _, value = line.strip().partition(" ")
    if word == "kill":
        cluster.remove_node(nodes.pop(), allow_graceful=False)
    elif word == "add":
        add(value)
    elif word == "card":
        nodes.append(cluster.add_node(num_cpus=4, num_gpus=1, node_ip_address=next(where)))
    elif word == "set":
        name, _, os.environ[name] = value.partition(" ")
    elif word == "hide":
        assert not ctypes.CDLL(None).unshare(0x20000)  # CLONE_NEWNS: for nodes to come, and for no other process.
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        subprocess.run(["mount", "--bind", "/dev/null", value], check=True)
    print("done", flush=True)
cluster.shutdown()
"""


class Nodes:
    """A head that works on no cells, and nodes with one CPU each."""

    def __init__(
        self,
        count: int,
        state: Path,
        folder: Path,
        auth: str = "token",
        before: Sequence[str] = (),
        version: str = "",
    ) -> None:
        """`before` are words that begin the command which starts them; they say that they are Ray of another `version`."""
        token = folder / "token"
        token.write_text("0123456789abcdef" * 4)
        self.here = {"RAY_AUTH_TOKEN_PATH": str(token)} if auth == "token" else {}
        others = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self._process = subprocess.Popen(
            [*before, sys.executable, "-c", NODES, str(count), version], cwd=folder, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=(folder / "nodes.log").open("w"),
            env={**others, **self.here, "RAY_AUTH_MODE": auth, "LOOPER_HOME": str(state), "RAY_worker_niceness": "0"},
        )  # fmt: skip
        assert self._process.stdout
        self.address = self._process.stdout.readline().strip()
        assert self.address, (folder / "nodes.log").read_text()

    def do(self, what: str) -> None:
        """`kill` the newest node, `add` one, also at the address of another with `add ADDRESS`, or one with a `card` and four CPUs, give those to come a variable with
        `set NAME VALUE`, or `hide PROGRAM` from them."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"

    def workers(self) -> list[int]:
        """Processes that are at work on an attempt."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (
                    b"ray::AtNode" in (folder / "cmdline").read_bytes()
                    and self.here["RAY_AUTH_TOKEN_PATH"].encode() in (folder / "environ").read_bytes()
                ):
                    found.append(int(folder.name))
        return found

    def close(self) -> None:
        with contextlib.closing(self._process.stdout), contextlib.suppress(OSError):  # type: ignore[type-var]
            self._process.communicate(timeout=60)


@pytest.fixture(scope="module")
def nodes(state: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with contextlib.closing(Nodes(2, state, tmp_path_factory.mktemp("nodes"))) as found:
        yield found


@pytest.fixture
def alone(tmp_path: Path, state: Path) -> Project:
    """For nodes of its own; what is bounded in time has time on a busy machine too."""
    tmp_path.chmod(0o755)
    made = Project(tmp_path, state)
    plan = tmp_path / "experiments" / "test.toml"
    plan.write_text(plan.read_text().replace("verify_s = 60.0", "verify_s = 600.0"))
    _script(made, "<bash>echo one > note.txt</bash>\n---\n<done>that is all</done>")
    return made


@pytest.fixture
def project(alone: Project, nodes: Nodes) -> Project:
    alone.environment |= nodes.here
    return alone


def _script(project: Project, text: str, *, order: str = "parallel") -> None:
    """For nodes, which begin in another folder."""
    (project.folder / "script.txt").write_text(text)
    plan = project.folder / "experiments" / "test.toml"
    whole = plan.read_text().replace("scripted:script.txt", f"scripted:{project.folder / 'script.txt'}")
    plan.write_text(whole.replace('order = "parallel"', f'order = "{order}"'))


def _records(folder: Path) -> dict[str, list[object]]:
    """What a run recorded, without times, where it was and whose test run a verdict took over, cell by cell in their order."""
    times = {"wall_s", "model_s", "in_flight", "node"}
    kinds: list[tuple[str, type[Record], set[str]]] = [
        ("steps", Step, times | {"reply"}),
        ("trajectories", Trajectory, times | {"steps"}),
        ("verdicts", Verdict, times | {"same_as"}),
    ]
    found: dict[str, list[object]] = {}
    for name, kind, without in kinds:
        for record in read_stream(folder, name, kind):
            found.setdefault(record.cell, []).append(record.model_dump(exclude=without))  # type: ignore[attr-defined]
    return found


@with_ray
def test_a_run_on_a_cluster_has_the_records_of_a_run_on_this_machine_cell_by_cell(
    project: Project, nodes: Nodes
) -> None:
    plan = project.folder / "experiments" / "test.toml"
    said = plan.read_text().replace("context_tokens = 8000", "context_tokens = 4000")
    plan.write_text(said.replace(f"scripted:{project.folder / 'script.txt'}", "nano"))
    assert project.looper("run", "test", "--limit", "2").returncode == 0
    ran = project.looper("run", "test", "--limit", "2", "--fresh", "--engine", f"ray:{nodes.address}")
    assert ran.returncode == 0 and "2/2" in ran.stdout, ran.stderr
    here, there = sorted((project.folder / "runs").iterdir(), key=lambda folder: len(folder.name))
    assert len(_records(here)) == 6 and _records(there) == _records(here)
    addresses = {"127.0.0.3", "127.0.0.4"}
    assert {verdict.node for verdict in read_stream(here, "verdicts", Verdict)} == {None}
    assert {verdict.node for verdict in read_stream(there, "verdicts", Verdict)} <= addresses
    nodes_there = list(read_stream(there, "nodes", ClusterNode))
    assert {node.address for node in nodes_there} <= addresses and nodes_there
    assert all(
        re.fullmatch(r"gold resolves \S+ and noop does not, [\d.]+ s", node.said) for node in nodes_there
    )
    told = json.loads(project.looper("status", "--json", "--run", there.name).stdout)["runs"][0]
    assert sum(node["cells"] for node in told["nodes"]) == 6 and told["queued"] is None
    assert {node["state"] for node in told["nodes"]} == {"ready"}


@with_ray
def test_servers_of_one_model_answer_every_arm_equally_often_and_all_nodes_are_counted_as_one(
    project: Project, nodes: Nodes
) -> None:
    """A process of a cluster sees no requests but its own."""
    ports = [free_port(), free_port()]
    asked = two_arms_on(project, *ports)
    engine = ("--engine", f"ray:{nodes.address}")
    with serving(vllm(), ports[0]), serving(vllm(), ports[1]):
        ran = project.looper(*asked, *engine)
        assert ran.returncode == 0, ran.stderr
        shares = rollouts_by_server(project)
        assert shares == {(arm, (server,)): 4 for arm in ("base", "again") for server in (1, 2)}
        assert project.looper("report", "test", "--verify").returncode == 0
        assert {step.reply.in_flight for step in read_stream(project.run, "steps", Step)} == {1}, (
            "at 127.0.0.1 every node has servers of its own"
        )
        shutil.rmtree(project.folder / "runs")
        # The same server by an address that other machines could have too.
        shared = asked[-1].partition(",")[0].replace("127.0.0.1", "127.1")
        ran = project.looper(*asked[:-1], shared, "--limit", "2", *engine)
        assert ran.returncode == 0, ran.stderr
    counts = [step.reply.in_flight for step in read_stream(project.run, "steps", Step)]
    assert set(counts) == {1, 2} and counts.count(2) > len(counts) / 2, "of two attempts on two nodes"


@with_ray
def test_cells_of_a_model_in_their_own_process_take_their_share_of_a_nodes_gpus(
    alone: Project, state: Path, tmp_path: Path
) -> None:
    plan = alone.folder / "experiments" / "test.toml"
    plan.write_text(plan.read_text().replace("steps = 8", "steps = 8\ngpus = 0.5"))
    asked = ("run", "test", "--arm", "noop", "--engine")
    with contextlib.closing(Nodes(1, state, tmp_path)) as nodes:
        alone.environment |= nodes.here
        refused = alone.looper(*asked, f"ray:{nodes.address}")
        assert (
            refused.returncode == 2 and "none has one CPU, 1024 MiB and 0.5 GPUs for a cell" in refused.stderr
        )
        nodes.do("card")
        ran = alone.looper(*asked, f"ray:{nodes.address}")
        assert ran.returncode == 0, ran.stderr
    assert read_run(alone.run).sessions[-1].workers == 2, "of a node with four CPUs and one card"
    assert {verdict.node for verdict in alone.verdicts()} == {"127.0.0.4"}


@with_ray
def test_cells_of_a_sequence_run_one_after_the_other_on_a_cluster(project: Project, nodes: Nodes) -> None:
    plan = project.folder / "experiments" / "test.toml"
    plan.write_text(plan.read_text().replace('order = "parallel"', 'order = "sequence"'))
    ran = project.looper("run", "test", "--engine", f"ray:{nodes.address}")
    assert ran.returncode == 0, ran.stderr
    tasks = read_stream(project.run, "verdicts", Verdict)
    ended = [found.cell for found in tasks]
    begun = list(dict.fromkeys(step.cell for step in read_stream(project.run, "steps", Step)))
    for arm in ("gold", "noop", "base"):
        mine = [cell for cell in ended if cell.startswith(arm)]
        assert len(mine) == 4 and mine == [cell for cell in begun if cell.startswith(arm)]
        assert [cell.split("/")[2] for cell in mine] == [
            cell.split("/")[2] for cell in ended if cell.startswith("noop")
        ]


ENGINE = """
import sys, threading, time
from pathlib import Path
from looper.edges.engines.ray import RayCluster, RayEngine
from looper.records.job import CellJob
from attempts import Attempts
job = CellJob.from_json(sys.stdin.readline())
cluster = RayCluster(sys.argv[1])
engine = RayEngine(cluster, 1, Attempts, b"", lambda job, record: None, threading.Event(), print)
done = []
def record(event):
    if not done:
        time.sleep(1)
        print("acted on" if Path("acted").exists() else "waited for", flush=True)
    done.append(event)
    if len(done) == 2:
        raise KeyError("the disk is full")
try:
    engine.run([[job]], record)
except KeyError as error:
    print(error, flush=True)
cluster.close()
"""
ATTEMPT = """
from pathlib import Path
FOLDER = Path(__file__).parent
class Attempts:
    def __init__(self, spec):
        self.names = ["acted", "acted_again"]
    def told(self):
        return [("Step", (FOLDER / "step").read_bytes())], False
    def begin(self, job, beside):
        return self.told()
    def go_on(self, given, beside):
        (FOLDER / self.names.pop(0)).touch()
        return self.told()
    def end(self):
        pass
"""


@with_ray
def test_an_event_is_acted_on_when_it_is_recorded_and_not_where_that_fails(
    tmp_path: Path, state: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With attempts of the test's own, which nodes find beside it."""
    from tests.fakes.written_run import write_run

    run = write_run(tmp_path / "runs", tasks=("a__b-1",))
    step = next(read_stream(run, "steps", Step))
    (tmp_path / "attempts.py").write_text(ATTEMPT)
    (tmp_path / "step").write_bytes(step.to_json())
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    job = _job(tmp_path, state)
    with contextlib.closing(Nodes(1, state, tmp_path)) as nodes:
        done = subprocess.run(
            [sys.executable, "-c", ENGINE, nodes.address], cwd=tmp_path, input=job, text=True, capture_output=True,
            env={**os.environ, **nodes.here}, timeout=200,
        )  # fmt: skip
    assert done.stdout == "waited for\n'the disk is full'\n", done.stderr
    assert (tmp_path / "acted").exists() and not (tmp_path / "acted_again").exists()


def _job(folder: Path, state: Path) -> str:
    project = Project(folder, state)
    assert project.looper("run", "test", "--arm", "noop", "--limit", "1").returncode == 0
    from looper.records.job import CellJob
    from looper.records.plan import Cell

    manifest = read_run(next((folder / "runs").glob("test-*"))).manifest
    arm = next(arm for arm in manifest.plan.arms if arm.name == "noop")
    from looper.edges.datasets.micro import MicroSuite

    task = MicroSuite(state / "suites", 0, 0).load()[0][0]
    cell = Cell(arm="noop", seed=0, instance_id=task.instance_id)
    job = CellJob(cell=cell, arm=arm, task=task, limits=manifest.plan.limits_of(arm))
    return job.to_json().decode() + "\n"


def _until(true: Callable[[], object], process: "subprocess.Popen[str]", within_s: float = 200) -> None:
    until = time.monotonic() + within_s
    while not true():
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.05)


SLOW = (
    "<bash>echo one > note.txt; sleep 4</bash>\n---\n<bash>cat note.txt</bash>\n---\n<done>that is all</done>"
)


@with_ray
@pytest.mark.parametrize("what", ["worker", "terminated", "node"])
def test_an_attempt_whose_worker_or_node_is_killed_is_an_infrastructure_error_and_made_again(
    project: Project, nodes: Nodes, what: str
) -> None:
    _script(project, SLOW)
    arguments = ("run", "test", "--arm", "base", "--limit", "2", "--engine", f"ray:{nodes.address}")
    process = project.start(*arguments)
    _until(nodes.workers, process)
    _until(lambda: _commands(project) == 2, process)
    if what != "node":
        os.kill(nodes.workers()[0], signal.SIGTERM if what == "terminated" else signal.SIGKILL)
    else:
        nodes.do("kill")
    out, err = process.communicate(timeout=300)
    if what == "node":
        nodes.do("add")
    assert process.returncode == 0, err
    verdicts = project.verdicts()
    lost = [found for found in verdicts if found.outcome is Outcome.INFRA_ERROR]
    assert len(lost) == 1 and lost[0].cause.startswith("WorkerLost: the worker of this attempt on"), err
    assert sorted(found.cell for found in verdicts if found.outcome.is_verdict) == sorted(
        {found.cell for found in verdicts}
    )
    assert "2 unresolved" in err or "0/2" in out
    again = next(found for found in verdicts if found.cell == lost[0].cell and found.outcome.is_verdict)
    states = {node.address: node.state for node in read_stream(project.run, "nodes", ClusterNode)}
    if what == "node":
        assert lost[0].node != again.node
        assert f"node {lost[0].node} is lost; its cells are tried elsewhere" in err
        assert states.pop(lost[0].node or "") is NodeState.LOST
        assert set(states.values()) == {NodeState.READY}
    else:
        assert NodeState.LOST not in states.values()


def _commands(project: Project) -> int:
    """Attempts whose first command is running."""
    found = 0
    for status in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found += status.read_bytes() == b"sleep\x004\x00"
    return found


@with_ray
def test_p04_a_run_on_a_cluster_that_is_killed_goes_on_to_the_same_end(
    project: Project, nodes: Nodes
) -> None:
    engine = ("--engine", f"ray:{nodes.address}")
    for killed_at in (1, 6):
        process = project.start("run", "test", *engine)
        _until(lambda: len(_steps(project)) >= killed_at, process)
        process.kill()
        process.communicate()
    until = time.monotonic() + 30
    while nodes.workers():
        assert time.monotonic() < until, "what belonged to it has ended too"
        time.sleep(0.1)
    ran = project.looper("run", "test", *engine)
    assert ran.returncode == 0, ran.stderr
    seen = [(step.cell, step.attempt, step.index) for step in _steps(project)]
    assert len(seen) == len(set(seen)), "no step is recorded twice"
    cells = [verdict.cell for verdict in project.verdicts() if verdict.outcome.is_verdict]
    assert len(cells) == len(set(cells)) == 12
    there = project.facts()
    assert project.looper("run", "test", "--fresh").returncode == 0
    again = max((project.folder / "runs").iterdir(), key=lambda folder: len(folder.name))
    here = {found.cell: found.patch_hash for found in read_stream(again, "verdicts", Verdict)}
    assert {cell: patch for cell, (_, patch, _) in there.items()} == here


def _steps(project: Project) -> list[Step]:
    runs = project.folder / "runs"
    return list(read_stream(project.run, "steps", Step)) if runs.exists() and any(runs.iterdir()) else []


@with_ray
def test_p01_an_interrupted_run_on_a_cluster_ends_in_order_and_leaves_no_process(
    project: Project, nodes: Nodes
) -> None:
    _script(project, SLOW)
    process = project.start("run", "test", "--arm", "base", "--engine", f"ray:{nodes.address}")
    _until(lambda: _commands(project) == 2, process)
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and time.monotonic() - begun < 20
    again = f"Go on with: looper run test --profile micro --arm base --engine ray:{nodes.address} --run "
    assert f"Interrupted. Finished cells and every recorded step are kept. {again}" in err
    assert "Traceback" not in err and not project.verdicts()
    until = time.monotonic() + 30
    while nodes.workers() or _commands(project):
        assert time.monotonic() < until
        time.sleep(0.1)


@with_ray
def test_a_node_that_cannot_run_the_cells_takes_none_and_is_named(
    alone: Project, state: Path, tmp_path: Path
) -> None:
    """One without a folder, one on which gold resolves nothing, one without room."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("a full disk is mounted by root alone")
    small, wrong = tmp_path / "small", tmp_path / "wrong"
    small.mkdir()
    without_gold(alone, wrong)
    mount = f'mount -t tmpfs -o size=6m tmpfs {small} && exec "$@"'
    with contextlib.closing(
        Nodes(1, state, tmp_path, before=["unshare", "-m", "/bin/sh", "-c", mount, "sh"])
    ) as nodes:
        alone.environment |= nodes.here
        for home in ("/proc/nowhere", wrong, small):
            nodes.do(f"set LOOPER_HOME {home}")
            nodes.do("add")
        ran = alone.looper(
            "run", "test", "--arm", "noop", "--workers", "8", "--engine", f"ray:{nodes.address}"
        )
    assert ran.returncode == 0 and len(alone.verdicts()) == 4, ran.stderr
    assert "node 127.0.0.4 takes no cells: BadInput: The folder /proc/nowhere" in ran.stderr
    assert "node 127.0.0.5 takes no cells: the control cell gold came out as unresolved on " in ran.stderr
    assert re.search(r"node 127.0.0.6 takes no cells: DiskNearlyFull: Only \d MiB are free where", ran.stderr)
    assert {(found.outcome, found.node) for found in alone.verdicts()} == {(Outcome.UNRESOLVED, "127.0.0.3")}
    states = {node.address: node.state for node in read_stream(alone.run, "nodes", ClusterNode)}
    assert states == {
        "127.0.0.3": NodeState.READY,
        **dict.fromkeys(("127.0.0.4", "127.0.0.5", "127.0.0.6"), NodeState.REFUSED),
    }
    audited = alone.looper("report", alone.run.name, "--verify")
    assert audited.returncode == 0, audited.stdout + audited.stderr


@with_ray
def test_where_no_node_can_run_the_cells_the_run_ends_and_of_each_is_said_why(
    alone: Project, state: Path, tmp_path: Path
) -> None:
    """One has another Looper, one none, and one no bubblewrap."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode or not BUBBLEWRAP:
        pytest.skip("bubblewrap is hidden from a node by root alone, and where it is")
    paths = os.environ["PYTHONPATH"]
    other, none = tmp_path / "other", tmp_path / "none"
    shutil.copytree(Path(looper.__file__).parent, other / "looper")
    (other / "looper" / "errors.py").open("a").write("# Another one.\n")
    (none / "looper").mkdir(parents=True)
    (none / "looper" / "__init__.py").touch()
    with contextlib.closing(Nodes(0, state, tmp_path)) as nodes:
        alone.environment |= nodes.here
        for place in (other, none):
            nodes.do(f"set PYTHONPATH {place}")
            nodes.do("add")
        nodes.do(f"set PYTHONPATH {paths}")
        nodes.do(f"hide {BUBBLEWRAP}")
        nodes.do("add")
        ran = alone.looper("run", "test", "--arm", "noop", "--engine", f"ray:{nodes.address}")
    assert ran.returncode == 69 and not alone.verdicts(), ran.stderr
    assert "Traceback" not in ran.stderr
    assert "node 127.0.0.3 takes no cells: Drift: " in ran.stderr and "code_version was" in ran.stderr
    assert "node 127.0.0.4 takes no cells: Looper does not start there: " in ran.stderr
    assert (
        "node 127.0.0.5 takes no cells: SandboxUnavailable: The sandbox bubblewrap does not work here"
        in ran.stderr
    )
    assert "looper: No node of the cluster can run these cells; node 127.0.0." in ran.stderr.splitlines()[-1]
    states = {node.address: node.state for node in read_stream(alone.run, "nodes", ClusterNode)}
    assert states == dict.fromkeys(("127.0.0.3", "127.0.0.4", "127.0.0.5"), NodeState.REFUSED)


@with_ray
def test_a_node_that_joins_later_takes_cells_once_it_has_shown_that_it_can_also_at_the_address_of_another(
    alone: Project, state: Path, tmp_path: Path
) -> None:
    _script(alone, SLOW)
    plan = alone.folder / "experiments" / "test.toml"
    plan.write_text(plan.read_text().replace("seeds = [0]", "seeds = [0, 1, 2]"))
    with contextlib.closing(Nodes(1, state, tmp_path)) as nodes:
        alone.environment |= nodes.here
        process = alone.start(
            "run", "test", "--arm", "base", "--workers", "4", "--engine", f"ray:{nodes.address}"
        )
        _until(lambda: _commands(alone), process)
        nodes.do("add 127.0.0.3")
        _, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    verdicts = alone.verdicts()
    both = ["127.0.0.3", "127.0.0.3#2"]
    assert len(verdicts) == 12 and sorted({verdict.node or "" for verdict in verdicts}) == both
    ready = list(read_stream(alone.run, "nodes", ClusterNode))
    assert [node.address for node in ready] == both and len({node.node for node in ready}) == 2
    told = json.loads(alone.looper("status", "--json").stdout)["runs"][0]["nodes"]
    assert [node["node"] for node in told] == both and sum(node["cells"] for node in told) == 12
    assert all(node["cells"] for node in told)


@with_ray
def test_what_arms_have_learned_and_what_tasks_are_reaches_nodes_that_have_nothing(
    alone: Project, state: Path, tmp_path: Path
) -> None:
    from tests.experiment.test_learning import plan_of

    bare = tmp_path / "bare"
    (alone.folder / "experiments" / "learn.toml").write_text(
        plan_of("base", "lora", per_repo=6)
        .replace("_s = 60.0", "_s = 600.0")
        .replace("_s = 20.0", "_s = 200.0")
    )
    with contextlib.closing(Nodes(0, state, tmp_path)) as nodes:
        alone.environment |= nodes.here
        for number in range(2):
            nodes.do(f"set LOOPER_HOME {bare / str(number)}")
            nodes.do("add")
        with alone.start("run", "learn", "--engine", f"ray:{nodes.address}") as process:
            _, err = process.communicate(timeout=3600)
        assert process.returncode == 0, err
        there = alone.run
        _functions_of_which_one_is_broken(alone)
        functions = alone.looper(
            "run", "functions", "--arm", "gold", "--arm", "noop", "--engine", f"ray:{nodes.address}"
        )
    assert functions.returncode == 0, functions.stderr
    assert "1/1" in functions.stdout and "rows humaneval fetched" in functions.stderr
    assert "validations humaneval fetched" in functions.stderr
    assert alone.looper("run", "learn", "--fresh").returncode == 0
    here = there.with_name(f"{there.name}-2")
    assert _records(there) == _records(here)
    served = {
        end.model.adapter for end in read_stream(there, "trajectories", Trajectory) if end.arm == "lora"
    }
    assert len(served) == 1 and "" not in served
    fetched = {file.name for file in bare.glob("*/fetched/*/*")}
    assert {"adapters.safetensors", "adapter_config.json"} <= fetched and not list(bare.glob("*/adapters"))
    told = re.findall(r"node 127.0.0.\d: adapter \w+ fetched, [\d.]+ MB", err)
    assert len(told) == len(list(bare.glob("*/fetched/*/adapters.safetensors")))


def _functions_of_which_one_is_broken(project: Project) -> None:
    """Rows that only the run's machine knows of, and has validated."""
    from tests.bench.test_functions import HUMAN_EVAL, written

    broken = {**HUMAN_EVAL[1], "canonical_solution": "    return None\n"}
    project.environment["LOOPER_HUMANEVAL"] = written(project.folder / "rows.jsonl", [HUMAN_EVAL[0], broken])
    assert project.looper("bench", "validate", "--suite", "humaneval").returncode == 0
    plan = (project.folder / "experiments" / "test.toml").read_text()
    micro = 'suite = "micro"\nper_repo = 1\nlimit = 4\n'
    assert micro in plan
    (project.folder / "experiments" / "functions.toml").write_text(
        plan.replace(micro, 'suite = "humaneval"\n')
    )


def _refused(project: Project, engine: str, **variables: str) -> str:
    project.environment |= variables
    ran = project.looper("run", "test", "--arm", "noop", "--engine", engine)
    assert ran.returncode == 2 and not ran.stdout and not (project.folder / "runs").exists(), ran.stderr
    (line,) = ran.stderr.splitlines()
    return line


@with_ray
def test_a_cluster_that_cannot_be_joined_is_refused_in_one_line(
    project: Project, nodes: Nodes, tmp_path: Path
) -> None:
    assert "no such engine" not in _refused(project, "slurm")
    assert "choose local, ray or ray:HOST:PORT" in _refused(project, "slurm")
    assert "an address is HOST:PORT" in _refused(project, "ray:ray://10.0.0.5")
    assert "No Ray cluster answers at 127.0.0.2:1: Connection refused" in _refused(project, "ray:127.0.0.2:1")
    there = f"ray:{nodes.address}"
    assert "could not" not in (said := _refused(project, there, RAY_AUTH_TOKEN="f" * 64)) and "token" in said
    nowhere = {"RAY_AUTH_TOKEN": "", "RAY_AUTH_TOKEN_PATH": "", "HOME": str(tmp_path)}
    assert "There is no token here, or not the right one" in _refused(project, there, **nowhere)


@with_ray
def test_a_cluster_that_lets_everybody_in_is_refused(project: Project, state: Path, tmp_path: Path) -> None:
    with contextlib.closing(Nodes(0, state, tmp_path, auth="disabled")) as nodes:
        said = _refused(project, f"ray:{nodes.address}", RAY_AUTH_TOKEN="f" * 64)
    assert "lets everybody in" in said and "RAY_AUTH_MODE=token" in said


@with_ray
def test_a_cluster_of_another_version_of_ray_is_refused_in_a_line_that_names_both(
    alone: Project, state: Path, tmp_path: Path
) -> None:
    with contextlib.closing(Nodes(0, state, tmp_path, version="2.0.0")) as nodes:
        said = _refused(alone, f"ray:{nodes.address}", **nodes.here)
    assert "has other versions: Version mismatch" in said and "Ray: 2.0.0" in said
    assert f"Ray: {version('ray')}" in said and "Install the same of Ray and of Python on every node" in said


@with_ray
def test_no_token_is_in_what_a_run_records_or_says(project: Project, nodes: Nodes) -> None:
    token = Path(nodes.here["RAY_AUTH_TOKEN_PATH"]).read_text()
    ran = project.looper("run", "test", "--arm", "noop", "--limit", "1", "--engine", f"ray:{nodes.address}")
    assert ran.returncode == 0 and token not in ran.stdout + ran.stderr
    assert all(token not in path.read_text() for path in project.run.glob("*.jsonl"))


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_one_line_names_the_extra(tmp_path: Path, state: Path) -> None:
    said = _refused(Project(tmp_path, state), "ray")
    assert re.fullmatch(
        r"looper: The engine ray needs Ray, here and on every node: \S+ -m (uv )?pip install '?ray\S*", said
    )


@with_ray
@pytest.mark.proof
def test_the_first_experiment_on_four_nodes_of_their_own_has_the_table_of_the_readme(
    state: Path, tmp_path: Path
) -> None:
    """Adapters are trained by the run's process, and reach nodes that have nothing."""
    tmp_path.chmod(0o755)
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    table = readme.partition("arm           resolved")[2].partition("\n\n")[0].splitlines()[1:]
    project = Project(tmp_path, state)
    with contextlib.closing(Nodes(0, state, tmp_path)) as nodes:
        project.environment |= nodes.here
        for number in range(4):
            nodes.do(f"set LOOPER_HOME {tmp_path / 'homes' / str(number)}")
            nodes.do("add")
        argv = ["run", "exp00", "--profile", "demo", "--engine", f"ray:{nodes.address}"]
        with project.start(*argv) as process:
            out, err = process.communicate(timeout=7200)
    assert process.returncode == 0, err
    rows = [
        [*row[:7], row[8]]
        for row in arm_rows(read_run(project.run))  # All but the seconds.
    ]
    assert [" ".join(row).split() for row in rows] == [line.split() for line in table], out
    worked = {verdict.node for verdict in project.verdicts()}
    assert len(worked) == 4 and None not in worked
