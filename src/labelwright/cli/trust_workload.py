"""trust: workload, which writes or checks a workload.toml."""

from __future__ import annotations

import json as jsonlib
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from labelwright.cli.app import say
from labelwright.cli.common import Json
from labelwright.cli.trust import trust
from labelwright.errors import SettingsError, TrustError

BROKER, EXPERT = "http://127.0.0.1:8118", "http://127.0.0.1:8119/"


@trust.command(
    epilog="Example: labelwright trust workload workload.toml --mode rad-duo --data sealed/reviews --keys keys --sim-policy policy.toml\n\n"
    "Judge with sealed models: labelwright trust workload judge.toml --mode judge --data sealed/reviews --models sealed/models "
    "--quality quality --classifier classifier\n\n"
    "Check one, and print its digest: labelwright trust workload workload.toml"
)
def workload(
    file: Annotated[Path, typer.Argument(help="a workload to check; with --mode, where to write one")],
    mode: Annotated[str | None, typer.Option(help="write one: judge, predict, rad-duo or qal")] = None,
    data: Annotated[str | None, typer.Option(help="folder or fsspec address of the sealed rows")] = None,
    name: Annotated[str | None, typer.Option(help="name of the workload; its results are called after it")] = None,
    memory: Annotated[
        str | None, typer.Option(help="e.g. '64 MB'; default: what the mode needs for small work")
    ] = None,
    models: Annotated[str | None, typer.Option(help="judge, predict: folder of the sealed models, by name")] = None,
    quality: Annotated[str | None, typer.Option(help="judge: name of the sealed quality model")] = None,
    classifier: Annotated[str | None, typer.Option(help="judge, predict: name of the sealed classifier")] = None,
    expert: Annotated[
        str | None, typer.Option(help="qal: the expert's public key, a JWK; 'trust expert --key F --json' prints it")
    ] = None,
    evidence: Annotated[str, typer.Option(help="kind of evidence that the host collects")] = "sim",
    sim_policy: Annotated[
        Path | None,
        typer.Option(help="also write a policy for development, which accepts sim evidence of this workload"),
    ] = None,
    keys: Annotated[Path, typer.Option(help="the owner's folder of keys")] = Path("keys"),
    passphrase_file: Annotated[str | None, typer.Option(help="file that holds the passphrase of the keys")] = None,
    json: Json = False,
) -> None:
    """Write a workload for sealed rows and make the keys of its results; or check one, and print the digest that evidence speaks for."""
    try:
        from labelwright.trust import drafting
        from labelwright.trust.workload import Workload, code_digest
    except ModuleNotFoundError as error:
        raise SettingsError(f"this needs {error.name}; run: pip install 'labelwright[trust]'") from error
    if mode is None:
        found = Workload.read(file)
        here = found.code == code_digest()
        text = f"{file}: {found.mode}, digest {found.digest.hex()}; its code is {'' if here else 'NOT '}the package installed here"
        say({"digest": found.digest.hex(), "mode": found.mode, "code_is_here": here}, as_json=json, text=text)
        return
    if file.exists() or (sim_policy is not None and sim_policy.exists()):
        raise SettingsError(f"{file if file.exists() else sim_policy} exists; name another file, so that none is lost")
    if data is None:
        raise SettingsError("a workload is about sealed rows; name their folder or address with --data")
    host = {"data": _beside(file, data), "broker": BROKER, "evidence": evidence}
    host |= {"models": _beside(file, models)} if models else {}
    host |= {"expert": EXPERT} if mode == "qal" else {}
    parts = {part: id for part, id in (("quality", quality), ("classifier", classifier)) if id}
    options: dict[str, Any] = {"memory": memory, "models": parts, "expert": _jwk(expert), "host": host}
    text, made = _drafted(drafting.workload, name or file.stem, mode, data, keys, passphrase_file, options)
    file.write_text(text)
    found = Workload.read(file)
    if sim_policy is not None:
        sim_policy.write_text(drafting.sim_policy(found.digest))
    lines = [f"wrote {file}: {found.mode}, digest {found.digest.hex()}; keys made for {', '.join(made)}"]
    lines += [f"wrote {sim_policy}: accepts sim evidence of this workload, isolation: none"] if sim_policy else []
    told = {"output": str(file), "digest": found.digest.hex(), "mode": mode, "results": made}
    say(told, as_json=json, text="\n".join(lines))


def _drafted(
    draft: Any, name: str, mode: str, data: str, keys: Path, passphrase_file: str | None, options: dict[str, Any]
) -> tuple[str, list[str]]:
    from labelwright.cli.trust_seal import _jwk as broker_key
    from labelwright.cli.trust_seal import _manifest, opened
    from labelwright.trust.seal import as_store
    from labelwright.trust.seal.chunks import about
    from labelwright.trust.workload import Workload

    folder = opened(keys, passphrase_file, make=False)
    manifest = _manifest(folder, as_store(data), data)
    classes = about(manifest, folder.data_key(manifest.id)).get("classes", ())
    if manifest.kind != "data" or not classes:
        raise SettingsError(
            f"{data} holds a sealed {manifest.kind} without classes; name rows that 'trust seal' sealed"
        )
    text: str = draft(name, mode, data=manifest.id, classes=len(classes), broker=broker_key(folder), **options)
    made = list(Workload.from_toml(text).table("result").values())
    for id in made:
        folder.prepare_model(id)
    return text, made


def _beside(file: Path, place: str) -> str:
    """A folder as it is called from the workload's own."""
    return place if "://" in place else os.path.relpath(place, file.parent)


def _jwk(text: str | None) -> dict[str, str] | None:
    if text is None:
        return None
    from labelwright.trust.evidence import canonical_key
    from labelwright.trust.seal import key_of

    try:
        found = dict(jsonlib.loads(text))
        key = dict(found.get("key", found))
        key_of(key)
        return dict(jsonlib.loads(canonical_key(key)))
    except (ValueError, TypeError, AttributeError, RecursionError, TrustError) as error:
        raise SettingsError(
            "--expert is no public key; expected a JWK, as 'labelwright trust expert' prints it"
        ) from error
