"""The untrusted host: starts the learner, carries ciphertext and messages, keeps what comes out. It holds no key."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import labelwright
from labelwright import errors
from labelwright.errors import RefusedError, TrustError
from labelwright.trust.broker import Send
from labelwright.trust.confine import cgroups
from labelwright.trust.seal import NAME, Store
from labelwright.trust.wire import Handler, Message, SilenceError, Wire, WireError, serve
from labelwright.trust.workload import MEGABYTE, Workload

Collect = Callable[[bytes], Any]
_BLOB = re.compile(rf"v\d{{1,12}}-(\d{{8}}\.chunk|{re.escape(NAME)})|{re.escape(NAME)}")
_RELAYED = re.compile(r"/kbs/v0/[\w./-]{1,400}")
_ROOT = str(Path(labelwright.__file__).parents[1])
_START = "from labelwright.trust.inside import main; main({fd})"


@dataclass
class Host:
    """One run's surroundings on the host's side.

    stores: sealed things by name, to read. outputs: where results go, by name; both hold ciphertext only. send: carries requests to
    the broker. collect: 64 bytes of report data -> evidence. expert: carries a sealed question to the expert and brings the answer.
    progress: told (chunks done, chunks in all). patience: seconds that the learner may be silent, for one chunk's training, before it
    is ended. memory_by: "cgroup" where this user may make one, else "rlimit".
    """

    stores: Mapping[str, Store]
    outputs: Mapping[str, Store]
    send: Send
    collect: Collect
    kind: str = "sim"
    expert: Callable[[bytes], bytes] | None = None
    progress: Callable[[int, int], None] | None = None
    cgroup: bool = True
    patience: float = 3600.0
    tap: Callable[[str, bytes], None] | None = None
    told: dict[str, Any] = field(default_factory=dict)
    _began: float = 0.0

    def run(self, workload: Workload) -> Result:
        """Run the workload confined. Raises RefusedError when it needs more memory than it may have, or TrustError with what the
        learner or the broker refused; whatever was finished before stays as it is."""
        here, there = socket.socketpair()
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            here.setsockopt(
                socket.SOL_SOCKET, option, struct.pack("@ll", int(self.patience), int(self.patience % 1 * 1e6))
            )
        group = cgroups.make(workload.memory) if self.cgroup else None
        with here, there:
            child = subprocess.Popen(
                [sys.executable, "-s", "-c", _START.format(fd=there.fileno())],
                pass_fds=(there.fileno(),), env=environment(workload.threads), cwd="/", start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            there.close()
            try:
                if group is not None:
                    group.add(child.pid)
                result = self._served(Wire(here.fileno()), workload, group is not None)
                return replace(result, told={**result.told, "peak": peak(child.pid)})
            except SilenceError:
                child.kill()
                raise TrustError(
                    f"the learner was silent for {self.patience:g} s and was ended; nothing that was finished before is lost: give it "
                    "more --patience, or seal the data in smaller chunks"
                ) from None
            except WireError as error:
                last = _last_words(Wire(here.fileno()))
                if last is not None:
                    raise _failure(last, workload) from None
                raise self._died(child, group, workload, error) from error
            finally:
                here.close()
                _ended(child)
                if group is not None:
                    group.remove()

    def _served(self, wire: Wire, workload: Workload, cgroup: bool) -> Result:
        wire.send(Message("begin", {"cgroup": cgroup, "tee": self.kind}, workload.canonical))
        last = serve(wire, self.handlers, until=("done", "failed"), silent=("progress",))
        if last.kind == "failed":
            raise _failure(last, workload)
        self.told |= {"seconds": time.monotonic() - self._began, "cpu_seconds": last.number("cpu_ms") / 1000}
        return Result(bytes(last.body), dict(self.told))

    # ------------------------------------------------------------ what the learner asks

    @property
    def handlers(self) -> dict[str, Handler]:
        """What a learner may ask, by kind. Each raises WireError for a message that is none, TrustError for a refusal."""
        return {
            "confined": self._confined, "collect": self._evidence, "relay": self._relay, "chunk": self._chunk, "put": self._put,
            "expert": self._ask, "progress": self._progress,
        }  # fmt: skip

    def _confined(self, message: Message) -> Message:
        self.told["confinement"], self._began = dict(message.fields), time.monotonic()
        return Message("well")

    def _evidence(self, message: Message) -> Message:
        try:
            data = bytes.fromhex(message.text("data", 128))
        except ValueError as error:
            raise WireError("the learner asks for evidence over what is no hexadecimal") from error
        return Message("evidence", {}, self.collect(data).to_json().encode())

    def _relay(self, message: Message) -> Message:
        method, path, headers = message.text("method", 8), message.text("path", 500), message.fields.get("headers")
        if (
            method not in ("GET", "POST")
            or not _RELAYED.fullmatch(path)
            or ".." in path
            or not isinstance(headers, dict)
        ):
            raise WireError(
                f"the learner asks to relay {method[:8]!r} {path[:60]!r}; only requests to the broker are relayed"
            )
        status, answered, body = self.send(
            method, path, {str(k): str(v) for k, v in headers.items()}, bytes(message.body)
        )
        self._seen("broker", body)
        return Message("relayed", {"status": status, "headers": dict(answered)}, body)

    def _chunk(self, message: Message) -> Message:
        store, name = self.stores.get(message.text("id", 64)), _blob(message)
        content = None if store is None else store.read(name)
        self._seen("chunk", content or b"")
        return Message("chunk", {"found": content is not None}, content or b"")

    def _put(self, message: Message) -> Message:
        id, name = message.text("id", 64), _blob(message)
        if id not in self.outputs:
            raise WireError(f"the learner gives {id!r}, which is no result of the workload")
        self.outputs[id].write(name, bytes(message.body))
        self._seen("put", message.body)
        return Message("kept")

    def _ask(self, message: Message) -> Message:
        if self.expert is None:
            raise TrustError(
                "the workload asks an expert, and the host knows of none; write expert = 'http://…' in [host]"
            )
        self._seen("expert", message.body)
        answer = self.expert(bytes(message.body))
        self._seen("expert", answer)
        return Message("answered", {}, answer)

    def _progress(self, message: Message) -> Message:
        if self.progress is not None:
            self.progress(message.number("done"), message.number("of"))
        return Message("well")

    def _seen(self, what: str, content: bytes) -> None:
        if self.tap is not None:
            self.tap(what, bytes(content))

    def _died(self, child: Any, group: cgroups.Group | None, workload: Workload, error: WireError) -> TrustError:
        """Why the other end hung up, as far as the host can tell."""
        code = child.wait(timeout=10) if _hung_up(error) else None
        if group is not None and group.killed():
            return beyond(workload)
        if (
            code in (-signal.SIGABRT, -signal.SIGSEGV) and group is None
        ):  # libraries that do not expect to get no memory
            return beyond(workload)
        if code is not None and code < 0:
            return TrustError(
                f"the learner was ended by {signal.Signals(-code).name}; nothing that was finished is lost: run it again"
            )
        return TrustError(f"the learner broke off: {error}; nothing that was finished before is lost")


@dataclass(frozen=True)
class Result:
    """text: the report as a signed text, by the attested key. told: what the host saw: confinement, peak bytes."""

    text: bytes
    told: Mapping[str, Any]

    @property
    def report(self) -> dict[str, Any]:
        """The report itself. Whoever relies on it checks the signature and the token: :func:`labelwright.trust.report.read`."""
        from labelwright.trust.report import unverified

        return unverified(self.text)


def environment(threads: int) -> dict[str, str]:
    """The learner's whole environment: nothing of the host's own but where the package and its libraries lie."""
    paths = [_ROOT, *(path for path in sys.path if path.endswith(("site-packages", "dist-packages")))]
    return {
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "LANG": "C.UTF-8",
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "OMP_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "MALLOC_ARENA_MAX": "1",
        "JOBLIB_MULTIPROCESSING": "0",
        "TORCHINDUCTOR_CACHE_DIR": "/",
    }


def peak(pid: int) -> int:
    """The most bytes of memory that a process was resident with so far; 0 where the system does not say."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:")), 0)


def beyond(workload: Workload) -> RefusedError:
    """The learner needed more memory than it may have."""
    return RefusedError(
        f"the learner needed more than its {workload.memory // MEGABYTE} MB of memory and was killed; nothing that was finished before is "
        "lost: raise 'memory' in workload.toml (the policy must then name the new digest), or seal the data in smaller chunks"
    )


def _blob(message: Message) -> str:
    name = message.text("name", 60)
    if not _BLOB.fullmatch(name):
        raise WireError(f"the learner asks for {name!r}, which is no sealed blob's name")
    return name


def _failure(last: Message, workload: Workload) -> errors.LabelwrightError:
    reason, sentence = last.text("reason", 40), last.text("sentence")
    if reason == "memory":
        return beyond(workload)
    kind = getattr(errors, reason, TrustError)
    if isinstance(kind, type) and issubclass(kind, errors.LabelwrightError):
        return kind(sentence if reason != "unexpected" else f"the learner failed: {sentence}")
    return TrustError(sentence)


def _last_words(wire: Wire) -> Message | None:
    """Why the learner gave up, said while the host was still sending."""
    try:
        last = wire.receive()
    except WireError:
        return None
    return last if last.kind == "failed" else None


def _hung_up(error: WireError) -> bool:
    return "hung up" in str(error) or "cannot be heard" in str(error)


def _ended(child: Any) -> None:
    try:
        child.wait(timeout=5)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait(timeout=10)


def written(result: Result, folder: Path) -> Path:
    """Write the report: ``report.jws`` as it was signed, ``report.json`` to read. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.jws").write_bytes(result.text)
    (folder / "report.json").write_text(json.dumps(result.report, indent=1, sort_keys=True) + "\n")
    return folder
