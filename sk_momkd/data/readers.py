"""Readers of bag files: TRIDENT-style HDF5."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from ..exceptions import BagFileError
from .bag import BagArrays


@dataclass(frozen=True)
class TridentFile:
    """One slide as TRIDENT writes it: ``features`` (N, D) and ``coords`` (N, 2) in HDF5.

    Public feature sets that store (1, N, D) are read as well. The file is opened for each read
    and closed again, so that the bag pickles as its path.
    """

    path: str

    def __str__(self) -> str:
        return Path(self.path).name

    @property
    def shape(self) -> tuple[int, int]:
        """(n_instances, n_features), from the header alone."""
        with self._open() as file:
            shape = self._dataset(file, "features").shape
        return shape[1:] if len(shape) == 3 and shape[0] == 1 else shape

    def read(self) -> BagArrays:
        """Features and, where the file has them, coordinates."""
        with self._open() as file:
            features = self._values(file, "features")
            coords = self._values(file, "coords") if "coords" in file else None
        return BagArrays(features, coords, None)

    def _open(self) -> h5py.File:
        try:
            return h5py.File(self.path, "r")
        except FileNotFoundError as error:
            raise BagFileError(f"{self.path} does not exist.") from error
        except OSError as error:
            raise BagFileError(
                f"{self.path} is not a readable HDF5 file (truncated, or another format): {error}"
            ) from error

    def _dataset(self, file: h5py.File, key: str) -> h5py.Dataset:
        found = file.get(key)
        if not isinstance(found, h5py.Dataset) or found.shape is None:
            raise BagFileError(
                f"{self.path} has no dataset {key!r}; it holds {sorted(file.keys())}. Expected a "
                "TRIDENT-style file with 'features' and 'coords'."
            )
        return found

    def _values(self, file: h5py.File, key: str) -> NDArray:
        dataset = self._dataset(file, key)
        try:
            values = np.asarray(dataset)
        except OSError as error:
            raise BagFileError(f"{self.path}: dataset {key!r} cannot be read: {error}") from error
        return values[0] if values.ndim == 3 and values.shape[0] == 1 else values
