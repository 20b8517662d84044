"""No sandbox: a process group in a folder. Only on explicit request, and every verdict says so."""

from looper.edges.sandboxes.process import kill_group, limited, run_process
from looper.protocols import Command, CommandResult


class Bare:
    """Runs commands with the rights of the user, network included. Limits time, output and memory of one process.

    What leaves its process group survives its command: only the sandboxes can end that.
    """

    name = "none"
    owner: int | None = None

    def run(self, command: Command) -> CommandResult:
        temporary = command.root.parent / f"{command.root.name}.tmp"
        temporary.mkdir(exist_ok=True)
        env = {"HOME": str(temporary), "TMPDIR": str(temporary), "LANG": "C.UTF-8", **command.env}
        return run_process(limited(command, processes=None), command, env, kill=kill_group)
