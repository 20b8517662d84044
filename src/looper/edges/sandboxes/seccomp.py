"""System call filters as BPF programs, assembled here because libseccomp is not on every machine."""

import platform
import struct

_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_EPERM, _ENOSYS, _EACCES = 1, 38, 13
_CLONE_NEWUSER = 0x10000000
_AF_UNIX = 1
_LOAD, _JEQ, _JGE, _JSET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _ARGUMENT_0 = 0, 4, 16

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_NUMBERS: dict[str, dict[str, int]] = {
    "x86_64": {
        "socket": 41, "clone": 56, "ptrace": 101, "pivot_root": 155, "mount": 165, "umount2": 166, "swapon": 167,
        "reboot": 169, "init_module": 175, "delete_module": 176, "add_key": 248, "request_key": 249, "keyctl": 250,
        "unshare": 272, "perf_event_open": 298, "open_by_handle_at": 304, "setns": 308, "process_vm_readv": 310,
        "process_vm_writev": 311, "finit_module": 313, "bpf": 321, "userfaultfd": 323, "io_uring_setup": 425,
        "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428, "move_mount": 429, "fsopen": 430,
        "fsconfig": 431, "fsmount": 432, "clone3": 435, "mount_setattr": 442,
    },
    "aarch64": {
        "socket": 198, "clone": 220, "ptrace": 117, "pivot_root": 41, "mount": 40, "umount2": 39, "swapon": 224,
        "reboot": 142, "init_module": 105, "delete_module": 106, "add_key": 217, "request_key": 218, "keyctl": 219,
        "unshare": 97, "perf_event_open": 241, "open_by_handle_at": 265, "setns": 268, "process_vm_readv": 270,
        "process_vm_writev": 271, "finit_module": 273, "bpf": 280, "userfaultfd": 282, "io_uring_setup": 425,
        "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428, "move_mount": 429, "fsopen": 430,
        "fsconfig": 431, "fsmount": 432, "clone3": 435, "mount_setattr": 442,
    },
}  # fmt: skip


def supported() -> bool:
    return platform.machine() in _ARCHITECTURES


def filter_program(*, sockets: bool) -> bytes:
    """A filter against new namespaces, mounts, tracing and kernel interfaces; without `sockets` also against all but
    UNIX sockets. As the bytes of an array of `struct sock_filter`.

    `clone3` answers "no such call", because its flags lie in memory that a filter cannot read; libraries then use
    `clone`. Raises KeyError on a processor that is not listed.
    """
    machine = platform.machine()
    numbers = dict(_NUMBERS[machine])
    clone, clone3, socket = numbers.pop("clone"), numbers.pop("clone3"), numbers.pop("socket")
    program = [
        (_LOAD, 0, 0, _ARCH),
        (_JEQ, 1, 0, _ARCHITECTURES[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        # The x32 calls of x86-64 have numbers of their own and would pass below the list.
        (_JGE, 0, 1, 0x40000000),
        (_RETURN, 0, 0, _ERRNO | _ENOSYS),
        (_JEQ, 0, 1, clone3),
        (_RETURN, 0, 0, _ERRNO | _ENOSYS),
    ]
    for number in sorted(numbers.values()):
        program += [(_JEQ, 0, 1, number), (_RETURN, 0, 0, _ERRNO | _EPERM)]
    program += [
        (_JEQ, 0, 4, clone),
        (_LOAD, 0, 0, _ARGUMENT_0),
        (_JSET, 0, 1, _CLONE_NEWUSER),
        (_RETURN, 0, 0, _ERRNO | _EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    if not sockets:
        program += [
            (_JEQ, 0, 4, socket),
            (_LOAD, 0, 0, _ARGUMENT_0),
            (_JEQ, 1, 0, _AF_UNIX),
            (_RETURN, 0, 0, _ERRNO | _EACCES),
            (_RETURN, 0, 0, _ALLOW),
        ]
    program.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("HBBI", *instruction) for instruction in program)
