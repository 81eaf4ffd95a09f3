"""trust: expert, the person or file that answers a sealed run's questions."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labelwright.cli.app import say
from labelwright.cli.common import Json
from labelwright.cli.trust import trust
from labelwright.errors import SettingsError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey


@trust.command(
    epilog="Example: labelwright trust expert workload.toml --key expert.pem --answers answers.csv --id review_id --label sentiment\n\n"
    "The public key for \\[expert] of a workload: labelwright trust expert --key expert.pem\n\n"
    "A person, in this terminal: labelwright trust expert workload.toml --key expert.pem --rows reviews.csv --id review_id"
)
def expert(
    workload: Annotated[Path | None, typer.Argument(help="the workload whose questions are answered")] = None,
    key: Annotated[
        Path, typer.Option(help="the expert's private key, PEM; made when first used, for its owner alone")
    ] = Path("expert.pem"),
    answers: Annotated[Path | None, typer.Option(help="table of right labels; without it, you are asked here")] = None,
    rows: Annotated[Path | None, typer.Option(help="your own copy of the rows, to show what is asked about")] = None,
    id: Annotated[str, typer.Option(help="column that names each row, as it was sealed")] = "id",
    label: Annotated[str, typer.Option(help="with --answers: column of the right labels")] = "label",
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one")] = 8119,
    json: Json = False,
) -> None:
    """Answer the questions of a sealed run: they come encrypted to your key, from a learner that the broker vouches for.

    The host carries ciphertext both ways. Only the workload named is answered.
    """
    try:
        from labelwright.trust.answering import Answers, key_of_file, serve
        from labelwright.trust.expert import Expertise
        from labelwright.trust.seal import jwk_of
        from labelwright.trust.workload import Workload
    except ModuleNotFoundError as error:
        raise SettingsError(f"this needs {error.name}; run: pip install 'labelwright[trust]'") from error
    own: EllipticCurvePrivateKey = key_of_file(key)
    public = jwk_of(own)
    if workload is None:
        say({"key": public}, as_json=json, text=f"[expert]\nkey = {_inline(public)}")
        return
    asked = Workload.read(workload)
    if dict(asked.table("expert").get("key", {})) != public:
        raise SettingsError(
            f"{workload} names another expert than {key}; write under [expert]: key = {_inline(public)}"
        )
    said = Answers.read(answers, id, label) if answers else None
    shown = Answers.read(rows, id, None) if rows else None

    def decide(question: Mapping[str, Any]) -> Any:
        return said(question) if said is not None else _person(question, shown)

    end = Expertise(own, asked.table("broker")["key"], decide, lambda: datetime.now(UTC), workloads=[asked.digest])
    from labelwright.cli.people import _listen

    listening = _listen(host, port)
    url = f"http://{host}:{listening.getsockname()[1]}/"
    text = (
        f"the expert of {asked.name!r} listens at {url} (Ctrl-C ends it); write it as expert in the workload's [host]"
    )
    print(jsonlib.dumps({"url": url, "key": public}) if json else text, flush=True)
    serve(listening, end)


def _inline(jwk: Mapping[str, str]) -> str:
    return "{ " + ", ".join(f'{name} = "{value}"' for name, value in jwk.items()) + " }"


def _person(question: Mapping[str, Any], shown: Any) -> Any:
    """Ask in this terminal: a class's name, or nothing for 'unsure'."""
    import numpy as np

    from labelwright.trust.answering import classes_of, names_of
    from labelwright.types import NO_LABEL

    classes, out = classes_of(question), []
    for name, given in zip(names_of(question), question["given"].tolist(), strict=True):
        print(f"\nrow {name}, labelled {classes[given] if given < len(classes) else given}")
        for column, value in (shown.row(name) if shown is not None else {}).items():
            print(f"  {column}: {value}")
        while True:
            said = input(f"its right label ({', '.join(classes) or 'a number'}; empty: unsure): ").strip()
            if not said or said in classes or (not classes and said.isdigit()):
                break
        out.append(NO_LABEL if not said else classes.index(said) if classes else int(said))
    return np.array(out, np.int64)
