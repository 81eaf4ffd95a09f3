"""A stream by its address: ``redis://``, ``kafka://``, or a folder."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from labelwright.errors import SettingsError
from labelwright.streams.folder import FolderSource
from labelwright.streams.kafka import KafkaSource
from labelwright.streams.message import Parse, parse_json
from labelwright.streams.redis import RedisSource
from labelwright.streams.source import Source

SCHEMES = ("redis", "rediss", "kafka", "folder")
_FORMATS = ("json", "avro", "avro-single", "avro-confluent")


def is_stream(address: str) -> bool:
    """Whether an address is a stream's by its looks.

    >>> is_stream("kafka://host:9092/orders"), is_stream("reviews.csv")
    (True, False)
    """
    return address.partition("://")[0] in SCHEMES and "://" in address


def open_stream(address: str) -> tuple[Source, Parse]:
    """(the source, how its messages are read). Raises SettingsError on an address that says too little.

    ``redis://host:port[/db]/STREAM?group=G&consumer=C``, ``rediss://`` with TLS; ``kafka://host:port,host:port/TOPIC?config=FILE``
    where FILE holds librdkafka's settings as ``name=value`` lines; ``folder://PATH?settle=1&patience=60`` or a plain path.
    Brokers also take ``format=json|avro|avro-single|avro-confluent`` and ``schema=FILE.avsc`` (with ``7:FILE.avsc`` the registry's
    number of it).

    >>> open_stream("kafka://localhost:9092/orders")[0].name
    'orders'
    """
    if not is_stream(address):
        return FolderSource(address), parse_json
    url = urlsplit(address)
    options = parse_qsl(url.query)
    single = {name: value for name, value in options if name != "schema"}
    if url.scheme == "folder":
        seconds = {name: _seconds(name, single.pop(name)) for name in ("settle", "patience") if name in single}
        _nothing_left(single, ("settle", "patience"))
        return FolderSource(url.netloc + unquote(url.path), **seconds), parse_json
    parse = _parser(single.pop("format", "json"), [value for name, value in options if name == "schema"])
    return (_kafka(url, single) if url.scheme == "kafka" else _redis(url, single)), parse


def _redis(url: SplitResult, options: dict[str, str]) -> RedisSource:
    database, _, stream = unquote(url.path.lstrip("/")).rpartition("/")
    if not stream or not (database or "0").isdigit():
        raise SettingsError(f"{shown(url.geturl())} names no stream; expected redis://host:port/db/STREAM")
    group, consumer = options.pop("group", ""), options.pop("consumer", "labelwright")
    _nothing_left(options, ("group", "consumer", "format", "schema"))
    return RedisSource(f"{url.scheme}://{url.netloc}/{database or 0}", stream, group=group, consumer=consumer)


def _kafka(url: SplitResult, options: dict[str, str]) -> KafkaSource:
    topic = unquote(url.path.strip("/"))
    if not topic or "/" in topic or not url.netloc:
        raise SettingsError(f"{shown(url.geturl())} names no topic; expected kafka://host:9092,host:9092/TOPIC")
    held = _config(Path(options.pop("config"))) if "config" in options else {}
    _nothing_left(options, ("config", "format", "schema"))
    return KafkaSource(url.netloc, topic, options=held)


def _config(path: Path) -> dict[str, str]:
    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the Kafka settings {path} cannot be read ({error}); check the path") from error
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    if any(not sign for _, sign, _ in pairs):
        raise SettingsError(
            f"{path} holds a line without '='; expected name=value, as librdkafka's CONFIGURATION.md has them"
        )
    return {name.strip(): value.strip() for name, _, value in pairs}


def _parser(form: str, schemas: list[str]) -> Parse:
    if form not in _FORMATS:
        raise SettingsError(f"the format {form!r} is unknown; expected one of {', '.join(_FORMATS)}")
    if form == "json":
        return parse_json
    from labelwright.streams.avro import parser

    return parser(form, schemas)


def _seconds(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise SettingsError(f"{name}={text} is no number of seconds") from error


def _nothing_left(options: dict[str, str], known: tuple[str, ...]) -> None:
    if options:
        raise SettingsError(f"the address has the unknown option {next(iter(options))!r}; known are {', '.join(known)}")


def shown(address: str) -> str:
    """The address without its password.

    >>> shown("redis://ann:secret@host/0/rows")
    'redis://ann:***@host/0/rows'
    """
    head, sign, rest = address.partition("://")
    who, at, where = rest.rpartition("@")
    return f"{head}{sign}{who.partition(':')[0]}:***@{where}" if at and ":" in who else address


__all__ = ["SCHEMES", "is_stream", "open_stream", "shown"]
