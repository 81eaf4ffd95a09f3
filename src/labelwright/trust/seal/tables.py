"""What ``labelwright run`` takes, as sealed rows; and sealed rows as a table again. For the owner: needs pyarrow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np
import pyarrow as pa

from labelwright.errors import DataError, SealError
from labelwright.streams import Columns, Intake, class_names, label_text, numbered
from labelwright.tables import Encoder, TableSource, vector_column
from labelwright.trust.seal.arrays import Array
from labelwright.trust.seal.chunks import about, open_chunk
from labelwright.trust.seal.manifest import Manifest
from labelwright.trust.seal.signing import b64, unb64
from labelwright.trust.seal.stores import Store
from labelwright.types import row_keys

ID_BYTES = 32
_READ = 1000


@dataclass
class Sealable:
    """A table's rows as arrays to seal. set_aside: rows left out, and why. about: what is sealed with them. like: what
    was sealed with other rows, whose features and classes these are to have.

    Pictures stay whole numbers 0..255 (``about["scale"]`` is 1/255): a quarter of the bytes.

    >>> from labelwright.tables import open_source
    >>> table = pa.table({"f": [1.0, 2.0, 3.0], "label": ["a", "b", None]})
    >>> rows = Sealable(open_source(table), Columns("label"))
    >>> [part["given"].tolist() for part in rows], rows.set_aside
    ([[0, 1]], [('2', 'no label')])
    """

    source: TableSource
    columns: Columns
    classes: Sequence[str] | None = None
    clean_rows: int = 0
    strict: bool = False
    like: Mapping[str, Any] | None = None
    set_aside: list[tuple[str, str]] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)

    def __iter__(self) -> Iterator[dict[str, Array]]:
        self.source.require(*self.columns.named)
        intake: Intake | None = None
        for number, (chunk_id, chunk) in enumerate(numbered(self.source.chunks(_READ), self.source.name)):
            intake = intake or self._intake(chunk)
            found = intake.accept(chunk, chunk_id)
            self.set_aside += [(row_id, reason) for _, row_id, reason, _ in found.bad]
            if found.good.num_rows:
                batch = intake.batch(found, id=chunk_id, number=number)
                ids = {"id": _id_bytes(found.ids)} if self.columns.id else {}
                X = np.rint(batch.X * 255).astype(np.uint8) if "image_shape" in self.about else batch.X
                keys = row_keys(number, chunk.num_rows)[found.position]
                yield {"X": X, "given": batch.given, "keys": keys, "clean": batch.clean, **ids}

    def _intake(self, first: pa.Table) -> Intake:
        if self.like is not None:
            return self._alike(self.like)
        labels = label_text(first.column(self.columns.label))
        names = tuple(self.classes or class_names(labels))
        if len(names) < 2:
            raise DataError(
                f"the first {first.num_rows} rows hold the classes {list(names)} in column {self.columns.label!r}; at least 2 are "
                "needed: mix the rows, or name all classes with --classes"
            )
        encoder = Encoder(exclude=self.columns.not_features)
        encoder.fit(first.filter(pa.array([text in names for text in labels])))
        self.about |= {"classes": list(names), "columns": encoder.describe(), "encoder": b64(encoder.to_bytes())}
        if encoder.image_shape:
            self.about |= {"image_shape": list(encoder.image_shape), "scale": 1 / 255}
        return Intake(self.columns, encoder, names, self.clean_rows, self.strict)

    def _alike(self, other: Mapping[str, Any]) -> Intake:
        try:
            encoder, names = Encoder.from_bytes(unb64(other["encoder"])), tuple(other["classes"])
        except KeyError as error:
            raise DataError(
                f"the sealed rows to be like were sealed without {error}; name rows that 'trust seal' sealed"
            ) from error
        self.about |= {
            name: other[name] for name in ("classes", "columns", "encoder", "image_shape", "scale") if name in other
        }
        return Intake(self.columns, encoder, names, self.clean_rows, self.strict)


def tables_of(manifest: Manifest, key: bytes, store: Store) -> Iterator[pa.Table]:
    """The sealed rows as the owner reads them: ``x`` (the features as a vector), ``label``, ``key``, ``clean`` and, where sealed, ``id``.

    Raises SealError naming the chunk that is not the one that was sealed.
    """
    if manifest.kind != "data":
        raise SealError(
            f"{manifest.id!r} is a sealed {manifest.kind}, no data set; unseal it to a file of its own kind"
        )
    said = about(manifest, key)
    for index in range(manifest.count):
        arrays = open_chunk(manifest, key, index, store.read(manifest.chunk(index)))
        try:
            table = _table(arrays, said)
        except (ValueError, LookupError, TypeError) as error:  # whoever attests seals what he likes
            raise SealError(
                f"chunk {index} of {manifest.id!r} holds no rows of a table; it was sealed by other code"
            ) from error
        yield table


def _table(arrays: Mapping[str, Array], said: Mapping[str, Any]) -> pa.Table:
    names, columns = said.get("classes"), {}
    X, given = arrays["X"], arrays["given"]
    columns["x"] = vector_column(X.reshape(len(X), -1) * np.float32(said.get("scale", 1)))
    columns["label"] = pa.array([names[code] for code in given.tolist()] if names else given)
    for name in ("keys", "clean"):
        if name in arrays:
            columns["key" if name == "keys" else name] = pa.array(arrays[name])
    if "id" in arrays:
        columns["id"] = pa.array([bytes(row).rstrip(b"\0").decode("utf-8", "backslashreplace") for row in arrays["id"]])
    return pa.table(columns)


def _id_bytes(ids: Sequence[str]) -> Array:
    """(n, 32) the ids as UTF-8, padded with zeros; of a longer id the first half of its SHA-256, in hex."""
    out = np.zeros((len(ids), ID_BYTES), np.uint8)
    for row, text in enumerate(ids):
        raw = text.encode()
        if len(raw) > ID_BYTES:
            raw = sha256(raw).hexdigest()[:ID_BYTES].encode()
        out[row, : len(raw)] = np.frombuffer(raw, np.uint8)
    return out
