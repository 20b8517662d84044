"""Finding a sandbox that holds: each is proven by forbidden actions that must fail, before anything is trusted to it."""

import os
import secrets
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from looper.edges.sandboxes.bare import Bare
from looper.edges.sandboxes.bubblewrap import Bubblewrap
from looper.edges.sandboxes.container import Container
from looper.edges.sandboxes.landlock import Landlock
from looper.edges.sandboxes.seatbelt import Seatbelt
from looper.errors import BadInput, SandboxUnavailable
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


def leaks(sandbox: Sandbox) -> list[str]:
    """Forbidden things that worked; empty for a sandbox that holds. Raises SandboxUnavailable where it did not run."""
    with tempfile.TemporaryDirectory(prefix="looper-probe-") as name, socket.socket() as server:
        outside = Path(name).resolve()
        outside.chmod(0o777)
        secret = outside / "secret"
        secret.write_text(f"canary {secrets.token_hex(8)}\n")
        secret.chmod(0o644)
        root = outside / "workspace"
        root.mkdir()
        if sandbox.owner is not None:
            os.chown(root, sandbox.owner, sandbox.owner)
        server.bind(("127.0.0.1", 0))
        server.listen()
        arguments = (str(secret), str(outside), str(server.getsockname()[1]), str(os.getpid()))
        argv = ("/bin/bash", "-c", PROBE, "probe", *arguments)
        result = sandbox.run(Command(argv=argv, root=root, timeout_s=20))
        # Asked of the real folder: a sandbox may have one of the same name, of its own and in memory.
        written = ["wrote a file outside"] if (outside / "planted").exists() else []
    lines = result.text().splitlines()
    if "checked" not in lines or "inside" not in lines:
        raise SandboxUnavailable(
            f"{sandbox.name} started, but commands do not work in it: {result.text().strip()}."
        )
    return [*written, *(line.removeprefix("LEAK ") for line in lines if line.startswith("LEAK "))]


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

    `auto` takes the first that holds and never falls back to none. Raises SandboxUnavailable with every reason.
    """
    if choice == "none":
        return Bare()
    if choice.startswith("container:"):
        return proven(lambda: Container(choice.removeprefix("container:")))
    known = candidates()
    if choice != "auto" and choice not in known:
        raise BadInput(
            f'There is no sandbox "{choice}". Use auto, {", ".join(known)}, container:IMAGE or none.'
        )
    reasons = []
    for name, make in known.items():
        if choice in ("auto", name):
            try:
                return proven(make)
            except SandboxUnavailable as error:
                reasons.append(f"{name}: {error}")
    raise SandboxUnavailable(
        f"No sandbox works here, and commands of a model must not run without one. {' '.join(reasons)} "
        "To run without any protection, say --sandbox none."
    )
