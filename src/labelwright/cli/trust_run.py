"""trust: run, report and render."""

from __future__ import annotations

import json as jsonlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labelwright.cli.app import say
from labelwright.cli.common import Json
from labelwright.cli.trust import trust
from labelwright.errors import DataError, SealError, SettingsError, TrustError

if TYPE_CHECKING:
    from labelwright.trust.host import Host, Result
    from labelwright.trust.workload import Workload

File = Annotated[Path, typer.Argument(help="the workload: what runs, on what, with how much memory")]
MOST_ANSWER = 64 << 20
EXPERT_SECONDS = 3600  # a person may take long over a chunk's questions


@trust.command(
    epilog="Example: labelwright trust run workload.toml --output results\n\n"
    "Where the sealed rows lie and how the broker is reached stands in the table \\[host] of the file."
)
def run(
    workload: File,
    output: Annotated[Path, typer.Option(help="folder for sealed results and the public report")] = Path("results"),
    no_cgroup: Annotated[
        bool, typer.Option("--no-cgroup", help="hold the memory budget by RLIMIT_AS, though a cgroup could be made")
    ] = False,
    patience: Annotated[
        float,
        typer.Option(min=1, max=1e9, help="seconds that the learner may be silent, over one chunk, before it is ended"),
    ] = 3600.0,
    json: Json = False,
) -> None:
    """Run a workload confined: sealed rows in; sealed model, sealed ledger and a signed public report out.

    This command is the untrusted host: it carries ciphertext and holds no key. Without TEE hardware it says isolation: none.
    """
    asked = _workload(workload)
    from labelwright.trust.host import written

    _writable(output)
    host = _host(asked, workload.parent, output)
    host.cgroup, host.patience = not no_cgroup, patience
    if not json and sys.stderr.isatty():
        host.progress = lambda done, of: print(
            f"\r{done} of {of} chunks", end="\n" if done == of else "", file=sys.stderr
        )
    result = host.run(asked)
    written(result, output)
    report = {key: value for key, value in result.report.items() if key not in ("entries", "token")}
    told = {**report, "peak_bytes": result.told["peak"], "report": str(output / "report.jws")}
    say(told, as_json=json, text=_sentence(asked, result, output))


@trust.command(
    epilog="Example: labelwright trust report results/report.jws --ledger results/reviews-decided --keys keys\n\n"
    "Without the owner's keys: labelwright trust report results/report.jws --broker '{\"kty\": ...}'"
)
def report(
    report: Annotated[Path, typer.Argument(help="the report.jws of a run")],
    ledger: Annotated[
        str | None, typer.Option(help="folder or fsspec address of the sealed ledger, to compare")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="with --ledger: write the decisions as CSV")] = None,
    broker: Annotated[str | None, typer.Option(help="the broker's public key, a JWK; default: of --keys")] = None,
    keys: Annotated[Path | None, typer.Option(help="the owner's folder of keys")] = None,
    passphrase_file: Annotated[str | None, typer.Option(help="file that holds the passphrase of the keys")] = None,
    at: Annotated[
        str | None, typer.Option(help="time at which the token must be good, ISO 8601; default: when it was issued")
    ] = None,
    json: Json = False,
) -> None:
    """Check a report: who signed it, what it ran on, and that its verdicts are those of the sealed ledger."""
    from labelwright.cli.trust_evidence import moment
    from labelwright.trust.report import issued, read

    folder = None
    if keys is not None:
        from labelwright.cli import trust_seal

        folder = trust_seal.opened(keys, passphrase_file, make=False)  # type: ignore[attr-defined]
    if broker is None and folder is None:
        raise SettingsError(
            "nobody says whose report it should be; give --broker with the broker's public key, or --keys"
        )
    text = _bytes(report)
    told = read(text, _jwk(broker) if broker else _public(folder), now=issued(text) if at is None else moment(at))
    found = _compared(told, ledger, folder, output) if ledger is not None else None
    said = {key: value for key, value in told.items() if key not in ("entries", "token")} | {"entries_compared": found}
    lines = [
        f"the report of {told['workload']!r} holds: signed by a learner that the broker called {told['status']}",
        _isolation(told),
    ]
    if found is not None:
        lines.append(f"its {found} entries are those of the sealed ledger")
    say(said, as_json=json, text="\n".join(lines))


@trust.command(
    epilog="Example: labelwright trust render workload.toml --kind gramine\n\n"
    "Check a manifest of your own: labelwright trust render --lint my.manifest"
)
def render(
    workload: Annotated[Path | None, typer.Argument(help="the workload")] = None,
    kind: Annotated[
        str, typer.Option(help="gramine: manifest template; vm: reference values; sandbox: the local settings")
    ] = "gramine",
    lint: Annotated[
        Path | None, typer.Option(help="look for what makes a Gramine manifest unfit for secrets; exit code 1 if any")
    ] = None,
    json: Json = False,
) -> None:
    """Turn one workload into what each TEE wants: a Gramine manifest, reference values for confidential VMs, or the sandbox."""
    from labelwright.trust import render as room

    if lint is not None:
        found = room.lint(_bytes(lint).decode("utf-8", "replace"))
        say({"findings": found}, as_json=json, text="\n".join(found) or f"{lint}: nothing found")
        raise typer.Exit(1 if found else 0)
    if workload is None:
        raise SettingsError("there is no workload to render; name a workload.toml, or a manifest with --lint")
    asked = _workload(workload)
    text = room.render(asked, kind)
    say({"kind": kind, "digest": asked.digest.hex(), "text": text}, as_json=json, text=text)


def _writable(folder: Path) -> None:
    """Raise SettingsError, before anything runs, where results cannot be written. The folder is made."""
    import tempfile

    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", str(folder)):  # Path has made one slash of two
        raise SettingsError(
            f"--output is {str(folder)!r}; results go to a local folder: copy them to a store from there"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SettingsError(
            f"{folder} cannot be written ({error.strerror}); name another folder as --output"
        ) from error


def _workload(path: Path) -> Workload:
    try:
        from labelwright.trust.workload import Workload
    except ModuleNotFoundError as error:
        raise SettingsError(f"this needs {error.name}; run: pip install 'labelwright[trust]'") from error
    return Workload.read(path)


def _host(workload: Workload, folder: Path, output: Path) -> Host:
    """The host that the table [host] describes; relative paths count from the workload's folder."""
    from labelwright.trust.broker import http_send
    from labelwright.trust.host import Host
    from labelwright.trust.seal import as_store

    told = {key: str(value) for key, value in workload.table("host").items()}
    for key in ("data", "broker"):
        if key not in told:
            raise SettingsError(
                f"the workload's [host] says no {key!r}; write where the sealed rows lie and the broker's address"
            )

    def place(address: str) -> Any:
        return as_store(address if "://" in address else folder / address)

    stores = {workload.table("data")["id"]: place(told["data"])}
    for id in workload.table("models").values():
        if "models" not in told:
            raise SettingsError(
                "the workload's [host] says no 'models'; write the folder in which the sealed models lie, by name"
            )
        stores[id] = place(f"{told['models']}/{id}")
    outputs = {id: as_store(output / id) for id in workload.table("result").values()}
    return Host(
        stores,
        outputs,
        http_send(told["broker"], cafile=str(folder / told["cafile"]) if "cafile" in told else None),
        _collector(told, folder),
        kind=told.get("evidence", "sim"),
        expert=_post(told["expert"]) if "expert" in told else None,
    )


def _collector(told: dict[str, str], folder: Path) -> Callable[[bytes], Any]:
    """How this machine's evidence is collected. What a vendor publishes about the platform goes along; the verifier checks it."""
    from dataclasses import replace

    from labelwright.trust.attester import collect

    kind, options = told.get("evidence", "sim"), dict[str, Any]()
    if kind == "tpm":
        options["folder"] = folder / told.get("tpm", "tpm")
        options |= {"tcti": told["tcti"]} if "tcti" in told else {}
    if "tsm" in told and kind in ("tdx", "snp", "cca"):
        options["root"] = folder / told["tsm"]
    collateral = _bytes(folder / told["collateral"]) if "collateral" in told else b""
    certs = tuple(_bytes(folder / name.strip()) for name in told["certs"].split(",")) if "certs" in told else ()

    def collected(data: bytes) -> Any:
        evidence = collect(kind, data, **options)
        return replace(evidence, certs=(*evidence.certs, *certs), collateral=collateral or evidence.collateral)

    return collected


def _post(url: str) -> Callable[[bytes], bytes]:
    """Questions by HTTP to where the expert listens: ciphertext both ways."""
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import HTTPRedirectHandler, Request, build_opener

    from labelwright.trust.broker.client import said_by, within

    if not url.startswith(("http://", "https://")):
        raise SettingsError(f"{url!r} is no expert's address; expected http://HOST:PORT/…")

    class Stay(HTTPRedirectHandler):
        def redirect_request(self, *asked: Any) -> None:
            """An expert is at the address that the workload names, or nowhere."""

    def posted(message: bytes) -> bytes:
        request = Request(url, data=message, headers={"content-type": "application/octet-stream"})
        try:
            with build_opener(Stay).open(request, timeout=EXPERT_SECONDS) as response:
                content: bytes = response.read(MOST_ANSWER)
                return content
        except HTTPError as error:
            said = " ".join(error.read(2000).decode("utf-8", "replace").split())
            raise TrustError(f"the expert at {url} refused ({error.code}): {said}") from error

    def deliver(message: bytes) -> bytes:
        try:
            return within(EXPERT_SECONDS, lambda: posted(message))
        except (OSError, ValueError, HTTPException) as error:
            raise TrustError(
                f"the expert at {url} did not answer ({said_by(error)}); check that it runs there"
            ) from error

    return deliver


def _compared(told: dict[str, Any], ledger: str, folder: Any, output: Path | None) -> int:
    from labelwright.trust.chain import opened
    from labelwright.trust.report import matches
    from labelwright.trust.seal import NAME, Manifest, about, as_store, reader

    if folder is None:
        raise SettingsError("the sealed ledger opens with its owner's keys only; give --keys")
    place = as_store(ledger)
    text = place.read(NAME)
    made = {entry["id"]: entry for entry in told["sealed_results"]}
    found = [
        manifest
        for id in made
        if text is not None and (manifest := _of(Manifest, text, folder.signer(id))) is not None and manifest.id == id
    ]
    if not found:
        raise DataError(f"{ledger} holds no ledger of this report; name the store of one of {', '.join(made)}")
    key = folder.data_key(found[0].id)
    count = matches(told, found[0], key, place)
    if output is not None:
        entries = [arrays for _, arrays in opened(found[0], key, reader(found[0], place))]
        _decisions(entries, about(found[0], key).get("classes", []), output)
    return count


def _of(kind: Any, text: bytes, signer: Any) -> Any:
    try:
        return kind.read(text, signer)
    except TrustError:
        return None


def _decisions(entries: list[dict[str, Any]], classes: list[str], path: Path) -> None:
    """Every row's decision as CSV, verdicts by word and classes by name."""
    import csv
    import os

    other = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with other.open("w", newline="") as file:
            writer = csv.writer(file)
            names = list(entries[0]) if entries else []
            writer.writerow(["batch", *names])
            for number, arrays in enumerate(entries):
                columns = [_column(name, arrays, classes) for name in names]
                writer.writerows([number, *row] for row in zip(*columns, strict=True))
        other.replace(path)
    except (ValueError, KeyError, TypeError) as error:  # whoever attests seals what he likes
        raise SealError("the sealed ledger holds other arrays than decisions; its learner ran other code") from error
    finally:
        other.unlink(missing_ok=True)


def _column(name: str, arrays: dict[str, Any], classes: list[str]) -> list[Any]:
    from labelwright.trust.answering import names_of
    from labelwright.types import NO_LABEL, Verdict

    if name == "id":
        return names_of(arrays)
    values: list[Any] = arrays[name].tolist()
    if name == "verdict":
        return [Verdict(value).word for value in values]
    if name in ("given", "label", "answered"):
        return ["" if value == NO_LABEL else classes[value] if 0 <= value < len(classes) else value for value in values]
    return values


def _sentence(workload: Workload, result: Result, output: Path) -> str:
    report = result.report
    verdicts = ", ".join(f"{count} {word}" for word, count in report["verdicts"].items())
    made = ", ".join(f"{made['id']} version {made['version']}" for made in report["sealed_results"])
    count = len(report["entries"])
    batches = f"{count:,} batch{'es' * (count != 1)}{': ' + verdicts if verdicts else ''}"
    lines = [
        f"{workload.name}: {report['rows']:,} rows in {batches}",
        f"sealed: {made}, in {output}; report: {output / 'report.jws'}",
        f"memory at most {result.told['peak'] / (1 << 20):.0f} MB of {workload.memory >> 20} MB",
        _isolation(report),
    ]
    return "\n".join(lines)


def _isolation(report: dict[str, Any]) -> str:
    if report["isolation"] == "hardware":
        return f"isolation: hardware ({report['evidence']})"
    return f"isolation: none ({report['evidence']} evidence): root on the host can read the learner's memory: rows, keys, models"


def _bytes(path: Path) -> bytes:
    from labelwright.trust.files import read_bytes

    try:
        return read_bytes(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the path") from error


def _jwk(text: str) -> dict[str, str]:
    try:
        return {str(k): str(v) for k, v in dict(jsonlib.loads(text)).items()}
    except (ValueError, TypeError, RecursionError) as error:
        raise SettingsError(
            "--broker is no public key; expected a JWK, as 'labelwright trust keys' prints it"
        ) from error


def _public(folder: Any) -> dict[str, str]:
    from labelwright.trust.seal import jwk_of

    return jwk_of(folder.broker_key)
