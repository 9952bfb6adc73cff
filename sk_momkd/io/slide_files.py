"""Files of slides: which are in a folder, and which belongs to which slide id."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path

import pandas as pd

from ..data.ids import normalise_id
from ..exceptions import CohortError
from ..messages import first_few

_TOOLS = (".h5", ".hdf5", ".pt", ".pth", ".h5ad")
BAG_SUFFIXES = (*_TOOLS, ".npy", ".npz", ".safetensors", ".parquet", ".zarr")
PICKLES = (".pkl", ".pickle", ".joblib", ".p")  # they may run any code
MASK_SUFFIXES = (".geojson", ".json", ".geojson.gz", ".json.gz")
WITHOUT_UUID = "name without UUID"
_NO_FEATURES = ("patches", "contours", "contours_geojson", "visualization", "masks")  # of TRIDENT
_DEPTH = 3  # of folders below the one that is named
_UUID = re.compile(r"\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", re.IGNORECASE)


def visible_files(folder: str | PathLike, suffixes: Iterable[str]) -> list[Path]:
    """Files of a folder with one of the `suffixes`, sorted, without hidden ones (``._S1.h5``).

    A store of zarr, which is a folder, counts as a file; slideflow's index of a bag does not.
    """
    suffixes = tuple(suffixes)
    named = (path for path in Path(folder).iterdir() if path.name.lower().endswith(suffixes))
    return sorted(path for path in named if _is_visible(path))


def _is_visible(path: Path) -> bool:
    if path.name.startswith(".") or path.name.endswith(".index.npz"):
        return False
    return not path.is_dir() or path.suffix.lower() == ".zarr"


def nothing_found(folder: str | PathLike) -> str:
    """What a folder without bag files holds instead, for messages."""
    names = sorted(path.name for path in Path(folder).iterdir() if not path.name.startswith("."))
    pointers = [name for name in names if name.endswith(".dvc")]
    pickles = [name for name in names if Path(name).suffix.lower() in PICKLES]
    if pointers:
        return f" It has pointers of DVC ({first_few(pointers)}): get the data with `dvc pull`."
    if pickles:
        return (
            f" It has pickles ({first_few(pickles)}), which could run any code and are not read. "
            "Save them as one of these formats."
        )
    return f" It has {first_few(names, 5)}." if names else " It is empty."


def feature_folder(folder: str | PathLike, error: type[ValueError] = CohortError) -> Path:
    """The folder with bag files: `folder`, or the only one below it, as in a folder of TRIDENT.

    Raises
    ------
    CohortError, or `error`
        If several folders below hold bag files; lists them with the numbers of their files.
    """
    root = Path(folder)
    if visible_files(root, BAG_SUFFIXES):
        return root
    found = {}
    for path, names, _ in os.walk(root):
        place = Path(path)
        names[:] = sorted(n for n in names if not n.startswith(".") and n not in _NO_FEATURES)
        if len(place.relative_to(root).parts) >= _DEPTH:
            names.clear()
        names[:] = [name for name in names if not name.endswith(".zarr")]
        if n_files := len(visible_files(place, BAG_SUFFIXES)):
            found[place] = n_files
    if len(found) > 1 and all(n == 1 for n in found.values()):
        return root  # a folder per slide
    if len(found) > 1:
        listed = [f"{place.relative_to(root)} ({n} files)" for place, n in found.items()]
        raise error(
            f"{folder} holds no feature files itself, and {len(found)} folders below it do: "
            f"{first_few(listed, 8)}. Name the one to read."
        )
    return next(iter(found), root)


def bag_files(folder: str | PathLike, error: type[ValueError] = CohortError) -> list[Path]:
    """Bag files of a folder, of the only one below it that has any, or of a folder per slide."""
    place = feature_folder(folder, error)
    files = visible_files(place, BAG_SUFFIXES)
    if files:
        return files
    below = (p for p in sorted(Path(folder).iterdir()) if p.is_dir() and p.suffix != ".zarr")
    return [file for path in below for file in visible_files(path, BAG_SUFFIXES)]


def files_by_slide(paths: Iterable[Path], error: type[ValueError] = CohortError) -> dict[str, Path]:
    """Path of each slide id; raises `error` if two files are of one slide."""
    files: dict[str, Path] = {}
    for path in paths:
        slide = normalise_id(path.name)
        if slide in files and {files[slide].suffix in _TOOLS, path.suffix in _TOOLS} == {
            True,
            False,
        }:
            # Arrays beside the file of a tool, such as coordinates, are no second bag.
            files[slide] = path if path.suffix in _TOOLS else files[slide]
            continue
        if slide in files:
            raise error(f"Two files are of slide {slide!r}: {files[slide]} and {path}. Keep one.")
        files[slide] = path
    return files


def match_files(slide_ids: Iterable[str], files: Mapping[str, Path]) -> pd.DataFrame:
    """Find the file of each slide by its id, else by its name without UUID.

    GDC names slides ``TCGA-A2-A04P-01Z-00-DX1.<UUID>``; tables and tools keep or drop the UUID.
    Two different UUIDs never match.

    Parameters
    ----------
    slide_ids : iterable of str
    files : mapping
        Path of each slide id, as :func:`files_by_slide` returns it.

    Returns
    -------
    DataFrame
        One row per slide: ``stem`` (a key of `files`), ``file``, and ``matched_by`` ("id" or
        "name without UUID"); None where a slide has no file.

    Raises
    ------
    CohortError
        If a slide has several possible files, or several slides have one file; names them.
    """
    with_uuid: dict[str, list[str]] = defaultdict(list)
    for stem in files:
        if (bare := _UUID.sub("", stem)) != stem:
            with_uuid[bare].append(stem)
    rows: list[tuple[str | None, ...]] = []
    for slide in slide_ids:
        stem, how = normalise_id(slide), "id"
        if stem not in files and "/" in stem:  # a folder, as in "train/S1"
            stem = stem.rsplit("/", 1)[1]
        if stem not in files:
            bare, how = _UUID.sub("", stem), WITHOUT_UUID
            found = with_uuid[stem] if bare == stem else [bare] if bare in files else []
            if len(found) > 1:
                raise CohortError(
                    f"Slide {slide!r} has no file of its name, and {len(found)} that differ from "
                    f"it by a UUID: {first_few(files[f].name for f in found)}. Write the UUID in "
                    "the table, or remove the files that are not meant."
                )
            if not found:
                rows.append((slide, None, None, None))
                continue
            stem = found[0]
        rows.append((slide, stem, str(files[stem]), how))
    matches = pd.DataFrame(rows, columns=["slide_id", "stem", "file", "matched_by"], dtype=object)
    shared = matches[matches["file"].notna() & matches["file"].duplicated(keep=False)]
    if len(shared):
        raise CohortError(
            f"Several slide ids belong to the same file: {first_few(shared['slide_id'])} (file "
            f"{Path(shared['file'].iloc[0]).name!r})."
        )
    return matches.drop(columns="slide_id")
