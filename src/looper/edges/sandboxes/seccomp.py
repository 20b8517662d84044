"""System call filters as BPF programs, assembled here because libseccomp is not on every machine."""

import platform
import socket
import struct
from collections.abc import Collection

_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_EPERM, _ENOSYS, _EACCES = 1, 38, 13
_CLONE_NEWUSER = 0x10000000
_TYPE_MASK = 0xF
"""Of a socket's type; the bits above it are flags."""
_LOAD, _JEQ, _JGE, _JSET, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_NUMBER, _ARCH, _ARGUMENT_0, _ARGUMENT_1 = 0, 4, 16, 24

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_REFUSED: dict[str, dict[str, int]] = {
    "x86_64": {
        "ptrace": 101, "pivot_root": 155, "mount": 165, "umount2": 166, "swapon": 167, "reboot": 169,
        "init_module": 175, "delete_module": 176, "add_key": 248, "request_key": 249, "keyctl": 250,
        "unshare": 272, "perf_event_open": 298, "open_by_handle_at": 304, "setns": 308, "process_vm_readv": 310,
        "process_vm_writev": 311, "finit_module": 313, "bpf": 321, "userfaultfd": 323, "io_uring_setup": 425,
        "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428, "move_mount": 429, "fsopen": 430,
        "fsconfig": 431, "fsmount": 432, "pidfd_getfd": 438, "mount_setattr": 442,
        "shmget": 29, "shmat": 30, "shmctl": 31, "semget": 64, "semop": 65, "semctl": 66, "semtimedop": 220,
        "msgget": 68, "msgsnd": 69, "msgrcv": 70, "msgctl": 71, "mq_open": 240, "mq_unlink": 241,
        "memfd_create": 319, "memfd_secret": 447,
    },
    "aarch64": {
        "ptrace": 117, "pivot_root": 41, "mount": 40, "umount2": 39, "swapon": 224, "reboot": 142,
        "init_module": 105, "delete_module": 106, "add_key": 217, "request_key": 218, "keyctl": 219,
        "unshare": 97, "perf_event_open": 241, "open_by_handle_at": 265, "setns": 268, "process_vm_readv": 270,
        "process_vm_writev": 271, "finit_module": 273, "bpf": 280, "userfaultfd": 282, "io_uring_setup": 425,
        "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428, "move_mount": 429, "fsopen": 430,
        "fsconfig": 431, "fsmount": 432, "pidfd_getfd": 438, "mount_setattr": 442,
        "shmget": 194, "shmat": 196, "shmctl": 195, "semget": 190, "semop": 193, "semctl": 191, "semtimedop": 192,
        "msgget": 186, "msgsnd": 189, "msgrcv": 188, "msgctl": 187, "mq_open": 180, "mq_unlink": 181,
        "memfd_create": 279, "memfd_secret": 447,
    },
}  # fmt: skip
"""The last three lines of each: memory that no limit on a process or a file system counts, and that may outlive it."""
_WITH_ARGUMENTS: dict[str, dict[str, int]] = {
    "x86_64": {"clone": 56, "clone3": 435, "socket": 41, "socketpair": 53, "prlimit64": 302},
    "aarch64": {"clone": 220, "clone3": 435, "socket": 198, "socketpair": 199, "prlimit64": 261},
}


_Instruction = tuple[int, int, int, int]
"""Operation, jump if true, jump if false, operand. A jump is the number of instructions that are skipped after this one, so `0, 1`
goes on with the next where it holds, and passes that one by where it does not."""


def supported() -> bool:
    return platform.machine() in _ARCHITECTURES


def filter_program(families: Collection[int]) -> bytes:
    """A filter against new namespaces, mounts, tracing, kernel interfaces, uncounted memory, limits of other processes, and
    sockets of other families than these. As the bytes of an array of `struct sock_filter`.

    Without UNIX sockets pairs of them are left, but not of datagrams: such a pair can send to any path. `clone3` answers "no
    such call", because its flags lie in memory that a filter cannot read; libraries then use `clone`. Raises KeyError on a
    processor that is not listed.
    """
    machine = platform.machine()
    special = _WITH_ARGUMENTS[machine]
    refused = [(_RETURN, 0, 0, _ERRNO | _EPERM)]
    allowed = [(_RETURN, 0, 0, _ALLOW)]
    program = [
        (_LOAD, 0, 0, _ARCH),
        (_JEQ, 1, 0, _ARCHITECTURES[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        # The x32 calls of x86-64 have numbers of their own and would pass below the list.
        (_JGE, 0, 1, 0x40000000),
        (_RETURN, 0, 0, _ERRNO | _ENOSYS),
        (_JEQ, 0, 1, special["clone3"]),
        (_RETURN, 0, 0, _ERRNO | _ENOSYS),
    ]
    for number in sorted(_REFUSED[machine].values()):
        program += [(_JEQ, 0, 1, number), *refused]
    program += _call(
        special["clone"], [(_LOAD, 0, 0, _ARGUMENT_0), (_JSET, 0, 1, _CLONE_NEWUSER), *refused, *allowed]
    )
    program += _call(special["prlimit64"], [(_LOAD, 0, 0, _ARGUMENT_0), (_JEQ, 1, 0, 0), *refused, *allowed])
    program += _call(special["socket"], _one_of(families))
    if socket.AF_UNIX not in families:
        kinds = (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)
        program += _call(
            special["socketpair"],
            [
                (_LOAD, 0, 0, _ARGUMENT_0),
                (_JEQ, 1, 0, socket.AF_UNIX),
                (_RETURN, 0, 0, _ERRNO | _EACCES),
                *_one_of(kinds, _ARGUMENT_1, mask=_TYPE_MASK),
            ],
        )
    program += allowed
    return b"".join(struct.pack("HBBI", *instruction) for instruction in program)


def _call(number: int, rule: list[_Instruction]) -> list[_Instruction]:
    """A rule that returns in each case, for one system call; for every other call its whole length is skipped."""
    return [(_JEQ, 0, len(rule), number), *rule]


def _one_of(
    values: Collection[int], argument: int = _ARGUMENT_0, mask: int = 0xFFFFFFFF
) -> list[_Instruction]:
    rule = [(_LOAD, 0, 0, argument), (_AND, 0, 0, mask)]
    for value in values:
        rule += [(_JEQ, 0, 1, int(value)), (_RETURN, 0, 0, _ALLOW)]
    return [*rule, (_RETURN, 0, 0, _ERRNO | _EACCES)]
