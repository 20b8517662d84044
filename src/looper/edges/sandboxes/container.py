"""Commands in a container, by docker, podman or Apple's `container`."""

import os
import subprocess
import uuid

from looper.edges.sandboxes.process import TEMP_BYTES, kill_group, minimal_environment, program, run_limited
from looper.errors import SandboxUnavailable
from looper.protocols import Command, CommandResult

PROGRAMS = ("docker", "podman", "container")
OWN_IMAGES = "swe-bench"
"""In place of an image: each task has the one that SWE-bench publishes for it."""
PLAIN_IMAGE = "debian:stable-slim"
"""For commands without an image of their own then."""


class Container:
    """One throw-away container per command, without network; the same paths as outside, so that environments work.

    The image must bring bash and a C library that the host's interpreters run on.
    """

    loopback = True
    owner: int | None = None

    def __init__(self, image: str) -> None:
        """Raises SandboxUnavailable where no container program is installed, or its engine does not answer."""
        found = next(((name, path) for name in PROGRAMS if (path := program(name))), None)
        if found is None:
            raise SandboxUnavailable(f"none of {', '.join(PROGRAMS)} is installed.")
        self._kind, self._program = found
        self._image = PLAIN_IMAGE if image == OWN_IMAGES else image
        self.name = f"{self._kind}:{image}"
        probe = [self._program, "system", "status"] if self._kind == "container" else [self._program, "info"]
        if subprocess.run(probe, capture_output=True, timeout=30).returncode != 0:
            raise SandboxUnavailable(f"{self._kind} is installed, but its engine does not answer. Start it.")

    def run(self, command: Command) -> CommandResult:
        name = f"looper-{uuid.uuid4().hex[:12]}"

        def kill(process: subprocess.Popen[bytes]) -> None:
            if process.poll() is None:
                subprocess.run([self._program, "kill", name], capture_output=True)
            kill_group(process)

        helper = self._helper(command, name)
        # What all processes may take, shared memory included, is the engine's to limit.
        return run_limited(self.name, helper, command, os.environ, processes=None, kill=kill, memory=False)

    def _helper(self, command: Command, name: str) -> list[str]:
        argv = [
            self._program, "run", "--rm", "--name", name, "--network", "none", "--memory",
            f"{command.memory_mb}m",
        ]  # fmt: skip
        if self._kind != "container":
            argv += [
                "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--pids-limit",
                "400",
            ]  # fmt: skip
            argv += [
                "--tmpfs",
                f"/tmp:rw,size={TEMP_BYTES},mode=1777",
                "--user",
                f"{os.getuid()}:{os.getgid()}",
                "--init",
            ]
        for path in command.readable:
            argv += ["--volume", f"{path}:{path}:ro"]
        for path in (command.root, *command.writable):
            argv += ["--volume", f"{path}:{path}"]
        for key, value in minimal_environment(command).items():
            argv += ["--env", f"{key}={value}"]
        return [*argv, command.image or self._image]
