"""A sealed run whose rows and models lie in a store that a real server keeps: S3's protocol, and plain HTTP."""

from __future__ import annotations

import functools
import http.server
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import call_cli
from sklearn.linear_model import LogisticRegression
from test_trust_run import broker_url, toml  # noqa: F401  (a fixture)
from trust_run_help import Estate, blobs

from labelwright.trust import seal, tier

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="confinement is for Linux")
N = 300


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an empty bucket of a server of this machine."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    for name, value in [("ACCESS_KEY_ID", "x"), ("SECRET_ACCESS_KEY", "x"), ("DEFAULT_REGION", "us-east-1")]:
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
    try:
        yield "s3://wards"
    finally:
        server.stop()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """(the address of a web server of this machine, the folder that it shows)."""
    pytest.importorskip("aiohttp")
    place = tmp_path / "web"
    place.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Nothing is written down."""

    handler = functools.partial(Quiet, directory=str(place))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", place
        server.shutdown()


def estate(path: Path, store: str | Path) -> Estate:
    """An owner whose rows and models are sealed into a store. The store's text goes into the workload."""
    made = Estate(path)
    X, _, given = blobs(N)
    model = tier.write(tier.of_estimator(LogisticRegression().fit(X, given)))
    own: dict[str, Any] = {"signing_key": made.keys.owner_key, "version": 1}
    rows = {"X": X, "given": given, "keys": np.arange(N)}
    sealed = [
        seal.seal_data([rows], f"{store}/rows", key=made.keys.data_key("rows"), id="rows", rows_per_chunk=100, **own)
    ]
    for id in ("quality", "classifier"):
        sealed.append(seal.seal_model(model, f"{store}/{id}", key=made.keys.data_key(id), id=id, **own))
    for manifest in sealed:
        made.keys.versions.advance(manifest.id, 1, manifest.digest)
    return made


def ran(made: Estate, address: str, serve: Any) -> dict[str, Any]:
    url = serve(made.broker(made.workload("judge")))
    workload = made.workload("judge", host={"data": f"{address}/rows", "models": address, "broker": url})
    (made.folder / "workload.toml").write_text(toml(workload))
    done = call_cli("trust", "run", made.folder / "workload.toml", "--output", made.folder / "results", "--json")
    assert done.returncode in (0, 2), done.stderr
    return dict(json.loads(done.stdout))


def test_a_run_reads_its_rows_from_an_s3_store(tmp_path: Path, s3: str, broker_url: Any) -> None:  # noqa: F811
    made = estate(tmp_path, s3)
    assert ran(made, s3, broker_url)["rows"] == N
    store = seal.as_store(f"{s3}/rows")
    first, second = store.read("v1-00000000.chunk"), store.read("v1-00000001.chunk")
    assert first and second and store.read("nothing") is None
    store.write("v1-00000001.chunk", first)
    assert "chunk 1 of 'rows' version 1 is not the one that was sealed" in ran(made, s3, broker_url)["error"]


def test_a_run_reads_its_rows_from_a_web_server(tmp_path: Path, web: Any, broker_url: Any) -> None:  # noqa: F811
    address, place = web
    made = estate(tmp_path, place)
    assert ran(made, address, broker_url)["rows"] == N
    (place / "rows" / "v1-00000001.chunk").unlink()
    assert "it was dropped" in ran(made, address, broker_url)["error"]
