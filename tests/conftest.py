"""Fixtures that several tests share."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import write_reviews

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """A CSV of 600 reviews, 30 % of the labels flipped."""
    path = tmp_path / "reviews.csv"
    write_reviews(path)
    return path


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch on one thread: tiny networks are quicker so, and their numbers do not hang on the machine's cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def _postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server of the tests' own on a free port, as the user postgres when run by root (the server refuses root)."""
    if not BINARIES:
        pytest.skip("no PostgreSQL server is installed")
    folder = Path("/tmp") / f"labelwright-pg-{os.getpid()}"
    folder.mkdir(mode=0o777)
    as_user = []
    if os.geteuid() == 0:
        as_user = ["runuser", "-u", "postgres", "--"]
        shutil.chown(folder, "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data, binary = folder / "data", BINARIES[-1]
    subprocess.run(
        [*as_user, binary / "initdb", "-D", data, "-U", "tester", "-A", "trust"], check=True, capture_output=True
    )
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    subprocess.run(
        [*as_user, binary / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", options, "start"], check=True
    )
    yield f"postgresql+psycopg://tester@127.0.0.1:{port}"
    subprocess.run([*as_user, binary / "pg_ctl", "-D", data, "-m", "immediate", "stop"], check=True)
    shutil.rmtree(folder)


@pytest.fixture
def postgres(_postgres_server: str) -> str:
    """The address of an empty database on it."""
    import psycopg

    name = f"t{uuid.uuid4().hex}"
    with psycopg.connect(f"{_postgres_server.replace('+psycopg', '')}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{_postgres_server}/{name}"
