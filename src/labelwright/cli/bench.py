"""bench: the paper's experiments."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from labelwright.cli.app import app, say
from labelwright.cli.common import DataDir, Json, Ray, Seed, Workers
from labelwright.cli.run import progress_bar
from labelwright.scale import Mapper, checked, cores, open_mapper

bench = typer.Typer(help="The paper's experiments, reproduced.", rich_markup_mode="rich", invoke_without_command=True)
app.add_typer(bench, name="bench")

Repeats = Annotated[int, typer.Option(min=1, help="repeats, each with its own rows, order and noise")]
Kernel = Annotated[str, typer.Option(help="rbf or linear")]


@bench.callback()
def listing(
    ctx: typer.Context,
    list_: Annotated[
        bool, typer.Option("--list", help="what ran, what did not and why: data sets and experiments")
    ] = False,
    output: Annotated[Path, typer.Option(help="folder of the results")] = Path("experiments/results"),
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """The paper's experiments, reproduced."""
    if list_ or ctx.invoked_subcommand is None:
        from labelwright.bench.listing import listed

        found = listed(data_dir, output)
        lines = [f"{name}: {word}" for name, word in found["data"].items()]
        lines += [
            "",
            *(f"{row['experiment']} {row['dataset']} {row['profile']}: {row['state']}" for row in found["experiments"]),
        ]
        say(found, as_json=json, text="\n".join(lines))


@bench.command(epilog="Example: labelwright bench qal --dataset pendigits --noise 0.6 --repeats 10 --json")
def qal(
    dataset: Annotated[str, typer.Option(help="pendigits, usps or optdigits")] = "pendigits",
    noise: Annotated[float, typer.Option(min=0, max=1, help="share of wrong labels")] = 0.6,
    repeats: Repeats = 10,
    kernel: Kernel = "rbf",
    queries: Annotated[int, typer.Option(min=0, help="questions a batch")] = 5,
    workers: Workers = None,
    ray: Ray = None,
    data_dir: DataDir = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """One cell of Figs 4 and 5: all methods of QAL on one data set, accuracies in percent."""
    from labelwright.bench.qal import run_cell

    count = min(cores(), repeats) if workers is None and ray is None else workers
    with open_mapper(count, ray) as mapper, progress_bar() as bar:
        task = bar.add_task(f"{dataset} {noise:g}", total=repeats)
        result = run_cell(
            dataset,
            noise,
            repeats=repeats,
            kernel=kernel,
            count=queries,
            seed=seed,
            workers=mapper,
            data_dir=data_dir,
            progress=lambda done: bar.update(task, completed=done),
        )
    if json:
        say(result, as_json=True)
        return
    table = Table(title=f"{dataset}, {100 * noise:.0f} % wrong, {kernel}, {repeats} repeats", title_justify="left")
    for column in ("method", "accuracy %", "± 95 %", "questions"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for name, row in result["methods"].items():
        half = "" if row["ci95"] is None else f"{row['ci95']:.2f}"
        table.add_row(name, f"{row['mean']:.2f}", half, str(result["queries_used"][name]))
    Console().print(table)


def _figure(
    name: str, kernel: str, repeats: int, output: Path, mapper: Mapper, data_dir: str | None, seed: int, json: bool
) -> None:
    from labelwright.bench.figures import run_figure
    from labelwright.bench.figures import table as rows_of

    with progress_bar() as bar:
        task = bar.add_task(name, total=repeats)
        result = run_figure(
            name,
            output,
            kernel=kernel,
            repeats=repeats,
            seed=seed,
            workers=mapper,
            data_dir=data_dir,
            progress=lambda dataset, done: bar.update(task, description=f"{name} {dataset}", completed=done),
        )
    if json:
        say(result, as_json=True)
        return
    head, *rows = rows_of(result)
    table = Table(
        *head, title=f"{name}: {100 * result['noise']:.0f} % wrong labels, {kernel} kernel, {repeats} repeats"
    )
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    for dataset, reason in result["missing"].items():
        print(f"{dataset} did not run: {reason}")
    print(f"wrote {output}/{name}-{kernel}.json, .png and .svg")


Output = Annotated[Path, typer.Option(help="folder for the JSON and the plots; finished data sets are not run again")]


@bench.command(epilog="Example: labelwright bench fig4 --repeats 100 --kernel rbf")
def fig4(
    kernel: Kernel = "rbf",
    repeats: Repeats = 100,
    output: Output = Path("experiments/results"),
    workers: Workers = None,
    ray: Ray = None,
    data_dir: DataDir = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Fig. 4: three data sets at 60 % wrong labels, accuracy after every batch."""
    with open_mapper(workers, ray) as mapper:
        _figure("fig4", kernel, repeats, output, mapper, data_dir, seed, json)


@bench.command(epilog="Example: labelwright bench fig5 --repeats 100 --kernel linear")
def fig5(
    kernel: Kernel = "rbf",
    repeats: Repeats = 100,
    output: Output = Path("experiments/results"),
    workers: Workers = None,
    ray: Ray = None,
    data_dir: DataDir = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Fig. 5: three data sets at 80 % wrong labels, accuracy after every batch."""
    with open_mapper(workers, ray) as mapper:
        _figure("fig5", kernel, repeats, output, mapper, data_dir, seed, json)


@bench.command(epilog="Example: labelwright bench radduo --dataset mnist --noise 0.3")
def radduo(
    dataset: Annotated[str, typer.Option(help="mnist, usps, pendigits, optdigits or digits")] = "mnist",
    noise: Annotated[float, typer.Option(min=0, max=1, help="share of wrong labels")] = 0.3,
    classifier: Annotated[str, typer.Option(help="linear or boosted")] = "linear",
    seeds: Annotated[int, typer.Option(min=1, help="repeats")] = 1,
    output: Annotated[Path | None, typer.Option(help="folder for the JSON")] = None,
    data_dir: DataDir = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """RAD Duo, Slim and the buffer beside D0-only, No-Sel and Full-Clean, on one stream of 10,000 rows."""
    from labelwright.bench.radduo import run_radduo

    with progress_bar() as bar:
        task = bar.add_task(dataset, total=None)
        result = run_radduo(
            dataset,
            noise=noise,
            classifier=classifier,
            seeds=seeds,
            seed=seed,
            data_dir=data_dir,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if output is not None:
        import json as format_

        output.mkdir(parents=True, exist_ok=True)
        (output / f"radduo-{dataset}-{classifier}.json").write_text(format_.dumps(result, indent=1))
    if json:
        say(result, as_json=True)
        return
    table = Table(title=result["title"], title_justify="left")
    names = ("accuracy %", "± 95 %", "kept precision", "kept recall", "noise left", "judging s", "training s")
    table.add_column("method")
    for column in names:
        table.add_column(column, justify="right")
    for name, row in result["methods"].items():
        table.add_row(name, *(row["shown"][column] for column in names))
    Console().print(table)


Sets = Annotated[str, typer.Option(help="cifar10, cifar100, mnist, fashion-mnist, gtsrb, orl-faces or facescrub")]
Compared = Annotated[str, typer.Option(help="mnist, fashion-mnist, cifar10, gtsrb; cifar100 in the paper profile")]
Profile = Annotated[str, typer.Option(help="compact (2 cores) or paper (the paper's own setting; a GPU)")]
Seeds = Annotated[int | None, typer.Option(min=1, help="repeats; the profile's when not given")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda")]
Pieces = Annotated[Path, typer.Option(help="folder for JSON, plot and pieces; finished pieces are not run again")]
RESULTS = Path("experiments/results")
Together = Annotated[
    int, typer.Option("--workers", metavar="N", help="pieces run at once, each in a process; 8 to 16 fill a GPU")
]


def _deep(
    name: str, run: Callable[..., dict[str, Any]], rows_of: Callable[[Any], list[list[str]]], json: bool,
    dataset: str, options: dict[str, Any], **more: Any,
) -> None:  # fmt: skip
    """Run an experiment behind a bar; print its table or its JSON. options: of :class:`labelwright.bench.pieces.How`. more: its own."""
    from labelwright.bench.pieces import How

    checked(options["workers"])
    if options["device"] != "auto":
        from labelwright.learners.devices import find_device

        find_device(options["device"])  # said before the data is read
    with progress_bar() as bar:
        task = bar.add_task(f"{name} {dataset}", total=None)

        def progress(what: str, done: int, total: int) -> None:
            bar.update(task, description=f"{name} {dataset} {what}", completed=done, total=total)

        how = How(**options, progress=progress)
        result = run(dataset, how, **more)
    if json:
        say(result, as_json=True)
        return
    last = "last epoch" if name in ("table3", "fig7", "transfer") else "last batch"
    title = f"{name}: {dataset}, {how.profile}, {result['seeds']} seed(s), accuracies in percent, {last}"
    _show(rows_of(result), title)
    print(f"wrote {how.file(result.get('stem', f'{name}-{dataset}'))} and .png")


@bench.command(epilog="Example: labelwright bench table2 --dataset cifar10 --profile compact --seeds 3 --json")
def table2(
    dataset: Sets = "cifar10",
    profile: Profile = "compact",
    seeds: Seeds = None,
    ablations: Annotated[bool, typer.Option(help="also the buffer and the slim variants")] = False,
    device: Device = "auto",
    workers: Together = 1,
    output: Pieces = RESULTS,
    data_dir: DataDir = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Table II: No-Sel, RAD Duo and Full-Clean with networks, the paper's way and improved. The same command goes on after a
    stop."""
    from labelwright.bench import table2 as room

    how = {"profile": profile, "seeds": seeds, "seed": seed, "device": device, "workers": workers, "output": output,
           "data_dir": data_dir}  # fmt: skip
    _deep("table2", room.run_table2, room.table, json, dataset, how, ablations=ablations)


@bench.command(epilog="Example: labelwright bench table1")
def table1(data_dir: DataDir = None, json: Json = False) -> None:
    """Table I: the settings of every data set, the paper's and the compact ones, and whether its data is at hand."""
    from labelwright.bench.listing import settings_table

    rows = settings_table(data_dir)
    if json:
        say([dict(zip(rows[0], row, strict=True)) for row in rows[1:]], as_json=True)
        return
    _show(rows, "Settings")


@bench.command(epilog="Example: labelwright bench table3 --dataset mnist --profile compact --seeds 1")
def table3(
    dataset: Compared = "mnist",
    profile: Profile = "compact",
    seeds: Seeds = None,
    half: Annotated[bool, typer.Option(help="with half of the data, too")] = True,
    method: Annotated[
        list[str] | None, typer.Option(help="only this row of the table; name several by repeating it")
    ] = None,
    device: Device = "auto",
    workers: Together = 1,
    output: Pieces = RESULTS,
    data_dir: DataDir = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Table III: CopyNet, its controls and the published baselines on the same rows, with all and half of the data. The same
    command goes on after a stop."""
    from labelwright.bench import table3 as room

    how = {"profile": profile, "seeds": seeds, "seed": seed, "device": device, "workers": workers, "output": output,
           "data_dir": data_dir}  # fmt: skip
    _deep(
        "table3", room.run_table3, room.table, json, dataset, how, half=half, methods=tuple(method) if method else None
    )


def _experiment(
    name: str,
    sentence: str,
    *,
    room: str,
    run: str,
    rows_of: str = "table",
    sets: Any = Sets,
    default: str = "cifar10",
    **more: Any,
) -> None:
    """Add a command that runs an experiment of ``labelwright.bench`` and has the usual options only.

    room, run, rows_of: the module, its function that runs it, and the one that makes a table of it. sets, default: of data.
    """

    def command(
        dataset: str = default,
        profile: Profile = "compact",
        seeds: Seeds = None,
        device: Device = "auto",
        workers: Together = 1,
        output: Pieces = RESULTS,
        data_dir: DataDir = None,
        seed: Seed = 0,
        json: Json = False,
    ) -> None:
        place = import_module(f"labelwright.bench.{room}")
        how = {"profile": profile, "seeds": seeds, "seed": seed, "device": device, "workers": workers, "output": output,
               "data_dir": data_dir}  # fmt: skip
        _deep(name, getattr(place, run), getattr(place, rows_of), json, dataset, how, **more)

    command.__annotations__["dataset"] = sets
    example = f"Example: labelwright bench {name} --dataset {default} --seeds 1"
    bench.command(name, help=f"{sentence} The same command goes on after a stop.", epilog=example)(command)


_experiment(
    "fig2", "Fig. 2: accuracy after every epoch, the paper's way of training; shares its pieces with table2.",
    room="table2", run="run_table2", recipes=("paper",),
)  # fmt: skip
_experiment(
    "framework", "Filter, expert and imitator added one by one, under constant, bursty and changing noise.",
    room="framework", run="run_framework",
    sets=Annotated[str, typer.Option(help="pendigits (SVMs), or a set of pictures (networks), as in table2")],
)  # fmt: skip
_experiment(
    "qactor", "Deep QAL in QActor's setting: 30 and 60 % wrong labels, fixed and dynamic budgets, margin and CENT.",
    room="qactor", run="run_qactor",
)  # fmt: skip
_experiment(
    "fig7", "Fig. 7: CopyNet under 20, 30 and 40 % of wrong labels; shares its pieces with table3.",
    room="table3", run="run_fig7", rows_of="fig7_table", sets=Compared,
)  # fmt: skip
_experiment(
    "transfer", "Another noise pattern, and noise that fluctuates: CopyNet's Expert retrained with a tenth of the truth.",
    room="transfer", run="run_transfer", sets=Compared, default="mnist",
)  # fmt: skip


_experiment(
    "money", "One budget in money over an expert, the expert's yes or no, and a crowd, against each of them alone.",
    room="money", run="run_money",
    sets=Annotated[str, typer.Option(help="a data set for regular models: pendigits, letter, ...")], default="pendigits",
)  # fmt: skip
_experiment(
    "live", "A run with the experts' page open and a scripted person in a browser, against none and random questions.",
    room="live", run="run_live", sets=Annotated[str, typer.Option(help="usps or mnist: grey pictures")], default="mnist",
)  # fmt: skip
_experiment(
    "poison-honest", "Does honest noise raise an attack alarm, and do attacks on the same rows? 100 seeds, on features.",
    room="poison_honest", run="run_honest",
    sets=Annotated[str, typer.Option(help="a data set for regular models")], default="pendigits",
)  # fmt: skip
_experiment(
    "poison", "Attacks by rate: undefended, the watch, and ART's activation clustering and spectral signatures.",
    room="poison", run="run_poison", rows_of="poison_table",
    sets=Annotated[str, typer.Option(help="mnist or fashion-mnist")], default="mnist",
)  # fmt: skip
_experiment(
    "sites", "Eight sites that clean digits together without sharing rows, against pooled training and each alone.",
    room="sites", run="run_sites",
    sets=Annotated[str, typer.Option(help="mnist, usps or digits")], default="mnist",
)  # fmt: skip


WORDS = {"attack", "way", "method", "strategy", "noise", "data set", "profile", "over", "data", "wrong"}


def _show(rows: list[list[str]], title: str) -> None:
    """A table without its empty columns, as wide as it has to be."""
    head, *body = rows
    kept = [at for at in range(len(head)) if any(row[at] for row in body)]
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for at in kept:
        left = head[at] in WORDS
        table.add_column(head[at], justify="left" if left else "right", no_wrap=True)
    for row in body:
        table.add_row(*(row[at] for at in kept))
    console = Console()
    needed = Measurement.get(console, console.options.update(max_width=10_000), table).maximum
    Console(width=max(console.width, needed)).print(table)
