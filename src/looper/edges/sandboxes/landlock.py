"""Commands under Landlock rules and a system call filter: for Linux machines without bubblewrap."""

import json
import os
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from looper.edges.access import closed_to_others
from looper.edges.sandboxes import seccomp
from looper.edges.sandboxes.bubblewrap import ETC, NOBODY, PROCESS_LIMIT, SYSTEM
from looper.edges.sandboxes.landlock_child import MINIMUM_ABI, landlock_abi
from looper.edges.sandboxes.process import kill_group, limited, run_process
from looper.errors import SandboxUnavailable
from looper.protocols import Command, CommandResult

GRACE_S = 5.0
"""How long the supervisor may take to end what it started, usually some milliseconds. Killed before it is done it would
leave behind what had a session of its own, so a loaded machine is waited for."""


class Landlock:
    """File rules, no network sockets, no signals to the outside; a supervisor ends every descendant.

    There is no view of a file system of its own: other processes' names can be seen, their files cannot. Temporary
    files go to a folder beside the workspace, removed after each command.
    """

    name = "landlock"

    def __init__(self) -> None:
        """Raises SandboxUnavailable where the kernel cannot do what is needed."""
        abi = landlock_abi()
        if abi < MINIMUM_ABI:
            found = f"version {abi}" if abi > 0 else "none"
            raise SandboxUnavailable(
                f"the kernel's Landlock is too old: {found}, needed {MINIMUM_ABI} (Linux 6.12)."
            )
        if not seccomp.supported():
            raise SandboxUnavailable("no system call filter is known for this processor.")
        self.owner = NOBODY if os.geteuid() == 0 else None
        self._filter = seccomp.filter_program(sockets=False)

    def run(self, command: Command) -> CommandResult:
        """Raises SandboxUnavailable, also where the user whom commands run as cannot come to what they need: there is no mount that
        would bring it nearer."""
        if self.owner is not None and (closed := closed_to_others((*command.readable, command.root))):
            raise SandboxUnavailable(
                f"commands run as nobody, who may not enter {closed}, and {[*command.readable, command.root][0]} needs something there. "
                "Make a virtual environment of a Python that lies elsewhere (PYTHON=/usr/bin/python3) and keep LOOPER_HOME "
                "elsewhere, run as another user than root, or install bubblewrap, which mounts what is needed."
            )
        temporary = command.root.parent / f"{command.root.name}.tmp"
        temporary.mkdir(exist_ok=True)
        if self.owner is not None:
            os.chown(temporary, self.owner, self.owner)
        env = {"HOME": str(temporary), "TMPDIR": str(temporary), "LANG": "C.UTF-8", **command.env}
        rules = {
            "read": [*SYSTEM, *ETC, "/dev/urandom", "/dev/random", "/dev/zero", *map(str, command.readable)],
            "write": [
                str(command.root),
                str(temporary),
                "/dev/null",
                "/dev/tty",
                *map(str, command.writable),
            ],
            "uid": self.owner,
            "filter": self._filter.hex(),
            "argv": limited(command, processes=PROCESS_LIMIT),
        }
        child = Path(__file__).with_name("landlock_child.py")
        argv = [_own_python(), "-I", "-S", str(child), json.dumps(rules)]
        try:
            return run_process(argv, command, env, kill=_kill)
        except OSError as error:
            raise SandboxUnavailable(f"the Landlock supervisor did not start: {error}.") from error
        finally:
            _remove(temporary)


def _own_python() -> str:
    """The interpreter behind a virtual environment: the supervisor needs nothing but the standard library."""
    name = f"python{sysconfig.get_python_version()}"
    return os.path.join(sys.base_prefix, "bin", name) if sys.base_prefix != sys.prefix else sys.executable


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Ask the supervisor, which knows every descendant, then make sure."""
    if process.poll() is None:
        process.terminate()
        until = time.monotonic() + GRACE_S
        while process.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
    kill_group(process)


def _remove(folder: Path) -> None:
    for path, folders, names in os.walk(folder, topdown=False):
        for name in names:
            os.unlink(os.path.join(path, name))
        for name in folders:
            entry = os.path.join(path, name)
            os.unlink(entry) if os.path.islink(entry) else os.rmdir(entry)
    os.rmdir(folder)
