"""Commands in namespaces of their own, by the `bwrap` program."""

import os
import subprocess
import tempfile
from pathlib import Path

from looper.edges.sandboxes import seccomp
from looper.edges.sandboxes.process import kill_group, limited, program, run_process
from looper.errors import SandboxUnavailable
from looper.protocols import Command, CommandResult

NOBODY = 65534
PROCESS_LIMIT = 400
TEMP_BYTES = 256 << 20
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
ETC = (
    "/etc/alternatives",
    "/etc/group",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/timezone",
)


class Bubblewrap:
    """An allow-list of folders, no network, no capabilities, no process left behind.

    Started by root, the helper keeps root's rights just long enough to build the mounts; the command then runs as
    nobody, so that limits on processes hold and a workspace below a closed home folder still works.
    """

    name = "bubblewrap"

    def __init__(self) -> None:
        """Raises SandboxUnavailable, with what to install."""
        self._bwrap = program("bwrap")
        if self._bwrap is None:
            raise SandboxUnavailable(
                "bubblewrap is not installed (Debian, Ubuntu, Fedora: package bubblewrap)."
            )
        if not seccomp.supported():
            raise SandboxUnavailable("no system call filter is known for this processor.")
        self.owner = NOBODY if os.geteuid() == 0 else None
        self._setpriv = program("setpriv")
        if self.owner is not None and self._setpriv is None:
            raise SandboxUnavailable("setpriv is needed when started as root (package util-linux).")
        with tempfile.NamedTemporaryFile(prefix="looper-seccomp-", delete=False) as stream:
            stream.write(seccomp.filter_program(sockets=True))
        # Opened once and then unlinked: no file is left behind whatever happens.
        self._filter = os.open(stream.name, os.O_RDONLY | os.O_CLOEXEC)
        Path(stream.name).unlink()

    def run(self, command: Command) -> CommandResult:
        # Each reader of a descriptor moves its position, so every command gets an open file of its own.
        descriptor = os.open(f"/proc/self/fd/{self._filter}", os.O_RDONLY)
        try:
            result = run_process(
                self._argv(command, descriptor), command, {}, kill=_kill, pass_fds=(descriptor,)
            )
        except OSError as error:
            raise SandboxUnavailable(f"bubblewrap did not start: {error}.") from error
        finally:
            os.close(descriptor)
        if result.exit_code == 1 and result.head.startswith(b"bwrap: "):
            raise SandboxUnavailable(f"bubblewrap failed: {result.text().strip()}.")
        return result

    def _argv(self, command: Command, filter_descriptor: int) -> list[str]:
        assert self._bwrap is not None
        argv = [
            self._bwrap,
            "--unshare-pid",
            "--unshare-net",
            "--unshare-ipc",
            "--unshare-uts",
            "--unshare-cgroup-try",
        ]
        argv += [
            "--die-with-parent",
            "--new-session",
            "--cap-drop",
            "ALL",
            "--seccomp",
            str(filter_descriptor),
        ]
        if self.owner is None:
            argv += ["--unshare-user"]
        else:
            argv += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--cap-add", "CAP_SETPCAP"]
        argv += _mounts(command)
        argv += ["--clearenv"]
        for name, value in {"HOME": "/tmp", "TMPDIR": "/tmp", "LANG": "C.UTF-8", **command.env}.items():
            argv += ["--setenv", name, value]
        argv += ["--"]
        if self.owner is not None:
            assert self._setpriv is not None
            uid = str(self.owner)
            argv += [self._setpriv, "--reuid", uid, "--regid", uid, "--clear-groups", "--bounding-set=-all"]
            argv += ["--inh-caps=-all", "--no-new-privs", "--"]
        return [*argv, *limited(command, processes=PROCESS_LIMIT)]


def _mounts(command: Command) -> list[str]:
    """The whole visible file system: system folders and what the command names, with a size limit on all the rest."""
    argv: list[str] = []
    for folder in SYSTEM:
        if os.path.islink(folder):
            argv += ["--symlink", os.readlink(folder), folder]
        elif os.path.isdir(folder):
            argv += ["--ro-bind", folder, folder]
    argv += ["--proc", "/proc", "--dev", "/dev"]
    for folder in ("/dev/shm", "/tmp", "/var/tmp"):
        argv += ["--perms", "1777", "--size", str(TEMP_BYTES), "--tmpfs", folder]
    for above in _folders_above([Path("/etc/any"), *command.readable, command.root, *command.writable]):
        argv += ["--perms", "0755", "--dir", str(above)]
    for name in ETC:
        argv += ["--ro-bind-try", name, name]
    for path in command.readable:
        argv += ["--ro-bind", str(path), str(path)]
    for path in (command.root, *command.writable):
        argv += ["--bind", str(path), str(path)]
    return [*argv, "--remount-ro", "/"]


def _folders_above(paths: list[Path]) -> list[Path]:
    """Folders that must exist before these paths can be mounted, outermost first.

    Made by the helper itself they would be closed to other users, the one who runs the command among them.
    """
    above = {parent for path in paths for parent in path.parents if len(parent.parts) > 1}
    return sorted(folder for folder in above if f"/{folder.parts[1]}" not in SYSTEM)


def _kill(process: subprocess.Popen[bytes]) -> None:
    # The helper is the parent of the namespace's first process; when it dies, the whole namespace dies.
    process.kill()
    kill_group(process)
