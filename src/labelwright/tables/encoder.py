"""Turn the columns of a table into one matrix of numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import numpy as np
import pyarrow as pa

from labelwright.errors import DataError, SettingsError
from labelwright.tables import columns, vectors
from labelwright.tables.arrow import quoted, undictionaried
from labelwright.tables.columns import Applied, Fitted, State
from labelwright.tables.kinds import kind_of
from labelwright.types import Floats

TRUSTED_TYPES = frozenset({"numpy.dtype", "sklearn.compose._column_transformer.make_column_selector"})
"""What a saved Encoder may hold beyond the scikit-learn, NumPy and SciPy types that skops itself trusts."""

_MANY = 4

_FIT: Mapping[str, Callable[[pa.ChunkedArray], Fitted]] = {
    "number": columns.fit_number,
    "boolean": columns.fit_boolean,
    "category": columns.fit_category,
    "text": columns.fit_text,
    "date": columns.fit_date,
    "vector": vectors.fit_vector,
    "image": vectors.fit_image,
}

_APPLY: Mapping[str, Callable[[pa.ChunkedArray, State], Applied]] = {
    "number": columns.apply_number,
    "boolean": columns.apply_boolean,
    "category": columns.apply_category,
    "text": columns.apply_text,
    "date": columns.apply_date,
    "vector": vectors.apply_vector,
    "image": vectors.apply_image,
}


class Encoder:
    """Turn the columns of a table into one matrix of numbers, with stated assumptions.

    transformer: any unfitted scikit-learn transformer that accepts a pandas DataFrame, instead of the default
    treatment (it is cloned). exclude: columns to leave alone, such as the label and the id.
    kinds: column -> number, boolean, category, text, date, vector, image, dropped (or custom).
    widths: vector column -> its width. drift: column -> values of the *latest* transform that did not
    convert to the column's kind and were taken as missing.

    >>> table = pa.table({"age": [20.0, None, 40.0], "label": ["a", "b", "a"]})
    >>> encoder = Encoder(exclude=["label"]).fit(table)
    >>> encoder.describe()
    ['age: number, standardised, 1 missing filled with the median']
    >>> encoder.transform(table)[:, 0].round(2).astype(str).tolist()
    ['-1.22', '0.0', '1.22']
    """

    def __init__(self, transformer: Any = None, *, exclude: Iterable[str] = ()):
        self.transformer = transformer
        self.exclude = frozenset([exclude] if isinstance(exclude, str) else exclude)
        self.kinds: dict[str, str] = {}
        self.drift: dict[str, int] = {}
        self._states: dict[str, State] = {}
        self._sentences: list[str] = []
        self._fitted: Any = None

    @property
    def widths(self) -> dict[str, int]:
        """Vector column -> width."""
        return {name: int(state["width"]) for name, state in self._states.items() if self.kinds[name] == "vector"}

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """(height, width, channels) of the pictures, when each row of the matrix is one picture's pixels in that order and
        nothing else; None otherwise.

        >>> Encoder().fit(pa.table({"x": [1.0, 2.0]})).image_shape is None
        True
        """
        used = [name for name, kind in self.kinds.items() if kind != "dropped"]
        if len(used) != 1 or self.kinds[used[0]] != "image":
            return None
        state = self._states[used[0]]
        return int(state["height"]), int(state["width"]), 1 if state["mode"] == "L" else 3

    def fit(self, table: pa.Table) -> Encoder:
        """Settle what each column is. Raises DataError when nothing usable is left."""
        names = [name for name in table.column_names if name not in self.exclude]
        if not names or not table.num_rows:
            raise DataError(f"The table has {table.num_rows} rows and {len(names)} feature columns; give at least one.")
        self.kinds, self._states, self._sentences, self.drift = {}, {}, [], {}
        if self.transformer is not None:
            return self._fit_custom(table, names)
        for name in names:
            column = undictionaried(table[name])
            kind, why = kind_of(column, name)
            if kind != "dropped":
                state, why = _FIT[kind](column)
                kind = "dropped" if not state else kind
                self._states[name] = state
            self.kinds[name] = kind
            self._sentences.append(f"{name or '(no name)'}: {kind}, {why}")
        self._states = {name: state for name, state in self._states.items() if state}
        if not self._states:
            raise DataError(f"No column can be used as a feature ({'; '.join(self._sentences)}); give other columns.")
        return self

    def _fit_custom(self, table: pa.Table, names: list[str]) -> Encoder:
        from sklearn.base import clone

        self._fitted = clone(self.transformer)
        self._fitted.fit(table.select(names).to_pandas())
        self.kinds = dict.fromkeys(names, "custom")
        self._sentences = [f"{name}: custom, given to {type(self.transformer).__name__}" for name in names]
        return self

    def transform(self, table: pa.Table) -> Floats:
        """(n, d) float32, C-contiguous, all finite.

        Additional columns are ignored. Raises SettingsError before fit, DataError naming columns that are missing.
        """
        if not self.kinds:
            raise SettingsError("This Encoder was never fitted; call fit(table) first.")
        needed = [name for name, kind in self.kinds.items() if kind != "dropped"]
        missing = [name for name in needed if name not in table.column_names]
        if missing:
            raise DataError(f"The table lacks {quoted(missing)}, which the encoder was fitted on; add these columns.")
        if self._fitted is not None:
            return self._transform_custom(table, needed)
        self.drift = {}
        blocks = []
        for name in needed:
            block, lost = _APPLY[self.kinds[name]](undictionaried(table[name]), self._states[name])
            blocks.append(block)
            if lost:
                self.drift[name] = lost
        return np.ascontiguousarray(blocks[0] if len(blocks) == 1 else np.hstack(blocks), np.float32)

    def _transform_custom(self, table: pa.Table, names: list[str]) -> Floats:
        out = self._fitted.transform(table.select(names).to_pandas())
        X = np.ascontiguousarray(out.toarray() if hasattr(out, "toarray") else out, np.float32)
        if not np.isfinite(X).all():
            rows = int((~np.isfinite(X)).any(axis=1).sum())
            raise DataError(f"The transformer left {rows} rows with NaN or inf; add a SimpleImputer to its steps.")
        return X

    def describe(self) -> list[str]:
        """One plain sentence per column about what was assumed; one for all that were treated alike, where these are many.

        >>> Encoder().fit(pa.table({f"x{i}": [1.0, 2.0] for i in range(16)})).describe()
        ['16 columns (x0, x1, …, x15): number, standardised']
        """
        alike: dict[str, list[str]] = {}
        for name, sentence in zip(self.kinds, self._sentences, strict=True):
            alike.setdefault(sentence.removeprefix(f"{name}: "), []).append(name)
        out = []
        for how, names in alike.items():
            many = [f"{len(names)} columns ({names[0]}, {names[1]}, …, {names[-1]})"] if len(names) > _MANY else names
            out += [f"{name}: {how}" for name in many]
        return out

    def to_bytes(self) -> bytes:
        """The fitted encoder as a skops file, free of pickle."""
        import skops.io

        return cast(
            bytes,
            skops.io.dumps(
                {
                    "format": 1,
                    "exclude": sorted(self.exclude),
                    "kinds": self.kinds,
                    "states": self._states,
                    "sentences": self._sentences,
                    "fitted": self._fitted,
                }
            ),
        )

    @staticmethod
    def from_bytes(data: bytes) -> Encoder:
        """The encoder that :meth:`to_bytes` saved.

        Raises SettingsError when the file holds types outside :data:`TRUSTED_TYPES`, or is no such file.
        """
        import skops.io

        try:
            unknown = set(skops.io.get_untrusted_types(data=data))
            refused = sorted(unknown - TRUSTED_TYPES)
            if refused:
                raise SettingsError(
                    f"The saved encoder holds {quoted(refused)}, expected scikit-learn types only; "
                    "fit the encoder again instead of loading it."
                )
            saved = skops.io.loads(data, trusted=sorted(unknown))
            encoder = Encoder(saved["fitted"], exclude=saved["exclude"])
            encoder.kinds, encoder._states = saved["kinds"], saved["states"]
            encoder._sentences, encoder._fitted = saved["sentences"], saved["fitted"]
        except SettingsError:
            raise
        except Exception as error:  # zip, JSON and skops errors of many kinds, one cause
            raise SettingsError(f"The saved encoder is damaged ({error}); fit it again.") from error
        return encoder
