"""A software TPM with a CA of its own, run for the tests by Debian's swtpm."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def free_ports() -> int:
    """The first of two free ports in a row (server and control)."""
    for _ in range(100):
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
            try:
                two.bind(("127.0.0.1", port + 1))
                return port
            except OSError:
                continue
    raise AssertionError("no two free ports in a row")


@contextmanager
def software_tpm(place: Path) -> Iterator[str]:
    """How to reach one (a TCTI) whose state and CA lie in ``place``; skips without its tools."""
    for tool in ("swtpm", "swtpm_setup", "swtpm_localca", "tpm2_quote"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")
    for name in ("state", "ca"):
        (place / name).mkdir(parents=True)
    own = {"statedir": "", "signingkey": "/signkey.pem", "issuercert": "/issuercert.pem", "certserial": "/certserial"}
    (place / "localca.conf").write_text("".join(f"{k} = {place}/ca{v}\n" for k, v in own.items()))
    (place / "options").write_text("--tpm-manufacturer id:00001014\n--tpm-model swtpm\n--tpm-version id:20191023\n")
    (place / "setup.conf").write_text(
        f"create_certs_tool = {shutil.which('swtpm_localca')}\ncreate_certs_tool_config = {place}/localca.conf\n"
        f"create_certs_tool_options = {place}/options\n"
    )
    setup = ["swtpm_setup", "--tpm2", "--tpm-state", place / "state", "--create-ek-cert", "--config"]
    subprocess.run([*setup, place / "setup.conf"], check=True, capture_output=True, timeout=60)
    port, at = free_ports(), "type=tcp,bindaddr=127.0.0.1,port="
    command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={place / 'state'}"]
    command += ["--flags", "not-need-init,startup-clear", "--server", f"{at}{port}", "--ctrl", f"{at}{port + 1}"]
    process = subprocess.Popen(command)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port + 1)) == 0:
                    break
            time.sleep(0.05)
        yield f"swtpm:host=127.0.0.1,port={port}"
    finally:
        process.terminate()
        process.wait(10)
