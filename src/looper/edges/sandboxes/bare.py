"""No sandbox: a process group in a folder. Only on explicit request, and every verdict says so."""

from looper.edges.sandboxes.process import kill_group, minimal_environment, run_limited, temporary_folder
from looper.protocols import Command, CommandResult


class NoSandbox:
    """Runs commands with the rights of the user, network included. Limits time, output and memory of one process.

    What leaves its process group survives its command: only the sandboxes can end that.
    """

    name = "none"
    loopback = True
    owner: int | None = None

    def run(self, command: Command) -> CommandResult:
        temporary = temporary_folder(command)
        env = minimal_environment(command, str(temporary))
        return run_limited(self.name, [], command, env, processes=None, kill=kill_group)
