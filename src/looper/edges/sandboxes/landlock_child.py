"""Supervisor of one command under Landlock: a program of its own, standard library only.

    python -I -S landlock_child.py RULES ARGV...     ({"read": [...], "write": [...], "uid": None, "filter": b"...", "memory": 0}, as
                                                      the hexadecimal digits of its marshalled form)
    python -I -S landlock_child.py namespaces        (only whether they can be made: ends with status 0)

It becomes the parent of every process that the command leaves behind, so that none survives: not one that started a
session of its own, not one that forked twice. It ends with the command's exit status, 128 + signal where one ended it.
"""

import ctypes
import marshal  # json takes 10 ms to import
import os
import signal
import struct
import sys
import time

MINIMUM_ABI = 6
"""The first version that keeps signals inside (Linux 6.12); before it a command could kill the harness."""

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_SET_CHILD_SUBREAPER, _PR_SET_SECCOMP = 1, 38, 36, 22
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_PATH_BENEATH = 1
_ACCESS_FILE = 0b111 | 1 << 14 | 1 << 15
"""execute, write, read, truncate, ioctl on devices: the rights that apply to a file."""
_ACCESS_READ = 1 << 0 | 1 << 2 | 1 << 3
_ACCESS_ALL = (1 << 16) - 1
_NETWORK_ALL, _SCOPES_ALL = 0b11, 0b11
_NEW_MOUNTS, _NEW_HOST_NAME, _NEW_USERS, _NEW_NETWORK = 0x20000, 0x4000000, 0x10000000, 0x40000000
_MOUNT_SETATTR, _EVERYWHERE, _READ_ONLY = 442, 0x8000, 1
_NOSUID, _NODEV, _BIND, _RECURSIVE, _PRIVATE = 2, 4, 4096, 16384, 1 << 18
_AF_INET, _SOCK_DGRAM, _SET_FLAGS, _UP = 2, 2, 0x8914, 1
SHARED_MEMORY = "/dev/shm"
ROUND_S = 0.001
"""Between two looks for what is left to end."""
_HOSTS = b"127.0.0.1 localhost\n::1 localhost\n"

_libc = ctypes.CDLL(None, use_errno=True)


def landlock_abi() -> int:
    """Version of the kernel's Landlock; 0 or less where there is none."""
    return int(_libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)) if sys.platform == "linux" else 0


def _must(result: int, what: str) -> int:
    if result < 0:
        sys.exit(f"landlock: {what}: {os.strerror(ctypes.get_errno())}")
    return result


def _restrict(read: list[str], write: list[str], network: int, program: bytes) -> None:
    """Bind this process, and all that it starts, to the rules; there is no way back."""
    attributes = struct.pack("QQQ", _ACCESS_ALL, network, _SCOPES_ALL)
    ruleset = _must(
        _libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0), "rule set"
    )
    for access, paths in ((_ACCESS_READ, read), (_ACCESS_ALL, write)):
        for path in paths:
            try:
                descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except OSError:
                continue  # Not every machine has every system folder.
            allowed = access if os.path.isdir(path) else access & _ACCESS_FILE
            rule = struct.pack("=Qi", allowed, descriptor)
            _must(_libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0), f"rule for {path}")
            os.close(descriptor)
    _must(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
    _must(_libc.syscall(_RESTRICT_SELF, ruleset, 0), "restriction")
    os.close(ruleset)
    buffer = ctypes.create_string_buffer(program, len(program))
    filter_head = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    _must(_libc.prctl(_PR_SET_SECCOMP, 2, filter_head, 0, 0), "system call filter")


def _isolate(read: list[str], write: list[str], memory_bytes: int) -> None:
    """Put this process into a network of its own, with loopback and a hosts file, and let it see all file systems read-only but
    these folders and a shared memory of its own, so that not even modes and times can be changed elsewhere."""
    uid, gid = os.geteuid(), os.getegid()
    others = _NEW_MOUNTS | _NEW_NETWORK | _NEW_HOST_NAME
    if uid == 0:
        _leave_users(others)
    else:
        _must(_libc.unshare(others | _NEW_USERS), "namespaces")
        _write_maps("self", {"setgroups": "deny", "uid_map": f"{uid} {uid} 1", "gid_map": f"{gid} {gid} 1"})
    _mount(None, "/", None, _RECURSIVE | _PRIVATE)
    below = [path for path in [*read, *write] if path.startswith(SHARED_MEMORY + "/") and os.path.isdir(path)]
    # What the command needs of the folder that its own memory is mounted on is held, and put back into that.
    held = [(path, os.open(path, os.O_PATH | os.O_CLOEXEC)) for path in below]
    _mount(b"tmpfs", SHARED_MEMORY, b"tmpfs", _NOSUID | _NODEV, b"mode=1777,size=%d" % memory_bytes)
    for path, descriptor in held:
        os.makedirs(path, mode=0o755, exist_ok=True)
        _mount(b"/proc/self/fd/%d" % descriptor, path, None, _BIND)
        os.close(descriptor)
    hosts = f"{SHARED_MEMORY}/hosts"
    with open(hosts, "wb") as stream:
        stream.write(_HOSTS)
    os.chmod(hosts, 0o644)
    _mount(hosts.encode(), "/etc/hosts", None, _BIND)
    os.unlink(hosts)
    folders = [path for path in write if os.path.isdir(path) and path != SHARED_MEMORY]
    for path in folders:
        _mount(path.encode(), path, None, _BIND)
    _set_attributes("/", _EVERYWHERE, put=_READ_ONLY)
    for path in [*folders, SHARED_MEMORY]:
        _set_attributes(path, 0, clear=_READ_ONLY)
    _must(_libc.sethostname(b"localhost", 9), "host name")
    handle = _must(_libc.socket(_AF_INET, _SOCK_DGRAM, 0), "socket")
    _must(_libc.ioctl(handle, _SET_FLAGS, struct.pack("16sH22x", b"lo", _UP)), "loopback")
    os.close(handle)


def _leave_users(others: int) -> None:
    """Root's processes into namespaces, with users of their own that are who they were: processes are counted by user and namespace,
    and those of one command must not use up the limit of another. Only who stays outside may name all users, so a child does.
    Without users of their own in a plain chroot, and where an administrator forbids such namespaces."""
    maps = {}
    for kind in ("uid_map", "gid_map"):
        with open(f"/proc/self/{kind}") as stream:
            maps[kind] = "".join("{0} {0} {2}\n".format(*line.split()) for line in stream)
    this, (wait, tell) = os.getpid(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(tell)
        if os.read(wait, 1):
            _write_maps(str(this), maps)
        os._exit(0)
    os.close(wait)
    if _libc.unshare(others | _NEW_USERS) == 0:
        os.write(tell, b"1")
    else:
        _must(_libc.unshare(others), "namespaces")
    os.close(tell)
    os.waitpid(child, 0)


def _write_maps(process: str, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        with open(f"/proc/{process}/{name}", "w") as stream:
            stream.write(text)


def _mount(
    source: bytes | None, target: str, kind: bytes | None, flags: int, data: bytes | None = None
) -> None:
    _must(_libc.mount(source, os.fsencode(target), kind, ctypes.c_ulong(flags), data), f"mount on {target}")


def _set_attributes(path: str, flags: int, put: int = 0, clear: int = 0) -> None:
    attributes = struct.pack("QQQQ", put, clear, 0, 0)
    call = (_MOUNT_SETATTR, -100, os.fsencode(path), flags, attributes, ctypes.c_size_t(len(attributes)))
    _must(_libc.syscall(*call), f"mount attributes of {path}")


def _descendants(pid: int) -> list[int]:
    found, waiting = [], [pid]
    while waiting:
        current = waiting.pop()
        try:
            for task in os.listdir(f"/proc/{current}/task"):
                with open(f"/proc/{current}/task/{task}/children") as stream:
                    children = [int(child) for child in stream.read().split()]
                found += children
                waiting += children
        except OSError:
            continue
    return found


def _end_all() -> None:
    """Kill and reap until there is no child left. What forks while it is killed, or moves to another parent while the lists of
    children are read, stands in none of them and is met in the next round: so no round may wait for an end."""
    while True:
        for pid in _descendants(os.getpid()):
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(ROUND_S)


def _terminated(number: int, frame: object) -> None:
    _end_all()
    os._exit(128 + number)


def main() -> None:
    if sys.argv[1] == "namespaces":
        return _isolate([], [], 1 << 20)
    rules, argv = marshal.loads(bytes.fromhex(sys.argv[1])), sys.argv[2:]
    _must(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "subreaper")
    _must(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0), "death signal")
    signal.signal(signal.SIGTERM, _terminated)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()
        if rules["memory"]:
            _isolate(rules["read"], rules["write"], rules["memory"])
        if rules["uid"] is not None:
            os.setgroups([])
            os.setgid(rules["uid"])
            os.setuid(rules["uid"])
        network = 0 if rules["memory"] else _NETWORK_ALL
        _restrict(rules["read"], rules["write"], network, rules["filter"])
        os.execv(argv[0], argv)
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child:
            break
    _end_all()
    os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))


if __name__ == "__main__":
    main()
