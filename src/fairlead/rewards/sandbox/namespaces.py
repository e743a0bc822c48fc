"""The box: user, process, network, IPC, host-name and mount namespaces with a file system of their own, through the C library.

The program in it is an unprivileged user without capabilities. It sees Python and the shared libraries read-only, its own files in /box,
a small writable /tmp in memory, and nothing else: no home, no /proc, no network, no other process.
"""

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

NOBODY = 65534
_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND, _REC, _PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
_DETACH = 2
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_SYS_MOUNT_SETATTR = 442
"""The same number on every architecture; Linux 5.12."""
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_SIGKILL = 9
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")

libc = ctypes.CDLL(None, use_errno=True)


class _MountAttributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns_fd")]


def _call(name: str, *arguments: object) -> None:
    """Call a function of the C library that returns -1 on failure."""
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def die_with_parent() -> None:
    """Be killed when the thread that started this process ends. To be called anew after every change of user."""
    _call("prctl", _PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)


def forbid_looking_in() -> None:
    """Let no other process of this user trace this one or read its memory."""
    _call("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)


def forbid_privileges() -> None:
    """No program started from here gains privileges by its file."""
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def enter_namespaces() -> bool:
    """Move this process into namespaces of its own; its children are in a process namespace of their own.

    Returns:
        True when root may become nobody inside; False when the one user that there is stands for the caller.
    Raises:
        OSError: the system does not allow it.
    """
    if os.geteuid() == 0:
        with contextlib.suppress(PermissionError):
            _unshare_as_root()
            _forbid_more()
            return True
    user, group = os.geteuid(), os.getegid()
    _call("unshare", _NEWUSER | _NEWPID | _NEWNET | _NEWIPC | _NEWUTS)
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{NOBODY} {user} 1")
    _write("/proc/self/gid_map", f"{NOBODY} {group} 1")
    _forbid_more()
    return False


def _unshare_as_root() -> None:
    """Users 0 and nobody are themselves inside. Only a process outside may write a map of two, so one is forked first."""
    me = os.getpid()
    (wait_go, go), (wait_done, done) = os.pipe(), os.pipe()
    helper = os.fork()
    if helper == 0:
        os.close(go)
        status = 1
        with contextlib.suppress(OSError):
            if os.read(wait_go, 1):
                for name in ("uid_map", "gid_map"):
                    _write(f"/proc/{me}/{name}", f"0 0 1\n{NOBODY} {NOBODY} 1\n")
                status = 0
        os._exit(status)
    try:
        _call("unshare", _NEWUSER | _NEWPID | _NEWNET | _NEWIPC | _NEWUTS)
        os.write(go, b"x")
    finally:
        for pipe in (wait_go, go, wait_done, done):
            os.close(pipe)
        status = os.waitpid(helper, 0)[1]
    if status != 0:
        raise OSError(errno.EINVAL, "the users of the namespace cannot be mapped")


def _forbid_more() -> None:
    """No namespaces within the namespace: they would give capabilities back. The filter of system calls refuses them too."""
    with contextlib.suppress(OSError):
        _write("/proc/sys/user/max_user_namespaces", "0")


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def become_nobody() -> None:
    """Give up the mapped root, groups included."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def change_root(*, readable: Iterable[str], files: Mapping[str, str], max_disk_bytes: int) -> None:
    """Give this process a mount namespace and a root of its own.

    Args:
        readable: folders and files that are there, read-only, at their own paths.
        files: name -> text of what lies in /box, read-only.
        max_disk_bytes: size of /tmp, which is memory.
    """
    _call("unshare", _NEWNS)
    _mount(None, "/", None, _REC | _PRIVATE)
    # Any folder does that holds nothing which is bound below; the mount is seen in this namespace only.
    root = Path(__file__).resolve().parent
    _mount("tmpfs", root, "tmpfs", _NOSUID | _NODEV, f"mode=755,size={1 << 20},nr_inodes=2048")
    for path in (*readable, *_DEVICES):
        _bind(root, path)
    for name in ("box", "tmp"):
        (root / name).mkdir()
    for name, text in files.items():
        (root / "box" / name).write_text(text, encoding="utf-8")
        (root / "box" / name).chmod(0o444)
    _mount(
        "tmpfs", root / "tmp", "tmpfs", _NOSUID | _NODEV | _NOEXEC, f"mode=1777,size={max_disk_bytes},nr_inodes=1024"
    )
    _mount(None, root, None, _REMOUNT | _BIND | _RDONLY | _NOSUID | _NODEV)
    os.chdir(root)
    _call("syscall", _pivot_root_number(), b".", b".")
    _call("umount2", b".", _DETACH)
    os.chdir("/tmp")  # noqa: S108 - the box has its own


def _pivot_root_number() -> int:
    return {"x86_64": 155, "aarch64": 41}[os.uname().machine]


def _bind(root: Path, path: str) -> None:
    """Show a path inside: links as links, the rest read-only; what is not there is left out."""
    source, target = Path(path), root / path.lstrip("/")
    if target.is_symlink() or not source.exists():
        return
    if target.exists() and path not in _DEVICES:  # inside a folder that is there already
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_symlink():
        target.symlink_to(source.readlink())
        return
    if source.is_dir():
        target.mkdir()
    else:
        target.touch()
    _mount(source, target, None, _BIND | _REC)
    is_device = stat.S_ISCHR(source.stat().st_mode)
    _set_attributes(target, _NOSUID | (0 if is_device else _NODEV) | _RDONLY)


def _set_attributes(target: Path, flags: int) -> None:
    """Make a mount and all below it read-only; the bits are those of mount(2) for these three."""
    attributes = _MountAttributes(flags, 0, 0, 0)
    _call(
        "syscall",
        _SYS_MOUNT_SETATTR,
        _AT_FDCWD,
        os.fsencode(target),
        _AT_RECURSIVE,
        ctypes.byref(attributes),
        ctypes.sizeof(attributes),
    )


def _mount(
    source: Path | str | None, target: Path | str, kind: str | None, flags: int, options: str | None = None
) -> None:
    encode: Callable[[object], bytes | None] = lambda value: None if value is None else os.fsencode(str(value))  # noqa: E731
    _call("mount", encode(source), encode(target), encode(kind), ctypes.c_ulong(flags), encode(options))
