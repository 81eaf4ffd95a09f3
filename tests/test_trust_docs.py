"""docs/trust.md as a new user follows it: every line of its console blocks, in order, in one folder."""

from __future__ import annotations

import csv
import re
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import call_cli, write_reviews

ROOT = Path(__file__).parent.parent
PROGRAM = [sys.executable, "-c", "from labelwright.cli import main; main()"]


def commands() -> list[list[str]]:
    """The lines of each console block, without the prompt."""
    blocks = re.findall(r"^```console\n(.*?)^```", (ROOT / "docs" / "trust.md").read_text(), re.S | re.M)
    return [[line.removeprefix("$ ") for line in block.splitlines()] for block in blocks]


def waited_for(log: Path, process: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + 60
    while "listens at" not in log.read_text():
        assert process.poll() is None and time.monotonic() < ends, log.read_text()
        time.sleep(0.05)


def typed(line: str) -> None:
    """A line as a shell reads it, in this process: words, ``$(cat FILE)`` and ``> FILE``."""
    line, _, output = line.partition(" > ")
    words = [re.sub(r"\$\(cat (\S+)\)", lambda found: Path(found[1]).read_text().strip(), w) for w in shlex.split(line)]
    assert words[0] == "labelwright"
    done = call_cli(*words[1:])
    assert done.returncode == 0, f"{line}\n{done.stderr}"
    if output:
        Path(output).write_text(done.stdout)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def reviews(path: Path, name: str, seed: int) -> dict[str, str]:
    """A CSV as users have them; the right labels by row."""
    write_reviews(path / "all.csv", 300, seed=seed)
    rows = list(csv.DictReader((path / "all.csv").open()))
    right = {row["rid"]: row.pop("true") for row in rows}
    with (path / name).open("w", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return right


@pytest.mark.skipif(sys.platform != "linux", reason="confinement is for Linux")
def test_the_page_on_trusted_execution_works_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    reviews(tmp_path, "new.csv", 1)
    right = reviews(tmp_path, "reviews.csv", 0)
    (tmp_path / "truth.csv").write_text("rid,label\n" + "".join(f"{name},{label}\n" for name, label in right.items()))
    ports = {usual: str(free_port()) for usual in ("8118", "8119")}
    running: list[subprocess.Popen[bytes]] = []
    blocks = commands()
    assert len(blocks) == 3
    try:
        for block in [["labelwright trust doctor"], *blocks]:
            for line in block:
                if line.startswith("export "):
                    monkeypatch.setenv("LABELWRIGHT_KEYS_PASSPHRASE", line.split("'")[1])
                elif line.endswith(" &"):
                    log = tmp_path / f"log{len(running)}"
                    with log.open("wb") as out:
                        words = [*shlex.split(line)[1:-1], "--port", ports["8119" if " expert " in line else "8118"]]
                        running.append(subprocess.Popen([*PROGRAM, *words], stdout=out, stderr=out))
                    waited_for(log, running[-1])
                else:
                    typed(line)
                    for path in tmp_path.glob("*.toml"):  # other tests may listen at the usual ports
                        path.write_text(
                            re.sub(r":(8118|8119)\b", lambda found: f":{ports[found[1]]}", path.read_text())
                        )
            while running:
                running[-1].terminate()
                running.pop().wait(20)
    finally:
        for process in running:
            process.kill()
    made = {path.name for path in (tmp_path / "results").iterdir()}
    assert made == {"train-model", "train-decisions", "report.jws", "report.json"}
    wrong = call_cli("trust", "unseal", "results/train-decisions", "ledger.csv")
    assert wrong.returncode == 2 and "trust report REPORT.jws --ledger" in wrong.stderr
    assert (tmp_path / "model.safetensors").stat().st_size > 1000
    answered = list(csv.DictReader((tmp_path / "answered.csv").open()))
    assert sum(row["answered"] != "" for row in answered) >= 20  # at most 10 a chunk
    assert all(row["answered"] in ("", right[row["id"]]) for row in answered)
    predictions = {row["id"]: row["label"] for row in csv.DictReader((tmp_path / "predictions.csv").open())}
    assert len(predictions) == 300 and set(predictions.values()) == {"good", "bad", "meh"}
