"""The expert's side of a sealed run: its key, a table of right labels, and the small server that takes sealed questions."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from labelwright.errors import LabelwrightError, SettingsError, SourceError
from labelwright.trust.broker.keyfolder import write_private
from labelwright.trust.files import SMALL, read_bytes
from labelwright.trust.seal import new_key
from labelwright.trust.seal.arrays import Array
from labelwright.types import NO_LABEL, Ints

MOST_QUESTION = 256 << 20


def key_of_file(path: Path) -> ec.EllipticCurvePrivateKey:
    """The private key (EC P-256, PEM) in a file, made when there is none. Raises SettingsError when others can read it, or it is none."""
    if not path.exists():
        pem = new_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_private(path, pem)
    try:
        if path.stat().st_mode & 0o077:
            raise SettingsError(f"others can read {path}, which holds a private key; run: chmod 600 {path}")
        key = load_pem_private_key(read_bytes(path, SMALL), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        if isinstance(error, SettingsError):
            raise
        raise SettingsError(
            f"{path} holds no private key without a password; expected EC P-256 in PEM, or no file at all"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise SettingsError(f"{path} holds a key of another kind; expected EC P-256 in PEM")
    return key


def classes_of(question: Mapping[str, Array]) -> list[str]:
    """The classes' names, in order, where the owner sealed them.

    >>> classes_of({"classes": np.frombuffer(b'["bad", "good"]', np.uint8)})
    ['bad', 'good']
    """
    return [str(name) for name in json.loads(question["classes"].tobytes())] if "classes" in question else []


def names_of(question: Mapping[str, Array]) -> list[str]:
    """What the owner calls each row: its id where sealed, else its key."""
    if "id" not in question:
        return [str(key) for key in question["keys"].tolist()]
    return [bytes(row).rstrip(b"\0").decode("utf-8", "backslashreplace") for row in question["id"]]


class Answers:
    """A table of rows by the owner's name for them. label: the column of right labels.

    Called with a question, says each row's class; a row that is not in the table, or whose label is empty or no class, is unsure.
    """

    def __init__(self, rows: Mapping[str, Mapping[str, Any]], label: str | None):
        self._rows, self._label = rows, label

    @classmethod
    def read(cls, path: Path, id: str, label: str | None) -> Answers:
        """Read CSV or Parquet. Raises SourceError or SettingsError when it lacks a column."""
        from labelwright.tables import open_source

        rows: dict[str, Mapping[str, Any]] = {}
        for table in open_source(str(path)).chunks(10_000):
            lacking = [name for name in (id, label) if name is not None and name not in table.column_names]
            if lacking:
                raise SettingsError(
                    f"{path} has no column {lacking[0]!r}; it has {', '.join(table.column_names)[:200]}"
                )
            rows |= {str(row[id]): row for row in table.to_pylist()}
        if not rows:
            raise SourceError(f"{path} holds no row; give a table with a column {id!r}")
        return cls(rows, label)

    def row(self, name: str) -> Mapping[str, Any]:
        """A row's columns, empty when it is not in the table."""
        return self._rows.get(name, {})

    def __call__(self, question: Mapping[str, Array]) -> Ints:
        classes = {name: code for code, name in enumerate(classes_of(question))}
        said = [str(self.row(name).get(self._label or "", "")) for name in names_of(question)]
        return np.array([classes.get(text, _code(text) if not classes else NO_LABEL) for text in said], np.int64)


def _code(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 9 else NO_LABEL


def serve(listening: socket.socket, answer: Callable[[bytes], bytes]) -> None:
    """Take sealed questions by POST, one after the other, until interrupted. A refusal is told with 403 and its sentence."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 30

        def do_POST(self) -> None:
            length = self.headers.get("content-length", "")
            size = int(length) if length.isascii() and length.isdigit() and len(length) < 12 else -1
            if not 0 <= size <= MOST_QUESTION:
                self._say(413, b"the question has no length, or too great a one")
                return
            try:
                self._say(200, answer(self.rfile.read(size)))
            except LabelwrightError as error:
                self._say(403, str(error).encode())

        def _say(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.send_header("content-type", "application/octet-stream")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing is written down."""

    class Server(HTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """Whoever hung up may ask again."""

    server = Server(("", 0), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listening
    try:
        server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        pass
    finally:
        listening.close()
