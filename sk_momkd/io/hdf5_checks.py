"""Checks of HDF5 files before their content is read: other files, missing and vast content."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import h5py

from ..data.stored_sparse import check_stored_sparse, sparse_kind
from ..exceptions import BagFileError
from ..messages import first_few
from .local_files import require_plausible_size, require_regular, require_unchanged
from .read_errors import NO_LOCKS, PARSER_ERRORS, errors_that_name

_MOST_LINKS = 32  # soft links on the way to one object
_MOST_OBJECTS = 100_000
_MOST_ATTRIBUTES = 4096
_LARGEST_ATTRIBUTE = 2**20  # bytes


@contextmanager
def open_hdf5(
    path: str | PathLike, *, allow_external: bool = False, kind: str = "HDF5 file"
) -> Iterator[h5py.File]:
    """Open a regular HDF5 file for reading; it must still be the same when it is closed."""
    before = require_regular(path, allow_external=allow_external)
    with errors_that_name(path, f"{kind} (truncated, or another format)", PARSER_ERRORS):
        file = _open_to_read(path)
    with file:
        yield file
    require_unchanged(path, before)


def _open_to_read(path: str | PathLike) -> h5py.File:
    """Open without a lock where the file system has none; changes are noticed anyway."""
    try:
        return h5py.File(path, "r")
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return h5py.File(path, "r", locking=False)


def _refuse_external(path: str, what: str) -> None:
    raise BagFileError(
        f"{path}: {what}. Other files are not read, because a file from elsewhere could name any "
        "file of yours. If you trust it, allow it with allow_external=True."
    )


def _beside(path: str, other: str) -> str:
    """Path of a file that `path` names, relative to its folder."""
    return os.path.join(os.path.dirname(os.path.abspath(path)), other)


def find(file: h5py.File, name: str, *, allow_external: bool = False) -> Any:
    """Object under `name`, None where it is absent; links are followed inside the file alone.

    h5py would follow external links already when asked whether a name exists.
    """
    root = here = file["/"].id
    parts, n_links = deque(name.split("/")), 0
    while parts:
        part = parts.popleft().encode()
        if part in (b"", b"."):
            continue
        if not isinstance(here, h5py.h5g.GroupID) or not here.links.exists(part):
            return None
        kind = here.links.get_info(part).type
        if kind == h5py.h5l.TYPE_SOFT:
            n_links += 1
            target = here.links.get_val(part).decode(errors="replace")
            if n_links > _MOST_LINKS:
                return None
            here = root if target.startswith("/") else here
            parts.extendleft(reversed(target.split("/")))
        elif kind == h5py.h5l.TYPE_HARD:
            here = h5py.h5o.open(here, part)
        else:
            _check_external_link(file, here, part, allow_external=allow_external)
            return file.get(name)
    return h5py.Dataset(here) if isinstance(here, h5py.h5d.DatasetID) else h5py.Group(here)


def _check_external_link(file: h5py.File, group: Any, name: bytes, *, allow_external: bool) -> None:
    target = group.links.get_val(name)
    other = target[0].decode(errors="replace") if isinstance(target, tuple) else repr(target)
    if not allow_external:
        _refuse_external(file.filename, f"{name.decode()!r} is a link to the file {other!r}")
    require_regular(_beside(file.filename, other), allow_external=True)


def attributes(owner: Any, names: Iterable[str]) -> dict[str, Any]:
    """Attributes of these names that an object has, which may have thousands of others."""
    if not h5py.h5a.get_num_attrs(owner.id):
        return {}
    found = {name: attribute(owner, name) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def attribute(owner: Any, name: str) -> Any:
    """An attribute, None where it is absent; one larger than HDF5 files have raises."""
    key = name.encode()
    if not h5py.h5a.get_num_attrs(owner.id) or not h5py.h5a.exists(owner.id, key):
        return None
    stored = h5py.h5a.open(owner.id, key)
    if math.prod(stored.shape or ()) * stored.dtype.itemsize > _LARGEST_ATTRIBUTE:
        raise BagFileError(f"{owner.file.filename}: attribute {name!r} is larger than 1 MiB.")
    return owner.attrs[name]


def _missing_share(dataset: h5py.Dataset) -> float:
    """Share of a dataset that was declared, but never written: HDF5 reads it as fill values."""
    stored = dataset.id.get_storage_size()
    if dataset.chunks is None:
        return 1 - min(stored / dataset.nbytes, 1.0)
    expected = math.prod(
        math.ceil(n / chunk) for n, chunk in zip(dataset.shape, dataset.chunks, strict=True)
    )
    return 1 - min((dataset.id.get_num_chunks() / expected), 1.0)


def _check_end(dataset: h5py.Dataset, size_of_file: int) -> None:
    """A contiguous dataset must end within the file; beyond its end HDF5 reads zeros."""
    start = dataset.id.get_offset()
    if dataset.chunks is None and start is not None and start + dataset.nbytes > size_of_file:
        raise BagFileError(
            f"{dataset.file.filename}: dataset {dataset.name!r} goes on beyond the end of the "
            "file, which is truncated. Copy or extract it again."
        )


def _sources_of(dataset: h5py.Dataset) -> list[tuple[str, str, int]]:
    """(file, dataset, number of values) of each source of a virtual dataset."""
    sources = []
    for source in dataset.virtual_sources():
        n_values = source.vspace.get_select_npoints()
        sources.append((source.file_name, source.dset_name, int(n_values)))
    return sources


def _check_virtual(dataset: h5py.Dataset, *, allow_external: bool) -> None:
    path = dataset.file.filename
    sources = _sources_of(dataset)
    others = sorted({name for name, _, _ in sources if name != "."})
    if others and not allow_external:
        _refuse_external(path, f"dataset {dataset.name!r} lies in other files, such as {others[0]}")
    for name, inner, _ in sources:
        other = path if name == "." else _beside(path, name)
        require_regular(other, allow_external=True)
        with errors_that_name(other, "source of a virtual dataset"), _open_to_read(other) as file:
            found = find(file, inner, allow_external=allow_external)
            if not isinstance(found, h5py.Dataset):
                raise BagFileError(
                    f"{path}: dataset {dataset.name!r} takes values from {inner!r} of {other}, "
                    "which is not there; HDF5 would read fill values."
                )
            if found.name != dataset.name or name != ".":
                check_dataset(found, allow_external=allow_external)
    if sum(n for _, _, n in sources) < dataset.size:
        raise BagFileError(
            f"{path}: the sources of dataset {dataset.name!r} do not cover it; HDF5 would read "
            "fill values for the rest."
        )


def check_dataset(
    dataset: h5py.Dataset, *, allow_external: bool = False, complete: bool = True
) -> None:
    """Raise if the values of a dataset are elsewhere, not there, or more than can be there.

    Without `complete` it is not asked whether all chunks are there, which takes milliseconds.

    Raises
    ------
    BagFileError
        If values lie in other files and `allow_external` is False, if a part of the dataset was
        never written or is cut off, or if it declares more than the file can hold.
    """
    if not dataset.shape or dataset.size == 0:
        return
    path = dataset.file.filename
    what = f"{path}: dataset {dataset.name!r}"
    if dataset.is_virtual:
        _check_virtual(dataset, allow_external=allow_external)
        require_plausible_size(what, dataset.nbytes, 2**62)
        return
    if dataset.external:
        names = [_beside(path, name) for name, *_ in dataset.external]
        if not allow_external:
            _refuse_external(path, f"dataset {dataset.name!r} lies in the file {names[0]}")
        sizes = [require_regular(name, allow_external=True)[0] for name in names]
        require_plausible_size(what, dataset.nbytes, sum(sizes), compressed=False)
        return
    size_of_file = os.path.getsize(path)
    missing = _missing_share(dataset) if complete else 0.0
    if missing > 0:
        raise BagFileError(
            f"{what} lacks {missing:.1%} of its content: it was declared, but never written, and "
            "HDF5 reads fill values there. Extract or copy the file again."
        )
    require_plausible_size(what, dataset.nbytes, size_of_file)
    _check_end(dataset, size_of_file)


def external_files(path: str, name: str) -> list[str]:
    """Other files that hold values of a dataset, for a file that may have such."""
    with open_hdf5(path, allow_external=True) as file:
        found = find(file, name, allow_external=True)
        if not isinstance(found, h5py.Dataset):
            return []
        own = found.file.filename
        others = [o for o, _, _ in _sources_of(found)] if found.is_virtual else []
        others += [o for o, *_ in found.external or []]
        held = {own, *(_beside(own, o) for o in others if o != ".")}
        return sorted(held - {path})


def check_tree(group: h5py.Group, *, allow_external: bool = False) -> None:
    """Check all objects of a file whose content another library reads, as anndata does.

    Raises
    ------
    BagFileError
        As `check_dataset`; also for links to other files, and for indices of a sparse matrix that
        are outside it.
    """
    waiting, seen = [group], set()
    while waiting:
        here = waiting.pop()
        info = h5py.h5o.get_info(here.id)
        if (info.fileno, info.addr) in seen:
            continue
        seen.add((info.fileno, info.addr))
        _check_counts(here, len(seen))
        if isinstance(here, h5py.Dataset):
            check_dataset(here, allow_external=allow_external)
        elif isinstance(here, h5py.Group):
            names = list(here.id)
            found = (_member(here, name, allow_external=allow_external) for name in names)
            waiting += [member for member in found if member is not None]
            if sparse_kind(partial(attribute, here)):
                check_stored_sparse(here)


def _check_counts(here: Any, n_objects: int) -> None:
    path, n_attributes = here.file.filename, h5py.h5a.get_num_attrs(here.id)
    if n_attributes > _MOST_ATTRIBUTES or n_objects > _MOST_OBJECTS:
        raise BagFileError(
            f"{path} has more than {_MOST_OBJECTS:,} objects, or more than {_MOST_ATTRIBUTES:,} "
            "attributes on one of them; no tool writes such files."
        )


def _member(group: h5py.Group, name: bytes, *, allow_external: bool) -> Any:
    """Object of a hard link; a soft one leads to what is visited anyway."""
    kind = group.id.links.get_info(name).type
    if kind == h5py.h5l.TYPE_HARD:
        found = h5py.h5o.open(group.id, name)
        if isinstance(found, h5py.h5d.DatasetID):
            return h5py.Dataset(found)
        return h5py.Group(found) if isinstance(found, h5py.h5g.GroupID) else None
    if kind != h5py.h5l.TYPE_SOFT:
        _check_external_link(group.file, group.id, name, allow_external=allow_external)
    return None


_PROBED: set[tuple] = set()  # paths and states of files that did not kill their reader
_PATIENCE = 60  # seconds, beside those for reading the bytes of the file
_CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE}
_SLOWEST = 2**22  # bytes per second, of storage far away


def require_survivable(path: str | PathLike) -> None:
    """Raise if a damaged file kills the process that reads it, which is another one here.

    Raises
    ------
    BagFileError
        If the HDF5 library crashes, or does not come to an end in a minute and the time that
        slow storage takes for a file of this size.
    """
    key = (str(Path(path).absolute()), *require_regular(path, allow_external=True))
    if key in _PROBED or not sys.executable:
        return
    program = str(Path(__file__).with_name("hdf5_probe.py"))
    command = [sys.executable, "-I", program, os.fspath(path)]
    patience = _PATIENCE + os.path.getsize(path) / _SLOWEST
    try:
        died = subprocess.run(command, check=False, capture_output=True, timeout=patience)
    except subprocess.TimeoutExpired as error:
        raise BagFileError(
            f"{path}: reading it did not come to an end in {patience:.0f} seconds. It is damaged, "
            "or its storage is very slow: copy it to a local disk, or write it again."
        ) from error
    except OSError:  # no process can be started: the file is read without
        return
    if -died.returncode in _CRASHES:
        raise BagFileError(f"{path} is damaged: the HDF5 library crashes on it. Write it again.")
    if died.returncode >= 0:  # else something else ended it, such as a limit of memory
        _PROBED.add(key)


_CHECKED: dict[str, tuple] = {}  # state of each file whose tree was checked in this process


def check_h5ad(path: str | PathLike, *, allow_external: bool = False) -> None:
    """Check an ``.h5ad`` file before anndata reads it; an unchanged one only once."""
    key = f"{Path(path).absolute()} {allow_external}"
    state = require_regular(path, allow_external=allow_external)
    if _CHECKED.get(key) == state:
        return
    with (
        open_hdf5(path, allow_external=allow_external, kind=".h5ad file") as file,
        errors_that_name(path, ".h5ad file"),
    ):
        if not {"obs", "var", "X"} & (names := set(file)):
            raise BagFileError(
                f"{path} is no AnnData: it holds {first_few(sorted(names), 8)}, but no obs, var "
                "and X. Files of features that other tools write have the suffix .h5."
            )
        check_tree(file["/"], allow_external=allow_external)
    _CHECKED[key] = state
