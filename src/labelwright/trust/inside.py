"""The confined learner: a process that has one socket to its host, and gives up everything else before it asks for a key.

Order: no dumps, no network, no writing (``confine.enter``); the host names the workload; the code is checked; a rehearsal imports and
warms up; ``confine.confine``; then attestation, keys, work; sealed results out. A plaintext row or a key never leaves, nor do the
words of an unexpected error, as they may speak of rows.
"""

from __future__ import annotations

import base64
import gc
import json
import os
import time
from collections.abc import Mapping
from typing import Any

from labelwright.errors import EvidenceError, RefusedError, SealError, SettingsError, TrustError
from labelwright.trust.confine import Limits, confine, enter
from labelwright.trust.wire import Message, Wire

NOTHING_TO_TELL = (EvidenceError, RefusedError, SealError, SettingsError, TrustError)
"""Errors whose sentences name files, chunks and settings, never a row."""
REPORT = "labelwright-report+json"


def main(fd: int) -> None:
    """Run what the host at the other end of ``fd`` asks for, and end the process. Never returns."""
    wire = Wire(fd)
    try:
        wire.send(_run(wire))
        wire.hung_up()  # the host reads the peak of memory while there is a process
    except BaseException as error:
        try:
            wire.send(Message("failed", _told(error)))
        except BaseException:
            os._exit(3)
        os._exit(2)
    os._exit(0)


def _run(wire: Wire) -> Message:
    held = enter()
    from labelwright.trust.workload import Workload

    begin = wire.receive()
    workload = Workload.of(json.loads(begin.body))
    workload.check_code()
    from labelwright.trust.rehearsal import rehearse

    rehearse(workload)
    gc.collect()
    held |= confine(Limits(workload.memory, cgroup=bool(begin.fields.get("cgroup")), jit=workload.mode == "rad-duo"))
    wire.ask("confined", **held)
    before = time.process_time()
    done = _learner(wire, workload, held, begin.text("tee"))
    return Message(done.kind, {"cpu_ms": int(1000 * (time.process_time() - before))}, done.body)


def _learner(wire: Wire, workload: Any, held: Mapping[str, Any], kind: str) -> Message:
    from labelwright.trust.broker import Client
    from labelwright.trust.evidence import Evidence
    from labelwright.trust.room import BrokerKeys, Room
    from labelwright.trust.work import work

    def collect(data: bytes) -> Evidence:
        return Evidence.from_json(bytes(wire.ask("collect", data=data.hex()).body))

    client = Client(_relayed(wire), workload.table("broker")["key"], tee=kind)
    client.attest(collect, workload.digest)

    def read(id: str, name: str) -> bytes | None:
        answer = wire.ask("chunk", id=id, name=name)
        return answer.body if answer.fields.get("found") else None

    def write(id: str, name: str, content: bytes) -> None:
        wire.ask("put", content, id=id, name=name)

    room = Room(workload, BrokerKeys(client), read, write)
    if "expert" in workload.tables:
        room.expert = _expert(wire, workload, client, room)
    figures = work(room, lambda done, of: wire.send(Message("progress", {"done": done, "of": of})))
    return _report(workload, room, figures, held, client)


def _relayed(wire: Wire) -> Any:
    """The broker through the host, which only carries."""

    def send(method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        answer = wire.ask("relay", body, method=method, path=path, headers=dict(headers))
        told = answer.fields.get("headers")
        if not isinstance(told, dict) or not all(isinstance(v, str) for v in told.values()):
            raise TrustError("the host relayed an answer without headers; it is no host of ours")
        return answer.number("status", 999), told, bytes(answer.body)

    return send


def _expert(wire: Wire, workload: Any, client: Any, room: Any) -> Any:
    from labelwright.trust.expert import Channel, SealedExpert
    from labelwright.trust.seal import jwk_of

    channel = Channel(client.key, workload.table("expert")["key"], learner=True)

    def deliver(message: bytes) -> bytes:
        return bytes(wire.ask("expert", message).body)

    expert = SealedExpert(channel, jwk_of(client.key), client.token, deliver, names=room.names)
    expert.greet()
    return expert


def _report(workload: Any, room: Any, figures: Mapping[str, Any], held: Mapping[str, Any], client: Any) -> Message:
    """The public report, signed by the key that the evidence spoke for."""
    from labelwright.trust.seal import jwk_of
    from labelwright.trust.seal.signing import signed_text

    key = client.key
    told = {
        "workload": workload.name,
        "digest": workload.digest.hex(),
        "mode": workload.mode,
        "code": workload.code,
        **verdict(client.token),
        "confinement": {name: value for name, value in held.items() if name != "resident"},
        "sealed_inputs": room.used,
        "sealed_results": room.made,
        **figures,
        "key": jwk_of(key),
        "token": client.token,
    }
    text = json.dumps(told, sort_keys=True, separators=(",", ":")).encode()
    return Message("done", {}, signed_text(key, text, REPORT))


def verdict(token: str) -> dict[str, Any]:
    """kind, isolation and status as the broker's token says; it came in an answer that the broker signed."""
    try:
        body = token.split(".")[1]
        modules = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))["submods"]
        (module,) = modules.values()
        isolation, kind = module["labelwright.isolation"], module["labelwright.kind"]
        return {
            "isolation": "hardware" if isolation == "hardware" else "none",
            "evidence": str(kind),
            "status": str(module["ear.status"]),
        }
    except (ValueError, KeyError, TypeError, IndexError):
        return {"isolation": "none", "evidence": "unknown", "status": "unknown"}


def _told(error: BaseException) -> dict[str, Any]:
    """What the host may know of an error."""
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return {"reason": "memory", "sentence": ""}
    if isinstance(error, NOTHING_TO_TELL):
        kind = next(
            kind for kind in NOTHING_TO_TELL if isinstance(error, kind)
        )  # whose subclasses the host need not know
        return {"reason": kind.__name__, "sentence": str(error)[:2000]}
    trace, place = error.__traceback__, ""
    while trace is not None:
        place = f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return {
        "reason": "unexpected",
        "sentence": f"{type(error).__name__} at {place}; its words stay inside, as they may speak of rows",
    }
