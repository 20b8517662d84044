"""Supervisor of one command under Landlock: a program of its own, standard library only.

    python -I -S landlock_child.py '{"read": [...], "write": [...], "uid": null, "filter": "...", "argv": [...]}'

It becomes the parent of every process that the command leaves behind, so that none survives: not one that started a
session of its own, not one that forked twice. It ends with the command's exit status, 128 + signal where one ended it.
"""

import ctypes
import json
import os
import signal
import struct
import sys

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

_libc = ctypes.CDLL(None, use_errno=True)


def landlock_abi() -> int:
    """Version of the kernel's Landlock; 0 or less where there is none."""
    return int(_libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)) if sys.platform == "linux" else 0


def _must(result: int, what: str) -> int:
    if result < 0:
        sys.exit(f"landlock: {what}: {os.strerror(ctypes.get_errno())}")
    return result


def _restrict(read: list[str], write: list[str], program: bytes) -> None:
    """Bind this process, and all that it starts, to the rules; there is no way back."""
    attributes = struct.pack("QQQ", _ACCESS_ALL, _NETWORK_ALL, _SCOPES_ALL)
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
    """Kill and reap until there is no child left; a process that forks while it is killed is met in the next round."""
    while True:
        for pid in _descendants(os.getpid()):
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _terminated(number: int, frame: object) -> None:
    _end_all()
    os._exit(128 + number)


def main() -> None:
    rules = json.loads(sys.argv[1])
    _must(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "subreaper")
    _must(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0), "death signal")
    signal.signal(signal.SIGTERM, _terminated)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()
        if rules["uid"] is not None:
            os.setgroups([])
            os.setgid(rules["uid"])
            os.setuid(rules["uid"])
        _restrict(rules["read"], rules["write"], bytes.fromhex(rules["filter"]))
        os.execv(rules["argv"][0], rules["argv"])
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child:
            break
    _end_all()
    os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))


if __name__ == "__main__":
    main()
