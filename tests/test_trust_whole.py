"""The whole path of trusted execution on one machine, with a host that is a user of its own and looks wherever it can."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from broker_help import call
from helpers import call_cli
from test_trust_confine import ROOT
from test_trust_evidence_attesters import Mount, tsm  # noqa: F401  (a fixture)
from test_trust_run import broker_url, toml  # noqa: F401  (a fixture)
from test_trust_run_cli import tpm  # noqa: F401  (a fixture)
from trust_run_help import Estate, blobs, now
from trust_vendors import FROZEN

from labelwright.errors import SealError
from labelwright.trust import chain, expert, report, tier
from labelwright.trust.answering import serve
from labelwright.trust.seal import Folder, jwk_of, open_model, reader

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="confinement is for Linux")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become an unprivileged user")
N, CHUNK = 600, 200
HOST = 64217  # a user of the host's own: nobody else's files are its
Url = Callable[[Any], str]
SPY = """
import errno, json, os, signal, sys
sys.path[:0] = json.loads(sys.argv[1])
from pathlib import Path
from labelwright.cli import main
from labelwright.trust import broker, host, wire
folder, fatal = Path(sys.argv[2]), sys.argv[3] == "kill"
traffic, looked = bytearray(), {}
read, write = wire.Wire._read, wire.Wire._write
def heard(self, count):
    content = read(self, count)
    traffic.extend(content)
    return content
def said(self, data):
    traffic.extend(data)
    write(self, data)
wire.Wire._read, wire.Wire._write = heard, said
http_send = broker.http_send
def tapped(*arguments, **options):
    send = http_send(*arguments, **options)
    def carried(*request):
        answer = send(*request)
        traffic.extend(repr((request[:3], answer[:2])).encode() + request[3] + answer[2])
        return answer
    return carried
broker.http_send = tapped
def look(self, message):
    (pid,) = [int(p) for p in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()][-1:]
    for name in ("environ", "mem", "maps", "stack", "auxv"):
        try:
            looked[name] = open(f"/proc/{pid}/{name}", "rb").read(100).hex()
        except OSError as error:
            looked[name] = errno.errorcode[error.errno]
    if fatal:
        os.kill(pid, signal.SIGTRAP)  # as SIGQUIT asks for a dump, and no shell had it ignored
    return wire.Message("well")
host.Host._progress = look
sys.argv = ["labelwright", "trust", "run", str(folder / "workload.toml"), "--output", str(folder)]
try:
    main()
finally:
    cores = [str(path) for place in (folder, Path("/"), Path.cwd()) for path in place.glob("*core*")]
    (folder / "traffic").write_bytes(traffic)
    (folder / "environment").write_text(json.dumps(dict(os.environ)))
    (folder / "looked").write_text(json.dumps([os.getuid(), looked, cores]))
"""


@pytest.fixture
def estate(tmp_path: Path) -> Estate:
    """600 rows in three chunks, the first of them clean."""
    made = Estate(tmp_path / "owner")
    X, y, given = blobs(N)
    clean = np.arange(N) < CHUNK
    rows = {"X": X, "given": np.where(clean, y, given), "keys": np.arange(N) + 7000, "clean": clean}
    made.seal([rows], rows=CHUNK)
    made.store = tmp_path / "host"
    shutil.copytree(tmp_path / "owner" / "host", made.store)
    return made


@pytest.fixture
def expert_url() -> Iterator[Callable[[Any], str]]:
    """A function that lets an expert listen on a free port of this machine until the test is over."""
    places: list[socket.socket] = []

    def listen(end: Any) -> str:
        place = socket.create_server(("127.0.0.1", 0))
        places.append(place)
        threading.Thread(target=serve, args=(place, end), daemon=True).start()
        return f"http://127.0.0.1:{place.getsockname()[1]}/"

    yield listen
    for place in places:
        place.close()


def as_host(folder: Path, *, fatal: bool = False) -> subprocess.CompletedProcess[str]:
    """``labelwright trust run`` by the host's own user, who records all it can see; core dumps as large as they like."""
    for path in [folder, *folder.rglob("*")]:
        shutil.chown(path, HOST, HOST)
    folder.chmod(0o700)
    for parent in folder.parents[:3]:  # pytest's own folders are root's
        parent.chmod(parent.stat().st_mode | 0o011)
    before = ["setpriv", "--reuid", str(HOST), "--regid", str(HOST), "--clear-groups"]
    probe = [*before, sys.executable, "-c", "import subprocess, sys; subprocess.check_call([sys.executable, '-c', ''])"]
    if subprocess.run(probe, capture_output=True).returncode:  # the interpreter lies in root's own folder
        before += ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
    paths = json.dumps([ROOT, *(p for p in sys.path if p)])
    command = ["sh", "-c", 'ulimit -c unlimited; exec "$@"', "sh", *before, sys.executable, "-c", SPY]
    command += [paths, str(folder), "kill" if fatal else "look"]
    environment = {**os.environ, "HOME": str(folder), "TMPDIR": str(folder)}
    return subprocess.run(command, capture_output=True, text=True, timeout=180, cwd=folder, env=environment)


def spelled(secret: bytes) -> list[bytes]:
    """A secret as it may stand in files and messages."""
    return [secret, secret.hex().encode(), base64.b64encode(secret)[:-2], base64.urlsafe_b64encode(secret)[:-2]]


def secrets_of(estate: Estate, opened: list[bytes]) -> list[bytes]:
    """Every row, every key, and what was opened of the results: nothing of it may be where the host can look."""
    X, _, _ = blobs(N)
    found = [part for row in X for part in (row.tobytes(), row[:2].tobytes(), row[-2:].tobytes())]
    for name in estate.keys.names():
        held = estate.keys.get(name)
        if "/signer/" not in name and held is not None:
            found += spelled(held.content)
    return found + [
        content[at : at + 48]
        for content in opened
        for at in range(0, len(content) - 48, 48)
        if any(content[at : at + 48])
    ]


def leaked(secrets: list[bytes], everything: bytes) -> list[bytes]:
    """Which of the secrets stand there."""
    return [secret for secret in secrets if secret in everything]


def host_files(folder: Path) -> bytes:
    """Every file that the host can read of its own, one after the other."""
    return b"\0".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


@as_root
@pytest.mark.parametrize(("mode", "kind"), [("rad-duo", "tpm"), ("qal", "sim"), ("judge", "sim")])
def test_a_host_of_its_own_user_carries_everything_and_finds_nothing(
    estate: Estate, mode: str, kind: str, request: pytest.FixtureRequest, broker_url: Url, expert_url: Url, capsys: Any  # noqa: F811
) -> None:  # fmt: skip
    """Seal, broker, quote, verify, key, confined work, sealed results that their owner opens."""
    X, y, given = blobs(N)
    where = {"data": "rows", "models": ".", "evidence": kind}
    if kind == "tpm":
        pytest.importorskip("torch")
        tcti, enrolled, estate.policy = request.getfixturevalue("tpm")
        shutil.copytree(enrolled, estate.store / "tpm")
        where |= {"tpm": "tpm", "tcti": tcti}
    if mode == "judge":
        from sklearn.linear_model import LogisticRegression

        for id in ("quality", "classifier"):
            estate.seal_model(id, tier.write(tier.of_estimator(LogisticRegression().fit(X, given))))
    workload = estate.workload(mode, {"rad-duo": "1 GB", "qal": "512 MB"}.get(mode, "64 MB"), **_learn(mode))
    app = estate.broker(workload)
    where["broker"] = broker_url(app)
    if mode == "qal":
        end = expert.Expertise(
            estate.expert_key, jwk_of(estate.keys.broker_key), lambda asked: y[asked["keys"] - 7000], now, workloads=[workload.digest],
        )  # fmt: skip
        where["expert"] = expert_url(end)
    (estate.store / "workload.toml").write_text(toml(type(workload).of({**workload.tables, "host": where})))

    done = as_host(estate.store)
    assert done.returncode == 0, done.stderr
    assert (
        f"isolation: none ({kind} evidence): root on the host can read the learner's memory: rows, keys, models"
        in done.stdout
    )
    uid, looked, cores = json.loads((estate.store / "looked").read_text())
    assert uid == HOST and set(map(str, looked.values())) <= {"EACCES", "EPERM"} and len(looked) == 5, looked
    told = report.read((estate.store / "report.jws").read_bytes(), jwk_of(estate.keys.broker_key), now=now())
    assert (told["evidence"], told["status"], told["isolation"]) == (kind, "warning", "none")
    manifest, key = estate.opened("decided")
    assert report.matches(told, manifest, key, Folder(estate.store / "decided")) == 3
    entries = chain.opened(manifest, key, reader(manifest, Folder(estate.store / "decided")))
    assert [entry["keys"][0] for _, entry in entries] == [7000, 7200, 7400]
    opened = [entry["score"].tobytes() for _, entry in entries]
    if mode != "judge":  # the learned model, by its owner
        manifest, key = estate.opened("learned")
        opened.append(open_model(manifest, key, Folder(estate.store / "learned")))
        with pytest.raises(SealError):  # by its owner only
            open_model(manifest, os.urandom(32), Folder(estate.store / "learned"))
        assert call(app, "GET", "/kbs/v0/resource/default/key/learned", {}, b"")[0] == 401
        fresh, truth, _ = blobs(300, seed=5)
        assert (tier.read(opened[-1])[0].judge(fresh)[0].argmax(axis=1) == truth).mean() > 0.95

    secrets, seen = secrets_of(estate, opened), host_files(estate.store) + (done.stdout + done.stderr).encode()
    assert not cores and len(seen) > 50_000 and not leaked(secrets, seen)
    for secret in (secrets[5], secrets[-1]):  # the search finds what is there
        assert leaked(secrets, seen + secret)
    with capsys.disabled():
        print(
            f"\n{mode}, {kind} evidence: of {len(secrets):,} secrets none in {len(seen):,} bytes that user {uid} could read"
        )
        print(f"of the learner it saw {looked}\n{done.stdout.rstrip()}")
    if mode == "qal":
        shot(estate, opened[-1])


def shot(estate: Estate, model: bytes) -> None:
    """A second run whose learner its host shoots: the signal asks for a dump, and the host's limit allows one. There is none, and the
    model that was sealed before is still the newest."""
    done = as_host(estate.store, fatal=True)
    assert done.returncode == 2 and "ended by SIGTRAP" in done.stderr and done.stderr.count("\n") == 1
    assert json.loads((estate.store / "looked").read_text())[2] == []
    assert not leaked(secrets_of(estate, [model]), host_files(estate.store))
    manifest, key = estate.opened("learned")
    assert open_model(manifest, key, Folder(estate.store / "learned")) == model and manifest.version == 1


def _learn(mode: str) -> dict[str, Any]:
    return {"rad-duo": {"learn": {"epochs": 4}}, "qal": {"learn": {"questions": 6}}}.get(mode, {})


@as_root
def test_root_on_the_host_reads_the_rows_which_is_why_it_says_isolation_none(estate: Estate) -> None:
    """No encryption of memory, no isolation: what the sandbox cannot keep from root, and what only a TEE does."""
    from sklearn.linear_model import LogisticRegression

    X, _, given = blobs(N)
    estate.seal_model("classifier", tier.write(tier.of_estimator(LogisticRegression().fit(X, given))))
    workload, found = estate.workload("predict"), list[bool]()

    def look(done: int, of: int) -> None:
        (pid,) = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()[-1:]
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
                start, end = (int(part, 16) for part in line.split()[0].split("-"))
                if line.split()[1].startswith("rw"):
                    try:
                        memory.seek(start)
                        found.append(X[(done - 1) * CHUNK].tobytes() in memory.read(end - start))
                    except OSError:
                        continue

    try:
        result = estate.host(workload, progress=look).run(workload)
    except PermissionError as error:
        pytest.skip(f"root may not read another's memory here ({error.strerror})")
    assert result.report["isolation"] == "none"
    assert any(found), "root could not read the learner's memory"


def test_a_quote_of_tdx_under_a_tests_root_from_the_kernels_interface_to_the_model(
    estate: Estate, tsm: Mount, broker_url: Url  # noqa: F811
) -> None:  # fmt: skip
    """``trust run`` on a machine whose configfs-tsm is a stand-in: a nonce-bound quote, signed anew under the test's own root."""
    root = tsm("tdx")
    workload = estate.workload("qal", "512 MB", learn={"questions": 0})
    text = 'kinds = ["tdx"]\naccept = ["affirming", "warning"]\nworkloads = ["{digest}"]\n[tdx]\ntcb = ["UpToDate"]\n'
    where = {"data": "rows", "evidence": "tdx", "tsm": str(root), "collateral": str(root.parent / "collateral.json")}
    end = expert.Expertise(
        estate.expert_key, jwk_of(estate.keys.broker_key), lambda asked: asked["given"], lambda: FROZEN["tdx"]
    )

    def ran(policy: str, **options: Any) -> subprocess.CompletedProcess[str]:
        estate.policy = policy
        url = broker_url(estate.broker(workload, **options))
        tables = {**workload.tables, "host": {**where, "broker": url, "expert": end_url}}
        (estate.store / "workload.toml").write_text(toml(type(workload).of(tables)))
        return call_cli("trust", "run", estate.store / "workload.toml", "--output", estate.store)

    place = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, args=(place, end), daemon=True).start()
    end_url = f"http://127.0.0.1:{place.getsockname()[1]}/"
    frozen = {"clock": lambda: FROZEN["tdx"]}
    done = ran(text, **frozen)
    assert done.returncode == 2 and "does not end in Intel's root" in done.stderr
    own = f'{text}test_roots = ["{root.parent / "root.pem"}"]\n'
    assert not (estate.store / "learned" / "manifest.jws").exists()
    done = ran(own, **frozen)
    assert done.returncode == 0, done.stderr
    assert "isolation: none (tdx evidence)" in done.stdout  # a test's own root proves nothing
    told = report.read((estate.store / "report.jws").read_bytes(), jwk_of(estate.keys.broker_key), now=FROZEN["tdx"])
    assert (told["evidence"], told["status"], told["isolation"]) == ("tdx", "warning", "none")
    manifest, key = estate.opened("learned")
    assert tier.read(open_model(manifest, key, Folder(estate.store / "learned")))[0].classes == 3
    place.close()
