"""The published digests of the files of benchmark image sets, and whether a file has one of them."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labelwright import datasets
from labelwright.errors import DataError

CHECKSUMS: Mapping[str, tuple[str, ...]] = {
    **{name: (datasets.CHECKSUMS[name],) for name in datasets.CHECKSUMS if name.startswith("mnist-")},
    "cifar10-train.parquet": ("7a4392a4dff8d3017c3183157368b1c53ddd0f5188b08459a15adb47d034758e",),
    "cifar10-test.parquet": ("fe9f1eb8316c508cf570855ad7d19573d7712b6d4f8cb7e98e1af2f92ba2e4d3",),
    "gtsrb-train.parquet": ("7d263577157c0d88920e635c12913bb03d234adfaa4d85fb8c690b37e788fc7f",),
    "gtsrb-test.parquet": ("e88d6ef5803dd577b6a66fa58ed5598c608f64494260842e52ab5430fbfa15b4",),
    "orl-faces.parquet": ("dfc83b28d5b0c45fdb263b28557f9ac8fbb016af1d509aa39ec2f36cbcfb808c",),
    "cifar-10-python.tar.gz": ("c58f30108f718f92721af3b95e74349a",),
    "cifar-10-batches-py/data_batch_1": ("c99cafc152244af753f735de768cd75f",),
    "cifar-10-batches-py/data_batch_2": ("d4bba439e000b95fd0a9bffe97cbabec",),
    "cifar-10-batches-py/data_batch_3": ("54ebc095f3ab1f0389bbae665268c751",),
    "cifar-10-batches-py/data_batch_4": ("634d18415352ddfa80567beed471001a",),
    "cifar-10-batches-py/data_batch_5": ("482c414d41f54cd18b22e5b47cb7c3cb",),
    "cifar-10-batches-py/test_batch": ("40351d587109b95175f43aff81a1287e",),
    "cifar-10-batches-py/batches.meta": ("5ff9c542aee3614f3951f8cda6e48888",),
    "cifar-100-python.tar.gz": ("eb9058c3a382ffc7106e4002c42a8d85",),
    "cifar-100-python/train": ("16019d7e3df5f24257cddd939b257f8d",),
    "cifar-100-python/test": ("f0ef6b0ae62326f3e7ffdfab6717acfc",),
    "cifar-100-python/meta": ("7973b15100ade9c7d40fb424638fde48",),
    "mnist/train-images": ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"),
    "mnist/train-labels": ("d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"),
    "mnist/t10k-images": ("9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"),
    "mnist/t10k-labels": ("ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637"),
    "fashion-mnist/train-images": ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", "f4a8712d7a061bf5bd6d2ca38dc4d50a"),
    "fashion-mnist/train-labels": ("25c81989df183df01b3e8a0aad5dffbe", "9018921c3c673c538a1fc5bad174d6f9"),
    "fashion-mnist/t10k-images": ("bef4ecab320f06d8554ea6380940ec79", "8181f5470baa50b63fa0f6fddb340f0a"),
    "fashion-mnist/t10k-labels": ("bb300cfdad3c16e7a12a480ee83cd310", "15d484375f8d13e6eb1aabb0c3f46965"),
}
"""File -> digests that are right: sha256 of the Parquet files, md5 of what the sources publish; of IDX files that of the
gzipped file as published, and that of its content, by which files that were packed anew are known."""


def check_file(path: Path, known_as: str, strict: bool) -> str:
    """An empty text when a file is the published one, else a sentence about it.

    known_as: its key in :data:`CHECKSUMS`. Raises DataError instead of the sentence when strict, and when the file cannot
    be read.
    """
    expected = CHECKSUMS[known_as]
    kind = "sha256" if len(expected[0]) == 64 else "md5"
    try:
        with path.open("rb") as file:
            got = _digest(file, kind)
        if got not in expected and path.name.endswith(".gz") and len(expected) > 1:
            with gzip.open(path, "rb") as unpacked:
                got_inside = _digest(unpacked, kind)
            got = got_inside if got_inside in expected else got
    except FileNotFoundError as error:
        raise DataError(f"There is no file {path}; put it there.") from error
    except (OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read ({error}); it is cut or damaged: fetch it again.") from error
    except Exception as error:  # zlib.error, not imported for this line
        raise DataError(f"{path} is damaged ({error}); fetch it again.") from error
    if got in expected:
        return ""
    told = (
        f"{path.name} has {kind} {got[:12]}…, expected {expected[0][:12]}…: "
        "numbers will not compare with published ones; fetch the original file."
    )
    if strict:
        raise DataError(told)
    return told


def _digest(file: Any, kind: str) -> str:
    """The digest of a file of any length, in bounded memory."""
    digest = hashlib.new(kind, usedforsecurity=False)
    while piece := file.read(1 << 20):
        digest.update(piece)
    return digest.hexdigest()
