"""A filter of system calls for programs in the box: what reaches beyond namespaces is refused with EPERM.

Sockets other than AF_UNIX are among it: a network namespace isolates AF_INET, but AF_VSOCK reaches the host of a virtual machine from any.
So is what is there to look into or to make other processes' worlds, and what has been the kernel's weak side.

Source: the kernel's Documentation/userspace-api/seccomp_filter.rst; numbers from its tables for x86_64 and for aarch64 (generic).
"""

import ctypes
import platform
import struct

_CALLS: dict[str, tuple[int, int]] = {
    "socket": (41, 198), "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "move_mount": (429, 429), "open_tree": (428, 428), "fsopen": (430, 430), "fsmount": (432, 432),
    "mount_setattr": (442, 442), "open_by_handle_at": (304, 265), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "syslog": (103, 116), "acct": (163, 89), "quotactl": (179, 60),
    "swapon": (167, 224), "swapoff": (168, 225), "reboot": (169, 142),
}  # fmt: skip
"""Name -> number on (x86_64, aarch64)."""
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_X32_BIT = 0x40000000
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_KILL, _REFUSE, _ALLOW = 0x80000000, 0x00050000 | 1, 0x7FFF0000
_AF_UNIX = 1
_PR_SET_SECCOMP, _FILTER = 22, 2


def is_supported() -> bool:
    """Are this machine's numbers of system calls known?"""
    return platform.machine() in _ARCHITECTURES


def build_filter() -> bytes:
    """The filter as an array of struct sock_filter {u16 code; u8 jt; u8 jf; u32 k}.

    A jump skips `jt` instructions when it holds and `jf` when not. The data: number at 0, architecture at 4, low half of the first argument at 16.
    """
    column, architecture = _ARCHITECTURES[platform.machine()]
    program = [(_LOAD, 0, 0, 4), (_JUMP_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    program += [(_JUMP_AT_LEAST, 0, 1, _X32_BIT), (_RETURN, 0, 0, _KILL)]
    for name, numbers in _CALLS.items():
        if name != "socket":
            program += [(_JUMP_EQUAL, 0, 1, numbers[column]), (_RETURN, 0, 0, _REFUSE)]
    program += [
        (_JUMP_EQUAL, 0, 3, _CALLS["socket"][column]),
        (_LOAD, 0, 0, 16),
        (_JUMP_EQUAL, 1, 0, _AF_UNIX),
        (_RETURN, 0, 0, _REFUSE),
    ]
    program += [(_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def apply_filter(libc: ctypes.CDLL) -> None:
    """Put the filter on this process and all that it starts. It must have no-new-privileges set.

    Raises:
        OSError: the kernel has no seccomp.
    """
    code = build_filter()
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer))
    if libc.prctl(_PR_SET_SECCOMP, _FILTER, ctypes.c_char_p(header), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "seccomp")
