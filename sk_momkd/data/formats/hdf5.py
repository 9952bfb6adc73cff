"""HDF5 bags: TRIDENT, the MoMKD release, CLAM and STAMP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import h5py
import numpy as np
from numpy.typing import NDArray

from ...exceptions import BagFileError
from ..bag import BagArrays
from ..info import BagInfo, number, text
from . import DAMAGE


@dataclass(frozen=True)
class Hdf5Layout:
    """Where a tool puts what, and what tells its files from others'.

    Attributes
    ----------
    format : str
    features : str
        Dataset (N, D), or (1, N, D) in public feature sets.
    mark : callable
        Whether an open file is of this layout; asked in the order of `LAYOUTS`.
    edges : str, optional
        Dataset (2, n_edges), row 0 a patch and row 1 one of its nearest patches.
    """

    format: str
    features: str
    mark: Callable[[h5py.File], bool]
    edges: str | None = None


def _has_trident_geometry(file: h5py.File) -> bool:
    return "coords" in file and "patch_size_level0" in file["coords"].attrs


LAYOUTS = (
    Hdf5Layout(
        "momkd", "features", lambda f: "features" in f and "edge_index_k8" in f, "edge_index_k8"
    ),
    Hdf5Layout("trident", "features", lambda f: "features" in f and _has_trident_geometry(f)),
    Hdf5Layout("clam", "features", lambda f: "features" in f),
    Hdf5Layout("stamp", "feats", lambda f: "feats" in f),
    Hdf5Layout("stamp", "patch_embeddings", lambda f: "patch_embeddings" in f),
)


class Hdf5Bag:
    """One HDF5 file, opened for each question and closed again.

    Parameters
    ----------
    path : str
    format : str
        "auto", or one of the formats in `LAYOUTS`.
    """

    def __init__(self, path: str, format: str = "auto") -> None:
        self.path, self.format = path, format

    def shape(self) -> tuple[int, ...]:
        """(n_instances, n_features), from the header alone."""
        with self._open() as file:
            return _squeezed(self._dataset(file, self._layout(file).features).shape)

    def read(self) -> BagArrays:
        """Features, coordinates and stored graph; None for what the file lacks."""
        with self._open() as file:
            layout = self._layout(file)
            features = self._values(file, layout.features)
            coords = self._values(file, "coords") if "coords" in file else None
            edges = None if layout.edges is None else self._values(file, layout.edges)
        # A patch shall receive from its own nearest patches, as in graphs that are built here.
        return BagArrays(
            features, coords, edges if edges is None or not edges.ndim else edges[::-1]
        )

    def info(self) -> BagInfo:
        """What the file says about itself."""
        with self._open() as file:
            layout = self._layout(file)
            has_coords = isinstance(file.get("coords"), h5py.Dataset)
            attrs = dict(file["coords"].attrs) if has_coords else {}
            keys = [layout.features, *(["coords"] if has_coords else [])]
            encoder = file.attrs.get("extractor", file[layout.features].attrs.get("encoder"))
            stamp = layout.format == "stamp"
            size = file.attrs.get("tile_size_um") if stamp else attrs.get("patch_size_level0")
            return BagInfo(
                layout.format,
                tuple(keys + ([layout.edges] if layout.edges else [])),
                unit=("um" if stamp else "level-0 px") if has_coords else None,
                patch_size=number(size),
                encoder=text(encoder),
            )

    @contextmanager
    def _open(self) -> Iterator[h5py.File]:
        try:
            file = h5py.File(self.path, "r")
        except FileNotFoundError as error:
            raise BagFileError(f"{self.path} does not exist.") from error
        except OSError as error:
            raise BagFileError(
                f"{self.path} is not a readable HDF5 file (truncated, or another format): {error}"
            ) from error
        with file:
            try:
                yield file
            except BagFileError:
                raise
            except DAMAGE as error:
                raise BagFileError(f"{self.path} is damaged: {error!r}") from error

    def _layout(self, file: h5py.File) -> Hdf5Layout:
        wanted = [x for x in LAYOUTS if self.format in ("auto", x.format)]
        for layout in wanted:
            if layout.mark(file) or (self.format != "auto" and layout.features in file):
                return layout
        known = ", ".join(sorted({repr(layout.features) for layout in wanted}))
        raise BagFileError(
            f"{self.path} has no dataset {known}; it holds {sorted(file.keys())}. "
            f"Read as format={self.format!r}."
        )

    def _dataset(self, file: h5py.File, key: str) -> h5py.Dataset:
        found = file.get(key)
        if not isinstance(found, h5py.Dataset) or found.shape is None:
            raise BagFileError(
                f"{self.path} has no dataset {key!r}; it holds {sorted(file.keys())}."
            )
        return found

    def _values(self, file: h5py.File, key: str) -> NDArray:
        dataset = self._dataset(file, key)
        try:
            values = np.asarray(dataset)
        except DAMAGE as error:
            raise BagFileError(f"{self.path}: dataset {key!r} cannot be read: {error}") from error
        return values.reshape(_squeezed(values.shape))


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without the leading 1 of (1, N, D); a bag of one patch, (1, D), keeps its own."""
    return shape[1:] if len(shape) == 3 and shape[0] == 1 else shape
