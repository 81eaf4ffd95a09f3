"""Loading models without pickle: skops, with an explicit list of what may come back."""

from __future__ import annotations

from typing import Any

from labelwright.errors import SettingsError

_TRUSTED_ROOTS = ("sklearn.", "numpy.", "scipy.", "labelwright.")


def load_model(raw: bytes) -> Any:
    """The object that skops stored in ``raw``. Raises SettingsError when it holds types from anywhere but
    scikit-learn, NumPy, SciPy and labelwright, or cannot be read.

    >>> from skops.io import dumps
    >>> load_model(dumps({"a": 1}))
    {'a': 1}
    """
    from skops.io import get_untrusted_types, loads

    try:
        unknown = get_untrusted_types(data=raw)
        strangers = [name for name in unknown if not name.startswith(_TRUSTED_ROOTS)]
        if strangers:
            raise SettingsError(
                f"the stored model holds {', '.join(strangers)}; only scikit-learn's, NumPy's and labelwright's own types "
                "are loaded. Train it again here, or load it yourself with skops if you trust its source"
            )
        return loads(raw, trusted=unknown)
    except SettingsError:
        raise
    except Exception as error:
        raise SettingsError(f"the stored model cannot be read ({error}); train it again") from error
