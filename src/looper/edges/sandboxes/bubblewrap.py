"""Commands in namespaces of their own, by the `bwrap` program.

The namespaces do the separating and this module writes the argument list: what is mounted, what is hidden, which capabilities are
dropped. It proves nothing; `check` tries forbidden actions before anything is trusted to it.
"""

import contextlib
import os
import re
import select
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from looper.edges.sandboxes import seccomp
from looper.edges.sandboxes.process import (
    END_S,
    NOBODY,
    PROCESS_LIMIT,
    TEMP_BYTES,
    Ending,
    id_maps,
    kill_group,
    minimal_environment,
    not_ended,
    program,
    run_limited,
    unavailable,
    user_of_commands,
    works,
)
from looper.errors import SandboxUnavailable
from looper.protocols import Command, CommandResult

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
LINKED = (Path("/var/tmp"), Path("/dev/shm"))
"""Links to `/tmp`, so that all temporary files share its size."""
HOSTS = "127.0.0.1 localhost\n::1 localhost\n"
COPIED = ("/etc/ld.so.cache", "/etc/mime.types", "/etc/timezone", "/etc/localtime")
DEVICES = "/.dev"
"""Where bubblewrap makes its devices. `/dev` holds links to them, or its folder for shared memory would be a file system of its
own beside `/tmp`."""
DEVICE_NAMES = (
    "null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "fd", "stdin", "stdout", "stderr",
)  # fmt: skip
_CHILD = re.compile(rb'"child-pid": (\d+)\D')
FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
"""What a network namespace keeps inside; others, like those to a virtual machine's host, it does not."""


class Bubblewrap:
    """An allow-list of folders, no network but its own loopback, no capabilities, no process left behind.

    Started by root, the helper keeps root's rights just long enough to build the mounts; the command then runs as
    nobody, so that limits on processes hold and a workspace below a closed home folder still works. Where it can be, that is
    the nobody of a user namespace of its own: processes are counted by user and namespace, and those of one command must
    not use up the limit of another.
    """

    name = "bubblewrap"
    loopback = True

    def __init__(self) -> None:
        """Raises SandboxUnavailable, with what to install."""
        self._bwrap = program("bwrap")
        if self._bwrap is None:
            raise SandboxUnavailable(
                "bubblewrap is not installed (Debian, Ubuntu, Fedora: package bubblewrap)."
            )
        if not seccomp.supported():
            raise SandboxUnavailable("no system call filter is known for this processor.")
        self.owner = user_of_commands()
        self._setpriv = program("setpriv")
        if self.owner is not None and self._setpriv is None:
            raise SandboxUnavailable("setpriv is needed when started as root (package util-linux).")
        self._filter = _nameless(seccomp.filter_program(FAMILIES))
        files = _own_files(self.owner)
        self._files = {path: _nameless(content) for path, content in files.items()}
        self._own_users = self.owner is not None and self._can_have_users()

    def _can_have_users(self) -> bool:
        """Not in a plain chroot, and not where an administrator forbids user namespaces."""
        argv = [
            str(self._bwrap), "--unshare-user", "--ro-bind", "/", "/", "--proc", "/proc", "--", "/bin/true",
        ]  # fmt: skip
        return works(argv)

    def run(self, command: Command) -> CommandResult:
        try:
            return self._run(command)
        except OSError as error:
            raise unavailable(f"{self.name} failed: {error}.") from error

    def _run(self, command: Command) -> CommandResult:
        # Each reader of a descriptor moves its position, so every command gets open files of its own.
        with (
            _reopened([self._filter, *self._files.values()]) as (filter_, *contents),
            _told(maps=self._own_users) as namespace,
        ):
            return run_limited(
                self.name,
                self._helper(command, filter_, dict(zip(self._files, contents, strict=True)), namespace),
                command,
                {},
                processes=PROCESS_LIMIT,
                kill=namespace.end,
                pass_fds=(filter_, *contents, *namespace.theirs),
                begun=namespace.begin,
            )

    def _helper(
        self, command: Command, filter_: int, files: dict[str, int], namespace: "_Namespace"
    ) -> list[str]:
        assert self._bwrap is not None
        argv = [
            self._bwrap, "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts",
            "--unshare-cgroup-try",
        ]  # fmt: skip
        argv += [
            "--hostname", "localhost", "--die-with-parent", "--new-session", "--cap-drop", "ALL",
            "--seccomp", str(filter_),
        ]  # fmt: skip
        if self.owner is None:
            argv += ["--unshare-user"]
        else:
            argv += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--cap-add", "CAP_SETPCAP"]
        tell, *wait = namespace.theirs
        argv += ["--info-fd", str(tell)]
        for descriptor in wait:
            argv += ["--unshare-user", "--userns-block-fd", str(descriptor)]
        argv += _mounts(command, files)
        argv += ["--clearenv"]
        for name, value in minimal_environment(command).items():
            argv += ["--setenv", name, value]
        argv += ["--"]
        if self.owner is not None:
            assert self._setpriv is not None
            uid = str(self.owner)
            argv += [self._setpriv, "--reuid", uid, "--regid", uid, "--clear-groups", "--bounding-set=-all"]
            argv += ["--inh-caps=-all", "--no-new-privs", "--"]
        return argv


def _own_files(owner: int | None) -> dict[str, bytes]:
    """What the sandbox has below `/etc`: its own names of machines and users, and where this system finds libraries and kinds of
    files."""
    users = ["root:x:0:0::/root:/bin/bash", f"nobody:x:{NOBODY}:{NOBODY}::/tmp:/bin/bash"]
    groups = ["root:x:0:", f"nogroup:x:{NOBODY}:"]
    if owner is None:
        users.append(f"user:x:{os.getuid()}:{os.getgid()}::/tmp:/bin/bash")
        groups.append(f"user:x:{os.getgid()}:")
    own = {
        "/etc/hosts": HOSTS,
        "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
        "/etc/passwd": "\n".join([*users, ""]),
        "/etc/group": "\n".join([*groups, ""]),
    }
    copied = {path: Path(path).read_bytes() for path in COPIED if os.path.isfile(path)}
    return {path: text.encode() for path, text in own.items()} | copied


def _nameless(content: bytes) -> int:
    """Descriptor of a file without a name, so that none is left behind whatever happens."""
    with tempfile.TemporaryFile() as stream:
        stream.write(content)
        stream.flush()
        return os.dup(stream.fileno())


@contextlib.contextmanager
def _reopened(descriptors: Iterable[int]) -> Iterator[list[int]]:
    """Descriptors of the same files, each at its beginning."""
    with contextlib.ExitStack() as stack:
        opened = []
        for descriptor in descriptors:
            opened.append(os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY))
            stack.callback(os.close, opened[-1])
        yield opened


@dataclass
class _Namespace:
    """Pipes to a helper: it tells the first process of the command's namespace and, where that one's users are given from here,
    waits until it has its maps."""

    told: int
    ready: int | None
    """None where nobody waits."""
    theirs: tuple[int, ...]
    first: Ending | None = None
    """The first process."""

    def begin(self) -> None:
        """Know the first process, and give it this one's users. Nothing where the helper ended before, and says why by itself, or does
        not come so far, which the command's own time ends."""
        self.close_theirs()
        said, words = b"", select.poll()
        words.register(self.told, select.POLLIN)
        while (found := _CHILD.search(said)) is None:
            if not words.poll(END_S * 1000) or not (part := os.read(self.told, 4096)):
                return
            said += part
        inner = int(found[1])
        self.first = Ending(inner)
        if self.ready is None:
            return
        for kind, text in id_maps().items():
            Path(f"/proc/{inner}/{kind}").write_text(text)
        os.write(self.ready, b"1")

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """Kill the helper and all that the command started; come back when nothing of it is left.

        The first process of a namespace ends after everything else in it. It is killed by itself: before it has asked to die with the
        helper it would not. The helper ends as soon as the command does, so without waiting what a command left behind can write on for
        a while, long on a loaded machine, into a tree that is already read. Raises SandboxUntried.
        """
        process.kill()
        kill_group(process)
        if self.first is not None:
            self.first.kill()
            if not self.first.wait(END_S):
                raise not_ended()

    def close_theirs(self) -> None:
        for descriptor in self.theirs:
            os.close(descriptor)
        self.theirs = ()


@contextlib.contextmanager
def _told(*, maps: bool) -> Iterator[_Namespace]:
    with contextlib.ExitStack() as stack:
        told, tell = os.pipe()
        stack.callback(os.close, told)
        try:
            wait, ready = os.pipe() if maps else (None, None)
        except OSError:
            os.close(tell)
            raise
        if ready is not None:
            stack.callback(os.close, ready)
        namespace = _Namespace(told, ready, (tell,) if wait is None else (tell, wait))
        stack.callback(namespace.close_theirs)
        try:
            yield namespace
        finally:
            if namespace.first is not None:
                namespace.first.close()


def _mounts(command: Command, files: Mapping[str, int]) -> list[str]:
    """The whole visible file system: system folders and what the command names, read-only but for the command's folders and one
    file system in memory."""
    argv: list[str] = []
    for system in SYSTEM:
        if os.path.islink(system):
            argv += ["--symlink", os.readlink(system), system]
        elif os.path.isdir(system):
            argv += ["--ro-bind", system, system]
    argv += ["--proc", "/proc", "--dev", DEVICES, "--remount-ro", DEVICES]
    folders = [Path("/dev/any"), Path("/etc/any"), Path("/var/any")]
    above = _folders_above([*folders, *command.readable, command.root, *command.writable])
    # One that holds a folder of the command's can be no link to another.
    temporary = [Path("/tmp"), *(place for place in LINKED if place in above)]
    for place in temporary:
        # Together they hold no more than the one would.
        size = TEMP_BYTES // len(temporary)
        argv += ["--perms", "1777", "--size", str(size), "--tmpfs", str(place)]
    for folder in above:
        if folder not in temporary:
            argv += ["--perms", "0755", "--dir", str(folder)]
    for place in LINKED:
        if place not in temporary:
            argv += ["--symlink", "/tmp", str(place)]
    for name in DEVICE_NAMES:
        argv += ["--symlink", f"{DEVICES}/{name}", f"/dev/{name}"]
    for path, descriptor in files.items():
        argv += ["--perms", "0644", "--file", str(descriptor), path]
    argv += ["--ro-bind-try", "/etc/alternatives", "/etc/alternatives"]
    for seen in command.readable:
        argv += ["--ro-bind", str(seen), str(seen)]
    for changed in (command.root, *command.writable):
        argv += ["--bind", str(changed), str(changed)]
    return [*argv, "--remount-ro", "/"]


def _folders_above(paths: list[Path]) -> list[Path]:
    """Folders that must exist before these paths can be mounted, outermost first.

    Made by the helper itself they would be closed to other users, the one who runs the command among them.
    """
    above = {parent for path in paths for parent in path.parents if len(parent.parts) > 1}
    return sorted(folder for folder in above if f"/{folder.parts[1]}" not in SYSTEM)
