"""No sandbox: a process group in a folder. Only on explicit request, and every verdict says so."""

import os
import subprocess
from pathlib import Path

from looper.edges.sandboxes.bubblewrap import LIMITS
from looper.edges.sandboxes.process import kill_group, run_process
from looper.protocols import Command, CommandResult


class Bare:
    """Runs commands with the rights of the user, network included. Limits time and output only."""

    name = "none"
    owner: int | None = None

    def run(self, command: Command) -> CommandResult:
        temporary = command.root.parent / f"{command.root.name}.tmp"
        temporary.mkdir(exist_ok=True)
        env = {"HOME": str(temporary), "TMPDIR": str(temporary), "LANG": "C.UTF-8", **command.env}
        limits = ["", str(command.file_mb << 10), str(command.memory_mb << 10), str(command.root)]
        argv = ["/bin/bash", "-c", LIMITS, "bash", *limits, *command.argv]
        return run_process(argv, command, env, kill=_kill_session)


def _kill_session(process: subprocess.Popen[bytes]) -> None:
    """End the group, and what left the group but not the session."""
    kill_group(process)
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            session = int(entry.read_text().rpartition(")")[2].split()[3])
        except (OSError, ValueError, IndexError):
            continue
        if session == process.pid:
            try:
                os.kill(int(entry.parent.name), 9)
            except (ProcessLookupError, PermissionError):
                pass
