"""Cells on the machines of a Ray cluster, in worker processes that make one attempt at a time.

A worker process is an actor of Ray's that is asked for what an attempt tells, up to and including the next step. It is asked to go on
when that is on the disk, and acts on the step only then. A lane has one attempt at a time, so its cells keep their order, and an attempt that
was lost with its worker ends like any other that the world has failed: the next one begins wherever there is room. Of each node the first
worker shows that gold and nothing are judged there as they must be; what it needs and does not have is asked for on the same way.
"""

import contextlib
import itertools
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol

from looper.edges.engines.local import LocalEngine, Threads
from looper.edges.models.served import is_loopback
from looper.errors import (
    BadInput,
    Cancelled,
    InfrastructureError,
    JournalError,
    MissingTool,
    WorkerLost,
    error_named,
    named,
    one_line,
    pip_install,
)
from looper.records.job import EVENTS, CellJob, Event, Obstacle, Told
from looper.records.plan import Limits
from looper.records.session import NodeState
from looper.records.text import counted
from looper.records.verdict import Verdict

REACHED_S = 5.0
"""How long a cluster's address may take to accept a connection."""
LOOKED_S = 0.5
"""How often somebody looks whether the run is to end."""
ENDED_S = 4.0
"""How long attempts may take to end in order, and then by force."""
WITHOUT_S = 10.0
"""How often it is said that no node can take a cell, and looked which are lost."""
CONTROLS_LOST = 2
"""A node that so many workers were lost on during the control cells takes no cells."""
IN, OUT, NOWHERE = 3, 4, 5
"""Exit codes of a process that was let into a cluster, was not, or found none on this machine."""

_KNOCK = f"""
import sys
from ray._raylet import GcsClientOptions, GlobalStateAccessor
where = sys.argv[1]
if not where:
    from ray._private.services import canonicalize_bootstrap_address_or_die
    try:
        where = canonicalize_bootstrap_address_or_die("auto")
    except ConnectionError:
        sys.exit({NOWHERE})
options = GcsClientOptions.create(where, None, allow_cluster_id_nil=True, fetch_cluster_id_if_nil=False)
sys.exit({IN} if GlobalStateAccessor(options).connect() else {OUT})
"""
"""Asked in a process of its own: how one authenticates is settled once in a process, and Ray writes every refusal to standard error."""


class Worker(Protocol):
    """What makes attempts in a process elsewhere, where it can be imported by its name."""

    def __init__(self, spec: bytes) -> None:
        """Of a run's specification, as JSON."""

    def prove(self) -> tuple[Sequence[Told], bool]:
        """Make the control cells of a node, which are in no record of the run; as `begin`."""

    def begin(self, job: bytes, beside: int = 0) -> tuple[Sequence[Told], bool]:
        """What an attempt tells, until something that it acts on when that is durable, or that it waits for; and whether it is over. `beside`
        are the other attempts that are under way at its model's server."""

    def go_on(self, given: bytes | None = None, beside: int = 0) -> tuple[Sequence[Told], bool]:
        """The same from there: whatever it told is durable, and what it wanted is given."""

    def end(self) -> None:
        """End the attempt that is being made, in order. Called beside the others."""


Record = Callable[[Event], None]


def _nothing_given(wanted: bytes) -> bytes:
    raise InfrastructureError("A worker asks for content, and there is none to give.")


def _not_kept(node: str, address: str, state: NodeState, said: str) -> None:
    pass


@dataclass(frozen=True)
class Needs:
    """What a cell takes of a node beside one CPU."""

    memory_mb: int = 1
    gpus: float = 0.0

    @classmethod
    def of(cls, limits: Limits) -> "Needs":
        return cls(limits.memory_mb, limits.gpus or 0.0)

    def room(self, node: Mapping[str, Any]) -> int:
        """How many such cells a node takes at once."""
        has = node["Resources"]
        cells = min(int(has.get("CPU", 0)), int(has.get("memory", 0)) // (self.memory_mb << 20))
        # Ray reckons in ten-thousandths of a GPU.
        return (
            min(cells, int(has.get("GPU", 0) * 10_000 // max(1, round(self.gpus * 10_000))))
            if self.gpus
            else cells
        )

    def __str__(self) -> str:
        words = ["one CPU", f"{self.memory_mb} MiB", *([f"{self.gpus:g} GPUs"] if self.gpus else [])]
        return f"{', '.join(words[:-1])} and {words[-1]}"


class RayCluster:
    """A cluster that this process has joined, until closed."""

    def __init__(self, address: str) -> None:
        """`address` is HOST:PORT, or empty for the cluster that this machine is a node of. Raises BadInput, MissingTool or
        InfrastructureError."""
        if address:
            _must_answer(address)
        if find_spec("ray") is None:
            raise MissingTool(f"The engine ray needs Ray, here and on every node: {pip_install(extra='ray')}")
        _must_want_our_token(address)
        self.ray = _joined(address)
        self._slots: set[Slot] = set()
        self._lock = threading.Lock()

    def nodes(self) -> list[dict[str, Any]]:
        return [node for node in self.ray.nodes() if node["Alive"]]

    def slots(self, limits: Limits) -> int:
        """How many cells of these limits the nodes have room for at once. Raises BadInput where they have room for none."""
        needs = Needs.of(limits)
        rooms = [needs.room(node) for node in self.nodes()]
        if not any(rooms):
            raise BadInput(
                f"Of the cluster's {counted(len(rooms), 'node')} none has {needs} for a cell. Add a node: ray start --address=HOST:PORT --num-cpus=N."
            )
        return sum(rooms)

    def slot(self, worker: type[Worker], spec: Any, needs: "Needs", unfit: Iterable[str]) -> "Slot":
        """A worker process on some node, but none of these."""
        without = {"ray.io/node-id": f"!in({','.join(unfit)})"} if unfit else None
        # A worker or an attempt that the cluster repeats by itself would act twice on what was recorded once.
        actor = self.ray.remote(AtNode).options(
            num_cpus=1, num_gpus=needs.gpus, memory=needs.memory_mb << 20, max_restarts=0, max_task_retries=0, max_concurrency=2,
            scheduling_strategy="SPREAD", label_selector=without,
        )  # fmt: skip
        slot = Slot(actor.remote(worker, spec), needs)
        with self._lock:
            self._slots.add(slot)
        return slot

    def node_of(self, slot: "Slot") -> str:
        """The id of the node on which a worker was to start that did not; empty where Ray does not say it."""
        with contextlib.suppress(
            AttributeError, KeyError, TypeError
        ):  # Its own state, which no version promises.
            told = self.ray._private.state.state.actor_table(slot.actor._actor_id.hex())
            return str(told["Address"]["NodeID"])
        return ""

    def drop(self, slot: "Slot", *, force: bool = False) -> None:
        """End a worker process, in order as far as it can within a moment; by force at once, whatever it does."""
        with self._lock:
            self._slots.discard(slot)
        with contextlib.suppress(self.ray.exceptions.RayError):
            if not force:
                self.ray.wait([slot.actor.end.remote()], timeout=ENDED_S - LOOKED_S)
            self.ray.kill(slot.actor)

    def close(self) -> None:
        """End every worker process, in order as far as they can, and leave the cluster."""
        with contextlib.suppress(self.ray.exceptions.RayError):
            ended = [slot.actor.end.remote() for slot in self._slots]
            self.ray.wait(ended, num_returns=len(ended), timeout=ENDED_S) if ended else None
        self.ray.shutdown()


def _must_want_our_token(address: str) -> None:
    """Whoever reaches a cluster without authentication runs programs on all of its nodes. Raises BadInput or InfrastructureError."""
    where = address or "of this machine"
    others = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    without = _knock(address, {**others, "RAY_AUTH_MODE": "disabled"})
    with_it = _knock(address, {**os.environ, "RAY_AUTH_MODE": "token"})
    words = [each.communicate()[1] for each in (without, with_it)]
    answers = [(without.returncode, words[0]), (with_it.returncode, words[1])]
    match [code for code, _ in answers]:
        case [code, _] if code == IN:
            raise BadInput(
                f"The Ray cluster {where} lets everybody in: who reaches it can run programs on all of its nodes. Start its nodes "
                "with RAY_AUTH_MODE=token."
            )
        case [code, _] if code == NOWHERE:
            raise BadInput(
                "No Ray cluster runs on this machine. Name one with --engine ray:HOST:PORT, or start one: RAY_AUTH_MODE=token ray start "
                "--head --include-dashboard=false."
            )
        case [without_it, code] if without_it == OUT and code == IN:
            return
        case [without_it, _] if without_it == OUT:
            raise BadInput(
                f"There is no token here, or not the right one, for the Ray cluster {where}. Make one with ray get-auth-token --generate, "
                "give every node the same, and name its file with RAY_AUTH_TOKEN_PATH."
            )
    said = next(
        (said.strip().splitlines()[-1] for code, said in answers if code not in (IN, OUT) and said.strip()),
        "",
    )
    raise InfrastructureError(
        f"Whether the Ray cluster {where} asks for a token could not be seen: {one_line(said) or 'Ray does not say why'}."
    )


def _knock(address: str, variables: Mapping[str, str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", _KNOCK, address],
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )


def _joined(address: str) -> Any:
    """The `ray` package, connected. Raises BadInput or InfrastructureError."""
    # Read when Ray is imported, and never again.
    os.environ["RAY_AUTH_MODE"] = "token"
    where = address or "of this machine"
    with _own_signals():
        import ray

        try:
            ray.init(
                address=address or "auto",
                namespace="looper",
                log_to_driver=False,
                logging_level=logging.FATAL,
            )
        except Exception as error:
            if "Version mismatch" in str(error):
                raise BadInput(
                    f"The Ray cluster {where} has other versions: {one_line(str(error)).rstrip('.')}. Install the same of Ray and of Python "
                    "on every node."
                ) from error
            raise InfrastructureError(
                f"The Ray cluster {where} could not be joined: {named(error).rstrip('.')}. A run begins on one of its nodes; one that "
                "works on no cells is made with ray start --address=HOST:PORT --num-cpus=0."
            ) from error
    return ray


def _must_answer(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise BadInput(
            f"--engine ray:{one_line(address)}: an address is HOST:PORT, as in ray:10.0.0.5:6379. The cluster that this machine is a node of "
            "is --engine ray."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACHED_S).close()
    except OSError as error:
        raise BadInput(
            f"No Ray cluster answers at {address}: {error.strerror or error}. Start its head there: RAY_AUTH_MODE=token ray start --head "
            "--include-dashboard=false."
        ) from error


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """What signals do stays as it is: Ray sets handlers of its own."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in signals}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


class Slot:
    """A worker process on a node, for one attempt at a time."""

    def __init__(self, actor: Any, needs: Needs) -> None:
        self.actor, self.needs = actor, needs
        self.used = False
        """Whether an attempt was made there before."""
        self.where = actor.where.remote()
        """The id of its node, when Ray knows it."""
        self.node = ""
        """The same, once it was asked for: with a node that is lost the answer may be lost too."""


class RayEngine:
    """Each lane has one attempt at a time on the cluster; this process writes what comes of it."""

    def __init__(
        self,
        cluster: RayCluster,
        workers: int,
        worker: type[Worker],
        spec: bytes,
        here: Callable[[CellJob, Record], object],
        stop: threading.Event,
        say: Callable[[str], None],
        *,
        give: Callable[[bytes], bytes] = _nothing_given,
        keep: Callable[[str, str, NodeState, str], None] = _not_kept,
        controls: bool = False,
    ) -> None:
        """`here` makes an attempt in this process: of one that was lost, its end. `spec` is the run's specification as JSON. `give`
        answers what a worker wants, `keep` writes what becomes of a node: its id, what it is called, where it stands and why. `controls`: whether a node proves itself before its first
        cell."""
        self._cluster, self._workers, self._here, self._stop, self._say = cluster, workers, here, stop, say
        self._worker = worker
        self._spec = cluster.ray.put(spec)
        self._lock = threading.Condition()
        self._busy: set[Slot] = set()
        """Those that a thread waits for; none is begun while `_over`."""
        self._idle = list[Slot]()
        self._needs = Needs()
        """Of the last cell that was begun."""
        self._under_way = Counter[str]()
        """Attempts, by the server that they ask."""
        self._over = True
        self._names: dict[str, str] = {}
        """What nodes are called, by their ids."""
        self._unfit: dict[str, str] = {}
        """Why a node can run no cells of this run, by its id."""
        self._give, self._keep, self._controls = give, keep, controls
        self._proving = set[str]()
        """Nodes whose control cells are being made."""
        self._ready: dict[str, str] = {}
        """What nodes are called that take cells, by their ids."""
        self._controls_lost: dict[str, int] = {}
        """How often a worker was lost during control cells, by node."""

    def run(self, lanes: Iterable[Iterable[CellJob]], record: Record) -> None:
        self._over, over = False, threading.Event()
        watcher = threading.Thread(target=self._watch, args=(over,), name="cluster", daemon=True)
        watcher.start()
        try:
            LocalEngine(Threads(self._workers), self._attempt).run(lanes, record)
            self._see_lost()
        finally:
            over.set()
            watcher.join()
            self._end()

    def _end(self) -> None:
        """What asks something of Ray when this process has left the cluster ends the process, so nobody is to be at it then."""
        with self._lock:
            self._over = True
        for force in (False, True):
            self._cancel(force=force)
            with self._lock:
                if self._lock.wait_for(lambda: not self._busy, ENDED_S):
                    return

    def _attempt(self, job: CellJob, record: Record) -> None:
        data, self._needs = job.to_json(), Needs.of(job.limits)
        while True:
            slot = self._taken(self._needs)
            try:
                refusal = self._proven(slot)
                if not refusal:
                    with self._asking(job, slot) as beside:
                        refusal = self._followed(slot, slot.actor.begin, record, data, beside=beside)
                slot.used = True
            except _NotBegun:
                self._cluster.drop(slot)
                continue
            except WorkerLost as error:
                self._cluster.drop(slot)
                self._say(f"{job.cell.key}: {error}")
                self._see_lost()
                lost = job.model_copy(update={"obstacle": Obstacle(cause=named(error))})
                self._here(lost, self._placing(slot, record))
                return
            except BaseException:
                # What was told and not recorded is not to be acted on.
                self._cluster.drop(slot)
                raise
            finally:
                with self._lock:
                    self._busy.discard(slot)
                    self._lock.notify_all()
            if refusal is None:
                with self._lock:
                    self._idle.append(slot)
                return
            self._cluster.drop(slot)
            self._pass_over(*refusal)

    @contextlib.contextmanager
    def _asking(self, job: CellJob, slot: Slot) -> Iterator[Callable[[], int]]:
        """While an attempt is under way: how many others are at the server that it asks."""
        at = job.address
        if at and is_loopback(at.partition(" ")[2]):
            at = f"{at} {self._where(slot)}"  # Every node has one of its own there.
        with self._lock:
            self._under_way[at] += 1
        try:
            yield lambda: self._under_way[at] - 1 if at else 0
        finally:
            with self._lock:
                self._under_way[at] -= 1

    def _taken(self, needs: Needs) -> Slot:
        """One that idles, or a new one once some node has room for it, whichever comes first."""
        new: Slot | None = None
        try:
            while True:
                with self._lock:
                    if self._over or self._stop.is_set():
                        raise Cancelled
                    for slot in self._idle:
                        if slot.needs == needs:
                            self._idle.remove(slot)
                            self._busy.add(slot)
                            return slot
                    if new is None:
                        new = self._cluster.slot(self._worker, self._spec, needs, sorted(self._unfit))
                        self._busy.add(new)
                if self._cluster.ray.wait([new.where], timeout=LOOKED_S)[0]:
                    with contextlib.suppress(self._cluster.ray.exceptions.RayError):
                        new.node = str(self._cluster.ray.get(new.where))
                    placed, new = new, None
                    return placed
                with self._lock:
                    # What idles takes no room from what is wanted.
                    other = self._idle.pop(0) if self._idle and self._idle[0].needs != needs else None
                if other is not None:
                    self._cluster.drop(other)
        finally:
            if new is not None:
                self._cluster.drop(new, force=True)
                with self._lock:
                    self._busy.discard(new)
                    self._lock.notify_all()

    def _proven(self, slot: Slot) -> tuple[str, str] | None:
        """Have the control cells of a worker's node made, once; other workers there wait. Of a node whose controls do not come out as
        they must, its id and why. Raises _NotBegun where nothing is known of the node yet."""
        if not self._controls:
            return None
        try:
            node = slot.node or str(self._cluster.ray.get(slot.where))
        except self._cluster.ray.exceptions.RayError as error:
            if getattr(error, "actor_init_failed", False) and (lacking := self._cluster.node_of(slot)):
                return lacking, f"Looper does not start there: {_of_ray(error)}"
            return None  # The attempt that begins there will say so.
        with self._lock:
            while node in self._proving:
                self._lock.wait(LOOKED_S)
                if self._over or self._stop.is_set():
                    raise Cancelled
            if node in self._ready:
                return None
            if node in self._unfit:
                return node, self._unfit[node]
            self._proving.add(node)
        try:
            refusal = self._controlled(slot, node)
            if refusal is not None:
                self._pass_over(*refusal)
            return refusal
        finally:
            with self._lock:
                self._proving.discard(node)
                self._lock.notify_all()

    def _controlled(self, slot: Slot, node: str) -> tuple[str, str] | None:
        """Have control cells made. Of a node whose own do not come out as they must, its id and why. Raises _NotBegun where their
        worker was lost, but for the last time that one may be."""
        told = list[str]()
        try:
            refusal = self._followed(slot, slot.actor.prove, lambda event: None, told=told)
            if refusal is None and not told:
                if self._over or self._stop.is_set():
                    raise Cancelled
                raise WorkerLost("it was told to end")
        except WorkerLost as error:
            with self._lock:
                self._controls_lost[node] = lost = self._controls_lost.get(node, 0) + 1
            if lost < CONTROLS_LOST:
                raise _NotBegun from error
            return (
                node,
                f"{counted(lost, 'worker was', 'workers were')} lost during its control cells, the last so: {error}",
            )
        if refusal is None:
            self._mark(node, NodeState.READY, "; ".join(told))
        return refusal

    def _mark(self, node: str, state: NodeState, said: str = "") -> None:
        called = self._called(node)
        self._keep(node, called, state, said)
        with self._lock:
            if state is NodeState.READY:
                self._ready[node] = called
            else:
                self._ready.pop(node, None)

    def _see_lost(self) -> None:
        """Say which nodes that took cells are no part of the cluster any more."""
        with contextlib.suppress(self._cluster.ray.exceptions.RayError):
            alive = {each["NodeID"] for each in self._cluster.nodes()}
            with self._lock:
                lost = [node for node in self._ready if node not in alive]
                for node in lost:
                    del self._ready[node]
            for node in lost:
                self._mark(node, NodeState.LOST)
                self._say(f"{self._name(node)} is lost; its cells are tried elsewhere")

    def _placing(self, slot: Slot, record: Record) -> Record:
        return lambda event: record(self._placed(event, slot))

    def _placed(self, event: Event, slot: Slot) -> Event:
        """With where it was made."""
        if not isinstance(event, Verdict):
            return event
        return event.model_copy(update={"node": self._called(slot.node)}) if slot.node else event

    def _followed(
        self,
        slot: Slot,
        begin: Any,
        record: Record,
        *job: bytes,
        told: list[str] | None = None,
        beside: Callable[[], int] = lambda: 0,
    ) -> tuple[str, str] | None:
        """Record what an attempt tells until its verdict; of a node that can make none, its id and why. `told` takes what control cells
        tell in its place, which have none; `beside` counts the other attempts at its server. Raises WorkerLost where the attempt ends before, _NotBegun where its worker was gone before
        it, and what it was ended by."""
        ray = self._cluster.ray
        begun, judged, refusal = False, told is not None, None
        try:
            said, over = ray.get(begin.remote(*job, *([beside()] if job else [])))
            while True:
                begun, given = True, None
                for kind, text in said:
                    if self._over or self._stop.is_set():
                        raise Cancelled
                    if kind in EVENTS:
                        record(self._placed(EVENTS[kind].from_json(text), slot))
                        judged = kind == Verdict.__name__
                    elif kind == "said":
                        self._say(f"{self._where(slot)}: {text.decode()}")
                    elif kind == "wanted":
                        given = self._give(text)
                    elif kind == "control" and told is not None:
                        told.append(text.decode())
                    elif kind == "unfit":
                        refusal = slot.node, text.decode()
                    else:
                        raise error_named(kind, text.decode())
                if over:
                    break
                said, over = ray.get(slot.actor.go_on.remote(given, beside()))
        except ray.exceptions.RayError as error:
            if self._over or self._stop.is_set():
                raise Cancelled from error
            if slot.used and not begun:
                raise _NotBegun from error
            raise WorkerLost(
                f"the worker of this attempt on {self._where(slot)} ended before it did: {_of_ray(error)}"
            ) from error
        if not judged and refusal is None:
            if self._over or self._stop.is_set():
                raise Cancelled
            raise WorkerLost(f"the worker of this attempt on {self._where(slot)} ended without a verdict")
        return refusal

    def _where(self, slot: Slot) -> str:
        return self._name(slot.node) if slot.node else "some node"

    def _name(self, node: str) -> str:
        return f"node {self._called(node)}"

    def _called(self, node: str) -> str:
        """Its address; with a number where others that are there, or are not known to be lost, have that too. One that joins again takes
        the name of the one that was lost."""
        with self._lock:
            if node not in self._names:
                found = {each["NodeID"]: each for each in self._cluster.ray.nodes()}
                address = found[node]["NodeManagerAddress"] if node in found else node[:12]
                taken = {
                    name
                    for other, name in self._names.items()
                    if other in self._ready or found.get(other, {}).get("Alive")
                }
                numbered = (f"{address}#{number}" for number in itertools.count(2))
                free = (name for name in itertools.chain([address], numbered) if name not in taken)
                self._names[node] = next(free)
            return self._names[node]

    def _pass_over(self, node: str, why: str) -> None:
        """Raises InfrastructureError where no node is left."""
        with self._lock:
            new = node not in self._unfit
            self._unfit[node] = why
        if new:
            self._say(f"{self._name(node)} takes no cells: {why}")
            self._mark(node, NodeState.REFUSED, why)
        left = [each for each in self._cluster.nodes() if self._needs.room(each)]
        if all(each["NodeID"] in self._unfit for each in left):
            raise InfrastructureError(
                f"No node of the cluster can run these cells; {self._name(node)}: {why.rstrip('.')}. Correct that, then run the same command "
                "again."
            )

    def _watch(self, over: threading.Event) -> None:
        waited = 0.0
        while not over.wait(LOOKED_S):
            if self._stop.is_set():
                self._cancel()
                if not over.wait(ENDED_S):
                    self._cancel(force=True)
                return
            waited += LOOKED_S
            if waited < WITHOUT_S:
                continue
            waited = 0.0
            with contextlib.suppress(self._cluster.ray.exceptions.RayError, JournalError):
                self._see_lost()
                if not any(
                    self._needs.room(each) and each["NodeID"] not in self._unfit
                    for each in self._cluster.nodes()
                ):
                    self._say("no node is left that could take a cell; one that joins the cluster will")

    def _cancel(self, *, force: bool = False) -> None:
        """A process that makes an attempt has a moment to end it in order; by force it has none."""
        with self._lock:
            busy = list(self._busy)
        for slot in busy:
            with contextlib.suppress(self._cluster.ray.exceptions.RayError):
                self._cluster.drop(slot, force=True) if force else slot.actor.end.remote()


class _NotBegun(Exception):
    """The worker process was gone when an attempt was to begin there."""


def _of_ray(error: Exception) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    traced = any(line.startswith("Traceback") or "ray::" in line for line in lines)
    said = lines[-1 if traced else 0] if lines else ""
    return f"{type(error).__name__}: {one_line(said)}".rstrip(".")


class AtNode:
    """The actor that Ray runs: a worker, and the node that it is on."""

    def __init__(self, worker: type[Worker], spec: bytes) -> None:
        self._worker = worker(spec)

    def where(self) -> str:
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def prove(self) -> tuple[Sequence[Told], bool]:
        return self._worker.prove()

    def begin(self, job: bytes, beside: int) -> tuple[Sequence[Told], bool]:
        return self._worker.begin(job, beside)

    def go_on(self, given: bytes | None, beside: int) -> tuple[Sequence[Told], bool]:
        return self._worker.go_on(given, beside)

    def end(self) -> None:
        self._worker.end()
