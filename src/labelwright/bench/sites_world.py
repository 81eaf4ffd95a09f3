"""Sites as processes: on this machine's loopback, or each in a network namespace of its own behind a bridge that can be cut."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from labelwright.errors import LabelwrightError, SettingsError
from labelwright.settings import StateFolder
from labelwright.sites import Member, Plan
from labelwright.sites.plan import ENCODER, PLAN
from labelwright.sites.records import model_of, told
from labelwright.tables import Encoder, vector_column
from labelwright.types import Floats, Ints

PORT = 7000
RUN = "from labelwright.cli import main; main()"


@dataclass(frozen=True)
class Found:
    """What the sites ended with. states: site -> its state. said: site -> what ``sites status`` tells. cut: what the
    partition did."""

    states: dict[int, Any]
    said: dict[int, dict[str, Any]]
    cut: dict[str, Any]

    def weights(self, site: int) -> Floats:
        """(columns, K) of a site."""
        return np.asarray(self.states[site]["site"]["weights"])

    def bytes_each_round(self, rounds: int) -> dict[str, float]:
        """Bytes of messages per neighbour and round: mean over pairs, and the most."""
        sent = [n / rounds for one in self.said.values() for n in one["sent_bytes"].values()]
        return {"mean": round(float(np.mean(sent)), 1), "most": round(float(np.max(sent)), 1)}


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody uses now."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def together(
    plan: Plan,
    X: Floats,
    given: Ints,
    who: Sequence[int],
    *,
    vouched: set[int] = frozenset(),  # type: ignore[assignment]
    cut: tuple[int, int] | None = None,
) -> Found:
    """Run these sites to the end, each in a process. vouched: sites that say their labels are sure. cut: rounds between which
    the first half cannot reach the second (needs root: network namespaces)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if cut is None:
            addresses = {at: f"127.0.0.1:{port}" for at, port in zip(who, free_ports(len(who)), strict=True)}
            _written(folder, plan, addresses, X, given, vouched)
            return _ended(folder, who, [_start(folder, at, [], gather=120.0) for at in who], {})
        with net(len(who)) as wires:
            addresses = {at: f"{wires.address(place)}:{PORT}" for place, at in enumerate(who)}
            _written(folder, plan, addresses, X, given, vouched)
            prefix = [["ip", "netns", "exec", wires.space(place)] for place in range(len(who))]
            jobs = [_start(folder, at, prefix[place], gather=120.0, pause=0.5) for place, at in enumerate(who)]
            what = _partition(folder, who, wires, jobs, cut)
            return _ended(folder, who, jobs, what)


def _written(folder: Path, plan: Plan, addresses: dict[int, str], X: Floats, given: Ints, vouched: set[int]) -> None:
    """Plan, encoder and every site's rows. The numbers go through as they are: the encoder is fitted on none to scale."""
    tables = {}
    for at in addresses:
        ids = [f"{at}-{row}" for row in range(len(given[at]))]
        columns = {"id": ids, "x": vector_column(np.asarray(X[at], np.float32)), "label": [str(k) for k in given[at]]}
        tables[at] = pa.table({**columns, "sure": [at in vouched] * len(ids)})
        pq.write_table(tables[at], folder / f"site-{at}.parquet")
    encoder = Encoder(exclude=["id", "label", "sure"]).fit(next(iter(tables.values())))
    content = encoder.to_bytes()
    import hashlib

    members = {f"site-{at}": Member(address) for at, address in addresses.items()}
    agreed = replace(plan, members=members, encoder=hashlib.sha256(content).hexdigest())
    (folder / ENCODER).write_bytes(content)
    (folder / PLAN).write_text(agreed.to_toml())


def _start(folder: Path, at: int, prefix: list[str], *, gather: float, pause: float = 0.0) -> subprocess.Popen[bytes]:
    name = f"site-{at}"
    words = ["sites", "join", folder / f"{name}.parquet", "--plan", folder, "--name", name, "--state", folder / name]
    words += [
        "--trusted-column",
        "sure",
        "--gather",
        gather,
        "--patience",
        30,
        "--pause",
        pause,
        "--linger",
        60,
        "--json",
    ]
    if pause:
        words[words.index("--patience") + 1] = 4
    out = (folder / f"{name}.log").open("wb")
    command = [*prefix, sys.executable, "-c", RUN, *map(str, words)]
    return subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"})


def _ended(folder: Path, who: Sequence[int], jobs: Sequence[subprocess.Popen[bytes]], cut: dict[str, Any]) -> Found:
    """Wait for all. Raises SettingsError with a site's last words when it failed."""
    try:
        for at, job in zip(who, jobs, strict=True):
            if job.wait(timeout=1200) != 0:
                raise SettingsError(
                    f"site {at} ended with {job.returncode}: {(folder / f'site-{at}.log').read_text()[-300:]}"
                )
    finally:
        for job in jobs:
            if job.poll() is None:
                job.kill()
    states = {at: StateFolder(folder / f"site-{at}") for at in who}
    return Found({at: model_of(s) for at, s in states.items()}, {at: told(s) for at, s in states.items()}, cut)


def _rounds(folder: Path, who: Sequence[int]) -> list[int]:
    out = []
    for at in who:
        try:
            out.append(int(told(StateFolder(folder / f"site-{at}"))["rounds"]))
        except LabelwrightError:
            out.append(0)
    return out


def _partition(
    folder: Path, who: Sequence[int], wires: Wires, jobs: Sequence[subprocess.Popen[bytes]], cut: tuple[int, int]
) -> dict[str, Any]:
    """Cut when every site has done ``cut[0]`` rounds, heal when every one has done as many more as agreed."""
    half = [*range(len(who) // 2)]
    what: dict[str, Any] = {}
    for name, act in (("cut", wires.cut), ("healed", wires.heal)):
        end = time.monotonic() + 600
        wanted = cut[0] if name == "cut" else min(what["cut"]["rounds"]) + (cut[1] - cut[0])
        while min(rounds := _rounds(folder, who)) < wanted:
            if time.monotonic() > end or any(job.poll() not in (None, 0) for job in jobs):
                raise SettingsError(f"the sites did not get to round {wanted}: {json.dumps(rounds)}")
            time.sleep(0.2)
        act(half)
        what[name] = {"rounds": rounds}
    return what


# ---------------------------------------------------------------- network namespaces


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Wires:
    """Namespaces joined by a bridge; a second bridge takes those that are cut off. name: of all of them, short and unique."""

    def __init__(self, name: str, count: int):
        self.name, self.count, self.third = name, count, 16 + os.getpid() % 200

    def space(self, place: int) -> str:
        """Name of a namespace."""
        return f"{self.name}n{place}"

    def address(self, place: int) -> str:
        """Of the site in it."""
        return f"10.213.{self.third}.{place + 1}"

    def build(self) -> None:
        """Make them."""
        for bridge in "ab":
            _ip("link", "add", f"{self.name}{bridge}", "type", "bridge")
            _ip("link", "set", f"{self.name}{bridge}", "up")
        for place in range(self.count):
            space, outer, inner = self.space(place), f"{self.name}o{place}", f"{self.name}i{place}"
            _ip("netns", "add", space)
            _ip("link", "add", outer, "type", "veth", "peer", "name", inner, "netns", space)
            _ip("link", "set", outer, "master", f"{self.name}a", "up")
            _ip("-n", space, "addr", "add", f"{self.address(place)}/24", "dev", inner)
            _ip("-n", space, "link", "set", inner, "up")
            _ip("-n", space, "link", "set", "lo", "up")

    def cut(self, places: list[int]) -> None:
        """These are on their own from now on."""
        for place in places:
            _ip("link", "set", f"{self.name}o{place}", "master", f"{self.name}b")

    def heal(self, places: list[int]) -> None:
        """They are back."""
        for place in places:
            _ip("link", "set", f"{self.name}o{place}", "master", f"{self.name}a")

    def remove(self) -> None:
        """All of it, as far as it is there."""
        for place in range(self.count):
            subprocess.run(["ip", "netns", "del", self.space(place)], capture_output=True, check=False)
        for bridge in "ab":
            subprocess.run(["ip", "link", "del", f"{self.name}{bridge}"], capture_output=True, check=False)


@contextmanager
def net(count: int) -> Iterator[Wires]:
    """Namespaces for so many sites, gone afterwards. Raises SettingsError where they cannot be made."""
    wires = Wires(f"lw{os.getpid() % 100000}", count)
    try:
        wires.build()
        yield wires
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", b"") or str(error).encode()
        raise SettingsError(
            f"network namespaces cannot be made here ({said.decode()[:200].strip()}); run as root"
        ) from error
    finally:
        wires.remove()


def namespaces_work() -> bool:
    """Whether this process may make them, and a bridge."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    try:
        with net(1):
            return True
    except SettingsError:
        return False
