"""sites: plan, key, join, status and predict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from labelwright.cli.app import app, say
from labelwright.cli.common import Json, State, folder
from labelwright.cli.run import listed, progress_bar
from labelwright.errors import SettingsError

sites = typer.Typer(
    help="Sites that clean together without sharing rows.", rich_markup_mode="rich", no_args_is_help=True
)
app.add_typer(sites, name="sites")

Folder = Annotated[Path, typer.Option("--plan", help="folder of plan.toml and encoder.skops, the same at every site")]
Key = Annotated[Path | None, typer.Option("--key", help="this site's secret key, made by 'sites key'")]


@sites.command(epilog="Example: labelwright sites key --key north.key")
def key(
    key: Annotated[
        Path, typer.Option("--key", help="file for the secret key, for its owner alone; made when missing")
    ] = Path("site.key"),
    json: Json = False,
) -> None:
    """Make this site's key and print its public part, which goes into the plan."""
    from labelwright.sites.keys import key_of

    public = key_of(key, make=True).public
    say({"key": str(key), "public": public}, as_json=json, text=public)


@sites.command(
    epilog="Example: labelwright sites plan plan reviews.csv --label sentiment --site north=10.0.0.1:7000 --site south=10.0.0.2:7000\n\n"
    "With keys, as 'sites key' prints them: --site north=10.0.0.1:7000=3f2a…"
)
def plan(
    output: Annotated[Path, typer.Argument(help="folder to write; copy it to every site")],
    data: Annotated[str, typer.Argument(help="your own rows: they settle the classes and how columns become numbers")],
    site: Annotated[list[str], typer.Option(help="NAME=HOST:PORT or NAME=HOST:PORT=PUBLIC_KEY; once for each member")],
    label: Annotated[str, typer.Option(help="column of the given labels")] = "label",
    id: Annotated[str | None, typer.Option(help="column that names each row")] = None,
    classes: Annotated[
        str | None, typer.Option(help="all labels, comma-separated; default: those of your rows")
    ] = None,
    drop: Annotated[str | None, typer.Option(help="columns to leave out, comma-separated")] = None,
    coordinator: Annotated[
        str, typer.Option(help="the member that aggregates for all and has no rows; default: gossip")
    ] = "",
    aggregate: Annotated[str, typer.Option(help="nearest, trimmed, median, krum or mean")] = "nearest",
    rounds: Annotated[int, typer.Option(min=1, help="exchanges")] = 40,
    steps: Annotated[int, typer.Option(min=1, help="gradient steps before each")] = 10,
    features: Annotated[int, typer.Option(min=0, help="random features; 0: a linear model")] = 1000,
    noise: Annotated[float, typer.Option(min=0, help="privacy noise, as a multiple of one row's reach; 0: none")] = 0.0,
    delta: Annotated[float, typer.Option(min=0, max=1, help="of the privacy guarantee")] = 1e-5,
    secure: Annotated[int, typer.Option(min=0, help="sites in a group of which only the sum is seen; 0: none")] = 0,
    seed: Annotated[int, typer.Option(help="of the random features")] = 0,
    json: Json = False,
) -> None:
    """Write the plan that all sites agree on: what is learned, with whom, how bad sites are held off."""
    from labelwright.sites.joining import drafted

    made = drafted(
        output, data, dict(_member(one) for one in site), label=label, id=id, classes=listed(classes), drop=listed(drop),
        coordinator=coordinator, aggregate=aggregate, rounds=rounds, steps=steps, features=features, noise=noise, delta=delta,
        secure=secure, seed=seed,
    )  # fmt: skip
    told = _told(made) | {"output": str(output)}
    lines = [f"wrote {output}; copy it to every site", *(f"{k.replace('_', ' ')}: {v}" for k, v in told.items())]
    say(told, as_json=json, text="\n".join(lines))


def _member(text: str) -> tuple[str, Any]:
    from labelwright.sites.exchange import parted
    from labelwright.sites.plan import Member

    name, _, rest = text.partition("=")
    address, _, key = rest.partition("=")
    parted(address)
    if not name or (key and len(key) != 128):
        raise SettingsError(
            f"--site {text[:60]!r}; expected NAME=HOST:PORT or NAME=HOST:PORT=KEY, the key of 128 digits"
        )
    return name, Member(address, key)


def _told(made: Any) -> dict[str, Any]:
    from labelwright.sites.message import most_bytes
    from labelwright.sites.robust import bad_allowed

    epsilon = made.epsilon
    groups = len(made.learners) // made.secure if made.secure else len(made.learners)
    return {
        "digest": made.digest,
        "members": list(made.members),
        "keys": "all" if all(m.key for m in made.members.values()) else "missing: anybody can speak in a site's name",
        "bytes_per_neighbour_per_round": most_bytes(made.shape),
        "bad_sites_held_off": 0 if made.aggregate == "mean" else bad_allowed(groups),
        "privacy": "none" if epsilon == float("inf") else f"epsilon {epsilon:.2f} at delta {made.delta:g} for each row",
    }


@sites.command(
    epilog="Example: labelwright sites join reviews.csv --plan plan --name north --listen 0.0.0.0:7000 --state north\n\n"
    "The coordinator has no rows: labelwright sites join --plan plan --name hub --listen 0.0.0.0:7000 --state hub"
)
def join(
    data: Annotated[
        str | None, typer.Argument(help="this site's rows, with the plan's columns; they stay here")
    ] = None,
    plan: Folder = Path("plan"),
    name: Annotated[str, typer.Option(help="this site's name in the plan")] = "",
    listen: Annotated[str | None, typer.Option(help="host:port to answer on; default: the plan's address")] = None,
    state: State = Path("state"),
    key: Key = None,
    trusted_column: Annotated[str | None, typer.Option(help="column that marks rows whose label you vouch for")] = None,
    evidence: Annotated[
        str | None, typer.Option(help="kind of TEE to show to those who ask; see 'trust doctor'")
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="exchange only with sites whose evidence this policy accepts")
    ] = None,
    gather: Annotated[float, typer.Option(min=0, help="seconds to wait for the others before the first round")] = 30.0,
    patience: Annotated[float, typer.Option(min=0, help="seconds to wait for one that was there a round ago")] = 5.0,
    pause: Annotated[float, typer.Option(min=0, help="seconds between rounds")] = 0.0,
    linger: Annotated[float, typer.Option(min=0, help="seconds to stay for those that are behind")] = 30.0,
    strict: Annotated[bool, typer.Option("--strict", help="stop at the first bad row")] = False,
    json: Json = False,
) -> None:
    """Take part: learn with the others, then judge this site's labels. Run again after a stop, it goes on.

    Afterwards 'status', 'explain', 'export', 'corrections' and 'verify' read this site's own ledger.
    """
    from labelwright.sites.joining import join as work
    from labelwright.sites.keys import key_of
    from labelwright.sites.plan import Plan
    from labelwright.sites.running import Manners, Membership

    agreed = Plan.read(plan)
    rules = None
    if policy is not None:
        from labelwright.trust.policy import Policy

        rules = Policy.read(policy)
    agreed.neighbours(name)
    who = Membership(agreed, name, listen or agreed.members[name].address, key_of(key) if key else None, evidence, rules,
                     Manners(gather, patience, pause, linger))  # fmt: skip
    with progress_bar() as bar:
        task = bar.add_task(f"{name}: rounds", total=agreed.rounds)
        told = work(plan, who, folder(state), data, trusted=trusted_column, strict=strict,
                    progress=lambda done, total: bar.update(task, completed=done))  # fmt: skip
    say(told, as_json=json, text=_sentences(told))


def _sentences(told: dict[str, Any]) -> str:
    """A site's standing for a person."""
    lines = [f"{told['site']}: {told['rounds']} rounds, plan {told['plan'][:12]}"]
    if told["noise_rate"] is not None:
        lines.append(
            f"about {100 * told['noise_rate']:.1f} % of the labels here look wrong; "
            f"{100 * told['shared_noise_rate']:.1f} % at the middle site"
        )
    if told["verdicts"]:
        words = ("trusted", "corrected", "rejected", "set_aside")
        lines.append(", ".join(f"{told['verdicts'][word]:,} {word.replace('_', ' ')}" for word in words))
    if told["absent"]:
        lines.append(f"absent in the last round: {', '.join(told['absent'])}")
    for site, reasons in told["set_aside"].items():
        lines += [f"set aside from {site}: {times} × {reason}" for reason, times in sorted(reasons.items())][:10]
    return "\n".join(lines)


@sites.command(epilog="Example: labelwright sites status --state north")
def status(state: State = Path("state"), json: Json = False) -> None:
    """How far this site is, whom it heard, what it set aside and why."""
    from labelwright.sites.records import told

    found = told(folder(state))
    say(found, as_json=json, text=_sentences(found))


@sites.command(epilog="Example: labelwright sites predict new.csv --plan plan --state north --output predicted.csv")
def predict(
    data: Annotated[str, typer.Argument(help="rows with the plan's columns")],
    output: Annotated[Path, typer.Option(help="Parquet or CSV, by suffix")],
    plan: Folder = Path("plan"),
    state: State = Path("state"),
    json: Json = False,
) -> None:
    """Labels and probabilities of other rows, by the model that the sites learned together."""
    from labelwright.sites.joining import predictions
    from labelwright.tables import write_tables

    count = 0

    def parts() -> Any:
        nonlocal count
        for part in predictions(plan, folder(state), data):
            count += part.num_rows
            yield part

    write_tables(parts(), output)
    say({"rows": count, "output": str(output)}, as_json=json, text=f"wrote {count:,} rows to {output}")
