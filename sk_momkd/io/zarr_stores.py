"""Stores of zarr: folders of regular files, of which none may be missing."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..exceptions import BagFileError
from ..messages import first_few
from .local_files import leaves_its_folder, require_regular
from .zarr_codecs import require_known_codecs, stored_json

if TYPE_CHECKING:
    from zarr import Array

_METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")


def require_store(path: str, *, allow_external: bool) -> None:
    """Raise unless a zarr store is a folder of regular files, none a link, of known codecs."""
    if not os.path.isdir(path):
        what = "is a file, not a folder" if os.path.exists(path) else "does not exist"
        raise BagFileError(f"{path} {what}; a store of zarr is a folder.")
    if not allow_external and os.path.islink(path) and leaves_its_folder(path):
        raise BagFileError(f"{path} is a link to elsewhere; allow it with allow_external=True.")
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            inner = os.path.join(folder, name)
            if not allow_external and os.path.islink(inner):
                raise BagFileError(f"{inner} is a link; allow it with allow_external=True.")
            if name in files:
                require_regular(inner, allow_external=allow_external)
    require_known_codecs(path)


def files_of_store(path: str) -> list[str]:
    """All files of a store."""
    return sorted(os.path.join(p, f) for p, _, files in os.walk(path) for f in files)


def metadata_of_store(path: str) -> list[str]:
    """The files of a store that hold no values."""
    return [file for file in files_of_store(path) if os.path.basename(file) in _METADATA]


def size_of_store(path: str) -> int:
    """Bytes of all files of a store."""
    return sum(os.path.getsize(file) for file in files_of_store(path))


def is_anndata_store(path: str) -> bool:
    """Whether a store says that it holds an AnnData; does not import zarr."""
    for name in ("zarr.json", ".zattrs"):
        file = Path(path, name)
        with suppress(OSError, ValueError, RecursionError):  # its reader says so
            if file.is_file():
                stored = stored_json(file)
                known = stored if isinstance(stored, dict) else {}
                stated = known.get("attributes", known)
                return isinstance(stated, dict) and stated.get("encoding-type") == "anndata"
    return False


def arrays_of(path: str, node: Any) -> dict[str, Array]:
    """The arrays of a store, which holds one array or a group of them.

    Raises
    ------
    BagFileError
        If a folder of the store has chunks but no metadata, as zarr would pass over it.
    """
    if hasattr(node, "chunks"):
        return {"features": node}
    _require_metadata(path, set(node.keys()))
    arrays = dict(node.arrays())
    groups = sorted(set(node.keys()) - set(arrays))
    if not arrays and groups:
        hint = ""
        if "tables" in groups:
            hint = " It is a SpatialData: write the table, sdata.tables[...].write_zarr(path)."
        raise BagFileError(
            f"{path} has no arrays of its own, but the groups {first_few(groups, 8)}.{hint}"
        )
    return arrays


def _require_metadata(path: str, members: set[str]) -> None:
    folders = {p.name for p in Path(path).iterdir() if p.is_dir() and not p.name.startswith(".")}
    lost = sorted(name for name in folders - members if any(files_of_store(f"{path}/{name}")))
    if lost:
        raise BagFileError(
            f"{path} has the folders {first_few(lost)} without the metadata of an array "
            "(zarr.json, or .zarray). Copy or write the store again."
        )


def require_chunks(
    path: str, name: str, array: Array, *, may_lack: int = 0, allow_missing: bool = False
) -> None:
    """Raise if chunks of an array are not there, for which zarr gives the fill value.

    Zarr leaves out chunks that hold nothing but the fill value, so that one that was lost and one
    that was left out look the same.

    Parameters
    ----------
    path, name : str
        Store and array, for the message.
    array : zarr.Array
    may_lack : int, default=0
        So many chunks may be missing, because they may truly be the fill value.
    allow_missing : bool, default=False
        Whether the fill value is what is meant; not if the array has none.
    """
    if 0 in array.shape or not array.shape:
        return
    shards = getattr(array, "shards", None)
    files = shards or array.chunks
    per_file = math.prod(s // c for s, c in zip(files, array.chunks, strict=True))
    expected = math.prod(-(-n // step) for n, step in zip(array.shape, files, strict=True))
    missing = expected - array.nchunks_initialized // per_file
    fill = array.fill_value
    if missing <= may_lack or (allow_missing and fill is not None):
        return
    remedy = (
        ""
        if fill is None
        else (
            f" If the writer left them out because they hold nothing but {fill}: write them, with "
            "zarr.config.set({'array.write_empty_chunks': True}); bags take allow_constant=True."
        )
    )
    raise BagFileError(
        f"{path}: array {name!r} lacks {missing} of {expected} chunks, where zarr reads "
        f"{'anything' if fill is None else fill}. Copy or write the store again.{remedy}"
    )


def one_of_coords(array: Array) -> int:
    """How many chunks of coordinates may be left out: one patch may lie at the origin."""
    whole_rows = array.chunks[-1] >= array.shape[-1]
    return int(bool(whole_rows and math.prod(array.chunks[:-1]) == 1 and array.fill_value == 0))


def require_expression_chunks(path: str, store: Any) -> None:
    """`require_chunks` for X, the layers and the names of an AnnData.

    Raises
    ------
    BagFileError
        If chunks are missing, or X is.
    """
    layers = [f"layers/{name}" for name in store["layers"]] if "layers" in store else []
    names = [f"{axis}/{store[axis].attrs.get('_index', '_index')}" for axis in ("obs", "var")]
    for name in ("X", *layers, *names):
        if name not in store:
            continue
        node = store[name]
        parts = {name: node} if hasattr(node, "chunks") else dict(node.arrays())
        for part, array in parts.items():
            require_chunks(path, part if part == name else f"{name}/{part}", array)
