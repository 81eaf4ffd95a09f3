"""Labels that people gave: the files of CIFAR-10N and CIFAR-100N."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from labelwright.errors import SourceError
from labelwright.noise.checks import checked_labels
from labelwright.types import Ints


def read_cifar_n(path: str | Path) -> dict[str, Ints]:
    """Human labels of CIFAR-10N / CIFAR-100N: name -> (n,) classes, e.g. ``aggre_label``, ``worse_label``.

    path: an .npz, an .npy holding one plain array (returned as ``labels``), or the published .pt file, which
    needs torch and is read with ``weights_only=True``. Pickled arrays are refused.
    Raises SourceError when the file is missing, of another kind, or would need pickle.

    >>> import tempfile, os
    >>> file = os.path.join(tempfile.mkdtemp(), "n.npz")
    >>> np.savez(file, worse_label=np.array([1, 0]))
    >>> read_cifar_n(file)["worse_label"].tolist()
    [1, 0]
    """
    file = Path(path)
    if not file.is_file():
        raise SourceError(f"There is no file {file}; give the .npz, .npy or .pt file of CIFAR-N.")
    if file.suffix == ".pt":
        return {name: checked_labels(values) for name, values in _read_torch(file).items()}
    if file.suffix not in (".npz", ".npy"):
        raise SourceError(f"{file} ends in {file.suffix!r}, expected .npz, .npy or .pt; convert it with numpy.savez.")
    try:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"labels": checked_labels(loaded)}
        with loaded:
            return {name: checked_labels(loaded[name]) for name in loaded.files}
    except (ValueError, OSError, EOFError) as error:
        raise SourceError(
            f"{file} cannot be read as plain integer arrays ({error}); pickled files are never loaded: "
            "save the labels as integers with numpy.savez."
        ) from error


def _read_torch(file: Path) -> Mapping[str, npt.ArrayLike]:
    try:
        import torch
    except ImportError as error:
        raise SourceError(f"Reading {file} needs torch, which is not installed; install it or give an .npz.") from error
    # The published file holds NumPy arrays; these names are all that rebuilding one takes.
    from numpy._core.multiarray import _reconstruct

    rebuild = [(_reconstruct, "numpy.core.multiarray._reconstruct"), _reconstruct, np.ndarray, np.dtype]
    try:
        with torch.serialization.safe_globals([*rebuild, type(np.dtype("int64"))]):
            loaded = torch.load(file, map_location="cpu", weights_only=True)
        return dict(loaded)
    except Exception as error:  # torch raises many kinds for one cause: the file is not what it should be
        raise SourceError(f"{file} cannot be read safely ({error}); save the labels with numpy.savez.") from error
