"""Bags in array files of no tool: numpy, safetensors, parquet and zarr."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib import format as numpy_format
from numpy.typing import NDArray

from ..data.arrays import BagArrays, to_numpy
from ..data.bag import BagInfo
from ..data.sequence import POSITIONS
from ..exceptions import BagFileError
from .local_files import (
    LARGEST_EXPANSION,
    check_zip,
    leaves_its_folder,
    require_plausible_size,
    require_regular,
)
from .named_arrays import feature_key, named_arrays, named_info, squeezed
from .read_errors import PARSER_ERRORS, errors_that_name

_X_AND_Y = (("x", "y"), ("coord_x", "coord_y"), ("coords_x", "coords_y"), ("X", "Y"))


class _Content(NamedTuple):
    """Arrays of a file by name, which are read when they are asked for, and its attributes."""

    shapes: dict[str, tuple[int, ...]]
    array: Callable[[str], NDArray]
    attributes: Mapping[str, Any]


def _needs(package: str, path: str) -> BagFileError:
    return BagFileError(f"{path}: reading it needs {package}, pip install {package}.")


def _header(file: Any, what: str, size: int) -> tuple[int, ...]:
    """Shape of a numpy array from its header; one that declares more than the file raises."""
    version = numpy_format.read_magic(file)
    read = numpy_format.read_array_header_1_0
    read = read if version == (1, 0) else numpy_format.read_array_header_2_0
    shape, _, dtype = read(file)
    n_bytes = dtype.itemsize * int(np.prod(shape, dtype=object))
    require_plausible_size(what, n_bytes, size, compressed=False)
    return shape


@contextmanager
def _numpy(path: str) -> Iterator[_Content]:
    with open(path, "rb") as file:
        shape = _header(file, path, os.path.getsize(path))
    yield _Content({"features": shape}, lambda _: np.load(path, allow_pickle=False), {})


@contextmanager
def _numpy_archive(path: str) -> Iterator[_Content]:
    check_zip(path, expansion=LARGEST_EXPANSION)
    shapes, values = {}, {}
    with zipfile.ZipFile(path) as archive:
        for part in archive.infolist():
            name = part.filename.removesuffix(".npy")
            with archive.open(part) as file:
                shapes[name] = _header(file, f"{path}: {name}", part.file_size)
    with np.load(path, allow_pickle=False) as stored:
        values = {name: stored[name] for name, shape in shapes.items() if not shape}
        arrays = {name: shape for name, shape in shapes.items() if shape}
        yield _Content(arrays, lambda name: stored[name], {k: v.item() for k, v in values.items()})


@contextmanager
def _safetensors(path: str) -> Iterator[_Content]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise _needs("safetensors", path) from error
    try:
        with safe_open(path, framework="pt") as file:  # torch has bfloat16
            names = list(file.keys())
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
            yield _Content(shapes, lambda n: to_numpy(file.get_tensor(n)), file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(str(error)) from error


@contextmanager
def _parquet(path: str) -> Iterator[_Content]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise _needs("pyarrow", path) from error
    file = parquet.ParquetFile(path)
    names = [n for n in file.schema_arrow.names if not n.startswith("__index_level_")]  # pandas
    n_rows = file.metadata.num_rows
    n_bytes = sum(file.metadata.row_group(i).total_byte_size for i in range(file.num_row_groups))
    require_plausible_size(path, max(n_bytes, n_rows * len(names)), os.path.getsize(path))
    pair = next((p for p in _X_AND_Y if set(p) <= set(names)), ())
    lists = [f.name for f in file.schema_arrow if str(f.type).startswith(("list", "fixed_size"))]
    plain = [n for n in names if n not in (*pair, *lists)]
    numbers = [n for n in plain if _is_number(file.schema_arrow.field(n).type)]
    held = {name: name for name in lists} | ({"coords": pair} if pair else {})
    if not set(lists) - set(POSITIONS):
        held["features"] = tuple(numbers)
    metadata = {k.decode(): v.decode() for k, v in (file.schema_arrow.metadata or {}).items()}

    def array(name: str) -> NDArray:
        columns = held[name]
        if isinstance(columns, tuple):
            table = file.read(columns=list(columns))
            return np.stack([table[c].to_numpy() for c in columns], axis=1)
        return np.stack(file.read(columns=[columns])[columns].to_pylist())

    widths = {str(n): len(c) if isinstance(c, tuple) else -1 for n, c in held.items()}
    shapes: dict[str, tuple[int, ...]] = {n: (n_rows, width) for n, width in widths.items()}
    yield _Content(shapes, array, metadata)


def _is_number(kind: Any) -> bool:
    return str(kind).startswith(("int", "uint", "float", "double", "halffloat"))


@contextmanager
def _zarr(path: str) -> Iterator[_Content]:
    try:
        import zarr
    except ImportError as error:
        raise _needs("zarr", path) from error
    node = zarr.open(path, mode="r")
    arrays = {"features": node} if isinstance(node, zarr.Array) else dict(node.arrays())
    size = sum(os.path.getsize(os.path.join(p, f)) for p, _, files in os.walk(path) for f in files)
    for name, array in arrays.items():
        require_plausible_size(f"{path}: {name}", array.nbytes, size)
    attributes = dict(node.attrs)
    for array in arrays.values():
        attributes = dict(array.attrs) | attributes
    yield _Content(
        {name: array.shape for name, array in arrays.items()},
        lambda name: np.asarray(arrays[name][...]),
        attributes,
    )


_OPENERS = {
    ".npy": ("npy", _numpy),
    ".npz": ("npz", _numpy_archive),
    ".safetensors": ("safetensors", _safetensors),
    ".parquet": ("parquet", _parquet),
    ".zarr": ("zarr", _zarr),
}


class ArrayBag:
    """Named arrays in a file: features, and where they are there coordinates and a graph."""

    def __init__(self, path: str, format: str = "auto", *, allow_external: bool = False) -> None:
        self.path, self.format, self.allow_external = path, format, allow_external

    def shape(self) -> tuple[int, ...]:
        """(n_instances, n_features)."""
        with self._open() as content:
            shape = squeezed(content.shapes[self._features(content)])
        return shape if -1 not in shape else self.read().features.shape

    def read(self) -> BagArrays:
        """Read features, coordinates and stored graph; None for what is absent."""
        with self._open() as content:
            names = dict.fromkeys(content.shapes)
            return named_arrays(self.path, {n: n for n in names}, self._kind, content.array)

    def coords(self) -> NDArray | None:
        """Coordinates, None where the file has none."""
        return self.read().coords

    @property
    def parts(self) -> list[str]:
        """The file; of a zarr store, the files in it."""
        if not os.path.isdir(self.path):
            return [self.path]
        return sorted(os.path.join(p, f) for p, _, files in os.walk(self.path) for f in files)

    @property
    def stated_in(self) -> list[str]:
        """Files from which `info` reads."""
        return self.parts[:8]

    def info(self) -> BagInfo:
        """Format, keys, unit and what else the file states."""
        with self._open() as content:
            names = list(content.shapes)
            return named_info(self.path, self._kind, names, self._kind, content.attributes)

    @property
    def _kind(self) -> str:
        return _OPENERS[Path(self.path).suffix.lower()][0]

    def _features(self, content: _Content) -> str:
        return feature_key(self.path, list(content.shapes), self._kind)

    @contextmanager
    def _open(self) -> Iterator[_Content]:
        if self._kind == "zarr":
            require_store(self.path, allow_external=self.allow_external)
        else:
            require_regular(self.path, allow_external=self.allow_external)
        _, opener = _OPENERS[Path(self.path).suffix.lower()]
        named = errors_that_name(self.path, f"{self._kind} file", PARSER_ERRORS)
        with named, opener(self.path) as content:
            yield content


def require_store(path: str, *, allow_external: bool) -> None:
    """Raise unless a zarr store is a folder of regular files, none a link to elsewhere."""
    if not os.path.isdir(path):
        raise BagFileError(f"{path} does not exist, or is no folder of zarr.")
    if not allow_external and os.path.islink(path) and leaves_its_folder(path):
        raise BagFileError(f"{path} is a link to elsewhere; allow it with allow_external=True.")
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            inner = os.path.join(folder, name)
            if not allow_external and os.path.islink(inner):
                raise BagFileError(f"{inner} is a link; allow it with allow_external=True.")
            if name in files:
                require_regular(inner, allow_external=allow_external)
