"""Running one command with bounded output, time, disk and memory, and ending all that it started."""

import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from looper.protocols import Command, CommandResult

POLL_S = 0.1
CHUNK_BYTES = 1 << 16
FLOOD_BYTES = 64 << 20
"""Output after which a command is cut off from its reader: it gets a broken pipe instead of filling time."""
DRAIN_S = 0.3
"""How long the end of the output is waited for after the command has ended. Every process that it left holds the pipe,
so the end says that they are gone; one that no sandbox ends must not hold up the run."""
INODE_LIMIT = 150_000
MEMORY_SHARE = 2
"""All processes of a command together may hold this many times the limit of one."""

Killed = Literal["", "time", "disk", "memory"]


class _Capped:
    """The first and the last half of a byte stream."""

    def __init__(self, cap_bytes: int) -> None:
        self.half = max(1, cap_bytes // 2)
        self.head = b""
        self.tail = b""
        self.total = 0

    def add(self, data: bytes) -> None:
        self.total += len(data)
        room = self.half - len(self.head)
        if room > 0:
            self.head += data[:room]
            data = data[room:]
        if data:
            self.tail = (self.tail + data)[-self.half :]

    @property
    def omitted(self) -> int:
        return self.total - len(self.head) - len(self.tail)


def run_process(
    argv: Sequence[str],
    command: Command,
    env: Mapping[str, str],
    *,
    kill: Callable[[subprocess.Popen[bytes]], None],
    pass_fds: Sequence[int] = (),
    cwd: Path | None = None,
) -> CommandResult:
    """Run argv in a session of its own; `kill` ends everything it started and is called on every way out.

    Raises OSError where the program itself cannot be started.
    """
    begun = time.monotonic()
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=cwd,
        env=dict(env),
        start_new_session=True,
        pass_fds=tuple(pass_fds),
    )
    assert process.stdout is not None
    output, killed = _Capped(command.output_cap_bytes), ""
    try:
        killed = _watch(process, command, output, begun)
    finally:
        kill(process)
        process.wait()
        _drain(process, output)
        process.stdout.close()
    return CommandResult(
        exit_code=None if killed else _exit_code(process.returncode),
        head=output.head,
        tail=output.tail,
        omitted_bytes=output.omitted,
        killed_by=killed,
        wall_s=time.monotonic() - begun,
    )


def _exit_code(code: int) -> int:
    """As a shell reports it: 128 + the signal where one ended the program."""
    return 128 - code if code < 0 else code


def _watch(process: subprocess.Popen[bytes], command: Command, output: _Capped, begun: float) -> Killed:
    """Collect output until the command ends by itself; otherwise say which limit it reached."""
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    os.set_blocking(descriptor, False)
    poller = select.poll()
    poller.register(descriptor, select.POLLIN | select.POLLHUP)
    exited = os.pidfd_open(process.pid) if hasattr(os, "pidfd_open") else None
    if exited is not None:
        poller.register(exited, select.POLLIN)
    try:
        return _collect(process, command, output, begun, poller)
    finally:
        if exited is not None:
            os.close(exited)


def _collect(
    process: subprocess.Popen[bytes], command: Command, output: _Capped, begun: float, poller: select.poll
) -> Killed:
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    deadline = begun + command.timeout_s
    free = _free(command.root)
    checked = begun
    # Where the end of a process cannot be polled for, it is looked for often.
    pause_s = POLL_S if hasattr(os, "pidfd_open") else 0.005
    while process.poll() is None:
        now = time.monotonic()
        if now >= deadline:
            return "time"
        if now - checked >= POLL_S:
            checked = now
            if _disk_is_full(free, command):
                return "disk"
            if now - begun > 0.5 and _resident_mb(process.pid) > command.memory_mb * MEMORY_SHARE:
                return "memory"
        if output.total > FLOOD_BYTES:
            return "" if _ends_soon(process, deadline) else "time"
        ready = poller.poll(min(pause_s, deadline - now) * 1000)
        if any(found == descriptor for found, _ in ready) and not _read(descriptor, output):
            poller.unregister(descriptor)  # End of output; the command itself may go on.
    return ""


def _ends_soon(process: subprocess.Popen[bytes], deadline: float) -> bool:
    """Close the pipe of a command that floods it, and see whether the broken pipe ends it."""
    assert process.stdout is not None
    process.stdout.close()
    try:
        process.wait(max(0.0, min(1.0, deadline - time.monotonic())))
    except subprocess.TimeoutExpired:
        return False
    return True


def _read(descriptor: int, output: _Capped) -> bool:
    """Take what is there; False at the end of the stream."""
    try:
        data = os.read(descriptor, CHUNK_BYTES)
    except BlockingIOError:
        return True
    output.add(data)
    return bool(data)


def _drain(process: subprocess.Popen[bytes], output: _Capped) -> None:
    assert process.stdout is not None
    if process.stdout.closed:
        return
    until = time.monotonic() + DRAIN_S
    descriptor = process.stdout.fileno()
    while time.monotonic() < until and output.total <= FLOOD_BYTES:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, until - time.monotonic()))
        if not ready or not _read(descriptor, output):
            return


def _free(folder: Path) -> tuple[int, int]:
    """Free bytes and free inodes of the file system that holds a folder."""
    stats = os.statvfs(folder)
    return stats.f_bavail * stats.f_frsize, stats.f_ffree


def _disk_is_full(before: tuple[int, int], command: Command) -> bool:
    """Whether the tree has grown too much. Free space is cheap to ask for and may move for other reasons: then look."""
    space, inodes = _free(command.root)
    if before[0] - space > command.tree_mb << 20:
        return _tree_bytes(command.root) > command.tree_mb << 20
    return before[1] - inodes > INODE_LIMIT


def _tree_bytes(root: Path) -> int:
    total = 0
    for folder, _, names in os.walk(root):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
            except OSError:
                continue  # Gone since it was listed.
    return total


def _resident_mb(pid: int) -> int:
    """Resident memory of a process and all its descendants; 0 where the system does not tell."""
    pages, waiting = 0, [pid]
    while waiting:
        current = waiting.pop()
        try:
            pages += int(Path(f"/proc/{current}/statm").read_text().split()[1])
            for task in os.listdir(f"/proc/{current}/task"):
                waiting += map(int, Path(f"/proc/{current}/task/{task}/children").read_text().split())
        except (OSError, IndexError, ValueError):
            continue  # Ended meanwhile, or no /proc.
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """End the process group of a command."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


_LIMITS = (
    # A hard limit of descriptors below ours is a limit too.
    '{ ulimit -n 4096 2> /dev/null || :; } && ulimit -c 0 -f "$2" -v "$3" && { [ -z "$1" ] || ulimit -u "$1"; } && cd -- "$4" || exit 126'
)
"""No core dumps; bounded descriptors, processes, file size and memory; then the folder, which only the command's own
user may be able to enter."""


def limited(command: Command, *, processes: int | None, memory: bool = True) -> list[str]:
    """The command as bash starts it, inside its limits and its folder.

    A bash script gets the limits as the beginning of its own first line, so that its line numbers stay and one program
    less is started per command.
    """
    settings = [
        "" if processes is None else str(processes),
        str(command.file_mb << 10),
        str(command.memory_mb << 10) if memory else "unlimited",
        str(command.root),
    ]
    if command.argv[:2] == ("/bin/bash", "-c") and len(command.argv) == 3:
        return ["/bin/bash", "-c", f"{_LIMITS}; set --; {command.argv[2]}", "bash", *settings]
    return ["/bin/bash", "-c", f'{_LIMITS}; shift 4; exec "$@"', "bash", *settings, *command.argv]


def program(name: str) -> str | None:
    """Path of a program in the system's own folders; a search path that others can set is not asked."""
    return shutil.which(name, path="/usr/bin:/bin:/usr/local/bin:/usr/sbin:/sbin:/opt/homebrew/bin")
