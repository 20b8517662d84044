"""Commands under Landlock rules and a system call filter: for Linux machines without bubblewrap."""

import marshal
import socket
import subprocess
import time
from pathlib import Path

from looper.edges.access import closed_to_others
from looper.edges.sandboxes import seccomp
from looper.edges.sandboxes.bubblewrap import SYSTEM
from looper.edges.sandboxes.landlock_child import MINIMUM_ABI, SHARED_MEMORY, landlock_abi
from looper.edges.sandboxes.process import (
    PROCESS_LIMIT,
    TEMP_BYTES,
    give,
    kill_group,
    minimal_environment,
    own_interpreter,
    run_limited,
    temporary_folder,
    user_of_commands,
    works,
)
from looper.errors import SandboxUnavailable
from looper.protocols import Command, CommandResult
from looper.untrusted import remove_tree

GRACE_S = 5.0
"""How long the supervisor may take to end what it started, usually some milliseconds. Killed before it is done it would
leave behind what had a session of its own, so a loaded machine is waited for."""


CHILD = Path(__file__).with_name("landlock_child.py")
READABLE = (
    "/etc/alternatives", "/etc/group", "/etc/hosts", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d",
    "/etc/localtime", "/etc/mime.types", "/etc/nsswitch.conf", "/etc/passwd", "/etc/timezone",
    "/dev/urandom", "/dev/random", "/dev/zero",
)  # fmt: skip


class Landlock:
    """File rules, no signals to the outside, no network but a loopback of its own; a supervisor ends every descendant.

    Other processes' names can be seen, their files cannot. Temporary files go to shared memory of its own. Where the kernel gives no
    namespaces (`sysctl user.max_user_namespaces`, many containers, a changed root) there is neither that nor loopback, since rules
    know ports only and it would be the machine's: temporary files then go to a folder beside the workspace, removed after each
    command, and modes and times of the user's own files can be changed everywhere.
    """

    def __init__(self, *, namespaces: bool = True) -> None:
        """Without `namespaces` as on a kernel that gives none. Raises SandboxUnavailable where the kernel cannot do what is needed."""
        abi = landlock_abi()
        if abi < MINIMUM_ABI:
            found = f"version {abi}" if abi > 0 else "none"
            raise SandboxUnavailable(
                f"the kernel's Landlock is too old: {found}, needed {MINIMUM_ABI} (Linux 6.12)."
            )
        if not seccomp.supported():
            raise SandboxUnavailable("no system call filter is known for this processor.")
        self.owner = user_of_commands()
        self._namespaces = namespaces and works([*_supervisor(), "namespaces"])
        self.name = "landlock" if self._namespaces else "landlock without namespaces"
        self.loopback = self._namespaces
        # Named UNIX sockets of this machine could be reached: a filter cannot read their names.
        families = (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK) if self._namespaces else ()
        self._filter = seccomp.filter_program(families)

    def run(self, command: Command) -> CommandResult:
        """Raises SandboxUnavailable, also where the user whom commands run as cannot come to what they need: there is no mount that
        would bring it nearer."""
        if self.owner is not None and (closed := closed_to_others((*command.readable, command.root))):
            raise SandboxUnavailable(
                f"commands run as nobody, who may not enter {closed[0]}, where {closed[1]} lies. "
                "Make a virtual environment of a Python that lies elsewhere (PYTHON=/usr/bin/python3) and keep LOOPER_HOME "
                "elsewhere, run as another user than root, or install bubblewrap, which mounts what is needed."
            )
        if self._namespaces:
            return self._run(command, SHARED_MEMORY)
        temporary = temporary_folder(command)
        try:
            give(temporary, self.owner)
            return self._run(command, str(temporary))
        finally:
            remove_tree(temporary)

    def _run(self, command: Command, temporary: str) -> CommandResult:
        rules = {
            "read": [*SYSTEM, *READABLE, *map(str, command.readable)],
            "write": [str(command.root), temporary, "/dev/null", "/dev/tty", *map(str, command.writable)],
            "uid": self.owner,
            "filter": self._filter,
            "memory": TEMP_BYTES if self._namespaces else 0,
        }
        return run_limited(
            self.name,
            [*_supervisor(), marshal.dumps(rules).hex()],
            command,
            minimal_environment(command, temporary),
            processes=PROCESS_LIMIT,
            kill=_kill,
        )


def _supervisor() -> list[str]:
    return [own_interpreter(), "-I", "-S", str(CHILD)]


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Ask the supervisor, which knows every descendant, then make sure."""
    if process.poll() is None:
        process.terminate()
        until = time.monotonic() + GRACE_S
        while process.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
    kill_group(process)
