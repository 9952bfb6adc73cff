"""Split files as CLAM writes them: slide ids in columns train, val and test."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import combinations
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..data.ids import normalise_id, normalise_ids
from ..data.sequence import BagSequence, as_bags
from ..exceptions import BagFileError, CohortError, CohortWarning, LeakageError
from ..io.atomic import UNFINISHED, atomic_set
from ..io.local_files import require_regular
from ..io.tables import read_table
from ..messages import first_few, repeated, warn
from .split import check_leakage, check_parts, positions

_PARTS = ("train", "val", "test")
_FLAGS = {"True", "False", "TRUE", "FALSE"}  # the latter from spreadsheets
_NAME = re.compile(r"splits_(\d+)(_bool)?\.csv")

Split = tuple[NDArray, NDArray, NDArray]


def _positions_by_id(bags: BagSequence) -> dict[str, int]:
    """Position of each id; bags without id are left out, an id of two bags raises."""
    ids = bags.ids
    if twice := repeated(i for i in ids if i is not None):
        raise CohortError(f"{len(twice)} bag ids occur more than once: {first_few(twice)}.")
    return {bag_id: i for i, bag_id in enumerate(ids) if bag_id is not None}


def _frame(name: str, split: Sequence[Any], bags: BagSequence) -> pd.DataFrame:
    """Columns of slide ids; a pair has no validation part."""
    parts = [positions(part, len(bags)) for part in split]
    if len(parts) == 2:
        parts.insert(1, np.array([], dtype=int))
    used = np.concatenate(parts)
    for i in used:
        if not bags[i].bag_id:
            raise CohortError(f"{name}: bag {i} has no id to write. Give bags a bag_id.")
    if twice := repeated(used.tolist()):
        named = first_few(bags.ids[twice])
        raise CohortError(f"{name} names {len(twice)} slides twice: {named}.")
    columns = [pd.Series(bags.ids[part], dtype=object) for part in parts]
    return pd.concat(columns, axis=1, keys=_PARTS)


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    """Split files of a folder with their numbers, lists of ids before booleans."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    matches = [(match, path) for path in files if (match := _NAME.fullmatch(path.name))]
    matches.sort(key=lambda pair: pair[0][2] is not None)
    return [(int(match[1]), path) for match, path in matches]


def write_splits(folder: str | PathLike, splits: Iterable[Sequence[Any]], bags: Any) -> list[Path]:
    """Write ``splits_<k>.csv``, one file per split, as a set.

    If the process is killed while files are replaced, :func:`read_splits` refuses the folder until
    the splits are written again.

    Parameters
    ----------
    folder : path
        Created if it does not exist.
    splits : iterable of (train, validation, test) or of (train, test)
        Positions into `bags`.
    bags : BagSequence or list of Bag
        Their ``bag_id`` are written.

    Returns
    -------
    list of Path
        The files; columns train, val and test of slide ids, padded with empty cells.

    Raises
    ------
    LeakageError
        If a patient is on two sides; nothing is written then.
    CohortError
        If a bag has no id, ids repeat, a split names a bag twice, or `folder` holds split files
        beyond those written now, which would be read with them.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> from sk_momkd import Bag, read_splits, write_splits
    >>> bags = [Bag(np.ones((1, 2)), bag_id=f"00{i}") for i in range(4)]
    >>> folder = tempfile.mkdtemp()
    >>> print(write_splits(folder, [([0, 3], [1], [2])], bags)[0].read_text())
    train,val,test
    000,001,002
    003,,
    <BLANKLINE>
    >>> [part.tolist() for part in read_splits(folder, bags)[0]]
    [[0, 3], [1], [2]]
    """
    folder, bags, splits = Path(folder), as_bags(bags), list(splits)
    check_leakage(splits, bags)
    _positions_by_id(bags)
    frames = [_frame(f"Split {number}", split, bags) for number, split in enumerate(splits)]
    stale = [path.name for number, path in _numbered(folder) if number >= len(frames)]
    if stale:
        raise CohortError(
            f"{folder} holds split files beyond the {len(frames)} to be written: "
            f"{first_few(stale)}. Remove them or use another folder."
        )
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"splits_{number}.csv" for number in range(len(frames))]
    if paths:
        with atomic_set(paths) as parts:
            for part, frame in zip(parts, frames, strict=True):
                frame.to_csv(part, index=False, encoding="utf-8", lineterminator="\n")
    return paths


def _files(folder_or_files: str | PathLike | Iterable[str | PathLike]) -> list[Path]:
    if not isinstance(folder_or_files, str | PathLike):
        return [Path(path) for path in folder_or_files]
    path = Path(folder_or_files)
    if not path.is_dir():
        return [path]
    found: dict[int, Path] = {}
    for number, file in _numbered(path):
        found.setdefault(number, file)
    if not found:
        raise CohortError(f"{path} has no file splits_<k>.csv or splits_<k>_bool.csv.")
    return [found[number] for number in sorted(found)]


def _require_finished(files: Iterable[Path]) -> None:
    """Raise if a process was killed while it replaced the split files of a folder."""
    for folder in dict.fromkeys(path.parent for path in files):
        if (folder / UNFINISHED).exists():
            raise CohortError(
                f"Writing the splits in {folder} was interrupted, so some files are older than "
                f"others. Write them again, or, if you made them otherwise, remove {UNFINISHED}."
            )


def _require_own(path: Path, *, allow_external: bool) -> None:
    """Raise for a link that leads out of its folder, and for a pipe."""
    if not path.exists():
        return  # its reader says so
    try:
        require_regular(path, allow_external=allow_external)
    except BagFileError as error:
        raise CohortError(str(error)) from error


def _require_once(path: Path, where: str, ids: Iterable[str]) -> None:
    if twice := repeated(ids):
        raise CohortError(f"{path} names {len(twice)} slides twice{where}: {first_few(twice)}.")


def _ids_by_flag(path: Path, frame: pd.DataFrame, parts: pd.DataFrame) -> list[list[str]]:
    """The boolean form: a column of slide ids, and whether each is in a part."""
    others = [column for column in frame if column not in _PARTS]
    if not others:
        raise CohortError(f"{path} holds True and False, but no first column of slide ids.")
    ids = pd.Series(normalise_ids(frame[others[0]], f"slide ids of {path}"), index=frame.index)
    _require_once(path, "", ids)
    return [ids[parts[part].str.upper() == "TRUE"].tolist() for part in _PARTS]


def _read_ids(path: Path) -> list[list[str]]:
    """Slide ids of the three parts, as text, also "NA" and "007"."""
    frame = read_table(path)
    if twice := repeated(part for part in frame.columns if part in _PARTS):
        raise CohortError(f"{path} has several columns of the name {first_few(twice)}.")
    missing = [part for part in _PARTS if part not in frame]
    if "train" in missing or len(missing) > 1:
        raise CohortError(
            f"{path} has no column {first_few(missing)}; it has {first_few(frame.columns, 12)}, "
            "expected train, val and test, or train and one of them."
        )
    parts = frame[[part for part in _PARTS if part in frame]].reindex(columns=_PARTS, fill_value="")
    values = set(parts.to_numpy().ravel()) - {""}
    if values and values <= _FLAGS:
        return _ids_by_flag(path, frame, parts)
    ids = [[slide for slide in parts[part] if slide.strip()] for part in _PARTS]
    normalise_ids((slide for part in ids for slide in part), f"slide ids of {path}")
    return [[normalise_id(slide) for slide in part] for part in ids]


def _check_ids(path: Path, ids: list[list[str]], known: dict[str, int]) -> None:
    """Raise unless each slide is known, and is once in one part."""
    unknown = [s for part in ids for s in part if s not in known]
    if unknown:
        raise CohortError(
            f"{path} names {len(unknown)} slides that are not among the bags: "
            f"{first_few(unknown)}. The bags have {first_few(known)}."
        )
    for (one, left), (other, right) in combinations(zip(_PARTS, ids, strict=True), 2):
        both = [s for s in dict.fromkeys(left) if s in set(right)]
        if both:
            raise LeakageError(
                f"{path} has {len(both)} slides in both {one} and {other}: {first_few(both)}."
            )
    for name, part in zip(_PARTS, ids, strict=True):
        _require_once(path, f" in {name}", part)


def read_splits(
    folder_or_files: str | PathLike | Iterable[str | PathLike],
    bags: Any,
    *,
    allow_external: bool = False,
) -> list[Split]:
    r"""Read split files, CLAM's own included, as positions into `bags`.

    Parameters
    ----------
    folder_or_files : path, or iterable of paths
        A folder with ``splits_<k>.csv``, read in the order of k, or files in the order given.
        ``splits_<k>_bool.csv``, slide ids with True or False per part, is read where the folder has
        no ``splits_<k>.csv``. Without a column test (or val) that part is empty.
    bags : BagSequence or list of Bag
    allow_external : bool, default=False
        Whether files of a folder may be links to files outside it, as in :func:`read_bags`. A file
        that is named is read in any case.

    Returns
    -------
    list of (train, validation, test)
        Integer arrays of positions, in the order of the file.

    Raises
    ------
    LeakageError
        If a slide or a patient is on two sides, naming the file.
    CohortError
        If a file has other columns, names a slide that is not among the bags, or one twice, or if
        the folder was left half written.

    Warns
    -----
    CohortWarning
        If a file does not mention bags; they are in no part of that split.

    Examples
    --------
    >>> import numpy as np, pathlib, tempfile
    >>> from sk_momkd import Bag, read_splits
    >>> bags = [Bag(np.ones((1, 2)), bag_id=s) for s in ("S1", "S2", "S3")]
    >>> file = pathlib.Path(tempfile.mkdtemp(), "splits_0.csv")
    >>> _ = file.write_text(",train,val,test\n0,S3,S1,S2\n")
    >>> [part.tolist() for part in read_splits(file, bags)[0]]
    [[2], [0], [1]]
    """
    bags = as_bags(bags)
    position_of, groups = _positions_by_id(bags), bags.groups()
    splits: list[Split] = []
    files = _files(folder_or_files)
    _require_finished(files)
    named = not (isinstance(folder_or_files, str | PathLike) and Path(folder_or_files).is_dir())
    for path in files:
        _require_own(path, allow_external=allow_external or named)
        ids = _read_ids(path)
        _check_ids(path, ids, position_of)
        train, valid, test = (np.array([position_of[s] for s in p], dtype=int) for p in ids)
        split = (train, valid, test)
        check_parts(str(path), split, bags, groups)
        unmentioned = np.setdiff1d(np.arange(len(bags)), np.concatenate(split))
        if len(unmentioned):
            warn(
                f"{path} does not mention {len(unmentioned)} of {len(bags)} slides, they are in no "
                f"part: {first_few(bags[i].bag_id for i in unmentioned)}.",
                CohortWarning,
            )
        splits.append(split)
    return splits
