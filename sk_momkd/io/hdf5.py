"""HDF5 bags: TRIDENT, the MoMKD release, CLAM and STAMP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ..data.arrays import BagArrays
from ..data.bag import BagInfo
from ..exceptions import BagFileError
from .read_errors import READ_ERRORS, errors_that_name


@dataclass(frozen=True)
class Hdf5Layout:
    """Datasets of a tool's files, and how the files are recognised.

    Attributes
    ----------
    format : str
    features : str
        Dataset (N, D), or (1, N, D) in public feature sets.
    matches : callable
        Whether an open file has this layout; the layouts are tried in the order of `LAYOUTS`.
    edges : str, optional
        Dataset (2, n_edges), row 0 a patch and row 1 one of its nearest patches.
    """

    format: str
    features: str
    matches: Callable[[h5py.File], bool]
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


def text(value: Any) -> str | None:
    """An attribute as text, None where it is absent."""
    if value is None:
        return None
    return value.decode() if isinstance(value, bytes) else str(value)


def number(value: Any) -> float | None:
    """An attribute as a number, None where it is absent or not a number."""
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """`shape` without the leading 1 of (1, N, D); a bag of one patch, (1, D), is unchanged."""
    return shape[1:] if len(shape) == 3 and shape[0] == 1 else shape


class _Rows:
    """Features in an open file; rows are read when they are sliced."""

    def __init__(self, bag: Hdf5Bag, file: h5py.File, key: str) -> None:
        self._path, self._key = bag.path, key
        self._dataset = bag._dataset(file, key)
        self.shape = _squeezed(self._dataset.shape)

    def __getitem__(self, rows: slice) -> NDArray:
        try:
            if self.shape == self._dataset.shape:
                return self._dataset[rows] if self.shape else self._dataset[()]
            return self._dataset[0, rows]
        except READ_ERRORS as error:
            problem = f"{self._path}: dataset {self._key!r} cannot be read: {error}"
            raise BagFileError(problem) from error


def _clam_patch_size(path: Path) -> float | None:
    """Patch width in level-0 pixels, from ``patches/<slide>.h5`` beside CLAM's ``h5_files``.

    CLAM gives the width in pixels of the level it reads, and that level's downsample per axis.
    """
    patches = path.absolute().parent.parent / "patches" / path.name
    if path.absolute().parent.name != "h5_files" or not patches.is_file():
        return None
    with Hdf5Bag(str(patches))._open() as file:
        stored = file.get("coords")
        attrs = {} if stored is None else dict(stored.attrs)
    size, level = number(attrs.get("patch_size")), number(attrs.get("patch_level"))
    downsample = np.ravel(attrs.get("downsample", 1.0 if level == 0 else np.nan))
    factor = number(downsample[0]) if len(downsample) else None
    width = np.nan if size is None or factor is None else size * factor
    return float(round(width)) if np.isfinite(width) and width > 0 else None


class Hdf5Bag:
    """One HDF5 file, opened for each request and closed again.

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
        """Read features, coordinates and stored graph; None for what is absent."""
        with self.opened() as arrays:
            return arrays._replace(features=arrays.features[:])

    @contextmanager
    def opened(self) -> Iterator[BagArrays]:
        """Like `read`, but features are read as they are sliced, while the file is open."""
        with self._file() as file:
            with errors_that_name(self.path, "HDF5 file"):  # but not the caller's errors
                layout = self._layout(file)
                coords = self._values(file, "coords") if "coords" in file else None
                edges = None if layout.edges is None else self._values(file, layout.edges)
                # Reversed, so that a patch receives from its nearest patches, as in built graphs.
                edges = edges if edges is None or not edges.ndim else edges[::-1]
                rows = _Rows(self, file, layout.features)
            yield BagArrays(rows, coords, edges)  # type: ignore[arg-type]

    def coords(self) -> NDArray | None:
        """Coordinates alone; None where the file has none."""
        with self._open() as file:
            return self._values(file, "coords") if "coords" in file else None

    @property
    def parts(self) -> list[str]:
        """The file."""
        return [self.path]

    def info(self) -> BagInfo:
        """Keys, unit, patch size and encoder; CLAM keeps the patch size in a separate file."""
        with self._open() as file:
            layout = self._layout(file)
            has_coords = isinstance(file.get("coords"), h5py.Dataset)
            attrs = dict(file["coords"].attrs) if has_coords else {}
            keys = [layout.features, *(["coords"] if has_coords else [])]
            encoder = text(file.attrs.get("extractor", file[layout.features].attrs.get("encoder")))
            stamp = layout.format == "stamp"
            stated = file.attrs.get("tile_size_um") if stamp else attrs.get("patch_size_level0")
            size = number(stated)
        if size is None and layout.format == "clam":
            size = _clam_patch_size(Path(self.path))
        return BagInfo(
            layout.format,
            tuple(keys + ([layout.edges] if layout.edges else [])),
            unit=("um" if stamp else "level-0 px") if has_coords else None,
            patch_size=size,
            encoder=encoder,
        )

    @contextmanager
    def _open(self) -> Iterator[h5py.File]:
        with self._file() as file, errors_that_name(self.path, "HDF5 file"):
            yield file

    def _file(self) -> h5py.File:
        with errors_that_name(self.path, "HDF5 file (truncated, or another format)"):
            return h5py.File(self.path, "r")

    def _layout(self, file: h5py.File) -> Hdf5Layout:
        wanted = [x for x in LAYOUTS if self.format in ("auto", x.format)]
        for layout in wanted:
            if layout.matches(file) or (self.format != "auto" and layout.features in file):
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
        except READ_ERRORS as error:
            raise BagFileError(f"{self.path}: dataset {key!r} cannot be read: {error}") from error
        return values.reshape(_squeezed(values.shape))
