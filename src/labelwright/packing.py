"""The parts' state as bytes: arrays, bytes and JSON values in nested dicts; no pickle."""

from __future__ import annotations

import io
import json
import zlib
from typing import Any
from zipfile import BadZipFile

import numpy as np

from labelwright.errors import LedgerError
from labelwright.types import State


def pack(state: State) -> bytes:
    """Nested dicts of arrays, bytes and JSON values as bytes.

    >>> unpack(pack({"a": {"x": np.arange(2)}, "n": 1}))
    {'a': {'x': array([0, 1])}, 'n': 1}
    """
    arrays: dict[str, Any] = {}

    def strip(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            arrays[f"a{len(arrays)}"] = value
            return {"__array__": f"a{len(arrays) - 1}"}
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, dict):
            return {key: strip(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [strip(inner) for inner in value]
        return value

    text = json.dumps(strip(dict(state)))
    out = io.BytesIO()
    np.savez(out, json=np.frombuffer(text.encode(), np.uint8), **arrays)
    return out.getvalue()


def unpack(data: bytes) -> dict[str, Any]:
    """What :func:`pack` packed. Raises LedgerError when the bytes are damaged."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files}
        skeleton = json.loads(arrays.pop("json").tobytes())
    except (ValueError, TypeError, KeyError, OSError, EOFError, NotImplementedError, BadZipFile, zlib.error) as error:
        raise LedgerError(f"the stored models cannot be read ({error}); run 'labelwright verify'") from error

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            if set(value) == {"__array__"}:
                return arrays[value["__array__"]]
            return {key: fill(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [fill(inner) for inner in value]
        return value

    return dict(fill(skeleton))
