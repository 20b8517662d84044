"""What every sandbox must hold, with real commands: rows A01 to A36 of the threat list."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from looper.edges.sandboxes import check
from looper.edges.sandboxes.bubblewrap import Bubblewrap
from looper.edges.sandboxes.landlock import Landlock
from looper.errors import SandboxUnavailable
from looper.protocols import Command, CommandResult, Sandbox


@pytest.fixture
def root(each_sandbox: Sandbox, state: Path) -> Iterator[Path]:
    """A writable workspace for the command's user."""
    folder = state / f"ws-{uuid.uuid4().hex[:8]}"
    folder.mkdir(mode=0o755)
    if each_sandbox.owner is not None:
        os.chown(folder, each_sandbox.owner, each_sandbox.owner)
    yield folder
    subprocess.run(["rm", "-rf", str(folder)], check=True)


@pytest.fixture
def outside(state: Path) -> Path:
    """A folder that anybody may write to by its permissions, outside of every workspace."""
    folder = state / f"outside-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def bash(sandbox: Sandbox, root: Path, script: str, timeout_s: float = 20, **limits: int) -> CommandResult:
    argv = ("/bin/bash", "-c", textwrap.dedent(script))
    return sandbox.run(Command(argv=argv, root=root, timeout_s=timeout_s, **limits))


def survivors(marker: str) -> list[str]:
    """Processes whose command line holds the marker, this one's own children for looking excepted."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if marker.encode() in words and int(entry.parent.name) != os.getpid():
            found.append(b" ".join(words).decode())
    return found


def gone(name: str, within_s: float = 2.0) -> bool:
    """Whether no process with this marker is left; a namespace takes a moment to be torn down."""
    until = time.monotonic() + within_s
    while survivors(name) and time.monotonic() < until:
        time.sleep(0.02)
    return not survivors(name)


def marker() -> str:
    """A number that `sleep` takes and that no other process has in its command line."""
    return f"9{uuid.uuid4().int % 10**8:08d}"


def test_commands_work_and_give_output_and_exit_code(each_sandbox: Sandbox, root: Path) -> None:
    result = bash(each_sandbox, root, "echo out; echo err >&2; echo x > file; cat file; exit 7")
    assert result.exit_code == 7
    assert result.text() == "out\nerr\nx\n"
    assert (root / "file").read_text() == "x\n"


def test_a01_writing_outside_is_refused(each_sandbox: Sandbox, root: Path, outside: Path) -> None:
    before = hashlib.sha256(b"".join(sorted(os.fsencode(p) for p in outside.iterdir()))).digest()
    script = f"""
        for place in /usr/x /etc/x /root/x {outside}/x {root.parent}/x; do
            {{ echo evil > $place; }} 2>/dev/null && [ ! -e /proc/self/looper ] && echo "wrote $place"
        done; true"""
    bash(each_sandbox, root, script)
    assert hashlib.sha256(b"".join(sorted(os.fsencode(p) for p in outside.iterdir()))).digest() == before
    assert not any(map(os.path.lexists, ("/usr/x", "/etc/x", "/root/x", f"{root.parent}/x")))


def test_a02_files_outside_cannot_be_read(each_sandbox: Sandbox, root: Path, outside: Path) -> None:
    (outside / "gold.patch").write_text("the canary answer")
    (outside / "gold.patch").chmod(0o644)
    script = (
        f"cat {outside}/gold.patch; grep -r canary {outside.parent} 2>/dev/null; cat /proc/*/cwd/gold.patch"
    )
    assert "answer" not in bash(each_sandbox, root, script).text()


def test_a03_secrets_of_the_harness_are_not_visible(
    each_sandbox: Sandbox, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOPER_CANARY", "s3cret-value")
    script = f"env; cat /proc/{os.getpid()}/environ; cat /proc/*/environ; true"
    assert "s3cret-value" not in bash(each_sandbox, root, script).text()


def test_a04_memory_of_the_harness_cannot_be_read(each_sandbox: Sandbox, root: Path) -> None:
    result = bash(each_sandbox, root, f"head -c 1 /proc/{os.getpid()}/mem && echo read || echo refused")
    assert "refused" in result.text()


@pytest.mark.parametrize("target", ["/dev/tcp/127.0.0.1", "/dev/tcp/::1", "/dev/udp/127.0.0.1"])
def test_a05_to_a07_no_server_on_this_machine_is_reached(
    each_sandbox: Sandbox, root: Path, target: str
) -> None:
    family = socket.AF_INET6 if "::1" in target else socket.AF_INET
    kind = socket.SOCK_DGRAM if "udp" in target else socket.SOCK_STREAM
    with socket.socket(family, kind) as server:
        server.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        server.settimeout(0.3)
        if kind == socket.SOCK_STREAM:
            server.listen()
        port = server.getsockname()[1]
        begun = time.monotonic()
        bash(each_sandbox, root, f"echo POST /promote > {target}/{port}")
        assert time.monotonic() - begun < 10
        with pytest.raises(TimeoutError):
            server.accept() if kind == socket.SOCK_STREAM else server.recv(100)


def test_a06_names_are_not_looked_up(each_sandbox: Sandbox, root: Path) -> None:
    begun = time.monotonic()
    result = bash(each_sandbox, root, "getent hosts example.org && echo found || echo refused")
    assert "refused" in result.text() and time.monotonic() - begun < 10


def test_a08_the_harness_cannot_be_killed_or_stopped(each_sandbox: Sandbox, root: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as sibling:
        bash(each_sandbox, root, f"kill -STOP {os.getpid()}; kill -9 {sibling.pid}; kill -9 -1; true")
        assert sibling.poll() is None
        sibling.kill()


def test_a09_a_command_ends_at_its_time_limit_and_says_so(each_sandbox: Sandbox, root: Path) -> None:
    name, begun = marker(), time.monotonic()
    result = bash(each_sandbox, root, f"echo first; sleep {name}", timeout_s=1)
    assert (result.killed_by, result.exit_code) == ("time", None)
    assert result.text() == "first\n"
    assert time.monotonic() - begun < 10
    assert gone(name)


@pytest.mark.parametrize("stubborn", ["trap '' TERM INT HUP", "kill -STOP $$", "ulimit -t 1000"])
def test_a10_a11_what_does_not_want_to_end_is_killed(
    each_sandbox: Sandbox, root: Path, stubborn: str
) -> None:
    name, begun = marker(), time.monotonic()
    result = bash(each_sandbox, root, f"(sleep {name} &); {stubborn}; sleep {name}", timeout_s=1)
    assert result.killed_by == "time"
    assert time.monotonic() - begun < 10
    assert gone(name)


@pytest.mark.parametrize(
    "start",
    [
        "setsid sleep {} &",
        "(setsid bash -c '(sleep {} &) &' &)",
        "nohup sleep {} > /dev/null 2>&1 &",
        "sleep {} &",
    ],
)
def test_a12_to_a14_nothing_survives_its_command(each_sandbox: Sandbox, root: Path, start: str) -> None:
    name, begun = marker(), time.monotonic()
    result = bash(each_sandbox, root, f"{start.format(name)}\necho started", timeout_s=15)
    assert result.exit_code == 0 and "started" in result.text()
    assert time.monotonic() - begun < 10, (
        "a background process that holds the output must not delay the result"
    )
    assert gone(name)


def test_a15_a_fork_bomb_is_bounded_and_the_next_command_works(each_sandbox: Sandbox, root: Path) -> None:
    bash(each_sandbox, root, ":(){ :|:& };:; sleep 1", timeout_s=3)
    assert bash(each_sandbox, root, "echo alive").text() == "alive\n"


def test_a16_one_process_cannot_take_all_memory(each_sandbox: Sandbox, root: Path) -> None:
    script = "head -c 2G /dev/zero | tail -c 2G | wc -c; echo survived"
    result = bash(each_sandbox, root, script, memory_mb=512)
    assert "survived" in result.text() and "2147483648" not in result.text()


def test_a17_many_processes_cannot_share_all_memory(each_sandbox: Sandbox, root: Path) -> None:
    script = f"f() {{ (head -c 200M /dev/zero; sleep 30) | tail -c 200M; }}; {'f & ' * 6} wait"
    assert bash(each_sandbox, root, script, memory_mb=400, timeout_s=20).killed_by == "memory"


def test_a18_a_background_loop_ends_with_its_command(each_sandbox: Sandbox, root: Path) -> None:
    name = marker()
    bash(each_sandbox, root, f"bash -c 'while :; do :; done' {name} & echo")
    assert gone(name)


@pytest.mark.parametrize("flood", ["yes | head -c 5G", "tr '\\0' x < /dev/zero | head -c 300M"])
def test_a19_a20_floods_are_cut_and_memory_stays(each_sandbox: Sandbox, root: Path, flood: str) -> None:
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = bash(each_sandbox, root, f"echo begin; {flood}", output_cap_bytes=1000, timeout_s=30)
    assert len(result.head) + len(result.tail) <= 1000
    assert result.omitted_bytes > 60_000_000
    assert result.text().startswith("begin\n") and "bytes left out" in result.text()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def test_a21_binary_output_is_text_without_loss(each_sandbox: Sandbox, root: Path) -> None:
    result = bash(each_sandbox, root, r"printf 'a\xff\xfe\x00b'")
    assert result.head == b"a\xff\xfe\x00b"
    assert result.text() == "a\\xff\\xfe\x00b"


def test_a22_standard_input_is_empty(each_sandbox: Sandbox, root: Path) -> None:
    begun = time.monotonic()
    assert bash(each_sandbox, root, "cat; read x; echo done").text() == "done\n"
    assert time.monotonic() - begun < 10


def test_a23_a24_a_file_cannot_grow_without_limit(each_sandbox: Sandbox, root: Path) -> None:
    for place in (".", "${TMPDIR:-/tmp}"):
        result = bash(
            each_sandbox, root, f"head -c 500M /dev/zero > {place}/big; ls -l {place}/big", file_mb=64
        )
        assert "524288000" not in result.text()
    assert bash(each_sandbox, root, "rm -f big; echo small > file && cat file").text() == "small\n"


def test_a25_the_tree_cannot_grow_without_limit(each_sandbox: Sandbox, root: Path) -> None:
    script = "for i in $(seq 200); do head -c 9M /dev/zero > part$i; done; echo complete"
    result = bash(each_sandbox, root, script, tree_mb=100, timeout_s=60)
    assert result.killed_by == "disk" and "complete" not in result.text()


def test_a26_no_namespaces_or_mounts(each_sandbox: Sandbox, root: Path) -> None:
    script = "unshare -Ur true && echo user; unshare -m true && echo mount; mount -o remount,rw / && echo remount; true"
    text = bash(each_sandbox, root, script).text().splitlines()
    assert not {"user", "mount", "remount"} & set(text)


def test_a27_a28_commands_have_no_rights_even_when_root_started_them(
    each_sandbox: Sandbox, root: Path
) -> None:
    script = (
        "id -u; grep -E 'Cap(Eff|Prm|Bnd|Amb)|NoNewPrivs' /proc/self/status; su -c id 2>&1 < /dev/null; true"
    )
    result = bash(each_sandbox, root, script)
    lines = result.text().splitlines()
    assert lines[0] != "0" and "uid=0" not in result.text()
    if each_sandbox.name == "bubblewrap":
        capabilities = [line.split()[1] for line in lines if line.startswith(("CapEff", "CapPrm", "CapAmb"))]
        assert capabilities and all(int(value, 16) == 0 for value in capabilities)
        assert "NoNewPrivs:\t1" in lines


def test_a29_only_three_descriptors_are_inherited(each_sandbox: Sandbox, root: Path) -> None:
    with open("/etc/hostname") as held:
        os.set_inheritable(held.fileno(), True)
        result = bash(
            each_sandbox,
            root,
            "for n in 3 4 5 6 7 8 9 11 12; do { : >&$n; } 2>/dev/null && echo $n; done; true",
        )
    # 10 is where bash itself keeps what it redirects.
    assert result.text() == ""


def test_a30_a_killed_harness_leaves_nothing_behind(each_sandbox: Sandbox, root: Path) -> None:
    name = marker()
    program = textwrap.dedent(
        f"""
        from pathlib import Path
        from looper.edges.sandboxes.check import candidates
        from looper.protocols import Command
        sandbox = candidates()[{each_sandbox.name!r}]()
        script = "setsid sleep {name} & sleep {name}"
        sandbox.run(Command(argv=("/bin/bash", "-c", script), root=Path({str(root)!r}), timeout_s=60))
        """
    )
    with subprocess.Popen([sys.executable, "-c", program]) as harness:
        until = time.monotonic() + 15
        while len(survivors(name)) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        assert len(survivors(name)) >= 2, "the command did not start"
        harness.send_signal(signal.SIGKILL)
    assert gone(name)


def test_a32_environment_and_path_cannot_be_prepared_for_the_harness(
    each_sandbox: Sandbox, root: Path, state: Path
) -> None:
    environment = state / "environment-of-a-task"
    environment.mkdir(exist_ok=True)
    environment.chmod(0o777)
    script = f"echo evil > {environment}/sitecustomize.py; echo evil > {environment}/x.pth; true"
    argv = ("/bin/bash", "-c", script)
    each_sandbox.run(Command(argv=argv, root=root, timeout_s=10, readable=(environment,)))
    assert not list(environment.iterdir())


def test_a33_hard_links_to_the_outside_are_refused(each_sandbox: Sandbox, root: Path, outside: Path) -> None:
    (outside / "file").write_text("outside")
    (outside / "file").chmod(0o666)
    bash(each_sandbox, root, f"ln {outside}/file inside; echo changed > inside; true")
    assert (outside / "file").read_text() == "outside"


def test_a34_limits_hold_for_cores_descriptors_and_names(each_sandbox: Sandbox, root: Path) -> None:
    script = """
        ulimit -c; ulimit -n
        touch $(printf 'n%.0s' $(seq 300)) 2>/dev/null && echo long
        kill -SEGV $$"""
    result = bash(each_sandbox, root, script)
    assert result.text().splitlines()[:2] == ["0", "4096"] and "long" not in result.text()
    assert result.exit_code == 139
    assert not list(root.glob("core*"))


def test_commands_run_side_by_side_do_not_see_each_other(each_sandbox: Sandbox, root: Path) -> None:
    """P14: two tasks that use the same names and ports."""
    results: list[str] = []

    def one(text: str) -> None:
        script = f"echo {text} > ${{TMPDIR:-/tmp}}/shared; sleep 0.5; cat ${{TMPDIR:-/tmp}}/shared"
        place = root / text
        place.mkdir()
        if each_sandbox.owner is not None:
            os.chown(place, each_sandbox.owner, each_sandbox.owner)
        results.append(bash(each_sandbox, place, script).text().strip())

    threads = [threading.Thread(target=one, args=(name,)) for name in ("left", "right")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["left", "right"]


class _Leaky:
    """A sandbox that protects nothing, to see that the proof finds it out."""

    name = "leaky"
    owner = None

    def run(self, command: Command) -> CommandResult:
        from looper.edges.sandboxes.bare import Bare

        return Bare().run(command)


def test_a31_a_sandbox_that_leaks_is_found_out() -> None:
    assert len(check.leaks(_Leaky())) >= 3
    with pytest.raises(SandboxUnavailable, match="does not hold"):
        check.proven(_Leaky)


def test_a31_without_a_working_sandbox_everything_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Sandbox:
        raise SandboxUnavailable("it is not installed.")

    monkeypatch.setattr(check, "candidates", lambda: {"first": broken, "second": broken})
    with pytest.raises(SandboxUnavailable, match=r"first: .* second: .*--sandbox none"):
        check.find_sandbox("auto")


def test_a31_user_namespaces_switched_off_are_noticed(state: Path) -> None:
    """Inside a sandbox that forbids namespaces bubblewrap cannot start; the probe must say so and not run bare."""
    program = "from looper.edges.sandboxes.check import proven; from looper.edges.sandboxes.bubblewrap import Bubblewrap; proven(Bubblewrap)"
    root = state / "nested"
    root.mkdir()
    outer = Bubblewrap()
    if outer.owner is not None:
        os.chown(root, outer.owner, outer.owner)
    source = Path(check.__file__).parents[3]
    prefixes = tuple(
        path
        for path in (Path(sys.prefix), Path(sys.base_prefix).resolve(), source)
        if not path.is_relative_to("/usr")
    )
    command = Command(
        argv=(sys.executable, "-c", program),
        root=root,
        timeout_s=30,
        env={"PYTHONPATH": str(source)},
        readable=prefixes,
    )
    result = outer.run(command)
    assert result.exit_code == 1 and "SandboxUnavailable" in result.text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has its commands run as another user")
@pytest.mark.skipif(sys.platform != "linux", reason="Landlock is Linux's")
def test_a27_a_place_that_the_commands_user_cannot_enter_is_named_beforehand(tmp_path: Path) -> None:
    """Without mounts nobody cannot come to an interpreter below root's home; that would look like a broken environment."""
    closed = tmp_path / "home"
    (closed / "python").mkdir(parents=True)
    closed.chmod(0o700)
    command = Command(argv=("/bin/true",), root=tmp_path, timeout_s=5, readable=(closed / "python",))
    with pytest.raises(SandboxUnavailable, match="commands run as nobody, who may not enter") as error:
        Landlock().run(command)
    assert "install bubblewrap" in str(error.value) and "\n" not in str(error.value)
