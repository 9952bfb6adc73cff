"""HDF5 bags: TRIDENT, the MoMKD release, CLAM, STAMP and HEST."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ..data.arrays import BagArrays
from ..data.bag import BagInfo
from ..exceptions import BagFileError
from .hdf5_checks import attribute, attributes, check_dataset, external_files, find, open_hdf5
from .local_files import FileState, file_state, require_unchanged
from .named_arrays import number, squeezed, text
from .read_errors import OR_MEMORY, errors_that_name, is_out_of_memory

_RUN = 48  # coordinates in a run that are enough for a stride
_MOST_NAMES = 50  # of the objects of a file, in messages


@dataclass(frozen=True)
class Hdf5Layout:
    """Datasets of a tool's files, and how the files are recognised.

    Attributes
    ----------
    format : str
    features : str
        Dataset (N, D), or (1, N, D) in public feature sets.
    edges : str, optional
        Dataset (2, n_edges), row 0 a patch and row 1 one of its nearest patches.
    mark : str, optional
        Attribute of the coordinates by which the format is recognised.
    """

    format: str
    features: str
    edges: str | None = None
    mark: str | None = None


LAYOUTS = (  # in this order
    Hdf5Layout("momkd", "features", edges="edge_index_k8"),
    Hdf5Layout("trident", "features", mark="patch_size_level0"),
    Hdf5Layout("clam", "features"),
    Hdf5Layout("stamp", "feats"),
    Hdf5Layout("stamp", "patch_embeddings"),
    Hdf5Layout("hest", "embeddings"),
)


def _unreadable(path: str, key: str, error: Exception) -> Exception:
    """The error of a dataset that cannot be read, which is not the file's where memory lacks."""
    if is_out_of_memory(error):
        return MemoryError(f"{path}: there is not enough memory to read {key!r}: {error}")
    return BagFileError(f"{path}: dataset {key!r} cannot be read: {error}")


class _Rows:
    """Features in an open file; rows are read when they are sliced."""

    def __init__(self, bag: Hdf5Bag, file: h5py.File, key: str) -> None:
        self._path, self._key, self._state = bag.path, key, file_state(bag.path)
        self._dataset = bag._dataset(file, key)
        self.shape = squeezed(self._dataset.shape)
        # What HDF5 reads where nothing was written.
        self.value_of_fill = number(self._dataset.fillvalue) or 0.0

    def __getitem__(self, rows: slice) -> NDArray:
        try:
            if self.shape == self._dataset.shape:
                values = self._dataset[rows] if self.shape else self._dataset[()]
            else:
                values = self._dataset[0, rows]
        except OR_MEMORY as error:
            raise _unreadable(self._path, self._key, error) from error
        require_unchanged(self._path, self._state)  # HDF5 reads zeros beyond a new end
        return values


def _level0_width(attributes: dict[str, Any]) -> float | None:
    """Patch width in level-0 pixels, from the width at a level and its downsample per axis.

    Without level, downsample and magnifications the width is taken to be that of level 0.
    """
    size, level = number(attributes["patch_size"]), number(attributes["patch_level"])
    downsample = attributes["downsample"]
    if downsample is None:
        downsample = _ratio(attributes["level0_magnification"], attributes["target_magnification"])
    if downsample is None:
        downsample = 1.0 if not level else np.nan
    first = np.ravel(downsample)
    factor = number(first[0]) if len(first) else None
    width = np.nan if size is None or factor is None else size * factor
    return float(round(width)) if np.isfinite(width) and width > 0 else None


def _ratio(one: Any, other: Any) -> float | None:
    top, bottom = number(one), number(other)
    return top / bottom if top and bottom else None


def _clam_patches(path: Path) -> Path:
    return path.absolute().parent.parent / "patches" / path.name


def _clam_attributes(path: Path, bag: Hdf5Bag) -> dict[str, Any]:
    """Attributes of the coordinates in ``patches/<slide>.h5``, beside CLAM's ``h5_files``."""
    patches = _clam_patches(path)
    if path.absolute().parent.name != "h5_files" or not patches.is_file():
        return {}
    with Hdf5Bag(str(patches), allow_external=bag.allow_external)._open() as file:
        stored = find(file, "coords", allow_external=bag.allow_external)
        known = {} if stored is None else _attributes(stored)
    if known.get("patch_level") is None:
        known["patch_level"] = -1  # CLAM always states the level; without it the width is unknown
    return known


_OF_COORDS = (
    *("patch_size", "patch_level", "downsample", "patch_size_level0"),
    *("level0_magnification", "target_magnification", "magnification"),
)
_ENCODER_KEYS = ("extractor", "encoder", "model_name", "patch_encoder", "feature_extractor")


def _attributes(owner: Any) -> dict[str, Any]:
    return dict.fromkeys(_OF_COORDS) | attributes(owner, _OF_COORDS)


def _first_text(owners: list[Any], names: tuple[str, ...]) -> str | None:
    found = (text(attribute(owner, name)) for owner in owners for name in names)
    return next((value for value in found if value), None)


class Hdf5Bag:
    """One HDF5 file, opened for each request and closed again.

    Parameters
    ----------
    path : str
    format : str
        "auto", or one of the formats in `LAYOUTS`.
    allow_external : bool, default=False
        Whether content of other files that the file names is read.
    """

    def __init__(self, path: str, format: str = "auto", *, allow_external: bool = False) -> None:
        self.path, self.format, self.allow_external = path, format, allow_external

    def shape(self) -> tuple[int, ...]:
        """(n_instances, n_features), from the header alone."""
        with self._open() as file:
            key = self._layout(file).features
            return squeezed(self._dataset(file, key, complete=False).shape)

    def some_coords(self) -> tuple[tuple[int, ...], tuple[int, ...], list[NDArray]] | None:
        """Shapes of features and coordinates, and two short runs of the latter; None without any.

        Tools write coordinates in chunks of one row, so that reading them all takes long.
        """
        with self._open() as file:
            if not self._has(file, "coords"):
                return None
            shape = self._dataset(file, self._layout(file).features, complete=False).shape
            coords = self._dataset(file, "coords", complete=False)
            if coords.ndim != 2:
                return None
            starts = (0, len(coords) // 2)
            return shape, coords.shape, [coords[start : start + _RUN] for start in starts]

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
                coords = self._values(file, "coords") if self._has(file, "coords") else None
                edges = None if layout.edges is None else self._values(file, layout.edges)
                # Reversed, so that a patch receives from its nearest patches, as in built graphs.
                edges = edges if edges is None or not edges.ndim else edges[::-1]
                rows = _Rows(self, file, layout.features)
            yield BagArrays(rows, coords, edges)  # type: ignore[arg-type]

    def coords(self) -> NDArray | None:
        """Coordinates alone; None where the file has none."""
        with self._open() as file:
            return self._values(file, "coords") if self._has(file, "coords") else None

    @property
    def parts(self) -> list[str]:
        """The file, and where they are allowed the files that hold its content."""
        if not self.allow_external:
            return [self.path]
        known = _PARTS.get((self.path, self.format))
        if known is None or known != _states(known):
            known = _PARTS[self.path, self.format] = _states(self._find_parts())
        return list(known)

    def _find_parts(self) -> list[str]:
        with self._open() as file:
            layout = self._layout(file)
        keys = [key for key in (layout.features, "coords", layout.edges) if key]
        others = {other for key in keys for other in external_files(self.path, key)}
        return [self.path, *sorted(others)]

    @property
    def stated_in(self) -> list[str]:
        """Files from which `info` reads."""
        return [self.path, str(_clam_patches(Path(self.path)))]

    def info(self) -> BagInfo:
        """Keys, unit, patch size and what else the file states; CLAM keeps it in another file."""
        with self._open() as file:
            layout = self._layout(file)
            coords, features = self._find(file, "coords"), self._find(file, layout.features)
            has_coords = isinstance(coords, h5py.Dataset)
            attrs = dict.fromkeys(_OF_COORDS) | (_attributes(coords) if has_coords else {})
            if layout.format == "clam" and attrs["patch_size"] is None:
                attrs |= _clam_attributes(Path(self.path), self)
            keys = (layout.features, *(["coords"] if has_coords else []))
            encoder = _first_text([file, features], _ENCODER_KEYS)
            kind = _first_text([file, features], ("feat_type", "feature_type"))
            if layout.format == "stamp":
                return _stamp_info(file, keys, has_coords, encoder, kind)
        size = number(attrs["patch_size_level0"])
        return BagInfo(
            layout.format,
            keys + ((layout.edges,) if layout.edges else ()),
            unit="level-0 px" if has_coords else None,
            patch_size=_level0_width(attrs) if size is None else size,
            encoder=encoder,
            magnification=number(attrs["target_magnification"]) or number(attrs["magnification"]),
            # CLAM cuts at a level of the slide and resizes before it encodes.
            patch_pixels=None if layout.format == "clam" else number(attrs["patch_size"]),
            feature_type=kind,
        )

    @contextmanager
    def _open(self) -> Iterator[h5py.File]:
        with self._file() as file, errors_that_name(self.path, "HDF5 file"):
            yield file

    def _file(self) -> AbstractContextManager[h5py.File]:
        return open_hdf5(self.path, allow_external=self.allow_external)

    def _find(self, file: h5py.File, key: str) -> Any:
        return find(file, key, allow_external=self.allow_external)

    def _has(self, file: h5py.File, key: str) -> bool:
        return file.id.links.exists(key.encode())

    def _layout(self, file: h5py.File) -> Hdf5Layout:
        wanted = [x for x in LAYOUTS if self.format in ("auto", x.format)]
        for layout in wanted:
            if not self._has(file, layout.features):
                continue
            if self.format != "auto" or self._matches(file, layout):
                return layout
        known = ", ".join(sorted({repr(layout.features) for layout in wanted}))
        asked = "" if self.format == "auto" else f" Read as format={self.format!r}."
        raise BagFileError(
            f"{self.path} has no dataset {known}; it holds {_names(file)}.{asked}{_hint(file)}"
        )

    def _matches(self, file: h5py.File, layout: Hdf5Layout) -> bool:
        if layout.edges is not None and not self._has(file, layout.edges):
            return False
        if layout.mark is None:
            return True
        coords = self._find(file, "coords") if self._has(file, "coords") else None
        return coords is not None and attribute(coords, layout.mark) is not None

    def _dataset(self, file: h5py.File, key: str, *, complete: bool = True) -> h5py.Dataset:
        found = self._find(file, key)
        if not isinstance(found, h5py.Dataset) or found.shape is None:
            dangling = found is None and self._has(file, key)
            why = f"; {key!r} is a link that leads nowhere" if dangling else ""
            raise BagFileError(f"{self.path} has no dataset {key!r}{why}; it holds {_names(file)}.")
        check_dataset(found, allow_external=self.allow_external, complete=complete)
        return found

    def _values(self, file: h5py.File, key: str) -> NDArray:
        dataset = self._dataset(file, key)
        try:
            values = np.asarray(dataset)
        except OR_MEMORY as error:
            raise _unreadable(self.path, key, error) from error
        return values.reshape(squeezed(values.shape))


_PARTS: dict[tuple[str, str], dict[str, FileState | None]] = {}  # of files with parts elsewhere


def _states(paths: Iterable[str]) -> dict[str, FileState | None]:
    """State of each file, None for one that is not there."""
    return {path: file_state(path) if os.path.exists(path) else None for path in paths}


def _names(file: h5py.Group) -> list[str]:
    return sorted(islice((name.decode(errors="replace") for name in file.id), _MOST_NAMES))


def _hint(file: h5py.File) -> str:
    """What a file without features may be."""
    names = set(_names(file))
    if {"obs", "var"} <= names:
        return " It is an AnnData: give it the suffix .h5ad."
    if names == {"coords"}:
        return " These are the places of patches; the features of a slide are in another file."
    known = {layout.features for layout in LAYOUTS}
    for name in sorted(names):
        link = file.id.links.get_info(name.encode())
        inner = find(file, name) if link.type == h5py.h5l.TYPE_HARD else None
        if isinstance(inner, h5py.Group) and known & set(_names(inner)):
            return f" Its group {name!r} has features: write them at the top of a file."
    return ""


def _stamp_info(
    file: h5py.File, keys: tuple[str, ...], has_coords: bool, encoder: str | None, kind: str | None
) -> BagInfo:
    """STAMP states its unit, "um", and the width of a patch in it and in pixels."""
    unit = text(attribute(file, "unit")) or "um"
    in_um = unit.casefold() in ("um", "µm", "μm", "micron", "microns", "micrometre")
    pixels = number(attribute(file, "tile_size_px"))
    size = number(attribute(file, "tile_size_um")) if in_um else pixels
    return BagInfo(
        "stamp",
        keys,
        unit=("um" if in_um else "level-0 px") if has_coords else None,
        patch_size=size,
        encoder=encoder,
        patch_pixels=pixels,
        feature_type=kind,
    )
