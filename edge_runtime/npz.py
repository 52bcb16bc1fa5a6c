"""Files of arrays that a person gives to a command. Golden files, which strangers give, have a reader with caps."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_runtime.errors import ConfigurationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["read_npz"]


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` file by name. Raises `ConfigurationError`."""
    try:
        with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # damage makes zipfile, zlib and NumPy, which evaluates Python, raise anything
        raise ConfigurationError(
            f"{path} is not an .npz file of arrays: {error}; write one with numpy.savez"
        ) from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise ConfigurationError(f"{path} is not an .npz file of arrays: {name} in it is not one")
    return arrays
