"""The whole path on one machine: sealed rows, broker, evidence, keys, confined work, sealed results, report; and attacks on it."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from broker_help import call
from sklearn.linear_model import LogisticRegression
from trust_run_help import REAL, Estate, Tap, blobs, now

from labelwright.errors import RefusedError, SealError, TrustError
from labelwright.trust import chain, expert, host, inside, report, tier
from labelwright.trust.attester import collect
from labelwright.trust.broker import Client, KeyFolder
from labelwright.trust.seal import Folder, jwk_of, new_key, open_model, reader
from labelwright.trust.seal.signing import signed_text
from labelwright.trust.workload import Workload
from labelwright.types import NO_LABEL, Verdict

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="confinement is for Linux")
N, CHUNK = 600, 200


@pytest.fixture
def estate(tmp_path: Path) -> Estate:
    """600 rows in three chunks, the first of them clean, and two models."""
    made = Estate(tmp_path)
    X, y, given = blobs(N)
    clean = np.arange(N) < CHUNK
    keys = np.arange(N) + 7000
    made.seal([{"X": X, "given": np.where(clean, y, given), "keys": keys, "clean": clean}], rows=CHUNK)
    for id, strength in (("quality", 1.0), ("classifier", 0.01)):
        made.seal_model(id, tier.write(tier.of_estimator(LogisticRegression(C=strength).fit(X, given))))
    return made


def ledger(estate: Estate) -> list[dict[str, Any]]:
    """The entries of the sealed ledger, opened by its owner."""
    manifest, key = estate.opened("decided")
    return [arrays for _, arrays in chain.opened(manifest, key, reader(manifest, Folder(estate.store / "decided")))]


def checked(estate: Estate, result: host.Result) -> dict[str, Any]:
    """The report, after everything that anybody can check of it."""
    told = report.read(result.text, jwk_of(estate.keys.broker_key), now=now())
    manifest, key = estate.opened("decided")
    assert report.matches(told, manifest, key, Folder(estate.store / "decided")) == len(told["entries"])
    assert told["isolation"] == "none" and told["evidence"] == "sim"
    return told


def test_judging_in_64_mb_says_what_the_tier_says_outside(estate: Estate) -> None:
    workload = estate.workload("judge")
    result = estate.host(workload).run(workload)
    told = checked(estate, result)
    assert result.told["peak"] < 64 << 20
    X, y, given = blobs(N)
    clean = np.arange(N) < CHUNK
    models = [tier.of_estimator(LogisticRegression(C=c).fit(X, given)) for c in (1.0, 0.01)]
    judge = tier.Judge(*models)
    for number, entry in enumerate(ledger(estate)):
        at = slice(number * CHUNK, (number + 1) * CHUNK)
        mine = judge.judge(number, X[at], np.where(clean, y, given)[at], clean=clean[at])
        assert (entry["verdict"] == mine.verdict).all() and (entry["score"] == mine.score).all()
        assert (entry["keys"] == np.arange(N)[at] + 7000).all()
    assert (
        told["verdicts"]["trusted"] >= CHUNK and told["rows"] == N and told["noise_rate"] == round(judge.noise.rate, 4)
    )


def test_predicting_with_a_sealed_model(estate: Estate) -> None:
    workload = estate.workload("predict")
    checked(estate, estate.host(workload, cgroup=False).run(workload))
    X, _, given = blobs(N)
    label = np.concatenate([entry["label"] for entry in ledger(estate)])
    assert (label == LogisticRegression(C=0.01).fit(X, given).predict(X)).all()


def test_qal_asks_an_expert_over_a_channel_that_the_host_cannot_read(estate: Estate) -> None:
    workload = estate.workload("qal", "512 MB", learn={"questions": 6})
    X, y, _ = blobs(N)
    asked: list[int] = []

    def decide(question: Any) -> Any:
        asked.extend(question["keys"].tolist())  # the owner's own
        return y[question["keys"] - 7000]

    end = expert.Expertise(estate.expert_key, jwk_of(estate.keys.broker_key), decide, now)
    tap = Tap()
    told = checked(estate, estate.host(workload, expert=end, tap=tap).run(workload))
    assert told["questions"] == len(asked) == 12 and end.answered == 12
    assert told["verdicts"]["asked"] == 12
    for number, entry in enumerate(ledger(estate)):
        said = entry["answered"] != NO_LABEL
        assert (entry["label"][said] == y[number * CHUNK :][: len(said)][said]).all()
        assert (entry["verdict"][said] == Verdict.ASKED).all()
    manifest, key = estate.opened("learned")
    model, _ = tier.read(open_model(manifest, key, Folder(estate.store / "learned")))
    assert (model.judge(blobs(300, seed=5)[0])[0].argmax(axis=1) == blobs(300, seed=5)[1]).mean() > 0.9
    seen = b"".join(tap.kept)
    assert len(seen) > 10_000 and not any(X[row].tobytes() in seen for row in range(N))


def test_rad_duo_trains_networks_inside_as_outside_to_the_bit(estate: Estate) -> None:
    pytest.importorskip("torch")
    from labelwright.learners import Deep
    from labelwright.learners.torch_classifier import TorchClassifier
    from labelwright.recipes import rad_duo
    from labelwright.types import Batch

    workload = estate.workload("rad-duo", "1 GB", learn={"epochs": 2})
    result = estate.host(workload).run(workload)
    checked(estate, result)
    manifest, key = estate.opened("learned")
    inside = TorchClassifier.from_bytes(open_model(manifest, key, Folder(estate.store / "learned")))
    X, y, given = blobs(N)
    clean = np.arange(N) < CHUNK

    def learner(seed: int) -> Deep:
        options = {"epochs": 2, "later_epochs": 2, "batch_size": 256, "device": "cpu", "precision": "float32"}
        return Deep(
            TorchClassifier("mlp", random_state=seed, **options), classes=3, replay=5000, memory=5000, seed=seed
        )

    import torch

    torch.set_num_threads(1)
    system = rad_duo(learner(0), learner(1))
    for number, entry in enumerate(ledger(estate)):
        at = slice(number * CHUNK, (number + 1) * CHUNK)
        split = system.step(Batch.of(number, X[at], np.where(clean, y, given)[at], clean=clean[at]))
        assert (split.verdict == entry["verdict"]).all()
    fresh = blobs(300, seed=5)[0]
    assert (inside.predict_proba(fresh) == system.learners.classifier.estimator.predict_proba(fresh)).all()
    assert tier.read(inside.to_bytes())[0].judge(fresh)[0].argmax(axis=1).tolist() == inside.predict(fresh).tolist()


def test_a_second_run_makes_the_next_version_and_old_ones_are_refused(estate: Estate) -> None:
    workload = estate.workload("predict")
    checked(estate, estate.host(workload).run(workload))
    first = (estate.store / "decided" / "manifest.jws").read_bytes()
    told = checked(estate, estate.host(workload).run(workload))
    assert told["sealed_results"][0]["version"] == 2
    (estate.store / "decided" / "manifest.jws").write_bytes(first)
    with pytest.raises(SealError, match="rolled back"):
        estate.opened("decided")


# ------------------------------------------------------------ attacks


def refused(estate: Estate, kind: type[Exception], sentence: str, mode: str = "judge", **options: Any) -> None:
    """The run ends with one sentence, and no result appears."""
    workload = options.pop("workload", None) or estate.workload(mode)
    with pytest.raises(kind, match=sentence) as raised:
        estate.host(workload, **options).run(workload)
    assert "\n" not in str(raised.value)
    assert not (estate.store / "decided" / "manifest.jws").exists()


@pytest.mark.parametrize(
    ("attack", "sentence"),
    [
        ("dropped", "chunk 1 of 'rows' version 1 is not the one .* dropped"),
        ("swapped", "chunk 1 of .* it is chunk 2, swapped or repeated"),
        ("altered", "chunk 1 of .* altered"),
        ("other data", "signed|manifest"),
        ("rolled back", "rolled back: got version 1, expected 2"),
    ],
)
def test_a_host_that_alters_what_it_stores_is_found_out(estate: Estate, attack: str, sentence: str) -> None:
    folder = estate.store / "rows"
    one, two = (folder / f"v1-{index:08d}.chunk" for index in (1, 2))
    if attack == "dropped":
        one.unlink()
    elif attack == "swapped":
        one.write_bytes(two.read_bytes())
    elif attack == "altered":
        content = bytearray(one.read_bytes())
        content[100] ^= 1
        one.write_bytes(content)
    elif attack == "other data":
        (folder / "manifest.jws").write_bytes((estate.store / "quality" / "manifest.jws").read_bytes())
    else:
        old = (folder / "manifest.jws").read_bytes()
        X, y, _ = blobs(N)
        estate.seal([{"X": X, "given": y, "keys": np.arange(N), "clean": y < 9}], rows=CHUNK, version=2)
        (folder / "manifest.jws").write_bytes(old)
    refused(estate, SealError, sentence)


def test_a_policy_for_hardware_refuses_sim_evidence(estate: Estate) -> None:
    estate.policy = REAL
    refused(estate, RefusedError, "evidence of kind sim is not among")


def test_another_workload_gets_no_key(estate: Estate) -> None:
    named = estate.workload("judge")
    other = estate.workload("judge", learn={"epochs": 9})
    refused(estate, RefusedError, "is not one of the policy's", workload=other, app=estate.broker(named))


def test_other_code_does_not_run(estate: Estate) -> None:
    workload = estate.workload("judge")
    head = {**workload.tables["workload"], "code": f"sha256:{'0' * 64}"}
    refused(estate, RefusedError, "names the code", workload=Workload.of({**workload.tables, "workload": head}))


def test_a_host_that_plays_the_broker_learns_nothing(estate: Estate, tmp_path: Path) -> None:
    other = Estate(tmp_path / "impostor")
    workload = estate.workload("judge")
    refused(estate, TrustError, "not signed by the broker's pinned key", workload=workload, app=other.broker(workload))


def test_a_replayed_answer_of_the_broker_is_refused(estate: Estate) -> None:
    workload = estate.workload("judge")
    app, first = estate.broker(workload), dict[str, Any]()

    def send(method: str, path: str, headers: Any, body: bytes) -> Any:
        if path not in first:
            first[path] = call(app, method, path, headers, body)
        return first[path]

    estate.host(workload, app=app, send=send)
    once = estate.host(workload, app=app, send=send)
    with pytest.raises(TrustError):
        once.run(workload)
        once.run(workload)
    assert (
        not (estate.store / "decided" / "manifest.jws").exists() or estate.keys.versions.current("decided").number <= 1
    )


def test_a_quote_for_another_key_is_refused(estate: Estate) -> None:
    from labelwright.trust.attester import collect

    refused(estate, RefusedError, "bound to another nonce", collect=lambda data: collect("sim", bytes(64)))


def test_an_expert_that_the_workload_does_not_name_is_not_believed(estate: Estate) -> None:
    workload = estate.workload("qal", "512 MB", learn={"questions": 6})
    stranger = expert.Expertise(new_key(), jwk_of(estate.keys.broker_key), lambda question: question["given"], now)
    refused(estate, TrustError, "altered, repeated or dropped", workload=workload, expert=stranger)


@pytest.mark.parametrize("cgroup", [True, False])
def test_memory_beyond_the_budget_is_the_end_and_the_last_result_stays(estate: Estate, cgroup: bool) -> None:
    workload = estate.workload("predict")
    checked(estate, estate.host(workload).run(workload))
    before = ledger(estate)
    X, y, _ = blobs(600_000)
    estate.seal([{"X": X, "given": y, "keys": np.arange(len(y)), "clean": y < 0}], rows=600_000, version=2)
    with pytest.raises(
        RefusedError, match=r"needed more than its 64 MB of memory and was killed; .* raise 'memory'"
    ) as raised:
        estate.host(workload, cgroup=cgroup).run(workload)
    assert "\n" not in str(raised.value)
    for mine, theirs in zip(ledger(estate), before, strict=True):
        assert (mine["label"] == theirs["label"]).all()


def test_a_budget_below_the_bare_process_is_refused_with_the_figures(estate: Estate) -> None:
    workload = estate.workload("qal", "100 MB")
    refused(estate, RefusedError, "the budget is 100 MB|needed more than its 100 MB", workload=workload, cgroup=False)


def test_a_killed_learner_is_told_in_one_sentence(estate: Estate) -> None:
    workload = estate.workload("judge")
    pids: list[int] = []

    def progress(done: int, of: int) -> None:
        pids.extend(int(p) for p in Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split())
        os.kill(pids[-1], signal.SIGKILL)

    refused(estate, TrustError, "ended by SIGKILL|broke off", workload=workload, progress=progress)


def test_a_learner_that_hangs_is_ended(estate: Estate) -> None:
    def stop(done: int, of: int) -> None:
        (pid,) = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()[-1:]
        os.kill(int(pid), signal.SIGSTOP)

    refused(estate, TrustError, "silent for 1.5 s and was ended.*--patience", progress=stop, patience=1.5)


def test_an_altered_report_or_ledger_is_found_out(estate: Estate) -> None:
    workload = estate.workload("judge")
    result = estate.host(workload).run(workload)
    told = checked(estate, result)
    manifest, key = estate.opened("decided")
    store = Folder(estate.store / "decided")
    digests = [digest for digest, _ in chain.opened(manifest, key, reader(manifest, store))]
    for change in (
        {"head": "0" * 64},
        {"entries": told["entries"][:-1]},
        {"entries": [*told["entries"][1:], told["entries"][0]]},
        {"entries": [{**told["entries"][0], "rows": 1}, *told["entries"][1:]]},
        {"entries": 3},
    ):
        with pytest.raises(TrustError):
            chain.check({**told, **change}, digests)
    text = bytearray(result.text)
    text[len(text) // 2] ^= 1
    for bent in (bytes(text), b"", b"a.b.c", result.text[:-4] + b"AAAA"):
        with pytest.raises(TrustError):
            report.read(bent, jwk_of(estate.keys.broker_key), now=now())
    with pytest.raises(RefusedError):
        report.read(result.text, jwk_of(new_key()), now=now())


def test_whoever_can_make_the_evidence_gets_the_keys_as_the_documentation_says(estate: Estate) -> None:
    """Sim evidence says nothing of which code holds the ephemeral key: it is for development."""
    workload = estate.workload("judge")
    app = estate.broker(workload)
    client = Client(partial(call, app), jwk_of(estate.keys.broker_key))
    name = "default/key/rows"
    held = estate.keys.get(name)
    assert held and client.keys(partial(collect, "sim"), workload.digest, [name]) == {name: held.content}
    page = " ".join((Path(__file__).parent.parent / "docs" / "trust.md").read_text().split())
    assert "whoever can have the evidence made can ask for the keys himself" in page


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"isolation": "hardware"}, "another verdict than the broker's, which is warning by sim"),
        ({"evidence": "tdx"}, "another verdict"),
        ({"status": "affirming"}, "another verdict"),
        ({"workload": None}, "lacks what it should tell"),
        ({"sealed_results": [3]}, "lacks what it should tell"),
    ],
)
def test_a_host_that_attests_itself_cannot_make_up_a_better_verdict(
    estate: Estate, change: dict[str, Any], sentence: str
) -> None:
    """Whoever can make evidence can sign a report, but the verdict in it must be the one that the broker signed."""
    workload = estate.workload("judge")
    app = estate.broker(workload)
    client = Client(partial(call, app), jwk_of(estate.keys.broker_key))
    client.attest(partial(collect, "sim"), workload.digest)
    told = {
        "workload": "judge",
        "digest": workload.digest.hex(),
        "sealed_results": [],
        "isolation": "none",
        "evidence": "sim",
    }
    told |= {"status": "warning", "key": jwk_of(client.key), "token": client.token}

    def signed(told: dict[str, Any]) -> bytes:
        return signed_text(client.key, json.dumps(told).encode(), inside.REPORT)

    broker = jwk_of(estate.keys.broker_key)
    assert report.read(signed(told), broker, now=now()) == told
    with pytest.raises(TrustError, match=sentence):
        report.read(signed(told | change), broker, now=now())


def test_pictures_reach_the_models_from_0_to_1() -> None:
    from labelwright.trust import rehearsal, room
    from labelwright.trust.seal import Memory, seal_data
    from labelwright.trust.workload import EXAMPLE

    owner, store = new_key(), Memory()
    rows = {"X": np.full((4, 2, 2, 3), 51, np.uint8), "given": np.arange(4) % 2}
    told = {"scale": 1 / 255, "classes": ["cat", "dog"]}
    seal_data([rows], store, key=bytes(32), signing_key=owner, id="d", rows_per_chunk=4, about=told)
    workload = Workload.from_toml(EXAMPLE)
    small = replace(workload, tables={**workload.tables, "data": {"id": "d", "classes": 2}})
    here = room.Room(small, rehearsal._Own(owner), lambda id, name: store.read(name), lambda id, name, content: None)
    _, chunks = here.chunks()
    ((_, arrays),) = chunks
    assert arrays["X"].dtype == np.float32 and np.allclose(arrays["X"], 0.2) and here.names.classes == ("cat", "dog")


def test_a_run_longer_than_the_brokers_sessions_attests_again(estate: Estate) -> None:
    workload, at = estate.workload("predict"), [now()]

    def later(done: int, of: int) -> None:
        at[0] += timedelta(minutes=11)

    result = estate.host(workload, app=estate.broker(workload, clock=lambda: at[0]), progress=later).run(workload)
    told = report.read(result.text, jwk_of(estate.keys.broker_key), now=report.issued(result.text))
    assert at[0] - now() > timedelta(minutes=30) and at[0] - report.issued(result.text) < timedelta(minutes=11)
    manifest, key = estate.opened("decided")
    assert report.matches(told, manifest, key, Folder(estate.store / "decided")) == 3


def test_rows_that_rejoin_from_the_buffer_keep_their_owners_names() -> None:
    from labelwright.trust.names import Names
    from labelwright.types import row_keys

    names = Names()
    for number in range(3):
        rows = {
            "given": np.zeros(4, int),
            "keys": 100 * number + np.arange(4),
            "id": np.full((4, 32), number, np.uint8),
        }
        names.arrived(number, rows, waiting=row_keys(0, 4)[1:2])
    told = names.told(np.concatenate([row_keys(2, 2), row_keys(0, 4)[1:2]]))
    assert told["keys"].tolist() == [200, 201, 1] and told["id"][:, 0].tolist() == [2, 2, 0]


def test_a_link_is_that_of_the_projects_own_ledger() -> None:
    from labelwright.ledger.chain import entry_chain

    for fields in ([], [0, 3, 200, "ab", ""], [1, "é", None]):
        assert chain.link(chain.START, fields) == entry_chain(chain.START, fields)


def test_questions_and_answers_go_once_and_between_two_ends_only() -> None:
    a, b, c = new_key(), new_key(), new_key()
    left, right = expert.Channel(a, jwk_of(b), learner=True), expert.Channel(b, jwk_of(a), learner=False)
    first, second = left.seal(b"1"), left.seal(b"2")
    assert right.open(first) == b"1"
    for bad in (first, second[:-1] + b"\0", b"", expert.Channel(c, jwk_of(b), learner=True).seal(b"2")):
        with pytest.raises(TrustError, match="altered, repeated or dropped"):
            right.open(bad)
    assert right.open(second) == b"2"
    with pytest.raises(TrustError):
        left.open(second)  # a question is no answer


def test_an_expert_answers_only_the_workload_that_it_was_asked_to(estate: Estate) -> None:
    """The broker's token carries the digest that the evidence spoke for. The expert says no before the work begins."""
    workload, other = estate.workload("qal", "512 MB"), estate.workload("qal", "513 MB")
    answered: list[Any] = []
    end = expert.Expertise(
        estate.expert_key, jwk_of(estate.keys.broker_key), answered.append, now, workloads=[other.digest]
    )
    refused(estate, TrustError, "runs another workload than this expert answers", workload=workload, expert=end)
    assert not answered


def test_an_expert_answers_only_whom_the_broker_vouches_for(estate: Estate) -> None:
    end = expert.Expertise(estate.expert_key, jwk_of(estate.keys.broker_key), lambda question: question["given"], now)
    own = new_key()
    for head in (
        b"",
        b"{}",
        b"[",
        json.dumps({"token": "a.b.c", "key": jwk_of(own)}).encode(),
        json.dumps({"key": 3}).encode(),
    ):
        with pytest.raises(TrustError):
            end(len(head).to_bytes(4, "big") + head + b"question")


def toml(workload: Workload) -> str:
    """A workload's tables as the text of a file."""
    lines = []
    for name, table in workload.tables.items():
        lines.append(f"[{name}]")
        for key, value in table.items():
            inner = ", ".join(f'{k} = "{v}"' for k, v in value.items()) if isinstance(value, dict) else ""
            lines.append(f"{key} = {{ {inner} }}" if inner else f"{key} = {json.dumps(value)}")
    return "\n".join(lines) + "\n"


@pytest.fixture
def broker_url() -> Any:
    """A function that serves a broker on a free port of this machine until the test is over."""
    import socket
    import time

    import uvicorn

    servers = []

    def serve(app: Any) -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", access_log=False))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        servers.append((server, thread))
        for _ in range(200):
            if server.started:
                break
            time.sleep(0.05)
        return f"http://127.0.0.1:{port}"

    yield serve
    for server, thread in servers:
        server.should_exit = True
        thread.join(10)


def test_the_workload_of_a_file_is_the_same(estate: Estate) -> None:
    workload = estate.workload("judge")
    assert Workload.from_toml(toml(workload)).digest == workload.digest
    assert replace(workload, name="other").digest == workload.digest  # the tables count
    assert isinstance(estate.keys, KeyFolder)
