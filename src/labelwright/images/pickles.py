"""The pickles of CIFAR's python archives, read without trusting them.

labelwright loads no pickle from disk, because a pickle names functions that the loader then calls. CIFAR is published as
pickles all the same. :func:`read_pickle` is a reader in which no name of the file leads to that function: the few names by
which NumPy writes an array are answered by stand-ins of this module, which take down a shape and some bytes and can do
nothing else, and every other name is refused. What comes out are dicts, lists, text, bytes, numbers and uint8 arrays. The
stand-ins are made anew for each file and accept no attributes, so that a file cannot change them either.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from labelwright.errors import DataError

_ARRAYS = ("numpy.core.multiarray", "numpy._core.multiarray")
_BUFFERS = ("numpy.core.numeric", "numpy._core.numeric")


def read_pickle(content: bytes, name: str) -> dict[Any, Any]:
    """The dict of a pickle of dicts, lists, text, bytes, numbers and, as its values, uint8 arrays.

    content: the file's bytes, of Python 2 or 3. Text of Python 2 comes back as bytes. name: for messages.
    Raises DataError when it names anything else, before that is even looked up; or is cut, damaged or no dict.

    >>> read_pickle(pickle.dumps({"labels": [1, 2]}), "a batch")
    {'labels': [1, 2]}
    >>> read_pickle(b"cos\\nsystem\\n(S'true'\\ntR.", "a batch")
    Traceback (most recent call last):
    labelwright.errors.DataError: a batch names os.system, which no data set needs; do not use this file.
    """
    try:
        held = _Reader(io.BytesIO(content), encoding="bytes").load()
        if not isinstance(held, dict):
            raise DataError(f"{name} holds {type(held).__name__}, expected a dict; fetch the original file.")
        return {key: value.array() if isinstance(value, _Array) else value for key, value in held.items()}
    except _Refused as error:
        raise DataError(f"{name} {error}") from None
    except DataError:
        raise
    except Exception as error:  # a damaged pickle makes the reader raise whatever comes to hand
        raise DataError(
            f"{name} is no complete pickle of arrays ({type(error).__name__}: {error}); fetch the original file."
        ) from error


class _Refused(Exception):
    """The file asks for what no data set needs."""


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module in _ARRAYS and name == "_reconstruct":
            return _StandIn(_reconstruct)
        if module in _BUFFERS and name == "_frombuffer":
            return _StandIn(_from_buffer)
        if (module, name) == ("numpy", "dtype"):
            return _StandIn(_Dtype)
        if (module, name) == ("numpy", "ndarray"):
            return _StandIn(_refuse)  # only handed to _reconstruct
        if (module, name) == ("_codecs", "encode"):
            return _StandIn(_encode)
        raise _Refused(f"names {module}.{name}, which no data set needs; do not use this file.")

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused("points outside itself, which no data set needs; do not use this file.")


class _StandIn:
    """Stands for a function that the file names; takes no attributes."""

    __slots__ = ("_call",)
    _call: Callable[..., Any]

    def __init__(self, call: Callable[..., Any]):
        object.__setattr__(self, "_call", call)

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setattr__(self, name: str, value: Any) -> None:
        _refuse()

    def __setstate__(self, state: Any) -> None:
        _refuse()


class _Dtype:
    """A NumPy type by its code; only that of bytes will do."""

    __slots__ = ("code",)

    def __init__(self, code: str | bytes, *_: Any):
        self.code = code.decode("ascii", "replace") if isinstance(code, bytes) else code

    def __setstate__(self, state: Any) -> None:
        """Byte order and the like, which bytes do not need."""


class _Array:
    """What a pickle says about an array."""

    __slots__ = ("content", "dtype", "fortran", "shape")

    def __init__(self) -> None:
        self.__setstate__((1, (0,), _Dtype("u1"), False, b""))

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.dtype, self.fortran, self.content = state

    def array(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The array, read-only. Raises _Refused when it is not one of uint8 with as many values as its shape says."""
        if not isinstance(self.dtype, _Dtype) or self.dtype.code.lstrip("|") not in ("u1", "B", "uint8"):
            raise _Refused("holds an array of another type than uint8; fetch the original file.")
        axes = isinstance(self.shape, tuple) and all(isinstance(s, int) and s >= 0 for s in self.shape)
        if not axes or not isinstance(self.content, bytes | bytearray) or math.prod(self.shape) != len(self.content):
            raise _Refused("holds an array whose bytes do not fill its shape; fetch the original file.")
        return np.frombuffer(self.content, np.uint8).reshape(self.shape, order="F" if self.fortran else "C")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    out = _Array()
    out.__setstate__((1, shape, dtype, order == "F", content))
    return out


def _encode(text: Any, encoding: Any) -> bytes:
    """How Python 3 writes bytes into the protocols of Python 2."""
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        _refuse()
    return bytes(text.encode("latin1"))


def _refuse(*_: Any) -> None:
    raise _Refused("calls or changes what no data set needs; do not use this file.")
