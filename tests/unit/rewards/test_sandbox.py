"""The box against programs that mean harm: what each tries does not happen, and nothing of it is left."""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

import fairlead
from fairlead.core.errors import ConfigError, EngineError
from fairlead.rewards.sandbox import Limits, Ran, require_sandbox, run_python, seccomp
from fairlead.rewards.sandbox import run as run_module
from fairlead.rewards.sandbox.run import why_unavailable

boxed = pytest.mark.skipif(bool(why_unavailable()), reason=f"no sandbox: {why_unavailable()}")
QUICK = Limits(wall_s=1.5, cpu_s=1)
"""For programs that hang; others get what a busy machine may need."""
PATIENT = Limits(wall_s=20, cpu_s=20)
OWN = {name: f"{name}-{os.getpid()}" for name in ("time", "daemon", "bomb", "orphan", "bare")}
"""Names of processes that no other run of the tests on this machine gives."""
NAMED = "import ctypes\nctypes.CDLL(None).prctl(15, b'{name}', 0, 0, 0)\n"


def run(code: str, *, limits: Limits = PATIENT, **options: object) -> Ran:
    return run_python({"main.py": code}, limits=limits, **options)  # type: ignore[arg-type]


def named(name: str) -> list[int]:
    """Processes of this machine that gave themselves a name."""
    found = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            if path.read_text().strip() == name:
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def wait_until_gone(name: str) -> list[int]:
    deadline = time.monotonic() + 10
    while (left := named(name)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


@boxed
def test_a_program_runs_with_its_input_and_files():
    code = "import os, sys, helper\nprint(helper.double(int(input())))\nprint('e', file=sys.stderr)\nos.write(3, b'r')\nsys.exit(4)"
    files = {"main.py": "import sys; sys.path.insert(0, '/box')\n" + code, "helper.py": "def double(x): return 2 * x"}
    assert run_python(files, stdin="21\n", limits=PATIENT) == Ran(
        exit=4, signal=None, ended="", stdout="42\n", stderr="e\n", result="r"
    )


@boxed
def test_the_standard_library_is_there():
    ran = run("import json, re, math, decimal, hashlib, ssl, ctypes; print(1)", limits=Limits())
    assert (ran.stdout, ran.exit) == ("1\n", 0), ran


@boxed
def test_what_is_big_goes_through():
    ran = run("import sys\ntext = sys.stdin.read()\nsys.stdout.write(text)", stdin="x" * 900_000)
    assert len(ran.stdout) == 900_000
    assert run("print(1)", stdin="x" * 3_000_000).stdout == "1\n"  # input that is not read is no fault


HANGS = (
    "while True: pass",
    "import time; time.sleep(60)",
    "import signal, time\nfor n in set(range(1, 32)) - {9, 19}: signal.signal(n, signal.SIG_IGN)\nwhile True: time.sleep(1)",
    """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(60)
    os._exit(0)
os.wait(); time.sleep(60)
""",
    "import threading\n[threading.Thread(target=lambda: [None for _ in iter(int, 1)]).start() for _ in range(3)]",
    "import re; re.match('(a+)+$', 'a' * 60 + 'b')",
    "import ctypes, time\nctypes.CDLL(None).prctl(1, 0, 0, 0, 0)\ntime.sleep(60)",
)


@boxed
@pytest.mark.parametrize("code", HANGS)
def test_time_runs_out_and_nothing_is_left(code):
    start = time.monotonic()
    ran = run(NAMED.format(name=OWN["time"]) + code, limits=QUICK)
    assert ran.ended == "time" or ran.signal == signal.SIGKILL
    assert ran.exit is None and time.monotonic() - start < 10
    assert named(OWN["time"]) == []


@boxed
def test_a_daemon_ends_with_the_program():
    code = NAMED.format(name=OWN["daemon"]) + (
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    for fd in range(4): os.close(fd)\n    time.sleep(60)\nprint('left')"
    )
    ran = run(code)
    assert (ran.exit, ran.stdout, ran.ended) == (0, "left\n", "")
    assert named(OWN["daemon"]) == []


@boxed
def test_a_fork_bomb_stays_small():
    code = (
        NAMED.format(name=OWN["bomb"]) + "import os\nwhile True:\n    try: os.fork()\n    except BlockingIOError: pass"
    )
    assert run(code, limits=QUICK).exit is None and named(OWN["bomb"]) == []
    most = """
import os, time
for n in range(1, 99):
    try:
        if os.fork() == 0: time.sleep(60)
    except BlockingIOError: break
print(n, flush=True)
"""
    assert 2 <= int(run(most, limits=Limits(wall_s=20, processes=5)).stdout) <= 5


@boxed
def test_memory_runs_out_inside_only():
    assert "MemoryError" in run("x = bytearray(2 << 30)").stderr
    ran = run(
        "x = []\nwhile True: x.append(bytearray(1 << 20))", limits=Limits(wall_s=10, cpu_s=10, memory_bytes=128 << 20)
    )
    assert "MemoryError" in ran.stderr and ran.exit == 1


@boxed
def test_output_is_cut():
    for target in ("1", "2", "3"):
        ran = run(
            f"import os\nwhile True: os.write({target}, b'x' * 65536)", limits=Limits(wall_s=20, output_bytes=100_000)
        )
        assert ran.ended == "output"
        assert max(len(ran.stdout), len(ran.stderr), len(ran.result)) == 100_000


@boxed
def test_the_disk_is_small():
    """One file (EFBIG, 27), several together (ENOSPC, 28), many empty ones."""
    end = "\nexcept OSError as error: print(i, error.errno)"
    one = "try:\n    i = 0; open('/tmp/x', 'wb').write(b'x' * (1 << 21))" + end
    assert run(one, limits=Limits(wall_s=20, disk_bytes=1 << 20)).stdout == "0 27\n"
    several = "try:\n    for i in range(9): open(f'/tmp/{i}', 'wb').write(b'x' * (1 << 20))" + end
    assert run(several, limits=Limits(wall_s=20, disk_bytes=4 << 20)).stdout == "4 28\n"
    assert run("try:\n    for i in range(9999): open(f'/tmp/n{i}', 'w').close()" + end).stdout.endswith(" 28\n")


@boxed
def test_nothing_outside_is_seen(tmp_path):
    (tmp_path / "secret").write_text("secret")
    places = [tmp_path / "secret", Path(fairlead.__file__), "/etc/passwd", "/etc/shadow", "/proc/1/environ", "/proc/self/environ", "/sys", "/home",
              "/var", "/dev/sda", "/../etc/passwd", "/etc/hostname"]  # fmt: skip
    ran = run(f"import os\nprint([p for p in {[str(p) for p in places]} if os.path.exists(p)])")
    assert ran.stdout == "[]\n"
    assert (
        run("import os\nprint(sorted(os.listdir('/etc') + os.listdir('/dev')))").stdout
        == "['ld.so.cache', 'null', 'urandom', 'zero']\n"
    )


@boxed
def test_nothing_outside_is_written(tmp_path):
    places = [
        tmp_path / "new",
        "/new",
        "/etc/new",
        "/box/new",
        "/box/main.py",
        "/usr/lib/new",
        f"{sys.base_prefix}/lib/new",
        "/dev/new",
    ]
    code = "for p in {places}:\n    try:\n        open(p, 'w'); print(p)\n    except OSError: pass"
    assert run(code.format(places=[str(p) for p in places])).stdout == ""
    assert list(tmp_path.iterdir()) == []


@boxed
def test_there_is_no_network(tmp_path):
    """Not this machine's, nor the host's of a virtual machine (AF_VSOCK, 40), nor the kernel's (AF_NETLINK 16, AF_ALG 38, AF_PACKET 17)."""
    for family in (2, 10, 16, 17, 38, 40):
        code = f"import socket\ntry:\n    socket.socket({family}, 2)\nexcept PermissionError: print('no')"
        assert run(code).stdout == "no\n", family
    with socket.socket(socket.AF_UNIX) as local:
        local.bind(str(tmp_path / "socket"))
        local.listen()
        code = f"import socket\nsocket.socket(socket.AF_UNIX).connect({str(tmp_path / 'socket')!r})"
        assert "FileNotFoundError" in run(code).stderr
    assert run("import socket\na, b = socket.socketpair()\na.send(b'x'); print(b.recv(1))").stdout == "b'x'\n"


@boxed
def test_the_environment_has_no_secrets(monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "secret-value")
    ran = run("import json, os; print(json.dumps(dict(os.environ)))")
    assert "secret-value" not in ran.stdout
    known = {
        "PATH",
        "HOME",
        "TMPDIR",
        "LANG",
        "LC_CTYPE",
        "PYTHONHASHSEED",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONIOENCODING",
    }
    assert set(json.loads(ran.stdout)) <= known
    assert (
        run(
            "import os\nfor i in range(4, 200):\n    try: os.fstat(i); print('open', i)\n    except OSError: pass"
        ).stdout
        == ""
    )


@boxed
def test_privileges_cannot_be_had():
    """Not by user, not by a new namespace, not by tracing the first process, not by mounts."""
    code = "import os\ntry:\n    os.setuid(0)\nexcept PermissionError: print(os.getresuid())"
    assert run(code).stdout == "(65534, 65534, 65534)\n"
    code = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nprint({call}, ctypes.get_errno())"
    calls = (
        "unshare(0x10000000)",
        "mount(b'none', b'/tmp', b'tmpfs', 0, None)",
        "ptrace(16, 1, 0, 0)",
        "chroot(b'/tmp')",
        "setns(0, 0)",
    )
    for call in calls:
        assert run(code.format(call=f"libc.{call}")).stdout == "-1 1\n", call
    held = """
import ctypes
header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)(*[9] * 6)
assert ctypes.CDLL(None).capget(header, data) == 0
print(list(data))
"""
    assert run(held).stdout == "[0, 0, 0, 0, 0, 0]\n"


@boxed
def test_the_first_process_is_not_ended_from_inside():
    code = """
import os, time
for sign in (15, 2, 9):
    try: os.kill(1, sign)
    except PermissionError: pass
time.sleep(0.2)
print('alive')
"""
    assert run(code).stdout == "alive\n"


@boxed
def test_everything_ends_when_the_launcher_is_killed():
    """The program clears its own death signal and ignores all others; the first process of the box takes it along."""
    code = (
        NAMED.format(name=OWN["orphan"])
        + "import os, time\nctypes.CDLL(None).prctl(1, 0, 0, 0, 0)\nos.setsid()\ntime.sleep(60)"
    )
    spec = run_module._spec({"main.py": code}, "", Limits(wall_s=60, cpu_s=60), folder=None)
    launcher = subprocess.Popen(
        run_module.LAUNCHER, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=run_module._environment()
    )
    assert launcher.stdin is not None
    launcher.stdin.write(json.dumps(spec).encode())
    launcher.stdin.close()
    deadline = time.monotonic() + 20
    while not named(OWN["orphan"]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(named(OWN["orphan"])) == 1
    launcher.kill()
    launcher.wait()
    assert wait_until_gone(OWN["orphan"]) == []


@boxed
@pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/usr/bin/python3").exists(),
    reason="needs root, to become somebody else, and the system's Python",
)
def test_a_user_without_privileges_has_the_box_too():
    code = "import os; print(os.getuid(), os.listdir('/box'))\nos.write(3, b'x')\nopen('/etc/new', 'w')"
    spec = run_module._spec({"main.py": code}, "", Limits(), folder=None)
    spec["argv"][0] = os.path.realpath("/usr/bin/python3")
    spec["readable"] = ["/lib", "/lib64", "/usr/bin", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache"]
    ran = subprocess.run(
        ["/usr/bin/python3", *run_module.LAUNCHER[1:]], input=json.dumps(spec), capture_output=True, text=True, timeout=60,
        env=run_module._environment(), user=65534, group=65534, extra_groups=[],
    )  # fmt: skip
    if "Permission denied" in ran.stderr and not ran.stdout:
        pytest.skip("the repository cannot be read by another user")
    report = json.loads(ran.stdout)
    assert (report["stdout"], report["result"], report["exit"]) == ("65534 ['main.py']\n", "x", 1), report
    assert "Read-only" in report["stderr"] or "No such file" in report["stderr"]


def act(program: bytes, number: int, architecture: int, argument: int) -> int:
    """A naive reader of the filter's four kinds of instruction."""
    data = struct.pack("=iIQQ", number, architecture, 0, argument)
    i = value = 0
    while True:
        code, if_true, if_false, k = struct.unpack_from("=HBBI", program, 8 * i)
        i += 1
        if code == 0x20:
            value = struct.unpack_from("=I", data, k)[0]
        elif code == 0x06:
            return k
        else:
            i += if_true if (value == k if code == 0x15 else value >= k) else if_false


@pytest.mark.skipif(not seccomp.is_supported(), reason="the system calls of this machine are not known")
def test_the_filter_refuses_what_it_names_and_nothing_else():
    column, architecture = seccomp._ARCHITECTURES[os.uname().machine]
    program = seccomp.build_filter()
    refused = {numbers[column] for name, numbers in seccomp._CALLS.items() if name != "socket"}
    for number in range(460):
        expected = seccomp._REFUSE if number in refused else seccomp._ALLOW
        if number != seccomp._CALLS["socket"][column]:
            assert act(program, number, architecture, 1) == expected, number
    assert act(program, seccomp._CALLS["socket"][column], architecture, 1) == seccomp._ALLOW
    assert {act(program, seccomp._CALLS["socket"][column], architecture, family) for family in (0, 2, 10, 16, 40)} == {
        seccomp._REFUSE
    }
    assert act(program, 0, 0x40000003, 0) == seccomp._KILL  # 32-bit calls have other numbers
    assert act(program, 0x40000000 | 41, architecture, 2) == seccomp._KILL


def test_where_there_is_no_box_untrusted_code_is_refused(monkeypatch):
    monkeypatch.setattr(run_module, "why_unavailable", lambda: "no namespaces")
    with pytest.raises(
        ConfigError, match=r"sandbox is not to be had on this system \(no namespaces\).*allow_unsandboxed: true"
    ):
        require_sandbox()


def test_the_refusal_holds_the_reason_and_not_another_error(monkeypatch):
    """The box fails in the launcher: one sentence of what, one of what to do."""
    program = 'print(\'{"unavailable": "unshare: Operation not permitted"}\')'
    monkeypatch.setattr(run_module, "LAUNCHER", [sys.executable, "-c", program])
    monkeypatch.setattr(run_module, "why_unavailable", why_unavailable.__wrapped__)  # without what it found before
    if sys.platform == "linux" and seccomp.is_supported():
        with pytest.raises(ConfigError) as caught:
            require_sandbox()
        assert "on this system (unshare: Operation not permitted); expected" in str(caught.value)
        assert str(caught.value).count("; expected") == 1 and "See docs" not in str(caught.value)
    with pytest.raises(
        EngineError, match=r"sandbox cannot be made \(unshare: Operation not permitted\); expected Linux"
    ):
        run("print(1)")


def test_without_the_box_limits_and_the_end_hold(tmp_path):
    """Time, memory, output; processes that left the group; the folder is gone afterwards."""
    ran = run("import os; print(os.getcwd()); open('x', 'w').write('1'); print(open('x').read())", is_boxed=False)
    folder = Path(ran.stdout.splitlines()[0])
    assert ran.exit == 0 and ran.stdout.endswith("1\n") and not folder.exists()
    assert "MemoryError" in run("x = bytearray(2 << 30)", is_boxed=False).stderr
    code = NAMED.format(name=OWN["bare"]) + HANGS[3]
    ran = run(code, limits=QUICK, is_boxed=False)
    assert ran.ended == "time" and wait_until_gone(OWN["bare"]) == []


def test_limits_reach_the_launcher_by_name():
    assert set(asdict(Limits())) == {"wall_s", "cpu_s", "memory_bytes", "processes", "disk_bytes", "output_bytes"}
