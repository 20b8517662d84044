"""Finding a sandbox that holds: each is proven by forbidden actions that must fail, before anything is trusted to it.

`find_sandbox` is asked once for a run, and by `looper doctor`. `PROBE` and `SOCKETS` are what is tried inside: every line LEAK that
comes back is something forbidden that worked.
"""

import contextlib
import os
import secrets
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from looper.edges.access import closed_to_others
from looper.edges.sandboxes.bare import NoSandbox
from looper.edges.sandboxes.bubblewrap import Bubblewrap
from looper.edges.sandboxes.container import Container
from looper.edges.sandboxes.landlock import Landlock
from looper.edges.sandboxes.process import give, own_interpreter, program, unavailable
from looper.edges.sandboxes.seatbelt import Seatbelt
from looper.errors import BadInput, SandboxUnavailable, SandboxUntried, possible
from looper.protocols import Command, Sandbox

PROBE = r"""
secret=$1; outside=$2; port=$3; harness=$4
cat "$secret" 2>/dev/null | grep -q canary && echo "LEAK read a file outside"
{ echo x > "$outside/planted"; } 2>/dev/null
{ exec 3<>"/dev/tcp/127.0.0.1/$port"; } 2>/dev/null && echo "LEAK reached a server on this machine"
kill -0 "$harness" 2>/dev/null && echo "LEAK can signal the harness"
grep -qz LOOPER_CANARY "/proc/$harness/environ" 2>/dev/null && echo "LEAK read the harness's environment"
[ -n "$LOOPER_CANARY" ] && echo "LEAK inherited the harness's environment"
unshare -Ur true 2>/dev/null && echo "LEAK made a user namespace"
echo inside > written && cat written
echo checked
"""
"""In bash, which each sandbox has."""
SOCKETS = r"""
import os, socket, sys

def reached(sender, name):
    try:
        with sender() as opened:
            os.chdir(sys.argv[1])
            opened.connect(name)
            return True
    except OSError:
        return False

def plain(kind):
    return lambda: socket.socket(socket.AF_UNIX, kind)

def paired():
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0]

for sender, name in ((plain(socket.SOCK_STREAM), "stream"), (plain(socket.SOCK_DGRAM), "datagrams"), (paired, "datagrams")):
    if reached(sender, name):
        print("LEAK reached a UNIX socket of this machine")
try:
    import ctypes
    if ctypes.CDLL(None).shmget(0, 4096, 0o1600) >= 0:
        print("LEAK took memory that no limit counts")
except ImportError:
    pass
for address in ("localhost", "127.0.0.1"):
    try:
        with socket.create_server((address, 0)) as server:
            with socket.create_connection(("localhost", server.getsockname()[1])) as client:
                server.accept()[0].sendall(b"met")
                print("met" if client.recv(3) == b"met" else "")
    except OSError as error:
        print("alone", error)
print("tried")
"""
"""In the interpreter that runs this, or the system's where commands cannot come to that one."""

ANSWER_S = 60
"""For a command of the proof, which takes milliseconds, on a machine that is busy."""
PROBE_MB = 8
"""Room that such a command needs: what is tried is the sandbox, not the place for trees."""


def leaks(sandbox: Sandbox) -> list[str]:
    """Forbidden things that worked; empty for a sandbox that holds. Raises SandboxUnavailable where it did not run, or where what it
    promises does not work in it."""
    # The path of a UNIX socket has at most 107 bytes, and the folder for temporary files may have more.
    with (
        tempfile.TemporaryDirectory(prefix="looper-probe-", dir="/tmp") as name,
        contextlib.ExitStack() as stack,
    ):
        outside = Path(name).resolve()
        outside.chmod(0o777)
        secret = outside / "secret"
        secret.write_text(f"canary {secrets.token_hex(8)}\n")
        secret.chmod(0o644)
        root = outside / "workspace"
        root.mkdir()
        give(root, sandbox.owner)
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        for kind, path in (
            (socket.SOCK_STREAM, outside / "stream"),
            (socket.SOCK_DGRAM, outside / "datagrams"),
        ):
            named = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
            named.bind(os.fspath(path))
            path.chmod(0o777)
            if kind is socket.SOCK_STREAM:
                named.listen()
        arguments = (str(secret), str(outside), str(server.getsockname()[1]), str(os.getpid()))
        lines = _said(sandbox, ("/bin/bash", "-c", PROBE, "probe", *arguments), root, "checked")
        if "inside" not in lines:
            raise SandboxUnavailable(f"{sandbox.name} started, but files cannot be written in it.")
        if not isinstance(
            sandbox, Container
        ):  # Its image may have another C library than the interpreters here.
            lines += _sockets(sandbox, root, outside)
        # Asked of the real folder: a sandbox may have one of the same name, of its own and in memory.
        written = ["wrote a file outside"] if (outside / "planted").exists() else []
    return [*written, *(line.removeprefix("LEAK ") for line in lines if line.startswith("LEAK "))]


def _said(
    sandbox: Sandbox, argv: tuple[str, ...], root: Path, last: str, readable: tuple[Path, ...] = ()
) -> list[str]:
    result = sandbox.run(
        Command(argv=argv, root=root, timeout_s=ANSWER_S, readable=readable, tree_mb=PROBE_MB)
    )
    if result.killed_by == "time":
        raise SandboxUntried(
            f"{sandbox.name} started, but a command gave no answer within {ANSWER_S} s. End other work, then run again."
        )
    lines = result.text().splitlines()
    if lines[-1:] != [last]:
        raise unavailable(
            f"{sandbox.name} started, but commands do not work in it: {lines[-1] if lines else 'no word'}."
        )
    return lines


def _sockets(sandbox: Sandbox, root: Path, outside: Path) -> list[str]:
    closed: SandboxUnavailable | None = None
    for python, readable in interpreters():
        try:
            lines = _said(sandbox, (python, "-I", "-S", "-c", SOCKETS, str(outside)), root, "tried", readable)
        except SandboxUntried:
            raise
        except SandboxUnavailable as error:
            closed = closed or error
            continue
        if sandbox.loopback and lines.count("met") < 2:
            alone = next((line for line in lines if line.startswith("alone ")), "alone")
            raise SandboxUnavailable(
                f"{sandbox.name} started, but a server and a client on localhost do not meet in it: {alone.removeprefix('alone ')}."
            )
        return lines
    raise closed or SandboxUnavailable("there is no interpreter to try the sandbox with.")


def interpreters() -> Iterator[tuple[str, tuple[Path, ...]]]:
    """The interpreter behind this process and the system's, each with what a command must see to run it."""
    base = Path(sys.base_prefix).resolve()
    own = own_interpreter()
    yield own, () if base.is_relative_to("/usr") else (base,)
    system = program("python3")
    if system is not None and Path(system).resolve() != Path(own).resolve():
        yield system, ()


def must_reach(sandbox: Sandbox, python: str, readable: tuple[Path, ...], place: Path = Path("/tmp")) -> None:
    """That commands that work below `place` can run an interpreter, seeing these folders. Raises SandboxUnavailable, naming what
    shuts them out."""
    with tempfile.TemporaryDirectory(prefix="looper-reach-", dir=place) as name:
        Path(name).chmod(0o755)
        root = Path(name) / "workspace"
        root.mkdir()
        give(root, sandbox.owner)
        argv = (python, "-I", "-S", "-c", "print('here')")
        said = sandbox.run(
            Command(argv=argv, root=root, timeout_s=60, readable=readable, tree_mb=PROBE_MB)
        ).text()
    if said != "here\n":
        fix = f"Remove {readable[0]}, so that it is made anew." if readable else ""
        if sandbox.owner is not None and (closed := closed_to_others((Path(python), *readable, place))):
            fix = (
                f"Commands run as the user {sandbox.owner}, who may not enter {closed[0]}: chmod a+x it, or choose another place "
                "with LOOPER_HOME."
            )
        last = (said.strip().splitlines() or ["no word"])[-1]
        raise SandboxUnavailable(f"{python} does not start in the sandbox ({sandbox.name}): {last}. {fix}")


def proven(make: Callable[[], Sandbox]) -> Sandbox:
    """The sandbox, after its proof. Raises SandboxUnavailable with the reason."""
    sandbox = make()
    found = leaks(sandbox)
    if found:
        raise SandboxUnavailable(f"{sandbox.name} does not hold: {'; '.join(found)}.")
    return sandbox


def candidates() -> dict[str, Callable[[], Sandbox]]:
    """What can work on this system, best first."""
    if sys.platform == "darwin":
        return {"seatbelt": Seatbelt}
    return {"bubblewrap": Bubblewrap, "landlock": Landlock}


def find_sandbox(choice: str) -> Sandbox:
    """The sandbox that `choice` names: `auto`, a backend's name, `container:IMAGE`, `container:swe-bench`, or `none`.

    `auto` takes the first that holds and never falls back to none. Raises SandboxUnavailable with every reason, and SandboxUntried
    where the machine lacked something meanwhile: a run's sandbox is part of what it measures, and must not follow from its load.
    """
    if choice == "none":
        return NoSandbox()
    if choice.startswith("container:"):
        return proven(lambda: Container(choice.removeprefix("container:")))
    known = candidates()
    if choice != "auto" and choice not in known:
        if choice in ("bubblewrap", "landlock", "seatbelt"):
            raise BadInput(
                f"The sandbox {choice} does not work on this system. Use auto, {', '.join(known)}, container:IMAGE or none."
            )
        there = ["auto", *known, "container:IMAGE", "container:swe-bench", "none"]
        raise BadInput(f'There is no sandbox "{choice}". {possible(choice, there, "There are")}')
    reasons = []
    for name, make in known.items():
        if choice in ("auto", name):
            try:
                return proven(make)
            except SandboxUntried:
                raise
            except SandboxUnavailable as error:
                reasons.append(f"{name}: {error}")
    none = "No sandbox works" if choice == "auto" else f"The sandbox {choice} does not work"
    raise SandboxUnavailable(
        f"{none} here, and commands of a model must not run without one. {' '.join(reasons)} "
        "To run without any protection, say --sandbox none."
    )
