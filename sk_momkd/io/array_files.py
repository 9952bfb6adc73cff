"""Bags in array files of no tool: numpy, safetensors, parquet and zarr."""

from __future__ import annotations

import os
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib import format as numpy_format
from numpy.typing import NDArray

from ..bag_warnings import warn_of_bag
from ..data.arrays import BagArrays, to_numpy
from ..data.bag import BagInfo
from ..exceptions import BagFileError, FeatureTypeWarning
from ..messages import first_few, install_hint
from .local_files import (
    LARGEST_EXPANSION,
    check_zip,
    require_plausible_size,
    require_regular,
)
from .named_arrays import (
    coords_key,
    feature_key,
    is_of_a_bag,
    named_arrays,
    named_info,
    squeezed,
    x_and_y,
)
from .read_errors import PARSER_ERRORS, errors_that_name
from .slide_files import coords_beside
from .zarr_stores import (
    arrays_of,
    files_of_store,
    metadata_of_store,
    one_of_coords,
    require_chunks,
    require_store,
    size_of_store,
)

_DIGITS = "0123456789"


class _Content(NamedTuple):
    """Arrays of a file by name, which are read when they are asked for, and its attributes."""

    shapes: dict[str, tuple[int, ...]]
    array: Callable[[str], NDArray]
    attributes: Mapping[str, Any]


def _needs(package: str, path: str) -> BagFileError:
    return BagFileError(f"{path}: reading it needs {package}: {install_hint(package)}.")


def _header(file: Any, what: str, size: int) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of a numpy array from its header; more than the file can hold raises."""
    version = numpy_format.read_magic(file)
    read = numpy_format.read_array_header_1_0
    read = read if version == (1, 0) else numpy_format.read_array_header_2_0
    shape, _, dtype = read(file)
    n_bytes = dtype.itemsize * int(np.prod(shape, dtype=object))
    if not dtype.hasobject:  # else a pickle, of any size
        require_plausible_size(what, n_bytes, size, compressed=False)
    return shape, dtype


def _refuse_objects(what: str) -> None:
    raise BagFileError(
        f"{what} holds Python objects, which are stored as pickles and could run any code. Save "
        "numbers: one array of shape (n_instances, n_features) per slide."
    )


@contextmanager
def _numpy(path: str) -> Iterator[_Content]:
    paths = {"features": path} | ({"coords": str(c)} if (c := coords_beside(Path(path))) else {})
    shapes = {}
    for name, own in paths.items():
        with open(own, "rb") as file:
            shapes[name], dtype = _header(file, own, os.path.getsize(own))
        if dtype.hasobject:
            _refuse_objects(own)
    yield _Content(shapes, lambda name: np.load(paths[name], allow_pickle=False), {})


@contextmanager
def _numpy_archive(path: str) -> Iterator[_Content]:
    check_zip(path, expansion=LARGEST_EXPANSION)
    shapes, objects = {}, []
    with zipfile.ZipFile(path) as archive:
        for part in archive.infolist():
            name = part.filename.removesuffix(".npy")
            with archive.open(part) as file:
                shape, dtype = _header(file, f"{path}: {name}", part.file_size)
            if dtype.hasobject:  # notes beside the arrays are passed over, bags are refused
                objects.append(name)
            else:
                shapes[name] = shape
    if held := [name for name in objects if is_of_a_bag(name)]:
        _refuse_objects(f"{path}: {held[0]!r}")
    single = [name for name, shape in shapes.items() if shape in ((), (1,))]
    arrays = {name: shape for name, shape in shapes.items() if name not in single}
    with np.load(path, allow_pickle=False) as stored:
        values = {name: stored[name].item() for name in single}
        yield _Content(arrays, lambda name: stored[name], values)


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
    pair = x_and_y(names)
    lists = [f.name for f in file.schema_arrow if str(f.type).startswith(("list", "fixed_size"))]
    plain = [n for n in names if n not in (*pair, *lists)]
    numbers = [n for n in plain if _is_number(file.schema_arrow.field(n).type)]
    held = {name: name for name in lists} | ({"coords": pair} if pair else {})
    if not set(lists) - {coords_key(lists)}:
        held["features"] = tuple(_feature_columns(numbers, path))
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


def _feature_columns(names: list[str], path: str) -> list[str]:
    """Columns that are numbered, such as feat_0 and feat_1, with a warning about the others.

    Their numbers are all from 0 or 1 on, and they are most of the columns. Where there are none
    such, as of the markers CD3, CD4 and CD8, all columns are features.
    """
    stems: dict[str, list[str]] = defaultdict(list)
    for name in names:
        if (stem := name.rstrip(_DIGITS)) != name:
            stems[stem].append(name)
    stem, numbered = max(stems.items(), key=lambda item: len(item[1]), default=("", []))
    numbers = sorted(int(name.removeprefix(stem)) for name in numbered)
    is_run = any(numbers == list(range(n, n + len(numbers))) for n in (0, 1))
    if not is_run or 2 * len(numbered) <= len(names):
        return names
    others = [n for n in names if n not in set(numbered)]
    if others:
        warn_of_bag(
            path,
            f"its features are the columns {numbered[0]} to {numbered[-1]}; not read as features: "
            f"{first_few(others)}. Name them alike if they are features.",
            FeatureTypeWarning,
        )
    return numbered


def _is_number(kind: Any) -> bool:
    return str(kind).startswith(("int", "uint", "float", "double", "halffloat"))


@contextmanager
def _zarr(path: str, *, allow_constant: bool) -> Iterator[_Content]:
    try:
        import zarr
    except ImportError as error:
        raise _needs("zarr", path) from error
    node = zarr.open(path, mode="r")
    arrays = arrays_of(path, node)
    size = size_of_store(path)
    for name, array in arrays.items():
        require_plausible_size(f"{path}: {name}", array.nbytes, size)
    attributes = dict(node.attrs)
    for array in arrays.values():
        attributes = dict(array.attrs) | attributes

    def values(name: str) -> NDArray:
        may_lack = one_of_coords(arrays[name]) if name == coords_key(arrays) else 0
        require_chunks(path, name, arrays[name], may_lack=may_lack, allow_missing=allow_constant)
        return np.asarray(arrays[name][...])

    yield _Content({name: array.shape for name, array in arrays.items()}, values, attributes)


_OPENERS: dict[str, tuple[str, Callable[..., AbstractContextManager[_Content]]]] = {
    ".npy": ("npy", _numpy),
    ".npz": ("npz", _numpy_archive),
    ".safetensors": ("safetensors", _safetensors),
    ".parquet": ("parquet", _parquet),
    ".zarr": ("zarr", _zarr),
}


class ArrayBag:
    """Named arrays in a file: features, and where they are there coordinates and a graph."""

    def __init__(
        self,
        path: str,
        format: str = "auto",
        *,
        allow_external: bool = False,
        allow_constant: bool = False,
    ) -> None:
        self.path, self.format, self.allow_external = path, format, allow_external
        self.allow_constant = allow_constant

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
        """The file, and that of its coordinates; of a zarr store, the files in it."""
        if os.path.isdir(self.path):
            return files_of_store(self.path)
        coords = coords_beside(Path(self.path)) if self._kind == "npy" else None
        return [self.path] if coords is None else [self.path, str(coords)]

    @property
    def stated_in(self) -> list[str]:
        """Files from which `info` reads."""
        return metadata_of_store(self.path) if os.path.isdir(self.path) else self.parts

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
            for part in self.parts:
                require_regular(part, allow_external=self.allow_external)
        _, opener = _OPENERS[Path(self.path).suffix.lower()]
        options = {"allow_constant": self.allow_constant} if self._kind == "zarr" else {}
        named = errors_that_name(self.path, f"{self._kind} file", PARSER_ERRORS)
        with named, opener(self.path, **options) as content:
            yield content
