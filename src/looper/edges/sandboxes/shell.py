"""How a command is run in a folder: the one place that knows of PATH, variables, what is visible, and limits."""

import threading
from collections.abc import Mapping
from pathlib import Path

from looper.protocols import Command, CommandResult, Environment, Sandbox

SYSTEM = "/usr/bin:/bin"


class LocalShell:
    """A folder of this machine, its sandbox, and an environment."""

    def __init__(self, root: Path, sandbox: Sandbox, environment: Environment) -> None:
        self.root = root
        self.variables: Mapping[str, str] = {
            name: value.replace("{root}", str(root)) for name, value in environment.variables.items()
        }
        self._sandbox, self._environment = sandbox, environment

    def exec(
        self,
        command: str | tuple[str, ...],
        timeout_s: float,
        *,
        memory_mb: int = 2048,
        output_cap_bytes: int = 64 << 10,
        env: Mapping[str, str] = {},
        readable: tuple[Path, ...] = (),
        writable: tuple[Path, ...] = (),
        over: threading.Event | None = None,
    ) -> CommandResult:
        python = self._environment.python
        argv, programs = (str(python), *command), SYSTEM
        if isinstance(command, str):
            argv, programs = ("/bin/bash", "-c", command), f"/usr/local/bin:{SYSTEM}"
        return self._sandbox.run(
            Command(
                argv,
                self.root,
                timeout_s,
                {**self.variables, "PATH": f"{python.parent}:{programs}", **env},
                (*self._environment.readable, *readable),
                writable,
                output_cap_bytes,
                memory_mb,
                image=self._environment.image,
                over=over,
            )
        )
