"""What a sandboxed command finds of a Ray cluster that runs on its machine: nothing that it could talk to."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.contracts.test_sandboxes import BACKENDS
from tests.experiment.test_cluster import Nodes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed"),
]

SEEK = """
import glob, json, os, socket, sys
ports, paths, token = json.loads(sys.argv[1])
for host, port in ports:
    for kind in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.create_connection((host, port), timeout=1)
            print("reached the port", host, port)
        except OSError:
            pass
for path in [*paths, *glob.glob("/tmp/ray/**/sockets/*", recursive=True)]:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        try:
            socket.socket(socket.AF_UNIX, kind).connect(path)
            print("reached", path)
        except OSError:
            pass
try:
    print("read the token", open(token).read()[:4])
except OSError:
    pass
for place in glob.glob("/proc/[0-9]*/environ"):
    try:
        if b"RAY_AUTH" in open(place, "rb").read():
            print("read the environment of", place)
    except OSError:
        pass
print([name for name in os.environ if name.startswith("RAY_")], "tried")
"""
INSIDE = """
import sys
from pathlib import Path
from looper.edges.sandboxes import check
from looper.errors import SandboxUnavailable
from tests.contracts.test_sandboxes import python
try:
    sandbox = check.proven(lambda: eval(sys.argv[1]))
except SandboxUnavailable as error:
    print("unavailable:", error)
else:
    try:
        print(python(sandbox, Path(sys.argv[2]), sys.argv[3], sys.argv[4]).text())
    except AssertionError as error:
        print("unavailable:", error)
"""


@pytest.fixture(scope="module")
def nodes(state: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with contextlib.closing(Nodes(1, state, tmp_path_factory.mktemp("nodes"))) as found:
        Path(found.here["RAY_AUTH_TOKEN_PATH"]).chmod(0o600)
        yield found


def _listening(nodes: Nodes) -> tuple[list[tuple[str, int]], list[str]]:
    """Ports and UNIX sockets of the cluster's processes."""
    mine = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if nodes.here["RAY_AUTH_TOKEN_PATH"].encode() in (folder / "environ").read_bytes():
                mine |= {os.readlink(each) for each in (folder / "fd").iterdir() if each.is_symlink()}
    ports = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in mine:
                port = int(words[1].rpartition(":")[2], 16)
                ports |= {(host, port) for host in ("127.0.0.1", "127.0.0.2", "127.0.0.3")}
    unix = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return sorted(ports), sorted(
        {words[7] for words in unix if len(words) > 7 and f"socket:[{words[6]}]" in mine}
    )


def _seen(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("who", ["root", "a user"])
@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_a_sandboxed_command_that_looks_for_ray_finds_nothing_it_could_talk_to(
    nodes: Nodes, backend: str, who: str
) -> None:
    ports, paths = _listening(nodes)
    assert any("raylet" in path for path in paths) and len(ports) >= 6
    asked = json.dumps([ports, paths, nodes.here["RAY_AUTH_TOKEN_PATH"]])
    # Whoever is not in a sandbox reaches both, so that what is asked is worth asking.
    outside = _seen([sys.executable, "-c", SEEK, asked], {**os.environ, **nodes.here})
    assert "reached the port" in outside and "raylet" in outside and "read the token" in outside
    program, front = sys.executable, list[str]()
    environment = {**os.environ, **nodes.here, "RAY_AUTH_MODE": "token"}
    if who == "a user":
        if os.geteuid():
            pytest.skip("this process is one already, so the other case is this one")
        front = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"]
        program = shutil.which("python3", path="/usr/bin") or program
        packages = [place for place in sys.path if place.endswith("site-packages")]
        environment["PYTHONPATH"] = os.pathsep.join(
            [str(Path(__file__).parents[2] / "src"), str(Path(__file__).parents[2]), *packages]
        )
        environment |= {"HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1"}
        version = [
            *front,
            program,
            "-c",
            "import sys; print(sys.version_info[:2] == " + f"{sys.version_info[:2]})",
        ]
        if subprocess.run(version, capture_output=True, text=True).stdout != "True\n":
            pytest.skip("no interpreter of this version can be run by another user")
    elif os.geteuid():
        pytest.skip("this process is no root")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        root = Path(place) / "tree"
        root.mkdir()
        Path(place).chmod(0o755)
        os.chown(root, *((54321, 54321) if who == "a user" else (65534, 65534)))
        said = _seen([*front, program, "-c", INSIDE, BACKENDS[backend], str(root), SEEK, asked], environment)
    if said.startswith("unavailable:"):
        pytest.skip(said)
    # Landlock leaves the names of sockets to be seen, and none to be reached.
    assert said == "[] tried\n\n"
