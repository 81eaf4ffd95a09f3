"""trust: seal, unseal, keys and broker."""

from __future__ import annotations

import json as jsonlib
import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labelwright.cli.app import say
from labelwright.cli.common import Json
from labelwright.cli.trust import trust
from labelwright.errors import DataError, SettingsError

if TYPE_CHECKING:
    from labelwright.trust.broker import KeyFolder
    from labelwright.trust.seal import Manifest, Store

VARIABLE = "LABELWRIGHT_KEYS_PASSPHRASE"
Keys = Annotated[Path, typer.Option("--keys", help="folder of keys, made when first used; for its owner alone")]
Passphrase = Annotated[
    str | None,
    typer.Option(
        help=f"file that holds the passphrase of the keys, made when first used; - reads it from a pipe, for instance of "
        f"tpm2_unseal; default: the environment variable {VARIABLE}"
    ),
]
Workloads = Annotated[
    list[str] | None,
    typer.Option(help="digest of a workload that may have the key; again for more; default: all of the policy's"),
]


@trust.command(
    epilog="Example: labelwright trust seal reviews.csv sealed/reviews --label sentiment --id review_id --keys keys\n\n"
    "To an object store: labelwright trust seal reviews.parquet s3://bucket/reviews --label sentiment\n\n"
    "A model: labelwright trust seal model.safetensors sealed/model --model --keys keys"
)
def seal(
    source: Annotated[
        str, typer.Argument(help="what 'run' takes: a file or folder of a table or of pictures; with --model a file")
    ],
    store: Annotated[str, typer.Argument(help="folder or fsspec address (s3://, hdfs://, gs://) that the host reads")],
    label: Annotated[str, typer.Option(help="column of the given labels")] = "label",
    id: Annotated[str | None, typer.Option(help="column that names each row; sealed with it")] = None,
    name: Annotated[str | None, typer.Option(help="name of the sealed thing; default: the source's")] = None,
    model: Annotated[bool, typer.Option("--model", help="the source is a model (safetensors), not rows")] = False,
    chunk_mb: Annotated[
        float, typer.Option(min=0.001, max=1024, help="megabytes a chunk: what the learner holds at a time")
    ] = 4.0,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="rows a chunk instead: a chunk is a batch of the learner's loop")
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(help="sealed rows whose features and classes these are to have, for a model learned on them"),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="all labels, comma-separated; default: those of the first rows")
    ] = None,
    trusted_column: Annotated[str | None, typer.Option(help="column that marks rows whose label you vouch for")] = None,
    clean_rows: Annotated[int, typer.Option(min=0, help="you vouch for the labels of the first N rows")] = 0,
    drop: Annotated[str | None, typer.Option(help="columns to leave out, comma-separated")] = None,
    workload: Workloads = None,
    strict: Annotated[bool, typer.Option("--strict", help="stop at the first bad row")] = False,
    keys: Keys = Path("keys"),
    passphrase_file: Passphrase = None,
    json: Json = False,
) -> None:
    """Encrypt rows or a model in chunks that their host cannot read, under a manifest that you sign.

    Sealing the same name again makes the next version; the broker refuses the earlier ones from then on.
    """
    from labelwright.cli.leftovers import nothing_left
    from labelwright.cli.run import listed
    from labelwright.streams import Columns

    called = name or Path(source.rstrip("/")).name.split(".")[0] or "data"
    content, chunk = _content(source) if model else None, int(chunk_mb * (1 << 20))
    columns = Columns(label, id, trusted_column, None, None, listed(drop))
    rows: dict[str, Any] = {"classes": listed(classes) or None, "clean_rows": clean_rows, "strict": strict}
    with nothing_left(keys, passphrase_file, store, called):
        _nothing_lost(store, called)
        folder = opened(keys, passphrase_file)
        options = _sealing(folder, called, tuple(workload or ()), model)
        if content is not None:
            from labelwright.trust.seal import seal_model

            aside: list[tuple[str, str]] = []
            manifest = seal_model(content, store, chunk_bytes=chunk, **options)
        else:
            rows |= {"batch_size": batch_size, "like": None if like is None else _described(folder, like)}
            manifest, aside = _seal_rows(source, store, columns, chunk, rows, options)
        folder.versions.advance(manifest.id, manifest.version, manifest.digest)
    told = _told(manifest) | {
        "store": store,
        "keys": str(keys),
        "set_aside": len(aside),
        "signer": folder.signer(called),
    }
    say(told, as_json=json, text=_sentence(manifest, store, aside))


def _nothing_lost(store: str, name: str) -> None:
    """Raise SettingsError where another sealed thing lies: its chunks may have the same names."""
    from labelwright.trust.seal import NAME, as_store

    text = as_store(store).read(NAME)
    other = None if text is None else _claimed(text)
    if other not in (None, name):
        raise SettingsError(
            f"{store} holds the sealed {other!r}, which would be lost; name another place, or seal its next version with --name {other}"
        )


def _claimed(text: bytes) -> str | None:
    """The name that a manifest gives itself, None when it is none."""
    from labelwright.errors import SealError
    from labelwright.trust.seal.signing import unb64

    try:
        return str(jsonlib.loads(unb64(text.split(b".")[1].decode()))["id"])
    except (ValueError, LookupError, TypeError, RecursionError, SealError):
        return None


def _sealing(folder: KeyFolder, name: str, workloads: tuple[str, ...], model: bool) -> dict[str, Any]:
    """Whose keys seal and sign. A learner's model may be begun by its owner; rows under its name would be signed as the learner's."""
    from labelwright.trust.broker.keyfolder import key_from

    own = folder.get(f"default/signing-key/{name}")
    if own and not model:
        raise SettingsError(
            f"{name!r} is what a learner seals, and it would have signed your rows; give another --name"
        )
    version = folder.versions.current(name).number + 1
    return {
        "key": folder.data_key(name, workloads=workloads),
        "signing_key": key_from(own.content) if own else folder.owner_key,
        "id": name,
        "version": version,
    }


def _seal_rows(
    source: str, store: str, columns: Any, chunk: int, rows: dict[str, Any], options: dict[str, Any]
) -> tuple[Manifest, list[tuple[str, str]]]:
    from itertools import chain

    from labelwright.tables import open_source
    from labelwright.trust.seal import seal_data
    from labelwright.trust.seal.tables import Sealable

    size = rows.pop("batch_size")
    held = Sealable(open_source(source), columns, **rows)
    parts = iter(held)
    first = next(parts, None)
    if first is None:
        why = f", the first because of {held.set_aside[0][1]!r}" if held.set_aside else ""
        raise DataError(f"{source} holds no usable row{why}; nothing was sealed")
    row = sum(array.nbytes for array in first.values()) / len(first["given"])
    manifest = seal_data(
        chain([first], parts), store, rows_per_chunk=size or max(1, int(chunk / row)), about=held.about, **options
    )
    return manifest, held.set_aside


@trust.command(
    epilog="Example: labelwright trust unseal sealed/reviews reviews.parquet --keys keys\n\n"
    "A model: labelwright trust unseal sealed/model model.safetensors --keys keys"
)
def unseal(
    store: Annotated[str, typer.Argument(help="folder or fsspec address of the sealed thing")],
    output: Annotated[Path, typer.Argument(help="rows: .parquet or .csv; a model: any file")],
    keys: Keys = Path("keys"),
    passphrase_file: Passphrase = None,
    json: Json = False,
) -> None:
    """Decrypt what you sealed, or what a learner sealed for you. Every chunk is checked first; an old version is refused."""
    from labelwright.tables import write_bytes, write_tables
    from labelwright.trust.seal import as_store, check, open_model
    from labelwright.trust.seal.tables import tables_of

    folder = opened(keys, passphrase_file, make=False)
    place = as_store(store)
    manifest = _manifest(folder, place, store)
    held = folder.get(manifest.key_id)
    if held is None:
        raise SettingsError(
            f"{keys} has no key {manifest.key_id}, which {store} was sealed with; name the right --keys"
        )
    check(manifest, held.content, place)
    if manifest.kind == "ledger":
        raise SettingsError(
            f"{store} holds a sealed ledger; read it with: labelwright trust report REPORT.jws --ledger {store} --output decisions.csv"
        )
    if manifest.kind == "data":
        write_tables(tables_of(manifest, held.content, place), output)
    else:
        write_bytes(open_model(manifest, held.content, place), output)
    text = f"{manifest.kind} {manifest.id!r} version {manifest.version}, checked and written to {output}"
    say(_told(manifest) | {"output": str(output)}, as_json=json, text=text)


def _described(folder: KeyFolder, store: str) -> dict[str, Any]:
    """What was sealed with rows about their features and classes."""
    from labelwright.trust.seal import about, as_store

    manifest = _manifest(folder, as_store(store), store)
    return about(manifest, folder.data_key(manifest.id))


def _manifest(folder: KeyFolder, place: Store, store: str) -> Manifest:
    """The manifest of a store, signed by whom it should be, and not older than the counter says."""
    from labelwright.trust.seal import NAME, Manifest

    text = place.read(NAME)
    if text is None:
        raise DataError(f"there is no {NAME} in {store}; name the folder or address that 'trust seal' wrote")
    claimed = _claimed(text)
    signer = (
        folder.owner_jwk if claimed is None else folder.signer(claimed)
    )  # no manifest at all: the check below says so
    manifest = Manifest.read(text, signer)
    newest = folder.versions.current(manifest.id)
    manifest.check_newest(newest.number, newest.digest)
    return manifest


@trust.command(
    epilog="Example: labelwright trust keys --keys keys\n\n"
    "For a model that a learner is to write: labelwright trust keys --new-model detector --workload DIGEST\n\n"
    "Any other secret: labelwright trust keys --put default/token/api --file token.txt"
)
def keys(
    new_model: Annotated[
        str | None, typer.Option(help="name of a model that a learner will seal: make its keys")
    ] = None,
    put: Annotated[str | None, typer.Option(help="keep a secret as repository/type/tag")] = None,
    file: Annotated[Path | None, typer.Option(help="with --put: file that holds the secret")] = None,
    workload: Workloads = None,
    keys: Keys = Path("keys"),
    passphrase_file: Passphrase = None,
    json: Json = False,
) -> None:
    """Name the secrets of a folder, the newest versions, and the public keys to pin; make keys for a learner's model."""
    folder = opened(keys, passphrase_file, make=bool(new_model or put))
    if (put is None) != (file is None):
        raise SettingsError("--put and --file belong together; give both")
    if new_model:
        folder.prepare_model(new_model, workloads=tuple(workload or ()))
    if put and file:
        folder.put(put, _content(str(file)), workloads=tuple(workload or ()))
    names = folder.names()
    versions = {n.split("/")[2]: folder.versions.current(n.split("/")[2]).number for n in names if "/key/" in n}
    told = {"names": names, "versions": versions, "owner": folder.owner_jwk, "broker": _jwk(folder)}
    lines = [*names, *(f"{name}: version {number}" for name, number in versions.items())]
    lines += [
        f"owner's public key: {jsonlib.dumps(told['owner'])}",
        f"broker's public key: {jsonlib.dumps(told['broker'])}",
    ]
    say(told, as_json=json, text="\n".join(lines))


@trust.command(
    epilog="Example: labelwright trust broker --keys keys --policy policy.toml\n\n"
    "With a passphrase that a TPM holds: tpm2_unseal -c sealed.ctx | labelwright trust broker --policy policy.toml --passphrase-file -"
)
def broker(
    policy: Annotated[Path, typer.Option(help="TOML file that says what is accepted; see 'trust policy'")],
    keys: Keys = Path("keys"),
    passphrase_file: Passphrase = None,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one")] = 8118,
    certificate: Annotated[Path | None, typer.Option(help="PEM file, for TLS")] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file of its private key")] = None,
    rate: Annotated[float, typer.Option(min=0.1, max=1e9, help="requests a second from one address")] = 50.0,
    json: Json = False,
) -> None:
    """Hand keys to learners that prove what they are and where they run (protocol of Confidential Containers' Trustee)."""
    try:
        import uvicorn

        from labelwright.trust.broker import Limits, create_app
        from labelwright.trust.policy import Policy
    except ModuleNotFoundError as error:
        raise SettingsError(f"the broker needs {error.name}; run: pip install 'labelwright[trust]'") from error
    from labelwright.cli.people import _listen

    if (certificate is None) != (key is None):
        raise SettingsError("--certificate and --key belong together; give both")
    folder, rules = opened(keys, passphrase_file, make=False), Policy.read(policy)
    if certificate is not None and key is not None:
        _check_certificate(certificate, key)
    app = create_app(folder, rules, limits=Limits(rate=rate, burst=max(1, int(4 * rate))))
    listening = _listen(host, port)
    url = f"{'https' if certificate else 'http'}://{host}:{listening.getsockname()[1]}"
    pin = _jwk(folder)
    text = f"the broker of {keys} listens at {url} (Ctrl-C ends it); learners pin {jsonlib.dumps(pin)}"
    print(jsonlib.dumps({"url": url, "broker": pin, "names": folder.names()}) if json else text, flush=True)
    options: dict[str, Any] = {"ssl_certfile": certificate, "ssl_keyfile": key} if certificate else {}
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, **options)
    uvicorn.Server(config).run(sockets=[listening])


def _check_certificate(certificate: Path, key: Path) -> None:
    """Raise SettingsError unless the two files make a server's certificate, before anybody is told that it listens."""
    from ssl import PROTOCOL_TLS_SERVER, SSLContext

    try:
        SSLContext(PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"{certificate} and {key} are no certificate and its key without a password ({error}); expected PEM files"
        ) from error


def opened(path: Path, passphrase_file: str | None, *, make: bool = True) -> KeyFolder:
    """The key folder of these options. make: it may be made. Raises SettingsError without a passphrase or folder."""
    try:
        from labelwright.trust.broker import KeyFolder
    except ModuleNotFoundError as error:
        raise SettingsError(f"sealing needs {error.name}; run: pip install 'labelwright[trust]'") from error
    if not make and not (path / "wrapping.json").exists():
        raise SettingsError(
            f"there are no keys in {path}; 'labelwright trust seal' makes them, or name the right --keys"
        )
    return KeyFolder(path, _passphrase(passphrase_file, path))


def _passphrase(file: str | None, keys: Path) -> str:
    if file == "-":
        return sys.stdin.readline().rstrip("\r\n")
    if file is None:
        found = os.environ.get(VARIABLE, "")
        if not found:
            raise SettingsError(
                f"the keys need a passphrase; set {VARIABLE}, or give --passphrase-file FILE, which is made when there is none"
            )
        return found
    from labelwright.trust.files import read_text

    path = Path(file)
    if not path.exists():
        if (keys / "wrapping.json").exists():
            raise SettingsError(
                f"there is no file {path}, and {keys} was made with a passphrase; name the file that holds it"
            )
        from labelwright.trust.broker.keyfolder import write_private

        path.parent.mkdir(parents=True, exist_ok=True)
        write_private(path, secrets.token_urlsafe(32).encode() + b"\n")
    try:
        if path.stat().st_mode & 0o077:
            raise SettingsError(f"others can read {path}, which holds a passphrase; run: chmod 600 {path}")
        return read_text(path).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read as a passphrase ({error}); check its permissions") from error


def _content(path: str) -> bytes:
    from labelwright.trust.files import read_bytes

    try:
        return read_bytes(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the path") from error


def _jwk(folder: KeyFolder) -> dict[str, str]:
    from labelwright.trust.seal import jwk_of

    return jwk_of(folder.broker_key)


def _told(manifest: Manifest) -> dict[str, Any]:
    return {
        "id": manifest.id, "version": manifest.version, "kind": manifest.kind, "chunks": manifest.count, "rows": manifest.num_rows,
        "bytes": sum(manifest.sizes), "digest": manifest.digest.hex(), "key": manifest.key_id,
    }  # fmt: skip


def _sentence(manifest: Manifest, store: str, aside: list[tuple[str, str]]) -> str:
    rows = f"{manifest.num_rows:,} rows in " if manifest.kind == "data" else ""
    many = f"{manifest.count:,} chunk{'s' * (manifest.count != 1)}"
    lines = [
        f"sealed {manifest.id!r} version {manifest.version}: {rows}{many}, {sum(manifest.sizes):,} bytes, in {store}"
    ]
    if aside:
        lines.append(f"{len(aside):,} bad rows left out, the first being {aside[0][0]!r}: {aside[0][1]}")
    return "\n".join(lines)
