"""Commands under a macOS sandbox profile, by the system's `sandbox-exec`."""

import json
import subprocess
import sys
import time
from pathlib import Path

from looper.edges.sandboxes.process import (
    END_S,
    kill_group,
    minimal_environment,
    not_ended,
    run_limited,
    temporary_folder,
    unavailable,
)
from looper.errors import SandboxUnavailable
from looper.protocols import Command, CommandResult

PROGRAM = "/usr/bin/sandbox-exec"
PROFILE = """(version 1)
(deny default)
(allow process-fork)
(allow process-exec)
(allow signal (target same-sandbox))
(allow sysctl-read)
(allow file-read-metadata)
(allow file-read* (literal "/") (subpath "/usr") (subpath "/bin") (subpath "/sbin") (subpath "/System")
  (subpath "/Library/Frameworks") (subpath "/Library/Developer/CommandLineTools") (subpath "/private/etc")
  (subpath "/private/var/db/timezone") (subpath "/private/var/select") (subpath "/dev") (subpath "/opt/homebrew"))
(allow file-write* (literal "/dev/null") (literal "/dev/tty"))
"""


class Seatbelt:
    """Writes below the workspace only, reads an allow-list, no network, no signals to the outside.

    macOS has no process namespaces: what leaves the process group of a command is found by the marker in its
    environment and killed. There is no limit on the number of processes but the user's own.
    """

    name = "seatbelt"
    loopback = False
    owner: int | None = None

    def __init__(self) -> None:
        """Raises SandboxUnavailable on other systems."""
        if sys.platform != "darwin" or not Path(PROGRAM).exists():
            raise SandboxUnavailable("sandbox-exec exists on macOS only.")

    def run(self, command: Command) -> CommandResult:
        temporary = temporary_folder(command)
        marker = f"LOOPER_COMMAND={command.root.name}"
        env = minimal_environment(command, str(temporary), "en_US.UTF-8")
        env["LOOPER_COMMAND"] = command.root.name
        helper = [PROGRAM, "-p", _profile(command, temporary)]

        def kill(process: subprocess.Popen[bytes]) -> None:
            kill_group(process)
            _kill_marked(marker)

        return run_limited(self.name, helper, command, env, processes=None, kill=kill, memory=False)


def _profile(command: Command, temporary: Path) -> str:
    # Seatbelt compares real paths: /tmp is a link to /private/tmp.
    writable = [path.resolve() for path in (command.root, temporary, *command.writable)]
    readable = [path.resolve() for path in command.readable]
    rules = [f"(allow file-read* file-write* (subpath {json.dumps(str(path))}))" for path in writable]
    rules += [f"(allow file-read* (subpath {json.dumps(str(path))}))" for path in readable]
    return PROFILE + "\n".join(rules)


def _kill_marked(marker: str) -> None:
    """Kill processes whose environment carries the marker, until there are none: what is killed last could have started another. What was
    killed is waited for, since its environment may be gone before it is. Raises SandboxUnavailable."""
    until, killed = time.monotonic() + END_S, set[str]()
    while pids := _marked(marker) or [pid for pid in killed if _is_there(pid)]:
        killed |= {*pids}
        subprocess.run(["/bin/kill", "-KILL", *pids], capture_output=True)
        if time.monotonic() > until:
            raise not_ended()


def _marked(marker: str) -> list[str]:
    """`ps -E` shows their environment to their own user. Raises SandboxUnavailable."""
    listed = subprocess.run(
        ["/bin/ps", "-E", "-axww", "-o", "pid=,command="], capture_output=True, text=True, errors="replace"
    )
    if listed.returncode:
        raise unavailable(f"ps failed: {listed.stderr.strip()}.")
    lines = [line.split() for line in listed.stdout.splitlines()]
    return [words[0] for words in lines if marker in words[1:]]


def _is_there(pid: str) -> bool:
    """Whether it runs; one that has ended and is not collected yet does not."""
    found = subprocess.run(["/bin/ps", "-o", "stat=", "-p", pid], capture_output=True, text=True)
    return bool(found.stdout.strip()) and not found.stdout.startswith("Z")
