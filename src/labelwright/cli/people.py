"""serve, experts and answers: the commands for people who answer."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labelwright.cli.app import app, say
from labelwright.cli.common import Json, LedgerUrl, State, folder
from labelwright.errors import DataError, SettingsError

if TYPE_CHECKING:
    from labelwright.web.desk import Desk

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@app.command(
    epilog="Example: labelwright serve --state reviews\n\nBeyond this machine: labelwright experts add ann --state reviews; then "
    "labelwright serve --state reviews --host 0.0.0.0 --certificate cert.pem --key key.pem"
)
def serve(
    state: State = Path("state"),
    host: Annotated[
        str, typer.Option(help="address to listen on; beyond loopback every expert needs a token")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one")] = 8117,
    blind: Annotated[
        float, typer.Option(min=0, max=1, help="share of the questions shown without a suggestion; 1: all")
    ] = 0.0,
    gold: Annotated[
        float,
        typer.Option(min=0, max=0.9, help="share of the questions that are rows you vouch for, to measure people by"),
    ] = 0.0,
    lease: Annotated[float, typer.Option(min=1, help="seconds for which a question is one person's")] = 600.0,
    accounts: Annotated[bool, typer.Option("--accounts", help="ask for tokens on this machine too")] = False,
    certificate: Annotated[Path | None, typer.Option(help="PEM file, for TLS")] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file of its private key")] = None,
    behind_proxy: Annotated[
        bool, typer.Option("--behind-proxy", help="a proxy on this machine speaks TLS to the experts")
    ] = False,
    ledger: LedgerUrl = None,
    json: Json = False,
) -> None:
    """Show the open questions to people in a browser, and take their answers; the run takes them in with its next batch."""
    try:
        import uvicorn

        from labelwright.web.app import create_app
        from labelwright.web.desk import Desk
    except ModuleNotFoundError as error:
        raise SettingsError(f"the page needs {error.name}; run: pip install 'labelwright[web]'") from error
    local = host in LOOPBACK
    secure = certificate is not None or behind_proxy
    if not local and not secure:
        raise SettingsError(
            "beyond this machine, tokens and answers must be encrypted; give --certificate and --key, or --behind-proxy "
            "when a proxy does that"
        )
    if (certificate is None) != (key is None):
        raise SettingsError("--certificate and --key belong together; give both")
    desk = Desk(folder(state, ledger), lease=lease, blind=blind, gold=gold)
    if not local and not desk.people.all():
        raise SettingsError("nobody could sign in: there are no experts yet; run: labelwright experts add NAME")
    made = create_app(
        desk, local=local and not behind_proxy, accounts=accounts or behind_proxy or not local, secure=secure
    )
    listening = _listen(host, port)
    at = f"{'https' if certificate else 'http'}://{'localhost' if local else host}:{listening.getsockname()[1]}/"
    _greet(at, desk, state, json=json, gold=gold)
    options: dict[str, Any] = {"ssl_certfile": certificate, "ssl_keyfile": key} if certificate else {}
    config = uvicorn.Config(
        made, log_level="warning", access_log=False, proxy_headers=behind_proxy, server_header=False, **options
    )
    uvicorn.Server(config).run(sockets=[listening])


def _greet(at: str, desk: Desk, state: Path, *, json: bool, gold: float) -> None:
    waiting = desk.queue.waiting()
    say(
        {"url": at, "waiting": waiting, "gold": desk.gold_rows},
        as_json=json,
        text=f"{waiting} questions wait at {at} (Ctrl-C ends it; answers are safe)",
    )
    if gold and not desk.gold_rows:
        print(
            f"--gold has no effect: nobody vouches for a row of {state}; use --clean-rows or --trusted-column with 'run'"
        )


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises SettingsError when that cannot be."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(
        family, socket.SOCK_STREAM, socket.IPPROTO_TCP
    )  # named, so that asyncio turns Nagle's delay off
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except OSError as error:
        made.close()
        raise SettingsError(f"{host}:{port} cannot be used ({error.strerror}); choose another --port") from error
    made.listen(2048)
    return made


experts = typer.Typer(no_args_is_help=True, help="Who may answer beyond this machine: one token each.")
app.add_typer(experts, name="experts")


@experts.command("add", epilog="Example: labelwright experts add ann --state reviews")
def add(
    name: Annotated[str, typer.Argument(help="goes with every answer into the ledger")],
    lead: Annotated[
        bool, typer.Option("--lead", help="may settle disputes, write guidelines and see the dashboard")
    ] = False,
    state: State = Path("state"),
    ledger: LedgerUrl = None,
    json: Json = False,
) -> None:
    """Make a token for an expert; it is shown once. A second time makes a new one, and the old one is no longer good."""
    token = _people(state, ledger).add(name, lead=lead)
    say(
        {"name": name, "token": token, "lead": lead},
        as_json=json,
        text=f"{token}\nGive it to {name}; it is not shown again.",
    )


@experts.command("list", epilog="Example: labelwright experts list --state reviews")
def listed(state: State = Path("state"), ledger: LedgerUrl = None, json: Json = False) -> None:
    """Name the experts."""
    found = _people(state, ledger).all()
    say(
        found,
        as_json=json,
        text="\n".join(f"{p['name']}{' (lead)' if p['lead'] else ''}" for p in found) or "no experts yet",
    )


@experts.command("remove", epilog="Example: labelwright experts remove ann --state reviews")
def remove(name: str, state: State = Path("state"), ledger: LedgerUrl = None, json: Json = False) -> None:
    """Make an expert's token worthless; the answers stay."""
    _people(state, ledger).remove(name)
    say({"removed": name}, as_json=json, text=f"{name}'s token is no longer good")


def _people(state: Path, ledger: str | None) -> Any:
    from labelwright.ledger.people import People

    return People(folder(state, ledger).history().engine)


@app.command(
    epilog="Example: labelwright answers --output answers.json --state reviews\n\n"
    "Example: labelwright answers --take annotated.json --state reviews"
)
def answers(
    output: Annotated[
        Path | None, typer.Option(help="write people's answers: .csv, .parquet, or .json for Label Studio")
    ] = None,
    take: Annotated[Path | None, typer.Option(help="take answers from a file of one of these kinds")] = None,
    state: State = Path("state"),
    ledger: LedgerUrl = None,
    json: Json = False,
) -> None:
    """People's answers, out to a file or in from one; the run takes them in with its next batch."""
    from labelwright.answers import give_out, take_in

    place = folder(state, ledger)
    if (output is None) == (take is None):
        raise SettingsError("say what to do: --output FILE writes the answers, --take FILE reads some")
    if output is not None:
        count = give_out(place, output)
        say({"answers": count, "output": str(output)}, as_json=json, text=f"wrote {count} answers to {output}")
        return
    assert take is not None
    try:
        content = take.read_bytes()
    except OSError as error:
        raise DataError(f"{take} cannot be read ({error.strerror}); check the path") from error
    told = take_in(place, content, take)
    lines = [f"took {told['taken']} answers ({told['again']} were known, {told['late']} came late)", *told["refused"]]
    say(told, as_json=json, text="\n".join(lines))
