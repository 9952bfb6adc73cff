"""Which feature file of a folder belongs to which slide id of a table."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from ..exceptions import CohortError
from .readers import bag_files, slide_stem
from .sequence import first_few

WITHOUT_UUID = "name without UUID"
_UUID = re.compile(r"\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", re.IGNORECASE)


def find_files(folder: Path) -> dict[str, str]:
    """Path of each bag file of `folder` by its name without suffix.

    Raises
    ------
    CohortError
        If there is no such folder, or two files are of one slide.
    """
    if not folder.is_dir():
        raise CohortError(f"{folder} is not a folder with feature files (<slide_id>.h5).")
    files: dict[str, str] = {}
    for path in bag_files(folder):
        stem = slide_stem(path.name)
        if stem in files:
            raise CohortError(
                f"{folder} has two files for slide {stem!r}: {Path(files[stem]).name!r} and "
                f"{path.name!r}. Keep one."
            )
        files[stem] = str(path)
    return files


def match_files(slide_ids: Iterable[str], files: Mapping[str, str]) -> pd.DataFrame:
    """File of each slide: by its id, else by the name that either side has without its UUID.

    GDC names slides ``TCGA-A2-A04P-01Z-00-DX1.<UUID>``; tables and tools keep or drop the tail.
    Two different UUIDs never match.

    Parameters
    ----------
    slide_ids : iterable of str
    files : mapping
        Path by stem, as :func:`find_files` gives it.

    Returns
    -------
    DataFrame
        One row per slide: ``stem`` (a key of `files`), ``file``, and ``matched_by`` ("id" or
        "name without UUID"); None where a slide has no file.

    Raises
    ------
    CohortError
        If several files could be a slide's, or several slides have one file; names them.
    """
    tailed: dict[str, list[str]] = defaultdict(list)
    for stem in files:
        if (bare := _UUID.sub("", stem)) != stem:
            tailed[bare].append(stem)
    rows: list[tuple[str | None, ...]] = []
    for slide in slide_ids:
        stem, how = slide_stem(slide), "id"
        if stem not in files:
            bare, how = _UUID.sub("", stem), WITHOUT_UUID
            found = tailed[stem] if bare == stem else [bare] if bare in files else []
            if len(found) > 1:
                raise CohortError(
                    f"Slide {slide!r} has no file of its name, and {len(found)} that differ from "
                    f"it by a UUID: {first_few(Path(files[f]).name for f in found)}. Write the "
                    "UUID in the table, or remove the files that are not meant."
                )
            if not found:
                rows.append((slide, None, None, None))
                continue
            stem = found[0]
        rows.append((slide, stem, files[stem], how))
    matches = pd.DataFrame(rows, columns=["slide_id", "stem", "file", "matched_by"], dtype=object)
    shared = matches[matches["file"].notna() & matches["file"].duplicated(keep=False)]
    if len(shared):
        raise CohortError(
            f"Several slide ids mean the same file: {first_few(shared['slide_id'])} (file "
            f"{Path(shared['file'].iloc[0]).name!r})."
        )
    return matches.drop(columns="slide_id")
