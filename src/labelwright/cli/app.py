"""The program itself: global options, errors as one sentence, exit codes 0 done, 1 found something, 2 cannot."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

import labelwright
from labelwright.errors import LabelwrightError

log = logging.getLogger("labelwright")
INTERRUPTED = 130


class _Ordered(TyperGroup):
    """Lists commands in the order in which a new user meets them."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)


app = typer.Typer(
    name="labelwright",
    cls=_Ordered,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Learn from labels that cannot be trusted: dirty batches in; clean data, a robust classifier and few questions out."
    "\n\nStart with: [bold]labelwright demo[/bold]",
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"labelwright {labelwright.__version__}")
        raise typer.Exit


@app.callback()
def options(
    ctx: typer.Context,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with options: one table a command, e.g. [run] batch-size = 500")
    ] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error")] = "warning",
    log_file: Annotated[Path | None, typer.Option(help="write the log here instead of the terminal")] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Options of every command."""
    level = logging.getLevelNamesMapping().get(log_level.upper())
    if level is None:
        raise typer.BadParameter(f"{log_level!r} is no log level; expected debug, info, warning or error")
    handler = logging.FileHandler(log_file) if log_file else logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.handlers, log.propagate = [handler], False
    log.setLevel(level)
    if config is not None:
        ctx.default_map = read_config(config)


def read_config(path: Path) -> dict[str, Any]:
    """Options from a TOML file, by command, dashes or underscores. Raises SettingsError when it cannot be read."""
    from labelwright.errors import SettingsError
    from labelwright.toml import tables_of

    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise SettingsError(f"the config file {path} cannot be read ({why}); check the path") from error
    tables = tables_of(text, f"the config file {path}")

    def spelled(table: dict[str, Any]) -> dict[str, Any]:
        return {k.replace("-", "_"): spelled(v) if isinstance(v, dict) else v for k, v in table.items()}

    return {command: spelled(table) for command, table in tables.items() if isinstance(table, dict)}


def say(value: Any, *, as_json: bool, text: str = "") -> None:
    """Print for a machine or for a person."""
    print(json.dumps(value, default=str) if as_json else text)


def main() -> None:
    """Entry point: every expected failure is one sentence on stderr and exit code 2."""
    from labelwright.cli import audit, bench, changes, consensus, look, people, predict, run, sites, trust  # noqa: F401  (they add their commands to app)

    if logging.lastResort:  # where the logs of libraries end up
        logging.lastResort.addFilter(_no_interrupt)
    try:
        code = app(standalone_mode=False)
        if code == INTERRUPTED:  # the command line library made an exit code of Ctrl-C
            _stopped()
        sys.exit(code if isinstance(code, int) else 0)
    except typer.Exit as error:
        sys.exit(error.exit_code)
    except LabelwrightError as error:
        _fail(str(error))
    except OSError as error:
        _fail(
            f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}; check the path and the free space"
        )
    except (KeyboardInterrupt, typer.Abort):
        _stopped()
    except Exception as error:  # usage errors of the command line library carry their own text and code
        if not hasattr(error, "format_message"):
            raise
        error.show()  # type: ignore[attr-defined]
        sys.exit(2)


LONGEST = 1000


def _no_interrupt(record: logging.LogRecord) -> bool:
    """Ctrl-C while a connection goes back to its pool is logged there with a traceback, and raised again: once is enough."""
    return not (record.exc_info and isinstance(record.exc_info[1], KeyboardInterrupt))


def _stopped() -> NoReturn:
    print("labelwright: stopped; nothing that was finished is lost, run the same command to go on", file=sys.stderr)
    sys.exit(INTERRUPTED)


def _fail(sentence: str) -> None:
    sentence = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in sentence)  # of any hand
    if len(sentence) > LONGEST:  # a name or a value of somebody's, in the main
        sentence = f"{sentence[: LONGEST // 2]} … {sentence[-LONGEST // 2 :]}"
    log.info("ended: %s", sentence)
    if "--json" in sys.argv:
        print(json.dumps({"error": sentence}))
    print(f"labelwright: {sentence}", file=sys.stderr)
    sys.exit(2)
