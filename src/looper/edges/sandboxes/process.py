"""Running one command with bounded output, time, disk and memory, and ending all that it started.

Whatever the sandbox is, its commands are started, fed to a bounded buffer, watched and ended here: by their limits, by a person, or
by a disk that runs full. A result says by which limit; without one it was the command's own end.
"""

import contextlib
import errno
import os
import re
import secrets
import select
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from looper.errors import DiskNearlyFull, SandboxUnavailable, SandboxUntried
from looper.protocols import Command, CommandResult
from looper.untrusted import folders_below

NOBODY = 65534
PROCESS_LIMIT = 400
POLL_S = 0.1
CHUNK_BYTES = 1 << 16
FLOOD_BYTES = 64 << 20
"""Output after which a command is cut off from its reader: it gets a broken pipe instead of filling time."""
DRAIN_S = 0.3
"""How long the end of the output is waited for after the command has ended. Every process that it left holds the pipe,
so the end says that they are gone; one that no sandbox ends must not hold up the run."""
END_S = 60
"""How long what a command left behind may take to end once it is killed, usually a millisecond."""
INODE_LIMIT = 150_000
"""Files, folders and links that a command may leave in the places that it can write to."""
FLOOR_BYTES = 16 << 20
"""Least free space where a command works. Below it nobody knows whether what it did, or failed to do, was for want of room."""
FLOOR_INODES = 100
"""And least number of files that can still be made there."""
MEMORY_SHARE = 2
"""All processes of a command together may hold this many times the limit of one."""
TEMP_BYTES = 512 << 20
"""Of the file system in memory that `/tmp`, `/var/tmp` and `/dev/shm` share, where a sandbox has one of its own."""
HELPER_BYTES = 4096
"""Of what a helper says before the command begins, the last."""
PASSING = tuple(os.strerror(code) for code in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN))
"""What the machine says of a lack that passes. A full disk is not among them: the kernel says so of a forbidden namespace too."""
NOT_STARTED = 126
"""Exit status of a command that no program could be started for, as shells have it."""

_RIGHTS = {"CHOWN": 0, "DAC_OVERRIDE": 1, "KILL": 5, "SETGID": 6, "SETUID": 7}
"""Capabilities that root needs for commands of another user, by their bit (capability.h)."""

Killed = Literal["", "time", "disk", "memory"]


class _Output:
    """What a command writes after the word that says that it begins: the first and the last half of it.

    The word is written when helper and limits are done, before the command has done anything. So it is missing only where the
    command never began, whatever the command writes and however it ends; what stands before it is the helper's own.
    """

    def __init__(self, cap_bytes: int, word: bytes) -> None:
        self._word = word
        self.before: bytes | None = b""
        """The helper's own words; None once the command has begun."""
        self.half = max(1, cap_bytes // 2)
        self.head = b""
        self.tail = b""
        self.total = 0

    def add(self, data: bytes) -> None:
        if self.before is not None:
            said, found, data = (self.before + data).partition(self._word)
            if not found:
                self.before = said[-HELPER_BYTES:]
                return
            self.before = None
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


def _effective_rights() -> int:
    """Capabilities of this process, as bits; all where the system has none of that kind."""
    try:
        found = re.search(r"^CapEff:\s*(\w+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    except FileNotFoundError:
        return -1
    return int(found[1], 16) if found else -1


def user_of_commands() -> int | None:
    """Whom commands run as where it is not the user who started this: nobody, for root. Raises SandboxUnavailable for a root that
    cannot become anybody else: limits on processes do not hold for root."""
    if os.geteuid() != 0:
        return None
    if lacking := [name for name, bit in _RIGHTS.items() if not _effective_rights() >> bit & 1]:
        raise SandboxUnavailable(
            f"this root has not the right {', '.join(f'CAP_{name}' for name in lacking)}, so it cannot start, read or end what "
            "commands do as another user. Start it with all rights of root, or as an ordinary user."
        )
    for kind in ("uid_map", "gid_map"):
        lines = [list(map(int, line.split())) for line in Path("/proc/self", kind).read_text().splitlines()]
        if not any(first <= NOBODY < first + count for first, _, count in lines):
            raise SandboxUnavailable(
                "this root is the root of a user namespace that has no user nobody, so commands cannot run as another user. "
                "Start it as the ordinary user outside (without unshare -r, --map-root-user), or map 65536 ids into the namespace."
            )
    return NOBODY


def id_maps() -> dict[str, str]:
    """Lines of a user namespace's maps that leave every user and group of this one what it is."""
    found = {}
    for kind in ("uid_map", "gid_map"):
        ranges = [line.split() for line in Path("/proc/self", kind).read_text().splitlines()]
        found[kind] = "".join(f"{first} {first} {count}\n" for first, _, count in ranges)
    return found


def give(path: Path, owner: int | None) -> None:
    """Let the user whom commands run as have a file or folder. Raises SandboxUnavailable where that is forbidden."""
    if owner is None:
        return
    try:
        os.chown(path, owner, owner)
    except OSError as error:
        raise SandboxUnavailable(
            f"{path} cannot be given to the user {owner}, as whom commands run: {error.strerror}. "
            "Start as root with all of its rights, or as an ordinary user."
        ) from error


def own_interpreter() -> str:
    """The interpreter behind a virtual environment: enough for what needs only the standard library."""
    if sys.base_prefix == sys.prefix:
        return sys.executable
    # By the name that says its version where it has that: others beside it may be of another version.
    names = (f"python{sysconfig.get_python_version()}", "python3", "python")
    places = [os.path.join(sys.base_prefix, "bin", name) for name in names]
    return next(filter(os.path.exists, places), places[0])


def temporary_folder(command: Command) -> Path:
    """For temporary files, beside the folder of a command that has no `/tmp` of its own."""
    folder = _temporary_path(command)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise SandboxUnavailable(f"{folder} cannot be made: {error.strerror}.") from error
    return folder


def _temporary_path(command: Command) -> Path:
    return command.root.with_name(f"{command.root.name}.tmp")


def minimal_environment(command: Command, home: str = "/tmp", language: str = "C.UTF-8") -> dict[str, str]:
    """All that a command finds in its environment: nothing of the harness's own, and no settings of this machine."""
    own = {
        "HOME": home,
        "TMPDIR": home,
        "LANG": language,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_ATTR_NOSYSTEM": "1",
    }
    return {**own, **command.env}


def run_limited(
    sandbox: str,
    helper: Sequence[str],
    command: Command,
    env: Mapping[str, str],
    *,
    processes: int | None,
    kill: Callable[[subprocess.Popen[bytes]], None],
    memory: bool = True,
    pass_fds: Sequence[int] = (),
    begun: Callable[[], None] = lambda: None,
) -> CommandResult:
    """Run the command inside its limits, started by `helper` in a session of its own; `kill` ends everything that was started and is
    called on every way out, `begun` as soon as the helper runs.

    Raises SandboxUnavailable where the helper or the limits failed, and DiskNearlyFull where there is less room than the command may
    take, or others leave it none. What cannot be handed to any program, because it is too long
    or no text, ends with the status NOT_STARTED.
    """
    needed = (command.tree_mb << 20) + FLOOR_BYTES
    if _lack(command.root, needed):
        # What its tree holds already counts for it, and need not be free once more.
        needed -= min(_held(command.root)[0], command.tree_mb << 20)
    _must_have_room(command.root, needed)
    word = secrets.token_hex(8)
    argv = [*helper, *_limited(command, word, processes, memory)]
    output = _Output(command.output_cap_bytes, word.encode())
    try:
        if any(b"\0" in os.fsencode(argument) for argument in argv):
            return _not_started("it holds a NUL byte")
        result = _run(argv, command, env, output, kill, pass_fds, begun)
    except UnicodeEncodeError as error:
        return _not_started(str(error))
    except OSError as error:
        if error.errno == errno.E2BIG:
            return _not_started(os.strerror(errno.E2BIG))
        raise unavailable(f"{sandbox} failed: {error}.") from error
    if output.before is not None and not result.killed_by:
        lines = output.before.decode("utf-8", "backslashreplace").strip().splitlines()
        raise unavailable(
            f"{sandbox} did not start a command: {lines[-1] if lines else f'exit status {result.exit_code}'}."
        )
    return result


def unavailable(said: str) -> SandboxUnavailable:
    """SandboxUntried where the words are those of a machine that lacks something for a while."""
    if not any(lack in said for lack in PASSING):
        return SandboxUnavailable(said)
    return SandboxUntried(
        f"{said} End other work or raise this shell's limits (ulimit -n 4096), then run again."
    )


def not_ended() -> SandboxUntried:
    """Of what a command started, where some of it is there END_S after it was killed."""
    return SandboxUntried(
        f"what a command started had not ended {END_S} s after it was killed. A disk or share that does not answer can hold processes "
        "so: see with ps which are left, end what holds them, then run the same command again."
    )


class Ending:
    """A process that is nobody's child here, to be killed and waited for. Where the system has descriptors of processes (Linux 5.3), no
    other one of the same number is taken for it."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._descriptor: int | None = None
        self._gone = False
        try:
            self._descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            self._gone = True
        except (AttributeError, OSError):
            pass

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self._descriptor is not None:
                signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)
            elif not self._gone:
                os.kill(self._pid, signal.SIGKILL)

    def wait(self, within_s: float) -> bool:
        """Whether it has ended, by then."""
        if self._descriptor is not None:
            ended = select.poll()
            ended.register(self._descriptor, select.POLLIN)
            return bool(ended.poll(within_s * 1000))
        until = time.monotonic() + within_s
        while not self._gone:
            try:
                state = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                return True
            if state in "ZX":
                return True
            if time.monotonic() > until:
                return False
            time.sleep(0.002)
        return True

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)


def works(argv: Sequence[str]) -> bool:
    """Whether a program that asks the system for something ends well. Raises SandboxUntried where it could not be asked."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, cwd="/")
    said = (done.stdout + done.stderr).decode("utf-8", "backslashreplace").strip()
    if done.returncode and isinstance(error := unavailable(f"{argv[0]} failed: {said}."), SandboxUntried):
        raise error
    return done.returncode == 0


def _not_started(reason: str) -> CommandResult:
    return CommandResult(NOT_STARTED, f"not started: {reason}\n".encode(), b"", 0, "", 0.0)


def _run(
    argv: Sequence[str],
    command: Command,
    env: Mapping[str, str],
    output: _Output,
    kill: Callable[[subprocess.Popen[bytes]], None],
    pass_fds: Sequence[int],
    started: Callable[[], None],
) -> CommandResult:
    begun = time.monotonic()
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # The shell remembers where it comes from; that is the same for all.
        cwd="/",
        env=dict(env),
        start_new_session=True,
        pass_fds=tuple(pass_fds),
    )
    assert process.stdout is not None
    killed: Killed = ""
    try:
        started()
        killed = _watch(process, command, output, begun)
    finally:
        try:
            kill(process)
        finally:
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


def _watch(process: subprocess.Popen[bytes], command: Command, output: _Output, begun: float) -> Killed:
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
        return _collect(process, command, output, begun, poller, _free(command.root))
    finally:
        if exited is not None:
            os.close(exited)


def _collect(
    process: subprocess.Popen[bytes],
    command: Command,
    output: _Output,
    begun: float,
    poller: select.poll,
    free: tuple[int, int],
) -> Killed:
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    deadline = begun + command.timeout_s
    checked = begun
    # Where the end of a process cannot be polled for, it is looked for often.
    pause_s = POLL_S if hasattr(os, "pidfd_open") else 0.005
    while process.poll() is None:
        now = time.monotonic()
        if now >= deadline or (command.over is not None and command.over.is_set()):
            return "time"
        if now - checked >= POLL_S:
            checked = now
            if _disk_is_full(free, command):
                return "disk"
            _must_have_room(command.root, FLOOR_BYTES)
            if now - begun > 0.5 and _resident_mb(process.pid) > command.memory_mb * MEMORY_SHARE:
                return "memory"
        if output.total > FLOOD_BYTES:
            return "" if _ends_soon(process, deadline) else "time"
        ready = poller.poll(min(pause_s, deadline - now) * 1000)
        if any(found == descriptor for found, _ in ready) and not _read(descriptor, output):
            poller.unregister(descriptor)  # End of output; the command itself may go on.
    if _lack(command.root, FLOOR_BYTES) and _disk_is_full(free, command):
        return "disk"
    _must_have_room(command.root, FLOOR_BYTES)
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


def _read(descriptor: int, output: _Output) -> bool:
    """Take what is there; False at the end of the stream."""
    try:
        data = os.read(descriptor, CHUNK_BYTES)
    except BlockingIOError:
        return True
    output.add(data)
    return bool(data)


def _drain(process: subprocess.Popen[bytes], output: _Output) -> None:
    assert process.stdout is not None
    if process.stdout.closed:
        return
    until = time.monotonic() + DRAIN_S
    # Not by select, which takes no descriptor above 1,023.
    ready = select.poll()
    ready.register(process.stdout.fileno(), select.POLLIN | select.POLLHUP)
    while (left_s := until - time.monotonic()) > 0 and output.total <= FLOOD_BYTES:
        if not ready.poll(left_s * 1000) or not _read(process.stdout.fileno(), output):
            return


def _free(folder: Path) -> tuple[int, int]:
    """Free bytes and free inodes of the file system that holds a folder."""
    stats = os.statvfs(folder)
    return stats.f_bavail * stats.f_frsize, stats.f_ffree


def _lack(folder: Path, needed: int) -> str:
    """What a folder's file system has too little of for so many bytes more; empty where it has enough, or the folder is gone."""
    try:
        stats = os.statvfs(folder)
    except FileNotFoundError:
        return ""
    free = stats.f_bavail * stats.f_frsize
    if free < needed:
        return f"Only {free >> 20} MiB are free where {folder.parent} lies, and {needed >> 20} MiB are needed"
    # Some file systems make inodes as they need them, and count none.
    if stats.f_files and stats.f_ffree < FLOOR_INODES:
        return f"Only {stats.f_ffree} more files can be made where {folder.parent} lies"
    return ""


def _must_have_room(folder: Path, needed: int) -> None:
    """Raises DiskNearlyFull."""
    if lack := _lack(folder, needed):
        raise DiskNearlyFull(
            f"{lack} to run a command there. Make room, or name another place for trees with LOOPER_WORKSPACES, then run the same "
            "command again."
        )


def _disk_is_full(before: tuple[int, int], command: Command) -> bool:
    """Whether the command's places hold too much. What is free is cheap to ask for and may move for other reasons: then look."""
    space, inodes = _free(command.root)
    if before[0] - space <= command.tree_mb << 20 and before[1] - inodes <= INODE_LIMIT:
        return False
    places = (command.root, _temporary_path(command), *command.writable)
    held, entries = map(sum, zip(*map(_held, places), strict=True))
    return held > command.tree_mb << 20 or entries > INODE_LIMIT


def _held(root: Path) -> tuple[int, int]:
    """Bytes of the files below a folder, and how many entries there are."""
    held = entries = 0
    for _, found in folders_below(str(root)):
        entries += len(found)
        for entry in found:
            with contextlib.suppress(OSError):  # Gone since it was listed.
                if not entry.is_dir(follow_symlinks=False):
                    held += entry.stat(follow_symlinks=False).st_blocks * 512
    return held, entries


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


def end_left(place: Path) -> None:
    """End what a killed run left of its sandboxes below `place`, where nothing is at work any more: killed between a sandbox's start
    and the word that it may go on, bubblewrap's inner half waits for that word for ever, and dies with nobody."""
    below = os.fsencode(place) + b"/"
    for status in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = status.read_bytes().split(b"\0")
            if os.path.basename(words[0]) == b"bwrap" and any(below in word for word in words):
                os.kill(int(status.parent.name), signal.SIGKILL)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


_LIMITS = (
    # A hard limit of descriptors below ours is a limit too.
    '{ ulimit -n 4096 2> /dev/null || :; } && ulimit -c 0 -f "$2" -v "$3" && { [ -z "$1" ] || ulimit -u "$1"; } '
    # Into one stream, where an engine keeps two, or what comes first could be read last.
    '&& exec 2>&1 && printf %s "$5" || exit 126; cd -- "$4" || exit 126'
)
"""No core dumps; bounded descriptors, processes, file size and memory; then the word, and the folder, which only the command's
own user may be able to enter, and which it may have closed."""


def _limited(command: Command, word: str, processes: int | None, memory: bool) -> list[str]:
    """The command as bash starts it, inside its limits and its folder.

    A bash script is evaluated by the bash that set the limits, one program less per command. It is parsed after the word is
    written, so that a mistake in its first line is its own; its line numbers stay.
    """
    settings = [
        "" if processes is None else str(processes),
        str(command.file_mb << 10),
        str(command.memory_mb << 10) if memory else "unlimited",
        str(command.root),
        word,
    ]
    if command.argv[:2] == ("/bin/bash", "-c") and len(command.argv) == 3:
        return ["/bin/bash", "-c", f'{_LIMITS}; eval "set --; $6"', "bash", *settings, command.argv[2]]
    return ["/bin/bash", "-c", f'{_LIMITS}; shift 5; exec "$@"', "bash", *settings, *command.argv]


def program(name: str) -> str | None:
    """Path of a program in the system's own folders; a search path that others can set is not asked."""
    return shutil.which(name, path="/usr/bin:/bin:/usr/local/bin:/usr/sbin:/sbin:/opt/homebrew/bin")
