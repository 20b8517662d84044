"""Hosts of a network on this machine: namespaces with an address, a name, processes and a temporary folder of their own."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

BEGIN = """
hostname "$1"
mount --bind "$2" /etc/hosts
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
ip link set lo up
exec sleep infinity
"""


def missing() -> str:
    """Why there can be none here; empty where there can."""
    if os.geteuid() or not shutil.which("ip"):
        return "hosts are network namespaces, which root makes with ip (iproute2)"
    name = f"looper{os.getpid()}"
    made = _ip("netns", "add", name)
    if not made.returncode:
        made = _ip("link", "add", f"lt{os.getpid()}", "netns", name, "type", "veth", "peer", "name", "lp")
        _ip("netns", "del", name)
    return f"no network namespaces are permitted here: {made.stderr.strip()}" if made.returncode else ""


def _ip(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["ip", *words], capture_output=True, text=True)


def _must(*words: str) -> None:
    done = _ip(*words)
    assert not done.returncode, (words, done.stderr)


class Host:
    def __init__(self, network: "Hosts", number: int, name: str) -> None:
        self.name, self.address = name, f"{network.prefix}.{number}"
        self._space, self._link, self._network = f"{network.tag}{number}", f"{network.tag}v{number}", network
        _must("netns", "add", self._space)
        _must("link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", self._space)
        _must("link", "set", self._link, "master", network.bridge, "up")
        _must("-n", self._space, "addr", "add", f"{self.address}/24", "dev", "eth0")
        _must("-n", self._space, "link", "set", "eth0", "up")
        # As on a real machine: Ray asks which of its addresses leads elsewhere.
        _must("-n", self._space, "route", "add", "default", "via", f"{network.prefix}.254")

    def start(self) -> None:
        names = str(self._network.names)
        self._first = subprocess.Popen(
            ["ip", "netns", "exec", self._space, "unshare", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
             "bash", "-c", BEGIN, "begin", self.name, names],
        )  # fmt: skip
        until = time.monotonic() + 20
        while not self._init():
            assert time.monotonic() < until and self._first.poll() is None
            time.sleep(0.02)

    def _init(self) -> int:
        """The process whose end is the host's, once the host is set up; else 0."""
        children = Path(f"/proc/{self._first.pid}/task/{self._first.pid}/children")
        with contextlib.suppress(OSError, ValueError, IndexError):
            found = int(children.read_text().split()[0])
            if Path(f"/proc/{found}/cmdline").read_bytes().startswith(b"sleep\0infinity"):
                return found
        return 0

    def run(self, *words: str, cwd: Path | None = None, **options: Any) -> "subprocess.Popen[str]":
        enter = ["nsenter", "-t", str(self._init()), "-m", "-u", "-n", "-p", f"--wd={cwd or '/'}", "--"]
        return subprocess.Popen([*enter, *words], text=True, **options)

    def processes(self) -> list[str]:
        """Command lines of all but the first one."""
        space = os.readlink(f"/proc/{self._init()}/ns/pid")
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.readlink(folder / "ns/pid") == space and int(folder.name) != self._init():
                    found.append(
                        (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    )
        return [line for line in found if line]

    def cut(self) -> None:
        _must("link", "set", self._link, "down")

    def mend(self) -> None:
        _must("link", "set", self._link, "up")

    def kill(self) -> None:
        """As power that fails: every process at once, and what was in memory."""
        if init := self._init():
            os.kill(init, signal.SIGKILL)
        self._first.wait()

    def close(self) -> None:
        with contextlib.suppress(AttributeError):
            self.kill()
        _ip("netns", "del", self._space)


class Hosts:
    """A network of hosts that are names and addresses of their own to each other; until closed."""

    def __init__(self, folder: Path, *names: str) -> None:
        number = os.getpid() % 200 + 20
        self.tag, self.prefix = f"lq{os.getpid() % 10000}", f"10.213.{number}"
        self.bridge, self.names = f"{self.tag}b", folder / "hosts"
        self._hosts: list[Host] = []
        lines = [f"{self.prefix}.{place} {name}" for place, name in enumerate(names, 2)]
        self.names.write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))
        try:
            _must("link", "add", self.bridge, "type", "bridge")
            _must("addr", "add", f"{self.prefix}.254/24", "dev", self.bridge)
            _must("link", "set", self.bridge, "up")
            for place, name in enumerate(names, 2):
                self._hosts.append(Host(self, place, name))
                self._hosts[-1].start()
        except BaseException:
            self.close()
            raise

    def __getitem__(self, number: int) -> Host:
        return self._hosts[number]

    def __iter__(self) -> Any:
        return iter(self._hosts)

    def close(self) -> None:
        for host in self._hosts:
            host.close()
        _ip("link", "del", self.bridge)
