"""What a confined process may not do: files, sockets, processes, tracing, memory; and that learning works all the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import labelwright
from labelwright.trust.confine import cgroups, landlock

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="confinement is for Linux")

ROOT = str(Path(labelwright.__file__).parents[1])
BEGIN = """
import ctypes, json, os, sys
os.environ.update(TORCHINDUCTOR_CACHE_DIR="/", JOBLIB_MULTIPROCESSING="0", OMP_NUM_THREADS=MANY)
os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_WAIT_POLICY="passive")
import tempfile; tempfile.tempdir = "/"
from labelwright.trust import confine
held = confine.enter()
def tell(value):
    os.write(1, (json.dumps(value) + "\\n").encode())
def outcome(call):
    try:
        call()
    except BaseException as error:
        return getattr(error, "errno", None) or type(error).__name__
    return "worked"
libc = ctypes.CDLL(None, use_errno=True)
def raw(name, *arguments):
    import pyseccomp
    number = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
    done = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    return ctypes.get_errno() if done < 0 else "worked"
"""


def inside(code: str, *, threads: int = 1, before: list[str] | None = None, **options: object) -> list[object]:
    """What a process of its own tells, line by line, as it confines itself by ``code``."""
    text = BEGIN.replace("MANY", f'"{threads}"') + textwrap.dedent(code)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([ROOT, *(p for p in sys.path if p)])}
    command = [*(before or []), sys.executable, "-c", text]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_confined_process_opens_connects_starts_and_traces_nothing() -> None:
    told = inside("""
        import socket, threading
        left, right = socket.socketpair()
        room = ctypes.create_string_buffer(512)
        held |= confine.confine(confine.Limits(256 << 20))
        tell(held)
        tell({
            "read a file": outcome(lambda: open("/etc/passwd")),
            "write a file": outcome(lambda: open("/tmp/labelwright-escape", "w")),
            "own memory as a file": outcome(lambda: open("/proc/self/mem", "rb")),
            "list a folder": outcome(lambda: os.listdir("/")),
            "remove": outcome(lambda: os.unlink("/tmp/labelwright-escape")),
            "socket": outcome(socket.socket),
            "unix socket": outcome(lambda: socket.socket(socket.AF_UNIX)),
            "fork": outcome(os.fork),
            "exec": outcome(lambda: os.execv("/bin/true", ["true"])),
            "kill the host": outcome(lambda: os.kill(os.getppid(), 0)),
            "thread": outcome(lambda: threading.Thread(target=print).start()),
            "ptrace": raw("ptrace", 0, 0, 0, 0),
            "ptrace attach": raw("ptrace", 16, os.getppid(), 0, 0),
            "process_vm_readv": raw("process_vm_readv", os.getppid(), 0, 0, 0, 0, 0),
            "io_uring_setup": raw("io_uring_setup", 1, 0),
            "bpf": raw("bpf", 0, 0, 0),
            "executable memory": raw("mmap", 0, 4096, 7, 0x22, -1, 0),
            "is a file there": outcome(lambda: os.stat("/etc/passwd")),
            "is a file there, by the call that tells of open ones": raw("newfstatat", -100, ctypes.c_char_p(b"/etc/passwd"), room, 0x1000),
            "statx": raw("statx", -100, ctypes.c_char_p(b"/etc/passwd"), 0, 2047, room),
            "memfd_create": raw("memfd_create", ctypes.c_char_p(b"x"), 0),
            "landlock undone": raw("landlock_create_ruleset", 0, 0, 1),
            "unshare": raw("unshare", 0x10000000),
        })
        os.write(left.fileno(), b"the one socket works")
        tell(os.read(right.fileno(), 100).decode())
    """)
    held, tried, heard = told
    assert isinstance(held, dict) and isinstance(tried, dict)
    assert held["dumpable"] is False and held["syscalls"] > 40 and held["memory"] == "RLIMIT_AS"
    assert held["landlock"] == landlock.version()
    assert tried.pop("thread") == "RuntimeError"  # Python's word for EPERM
    assert set(tried.values()) == {1}, tried
    assert heard == "the one socket works"


def test_before_the_warm_up_nothing_can_be_written_and_no_network_is_there() -> None:
    (tried,) = inside("""
        import socket
        tell([held["network"], outcome(lambda: open("/tmp/labelwright-escape", "w")), outcome(lambda: open("/etc/hostname")),
              outcome(lambda: socket.create_connection(("127.0.0.1", 9), timeout=2)), outcome(lambda: open("/dev/null", "w"))])
    """)
    network, write, read, connect, null = tried  # type: ignore[misc]
    assert read == "worked" and null == "worked"
    if landlock.version():
        assert write == 13
    if "namespace" in network:
        assert connect in (101, 13)  # the network is unreachable


def test_numpy_and_torch_train_inside_with_threads_from_before_the_filter() -> None:
    pytest.importorskip("torch")
    (told,) = inside(
        """
        import numpy as np, torch
        from labelwright.learners.torch_classifier import TorchClassifier
        from labelwright.trust.rehearsal import lean_torch
        lean_torch(2)
        X = np.random.default_rng(0).normal(size=(512, 16)).astype(np.float32)
        y = (X[:, 0] > 0).astype(int)
        def train(epochs):
            return TorchClassifier(epochs=epochs, random_state=0, batch_size=256, precision="float32").fit(X, y)
        train(1).predict(X)
        torch.ones(200_000).add(1)  # a parallel region starts the threads
        before = train(4).predict_proba(X)
        confine.confine(confine.Limits(2 << 30, jit=True))
        after = train(4).predict_proba(X)
        torch.ones(400_000).exp().sum()
        tell([bool((before == after).all()), bool(np.linalg.inv(np.eye(300) * 2)[0, 0] == 0.5), outcome(lambda: open("/etc/passwd"))])
        """,
        threads=2,
    )
    assert told == [True, True, 1]


def test_threads_that_run_before_are_filtered_too() -> None:
    (told,) = inside("""
        import threading
        ready, go, said = threading.Event(), threading.Event(), []
        def other():
            ready.set(); go.wait(); said.append(outcome(lambda: open("/etc/passwd")))
        worker = threading.Thread(target=other); worker.start(); ready.wait()
        confine.confine(confine.Limits(256 << 20))
        go.set(); worker.join(); tell(said)
    """)
    assert told == [1]


def test_memory_beyond_rlimit_as_is_an_error_inside() -> None:
    (told,) = inside("""
        confine.confine(confine.Limits(64 << 20))
        tell([outcome(lambda: bytearray(32 << 20)), outcome(lambda: bytearray(64 << 20))])
    """)
    assert told == ["worked", "MemoryError"]


def test_memory_beyond_a_cgroup_is_the_end() -> None:
    group = cgroups.make(64 << 20)
    if group is None:
        pytest.skip("this user may make no cgroup")
    code = "import sys; sys.stdin.read(1); print('in', flush=True); x = bytearray(128 << 20); print('beyond')"
    try:
        child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        group.add(child.pid)
        out, _ = child.communicate(b".", timeout=60)
        assert (out, child.returncode, group.killed()) == (b"in\n", -9, 1) and group.peak() > 60 << 20
    finally:
        group.remove()
    assert not group.folder.exists()


def test_a_budget_that_is_spent_before_the_work_begins_is_refused_with_the_figures() -> None:
    (told,) = inside("""
        try:
            confine.confine(confine.Limits(1 << 20))
        except Exception as error:
            tell([type(error).__name__, str(error)])
    """)
    kind, sentence = told  # type: ignore[misc]
    assert kind == "RefusedError" and "the budget is 1 MB" in sentence and "raise 'memory'" in sentence


def test_entering_with_threads_is_refused() -> None:
    (told,) = inside("""
        import threading
        stop = threading.Event()
        worker = threading.Thread(target=stop.wait); worker.start()
        try:
            confine.enter()
        except Exception as error:
            tell(str(error))
        stop.set()
    """)
    assert "has 2 threads" in str(told)


@pytest.mark.parametrize(
    ("mounts", "own", "expected"),
    [
        ("cgroup2 /c cgroup2 rw 0 0", "0::/a/b", [("v2", Path("/c/a/b"))]),
        ("c /m cgroup rw,memory 0 0", "4:memory:/x\n0::/", [("v1", Path("/m/x"))]),
        ("c /m cgroup rw,cpu 0 0", "4:cpu:/x", []),
    ],
)
def test_where_cgroups_are_made(tmp_path: Path, mounts: str, own: str, expected: object) -> None:
    (tmp_path / "mounts").write_text(mounts + "\n")
    (tmp_path / "own").write_text(own + "\n")
    assert cgroups._places(str(tmp_path / "mounts"), str(tmp_path / "own")) == expected


HOST = """
import ctypes, json, os, signal, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
code = sys.argv[1]
child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
assert child.stdout.readline() == b"confined\\n"
tried = {}
for name in ("mem", "environ", "maps", "pagemap", "stack", "syscall"):
    try:
        open(f"/proc/{child.pid}/{name}", "rb").read(1); tried[name] = "worked"
    except OSError as error:
        tried[name] = error.errno
try:
    os.readlink(f"/proc/{child.pid}/fd/1"); tried["fd"] = "worked"
except OSError as error:
    tried["fd"] = error.errno
class Part(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]
room = ctypes.create_string_buffer(8)
part = Part(ctypes.addressof(room), 8)
import pyseccomp
def raw(name, *arguments):
    number = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
    done = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) for a in arguments])
    tried[name] = ctypes.get_errno() if done < 0 else "worked"
raw("ptrace", 16, child.pid, 0, 0)
raw("process_vm_readv", child.pid, ctypes.addressof(part), 1, ctypes.addressof(part), 1, 0)
raw("pidfd_getfd", os.pidfd_open(child.pid), 0, 0)
child.send_signal(signal.SIGTRAP)
print(json.dumps([os.getuid(), tried, child.wait(20), os.listdir(".")]))
"""
CONFINED = """
import os, resource
from labelwright.trust import confine
confine.enter()
secret = b"a plaintext row"
confine.confine(confine.Limits(256 << 20))
os.write(1, b"confined\\n")
os.read(0, 1)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become an unprivileged user")
def test_an_unprivileged_host_cannot_trace_or_read_its_learner(tmp_path: Path) -> None:
    """The host is a process of the same unprivileged user as the learner, its parent. Even asked for, there is no core."""
    before = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    probe = [*before, sys.executable, "-c", "import subprocess, sys; subprocess.check_call([sys.executable, '-c', ''])"]
    if subprocess.run(probe, capture_output=True).returncode:  # the interpreter lies in root's own folder
        before += ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
    folder = tmp_path / "of the host"
    folder.mkdir()
    folder.chmod(0o777)
    tmp_path.chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([ROOT, *(p for p in sys.path if p)])}
    limit = 'ulimit -c unlimited; exec "$@"'
    command = ["sh", "-c", limit, "sh", *before, sys.executable, "-c", HOST, CONFINED]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, cwd=folder)
    assert done.returncode == 0, done.stderr
    uid, tried, code, files = json.loads(done.stdout)
    assert uid == 65534 and "worked" not in tried.values() and len(tried) == 10, tried
    assert code == -5 and files == []
