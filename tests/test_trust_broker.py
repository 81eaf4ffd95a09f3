"""The key broker: keys to what the verifier affirms, once a nonce, for one key and one workload, and to nobody else."""

from __future__ import annotations

import base64
import json
import logging
import stat
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cryptography")
pytest.importorskip("fastapi")

from broker_help import PASSPHRASE, WORKLOAD, Clock, Policy, believe, call, collect, no_token, served

from labelwright.errors import EvidenceError, RefusedError, SealError, SettingsError, TrustError
from labelwright.trust import seal
from labelwright.trust.broker import Client, KeyFolder, Limits, create_app, http_send, keyfolder
from labelwright.trust.broker.jwe import DIRECT, WRAPPED, decrypted, encrypted
from labelwright.trust.broker.keyfolder import key_from
from labelwright.trust.evidence import canonical_key, report_data

SECRET = b"a secret of thirty-two bytes ...."
NAME = "default/key/reviews"
MANY = Limits(rate=1e6, burst=10**6)


class Place:
    """A broker and what a test does with it."""

    def __init__(self, path: Path, **options: Any):
        self.keys = KeyFolder(path, PASSPHRASE)
        self.keys.put(NAME, SECRET)
        self.clock = Clock()
        given = {"verify": believe, "token": no_token, "clock": self.clock, "limits": MANY, **options}
        self.app = create_app(self.keys, Policy(), **given)
        self.pin = seal.jwk_of(self.keys.broker_key)
        self.log: list[tuple[str, str, Mapping[str, str], bytes, tuple[int, Mapping[str, str], bytes]]] = []

    def send(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Any:
        answer = call(self.app, method, path, headers, body)
        self.log.append((method, path, headers, body, answer))
        return answer

    def client(self, **options: Any) -> Client:
        return Client(options.get("send", self.send), options.get("pinned", self.pin))


@pytest.fixture(autouse=True)
def quick_passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyfolder, "SCRYPT", {"n": 1 << 8, "r": 8, "p": 1})


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "keys")


def test_an_attested_learner_gets_its_key(place: Place) -> None:
    client = place.client()
    assert client.keys(collect, WORKLOAD, [NAME]) == {NAME: SECRET} and client.token == "token"
    traffic = b"".join(body + answer[2] for *_, body, answer in place.log)
    assert SECRET not in traffic and base64.b64encode(SECRET)[:40] not in traffic
    with pytest.raises(RefusedError, match=r"\(404\): there is no secret default/key/other"):
        client.resource("default/key/other")


def test_the_messages_are_those_of_trustee(place: Place) -> None:
    place.client().keys(collect, WORKLOAD, [NAME])
    (m1, p1, _, b1, a1), (m2, p2, h2, b2, a2), (m3, p3, h3, _, a3) = place.log
    assert (m1, p1, m2, p2) == ("POST", "/kbs/v0/auth", "POST", "/kbs/v0/attest")
    assert (m3, p3) == ("GET", f"/kbs/v0/resource/{NAME}")
    assert {"version", "tee", "extra-params"} == set(json.loads(b1)) and set(json.loads(a1[2])) == {
        "nonce",
        "extra-params",
    }
    cookie = a1[1]["set-cookie"].split(";")[0]
    assert cookie.startswith("kbs-session-id=") and h2["cookie"] == h3["cookie"] == cookie
    said = json.loads(b2)
    assert set(said) == {"init-data", "runtime-data", "tee-evidence"}
    assert set(said["runtime-data"]) == {"nonce", "tee-pubkey"}
    assert set(said["runtime-data"]["tee-pubkey"]) == {"kty", "crv", "alg", "x", "y"}
    assert set(json.loads(a2[2])) == {"token"}
    assert set(json.loads(a3[2])) == {"protected", "encrypted_key", "iv", "ciphertext", "tag"}


@pytest.mark.parametrize("algorithm", [WRAPPED, DIRECT])
def test_another_implementation_reads_our_messages_and_we_read_its(algorithm: str) -> None:
    jose = pytest.importorskip("joserfc.jwe")
    from joserfc.jwk import ECKey

    theirs = ECKey.generate_key("P-256")
    message = encrypted(SECRET, theirs.as_dict(private=False), algorithm=algorithm)
    compact = ".".join(message[n] for n in ("protected", "encrypted_key", "iv", "ciphertext", "tag"))
    assert jose.decrypt_compact(compact, theirs, algorithms=[algorithm, "A256GCM"]).plaintext == SECRET
    ours = seal.new_key()
    text = jose.encrypt_compact(
        {"alg": algorithm, "enc": "A256GCM"},
        SECRET,
        ECKey.import_key(seal.jwk_of(ours)),
        algorithms=[algorithm, "A256GCM"],
    )
    parts = dict(zip(("protected", "encrypted_key", "iv", "ciphertext", "tag"), text.split("."), strict=True))
    assert decrypted(ours, parts) == SECRET
    for name, value in parts.items():
        for bent in (value[:-2], value[1:], "A" + value[1:] if not value.startswith("A") else "B" + value[1:], 7, None):
            if bent != value:
                with pytest.raises(TrustError, match="does not open"):
                    decrypted(ours, {**parts, name: bent})


# ---------------------------------------------------------------- attacks


def begun(place: Place) -> tuple[str, bytes]:
    """(cookie, nonce) of a new session."""
    status, headers, body = place.send(
        "POST", "/kbs/v0/auth", {"content-type": "application/json"}, b'{"version":"0.4.0","tee":"tdx"}'
    )
    assert status == 200
    return headers["set-cookie"].split(";")[0], base64.b64decode(json.loads(body)["nonce"])


def attested(
    place: Place, cookie: str, nonce: bytes, *, key: Any = None, claimed: Any = None, made_for: bytes | None = None,
    digest: bytes = WORKLOAD, claimed_digest: bytes | None = None, shown: bytes | None = None,
) -> tuple[int, str]:  # fmt: skip
    """(status, detail): evidence for one nonce, key and digest, shown with others."""
    key = key or seal.new_key()
    evidence = collect(report_data(made_for or nonce, canonical_key(dict(seal.jwk_of(key))), digest))
    message = {
        "init-data": {"format": "workload", "body": (claimed_digest or digest).hex()},
        "runtime-data": {"nonce": base64.b64encode(shown or nonce).decode(), "tee-pubkey": seal.jwk_of(claimed or key)},
        "tee-evidence": {"primary_evidence": json.loads(evidence.to_json())},
    }
    headers = {"content-type": "application/json", "cookie": cookie}
    status, _, body = place.send("POST", "/kbs/v0/attest", headers, json.dumps(message).encode())
    return status, json.loads(body).get("detail", "")


def fetched(place: Place, cookie: str) -> int:
    return int(place.send("GET", f"/kbs/v0/resource/{NAME}", {"cookie": cookie}, b"")[0])


def test_a_nonce_is_good_once(place: Place) -> None:
    cookie, nonce = begun(place)
    assert attested(place, cookie, nonce) == (200, "")
    status, why = attested(place, cookie, nonce)
    assert status == 401 and "was used" in why


def test_a_failed_try_uses_up_the_nonce(place: Place) -> None:
    cookie, nonce = begun(place)
    assert attested(place, cookie, nonce, made_for=bytes(32))[0] == 401
    assert attested(place, cookie, nonce)[0] == 401 and fetched(place, cookie) == 401


def test_an_expired_nonce_is_refused(place: Place) -> None:
    cookie, nonce = begun(place)
    place.clock.forward(61)
    status, why = attested(place, cookie, nonce)
    assert status == 401 and "expired" in why and fetched(place, cookie) == 401


def test_a_nonce_of_another_session_is_refused(place: Place) -> None:
    (cookie, _), (_, nonce) = begun(place), begun(place)
    assert attested(place, cookie, nonce)[0] == 401
    assert attested(place, "kbs-session-id=" + "0" * 32, nonce)[0] == 401


def test_evidence_for_another_key_is_refused(place: Place) -> None:
    cookie, nonce = begun(place)
    status, why = attested(place, cookie, nonce, claimed=seal.new_key())
    assert status == 401 and "another nonce, key or workload" in why and fetched(place, cookie) == 401


def test_evidence_for_another_workload_is_refused(place: Place) -> None:
    cookie, nonce = begun(place)
    status, why = attested(place, cookie, nonce, digest=bytes(32))
    assert status == 401 and "not one of the policy's" in why
    cookie, nonce = begun(place)
    status, why = attested(place, cookie, nonce, digest=bytes(32), claimed_digest=WORKLOAD)
    assert status == 401 and "another nonce, key or workload" in why and fetched(place, cookie) == 401


def test_a_session_ends(place: Place) -> None:
    cookie, nonce = begun(place)
    attested(place, cookie, nonce)
    assert fetched(place, cookie) == 200
    place.clock.forward(601)
    assert fetched(place, cookie) == 401


def test_a_learner_whose_session_ended_while_it_worked_attests_again_with_the_same_key(place: Place) -> None:
    client, times = place.client(), list[bytes]()

    def counted(data: bytes) -> Any:
        times.append(data)
        return collect(data if len(times) < 3 else bytes(64))

    with pytest.raises(SettingsError, match="nothing was attested"):
        client.key  # noqa: B018
    client.attest(counted, WORKLOAD)
    key = client.key
    place.clock.forward(601)
    assert client.resource(NAME) == SECRET and client.key is key and len(set(times)) == 2
    place.clock.forward(601)
    with pytest.raises(RefusedError, match=r"\(401\).*another nonce"):  # and once only
        client.resource(NAME)
    assert len(times) == 3


def test_a_secret_for_one_workload_is_not_for_another(place: Place) -> None:
    place.keys.put("default/key/other", b"x", workloads=("00" * 32,))
    place.keys.put("default/key/mine", b"x", workloads=(WORKLOAD.hex(),))
    client = place.client()
    assert client.keys(collect, WORKLOAD, ["default/key/mine"]) == {"default/key/mine": b"x"}
    with pytest.raises(RefusedError, match=r"\(403\).*not for this workload"):
        client.resource("default/key/other")


# ---------------------------------------------------------------- a host that lies


def lying(
    place: Place, change: Callable[[str, str, int, dict[str, str], bytes], tuple[int, dict[str, str], bytes]]
) -> Any:
    def send(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Any:
        status, got, answer = place.send(method, path, headers, body)
        return change(method, path, status, dict(got), answer)

    return send


def test_a_host_that_plays_the_broker_is_refused(place: Place, tmp_path: Path) -> None:
    other = Place(tmp_path / "impostor")
    with pytest.raises(TrustError, match="not signed by the broker's pinned key"):
        place.client(send=other.send).keys(collect, WORKLOAD, [NAME])
    assert len(other.log) == 1  # no evidence was shown to it
    unsigned = lying(place, lambda m, p, s, h, b: (s, {k: v for k, v in h.items() if k != "labelwright-signature"}, b))
    with pytest.raises(TrustError, match="not signed"):
        place.client(send=unsigned).keys(collect, WORKLOAD, [NAME])


@pytest.mark.parametrize("at", ["auth", "attest", "resource"])
@pytest.mark.parametrize("what", ["body", "status", "session", "replayed"])
def test_a_host_that_alters_or_repeats_an_answer_is_refused(place: Place, at: str, what: str) -> None:
    place.client().keys(collect, WORKLOAD, [NAME])
    old = {path.split("/")[3]: answer for _, path, _, _, answer in place.log}

    def change(method: str, path: str, status: int, headers: dict[str, str], body: bytes) -> Any:
        if f"/{at}" not in path:
            return status, headers, body
        if what == "replayed":
            return old[at]
        if what == "session":
            return status, {**headers, "set-cookie": "kbs-session-id=" + "a" * 32}, body
        return (status, headers, body + b" ") if what == "body" else (500, headers, body)

    with pytest.raises(TrustError, match="not signed by the broker's pinned key"):
        place.client(send=lying(place, change)).keys(collect, WORKLOAD, [NAME])


def test_without_a_pin_the_answers_are_still_only_read_by_the_learner(place: Place) -> None:
    assert Client(place.send, None).keys(collect, WORKLOAD, [NAME]) == {NAME: SECRET}
    for answer in [
        (200, {}, b"[]"),
        (200, {}, b"{}"),
        (500, {}, b"<html>"),
        (200, {}, b"\xff" * 9),
        (200, {}, b"[" * 10**5),
    ]:
        with pytest.raises(TrustError):
            Client(lambda *_, answer=answer: answer, None).keys(collect, WORKLOAD, [NAME])


# ---------------------------------------------------------------- versions of sealed models


def learner(place: Place) -> tuple[Client, Any, bytes]:
    client = place.client()
    got = client.keys(collect, WORKLOAD, ["default/key/m", "default/signing-key/m"])
    return client, key_from(got["default/signing-key/m"]), got["default/key/m"]


def test_a_learner_writes_the_next_version_and_an_old_one_is_refused(place: Place) -> None:
    place.keys.prepare_model("m")
    stores = [seal.Memory(), seal.Memory()]
    for number, store in enumerate(stores, 1):
        client, signer, key = learner(place)
        assert client.version("m").number == number - 1
        made = seal.seal_model(b"weights %d" % number, store, key=key, signing_key=signer, id="m", version=number)
        assert client.advance(made) == number
    client, signer, key = learner(place)
    newest = client.version("m")
    assert (newest.number, newest.digest) == (2, made.digest)
    jwk = json.loads(client.resource("default/signer/m"))
    now = seal.Manifest.read(stores[1][seal.NAME], jwk, version=newest.number)
    assert seal.open_model(now, key, stores[1]) == b"weights 2"
    with pytest.raises(SealError, match="rolled back: got version 1, expected 2"):
        seal.Manifest.read(stores[0][seal.NAME], jwk, version=newest.number)
    forked = seal.seal_model(b"fork", seal.Memory(), key=key, signing_key=signer, id="m", version=2)
    now.check_newest(newest.number, newest.digest)
    with pytest.raises(SealError, match="another sealing of 'm' version 2"):
        forked.check_newest(newest.number, newest.digest)
    with pytest.raises(SealError, match="never counted by the broker, whose newest is 1"):
        forked.check_newest(1)
    with pytest.raises(RefusedError, match=r"\(409\).*version 2 of 'm' was offered where 3 comes next"):
        client.advance(forked)


def test_the_host_cannot_raise_a_version(place: Place) -> None:
    """It sees the session's cookie and may repeat or alter what the learner sent; without the ticket nothing moves."""
    place.keys.prepare_model("m")
    client, signer, key = learner(place)
    made = seal.seal_model(b"w", seal.Memory(), key=key, signing_key=signer, id="m", version=1)
    client.advance(made)
    method, path, headers, body, _ = place.log[-1]
    assert path == "/kbs/v0/resource/default/version/m"
    assert place.send(method, path, headers, body)[0] == 403  # again
    client.version("m")  # a new ticket waits
    said = json.loads(body)
    for bent in (
        {**said, "version": 2},
        {**said, "version": 2, "mac": ""},
        {**said, "digest": "0" * 64},
        {**said, "mac": "é"},
    ):
        assert place.send(method, path, headers, json.dumps(bent).encode())[0] == 403
    assert place.keys.versions.current("m").number == 1
    assert place.send(method, path, {**headers, "cookie": ""}, body)[0] == 401
    assert place.send(method, f"/kbs/v0/resource/{NAME}", headers, body)[0] == 403
    with pytest.raises(RefusedError, match="not a model that learners may write"):
        client.advance(seal.seal_data([{"X": [1]}], seal.Memory(), key=key, signing_key=signer, id="reviews"))


# ---------------------------------------------------------------- keys at rest, logs


def test_no_key_on_disk_or_in_logs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    place = Place(tmp_path / "keys")
    place.keys.prepare_model("m")
    key = place.keys.data_key("reviews")
    assert key == SECRET
    client, signer, model_key = learner(place)
    client.resource(NAME)
    begun_cookie, _ = begun(place)
    attested(place, begun_cookie, bytes(32))
    scalar = signer.private_numbers().private_value.to_bytes(32, "big")
    owner = place.keys.owner_key.private_numbers().private_value.to_bytes(32, "big")
    written = b"".join(file.read_bytes() for file in (tmp_path / "keys").iterdir())
    told = caplog.text.encode() + repr([place.keys.get(n) for n in place.keys.names()]).encode()
    for secret in (key, model_key, scalar, owner, PASSPHRASE.encode()):
        for spelt in (
            secret,
            secret.hex().encode(),
            base64.b64encode(secret)[:-4],
            base64.urlsafe_b64encode(secret)[:-4],
        ):
            assert spelt not in written and spelt not in told
    assert "POST /kbs/v0/attest 200" in caplog.text
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in (tmp_path / "keys").iterdir())
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700


def test_the_folder_of_keys_refuses_what_is_wrong(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path / "k", PASSPHRASE)
    folder.put(NAME, SECRET)
    folder.put("default/key/b", b"b")
    assert KeyFolder(tmp_path / "k", PASSPHRASE).get(NAME).content == SECRET  # type: ignore[union-attr]
    with pytest.raises(SettingsError, match="passphrase is not the one"):
        KeyFolder(tmp_path / "k", "another")
    for bad in ("a/b", "../x/y", "a/b/c/d", "a/b/.c", "", "a/b/" + "c" * 101, "a/b/c\n"):
        with pytest.raises(SettingsError, match="none of a secret"):
            folder.get(bad)
    one, two = (tmp_path / "k" / f"default~key~{n}.wrapped" for n in ("reviews", "b"))
    two.write_bytes(one.read_bytes())
    with pytest.raises(SealError, match="put in another's place"):
        folder.get("default/key/b")
    (tmp_path / "k").chmod(0o755)
    with pytest.raises(SettingsError, match="chmod 700"):
        KeyFolder(tmp_path / "k", PASSPHRASE)
    with pytest.raises(SettingsError, match="empty"):
        KeyFolder(tmp_path / "new", "")


def test_the_rate_is_limited_and_the_size(tmp_path: Path) -> None:
    place = Place(tmp_path / "keys", limits=Limits(rate=0.001, burst=5, body=1000))
    statuses = [place.send("POST", "/kbs/v0/auth", {"content-type": "application/json"}, b"{}") for _ in range(7)]
    assert [s for s, _, _ in statuses] == [400] * 5 + [429] * 2
    assert statuses[-1][1]["retry-after"] == "1" and "too many" in json.loads(statuses[-1][2])["detail"]
    with pytest.raises(RefusedError, match=r"\(429\)"):
        place.client().attest(collect, WORKLOAD)  # the refusal is the broker's own word, signed
    place = Place(tmp_path / "more", limits=Limits(body=1000))
    assert place.send("POST", "/kbs/v0/auth", {}, b" " * 1001)[0] == 413


def test_a_request_that_never_ends_is_given_up(tmp_path: Path) -> None:
    import asyncio
    import time

    place = Place(tmp_path / "keys", limits=Limits(seconds=0.2))
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0.05)
        return {"type": "http.request", "body": b"{", "more_body": True}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/kbs/v0/attest", "headers": [], "client": ("slow", 1)}
    begun = time.perf_counter()
    asyncio.run(
        place.app({**scope, "query_string": b"", "scheme": "http", "server": ("t", 80), "root_path": ""}, receive, send)
    )
    assert sent[0]["status"] == 408 and time.perf_counter() - begun < 2


def test_a_broken_verifier_tells_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: object, **__: object) -> object:
        raise ZeroDivisionError(SECRET.decode())

    place = Place(tmp_path / "keys", verify=broken)
    cookie, nonce = begun(place)
    assert attested(place, cookie, nonce) == (500, "the broker failed; tell its owner")
    assert SECRET.decode() not in caplog.text and "ZeroDivisionError" in caplog.text


def test_nothing_can_be_fetched_before_attesting(place: Place) -> None:
    with pytest.raises(SettingsError, match="attest first"):
        place.client().resource(NAME)
    cookie, _ = begun(place)
    assert fetched(place, cookie) == fetched(place, "") == fetched(place, 'kbs-session-id="\\x') == 401
    for path in (
        "/kbs/v0/resource/default/key/",
        "/kbs/v0/resource/_owner/key/a",
        "/kbs/v0/resource/default/key/..%2f",
        "/x",
    ):
        assert call(place.app, "GET", path, {}, b"")[0] in (400, 401, 404)


def test_what_the_sentences_do_not_echo(place: Place) -> None:
    """A secret sent by mistake does not come back, nor go into the log."""
    body = json.dumps({"version": "hunter2", "tee": ["hunter2"]}).encode()
    _, _, answer = place.send("POST", "/kbs/v0/auth", {"content-type": "application/json"}, body)
    assert b"hunter2" not in answer and b"version" in answer


# ---------------------------------------------------------------- a real server


def test_two_clients_at_once_and_a_kill(tmp_path: Path) -> None:
    keys = KeyFolder(tmp_path / "keys", PASSPHRASE)
    names = [f"default/key/k{at}" for at in range(4)]
    for name in names:
        keys.put(name, name.encode())
    keys.prepare_model("m")
    pin, got, recorded = seal.jwk_of(keys.broker_key), dict[int, Any](), list[Any]()
    with served(tmp_path / "keys") as (url, process):
        plain = http_send(url)

        def send(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Any:
            recorded.append((method, path, headers, body))
            return plain(method, path, headers, body)

        def work(at: int) -> None:
            for _ in range(5):
                got[at] = Client(send, pin).keys(collect, WORKLOAD, names)

        workers = [threading.Thread(target=work, args=(at,)) for at in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert got == {at: {name: name.encode() for name in names} for at in range(2)}
        client = Client(send, pin)
        secrets = client.keys(collect, WORKLOAD, ["default/key/m", "default/signing-key/m"])
        signer, key = key_from(secrets["default/signing-key/m"]), secrets["default/key/m"]
        made = seal.seal_model(b"w", seal.Memory(), key=key, signing_key=signer, id="m", version=1)
        assert client.advance(made) == 1
        spent = [r for r in recorded if r[1].endswith("/attest")]
        waiting = plain(
            "POST", "/kbs/v0/auth", {"content-type": "application/json"}, b'{"version":"0.4.0","tee":"tdx"}'
        )
        process.kill()
        process.wait()
        with pytest.raises(TrustError, match="cannot be reached"):
            client.version("m")
    with served(tmp_path / "keys") as (url, _):
        again = http_send(url)
        assert {again(*attempt)[0] for attempt in spent} == {401}  # a spent nonce is not known to the new process
        assert waiting[0] == 200 and Client(again, pin).keys(collect, WORKLOAD, names[:1])
        client = Client(again, pin)
        client.attest(collect, WORKLOAD)
        assert (client.version("m").number, client.version("m").digest) == (1, made.digest)
        with pytest.raises(RefusedError, match="where 2 comes next"):
            client.advance(made)


def killed_while_counting(folder: Path, after: float) -> None:
    """Raise a version as fast as it goes, kill -9 meanwhile, start again: what was acknowledged holds, and nothing else came."""
    keys = KeyFolder(folder, PASSPHRASE)
    keys.prepare_model("m")
    pin, key = seal.jwk_of(keys.broker_key), keys.data_key("m")
    signer = key_from(keys.get("default/signing-key/m").content)  # type: ignore[union-attr]
    begun = keys.versions.current("m").number
    offered = {begun: keys.versions.current("m").digest}
    acknowledged = begun
    with served(folder) as (url, process):
        client = Client(http_send(url), pin)
        client.attest(collect, WORKLOAD)
        timer = threading.Timer(after, process.kill)
        timer.start()
        with pytest.raises(TrustError, match="cannot be reached"):
            for number in range(begun + 1, begun + 10**6):
                made = seal.seal_model(b"w", seal.Memory(), key=key, signing_key=signer, id="m", version=number)
                offered[number] = made.digest
                acknowledged = client.advance(made)
        timer.join()
    with served(folder) as (url, _):
        client = Client(http_send(url), pin)
        client.attest(collect, WORKLOAD)
        now = client.version("m")
        assert now.number in (acknowledged, acknowledged + 1) and offered[now.number] == now.digest
        again = seal.seal_model(b"w", seal.Memory(), key=key, signing_key=signer, id="m", version=now.number + 1)
        assert client.advance(again) == now.number + 1


def test_a_kill_in_the_middle_of_counting(tmp_path: Path) -> None:
    killed_while_counting(tmp_path / "keys", 0.5)


@pytest.mark.soak
def test_many_kills_in_the_middle_of_counting(tmp_path: Path) -> None:
    for turn in range(30):
        killed_while_counting(tmp_path / "keys", 0.2 + 0.03 * turn)


def test_addresses_that_are_none() -> None:
    for bad in ("ftp://x", "nonsense", "http://"):
        with pytest.raises(SettingsError, match="no broker's address"):
            http_send(bad)
    with pytest.raises(EvidenceError):
        encrypted(b"", {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"})
