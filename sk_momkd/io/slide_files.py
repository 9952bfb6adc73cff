"""Files of slides: which are in a folder, and which belongs to which slide id."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path

import pandas as pd

from ..data.ids import normalise_id
from ..exceptions import CohortError, CohortWarning
from ..messages import first_few, warn

_TOOLS = (".h5", ".hdf5", ".pt", ".pth", ".h5ad")
BAG_SUFFIXES = (*_TOOLS, ".npy", ".npz", ".safetensors", ".parquet", ".zarr")
PICKLES = (".pkl", ".pickle", ".joblib", ".p")  # they may run any code
MASK_SUFFIXES = (".geojson", ".json", ".geojson.gz", ".json.gz")
WITHOUT_UUID = "name without UUID"
_NO_FEATURES = (  # folders of TRIDENT and CLAM
    *("patches", "contours", "contours_geojson", "visualization", "masks", "stitches", "coords"),
    *("thumbnails", "heatmaps", "splits", "logs"),
)
_DEPTH = 3  # of folders below the one that is named
_OF_FEATURES = ("features", "feats", "embeddings")  # names of files whose folder is the slide
_BESIDE = {  # words that name what tools write beside bags
    *("coords", "coord", "coordinates", "positions", "edges", "graph", "adjacency", "mask"),
    *("stats", "statistics", "mean", "means", "std", "stds", "var", "variance", "norm", "scaler"),
    *("pca", "umap", "tsne", "clusters", "centroids", "prototypes", "attention", "scores"),
    *("index", "manifest", "metadata", "meta", "summary", "labels", "splits", "config", "clinical"),
    *("thumbnail", "thumbnails", "thumb", "predictions", "weights", "model", "checkpoint"),
}
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


_NO_BAGS = (  # endings of files that stand for bags, and what to do
    ((".dvc",), "pointers of DVC ({}): get the data with `dvc pull`."),
    ((".icloud",), "placeholders of iCloud ({}): download the files first."),
    (
        (".tmp", ".part", ".partial", ".crdownload", ".download", ".filepart"),
        "files whose copy did not come to an end ({}): copy or download them again.",
    ),
    ((".gz", ".zip", ".tar", ".bz2", ".xz", ".7z"), "packed files ({}): unpack them first."),
    (
        PICKLES,
        "pickles ({}), which could run any code and are not read. Save them as one of these "
        "formats.",
    ),
)


def nothing_found(folder: str | PathLike) -> str:
    """What a folder without bag files holds instead, for messages."""
    paths = sorted(Path(folder).iterdir())
    names = [p.name + "/" * p.is_dir() for p in paths if not p.name.startswith(".")]
    for endings, what in _NO_BAGS:
        if found := [path.name for path in paths if path.name.lower().endswith(endings)]:
            return f" It has {what.format(first_few(found))}"
    return f" It has {first_few(names, 5)}." if names else " It is empty."


def _is_beside(name: str, others: Collection[str]) -> bool:
    """Whether a file of this name goes with bags: ``mean_std``, or ``S1_coords`` beside ``S1``."""
    words = set(re.split(r"[-_. ]+", name.casefold()))  # a number is that of a slide
    words -= {"feature", "patch", "tile", "slide", *_OF_FEATURES}
    if words and words <= _BESIDE:
        return True
    slide, last = re.fullmatch(r"(?:(.+)[-_. ])?(.*)", name, re.DOTALL).groups()  # type: ignore[union-attr]
    return slide in others and last.casefold() in _BESIDE


def _own_bags(folder: str | PathLike) -> list[Path]:
    """Files of a folder that hold bags, not those that tools write beside them.

    Where a tool's files are, files of arrays that are not of the same slides are no bags either;
    a warning names them.
    """
    found = visible_files(folder, BAG_SUFFIXES)
    names = {path: normalise_id(path.name) for path in found}
    bags = [path for path in found if not _is_beside(names[path], names.values())]
    of_tools = {names[path] for path in bags if path.suffix.lower() in _TOOLS}
    foreign = [p for p in bags if p.suffix.lower() not in _TOOLS and names[p] not in of_tools]
    if not of_tools or not foreign:
        return bags
    warn(
        f"Files of arrays that lie beside files of a tool are not read as slides: "
        f"{first_few(path.name for path in foreign)} in {folder}. If they are slides, put them "
        "into a folder of their own, or pass read_bags a list of files.",
        CohortWarning,
    )
    return [path for path in bags if path not in foreign]


def _bags_below(root: Path) -> dict[Path, list[Path]]:
    """Bags of each folder below `root` that has any."""
    found = {}
    for path, names, _ in os.walk(root):
        place = Path(path)
        names[:] = sorted(n for n in names if not n.startswith(".") and n not in _NO_FEATURES)
        if len(place.relative_to(root).parts) >= _DEPTH:
            names.clear()
        names[:] = [name for name in names if not name.lower().endswith(".zarr")]
        if files := _own_bags(place):
            found[place] = files
    return found


def bag_files(folder: str | PathLike, error: type[ValueError] = CohortError) -> list[Path]:
    """Bag files of a folder, of the only one below it that has any, or of a folder per slide.

    Raises
    ------
    CohortError, or `error`
        If several folders below hold several bag files; lists them with the numbers of their files.
    """
    root = Path(folder)
    if files := _own_bags(root):
        return files
    found = _bags_below(root)
    if len(found) > 1 and any(len(files) > 1 for files in found.values()):
        listed = [f"{place.relative_to(root)} ({len(f)} files)" for place, f in found.items()]
        raise error(
            f"{folder} holds no feature files itself, and {len(found)} folders below it do: "
            f"{first_few(listed, 8)}. Name the one to read."
        )
    return [file for files in found.values() for file in files]


def _slide_names(paths: Sequence[Path]) -> list[str]:
    """Slide of each file: its name, or that of its folder if it is called ``features``.

    Where all these folders have one name, as of an encoder, the folders above them are the slides.
    """
    names = [normalise_id(path.name) for path in paths]
    unnamed = [i for i, name in enumerate(names) if name.casefold() in _OF_FEATURES]
    for level in range(_DEPTH):
        folders = {i: _folder_name(paths[i], level) for i in unnamed}
        if len(folders) < 2 or len(set(folders.values())) > 1:
            break
    return [folders.get(i, name) or name for i, name in enumerate(names)]


def coords_beside(path: Path) -> Path | None:
    """The ``.npy`` of coordinates that lies beside one of features, if there is one.

    It is called ``S1_coords.npy`` beside ``S1.npy``, or ``coords.npy`` beside ``features.npy``.
    """
    names = [f"{path.stem}{between}coords.npy" for between in "_-."]
    names += ["coords.npy"] if path.stem.casefold() in _OF_FEATURES else []
    return next((path.with_name(n) for n in names if os.path.lexists(path.with_name(n))), None)


def _folder_name(path: Path, level: int) -> str:
    above = path.absolute().parents
    return normalise_id(above[level].name) if level < len(above) else ""


def files_by_slide(paths: Iterable[Path], error: type[ValueError] = CohortError) -> dict[str, Path]:
    """Path of each slide id; raises `error` if two files are of one slide."""
    paths, files = list(paths), dict[str, Path]()
    for path, slide in zip(paths, _slide_names(paths), strict=True):
        if slide in files and {files[slide].suffix in _TOOLS, path.suffix in _TOOLS} == {
            True,
            False,
        }:
            # Arrays beside the file of a tool, such as coordinates, are no second bag.
            files[slide] = path if path.suffix in _TOOLS else files[slide]
            continue
        if slide in files:
            raise error(
                f"Two files are of slide {slide!r}: {files[slide]} and {path}. Keep one. If their "
                "folders are the slides, call the files features."
            )
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
