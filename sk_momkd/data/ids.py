"""Ids of slides, patients, omics rows, splits, masks and sites: one form for all, and what is none.

Everything is joined by id, so each id passes :func:`normalise_id` once, on whichever side it comes
in. Two different ids that become one raise; nothing is merged.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..exceptions import CohortError

# Of slides, features, masks and pictures. ".ome" alone is left where a tool cut ".tiff".
_SUFFIXES = (
    *(".svs", ".svslide", ".tif", ".tiff", ".ome", ".ndpi", ".mrxs", ".scn", ".czi", ".qptiff"),
    *(".vsi", ".bif", ".isyntax", ".i2syntax", ".dcm", ".dicom", ".vms", ".vmu", ".lif", ".nd2"),
    *(".jp2", ".sdpc", ".kfb", ".tmap", ".mds", ".jpg", ".jpeg", ".png"),
    *(".h5", ".hdf5", ".pt", ".pth", ".h5ad", ".npy", ".npz", ".safetensors", ".parquet", ".zarr"),
    *(".json", ".geojson", ".geojson.gz", ".json.gz"),
)
_INVISIBLE = re.compile(r"^[\s\ufeff\u200b-\u200f\u2060]+|[\s\ufeff\u200b-\u200f\u2060]+$")
_PATH = re.compile(r"\\|^(~|\.{1,2})?/|^[A-Za-z]:/|^\w+://")
_WHOLE_FLOAT = re.compile(r"([+-]?\d+)\.0+")
_R_BARCODE = re.compile(r"TCGA\.[A-Z0-9]{2}\.[A-Z0-9]{4}(?![A-Z0-9])", re.IGNORECASE)
_UUID_AFTER_DASH = re.compile(r"-([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})$", re.IGNORECASE)
TCGA_BARCODE = re.compile(
    r"(?P<patient>TCGA-(?P<site>[A-Z0-9]{2})-[A-Z0-9]{4})(?![A-Z0-9])"
    r"(-(?P<type>\d{2})(?P<vial>[A-Z]?)(?![A-Z0-9]))?",
    re.IGNORECASE,
)
_ROW_NUMBER_NAMES = {  # of columns that pandas, R and spreadsheets write beside a table
    *("", "index", "level_0", "unnamed: 0", "x", "x1", "...1", "v1", "row", "rowname"),
    *("rownames", "row_names", "row.names", "row_number", "nr"),
}

RULES = (
    "Ids are compared in Unicode NFC without outer spaces, folders, file suffixes and the .0 of "
    "whole numbers, and with dashes in TCGA barcodes."
)


def _cut_suffix(text: str) -> str:
    lower = text.lower()
    ends = [suffix for suffix in _SUFFIXES if lower.endswith(suffix)]
    return text[: -len(max(ends, key=len))] if ends else text


def _pass(text: str) -> str:
    text = _INVISIBLE.sub("", text)
    short = _cut_suffix(text)
    if _PATH.search(text) or ("/" in text and short != text):
        short = re.split(r"[\\/]", short.rstrip("\\/"))[-1]
    if whole := _WHOLE_FLOAT.fullmatch(short):
        short = whole[1]
    if _R_BARCODE.match(short):
        short = _UUID_AFTER_DASH.sub(r".\1", short.replace(".", "-"))
    return short


@lru_cache(maxsize=2**16)
def _normalise(text: str) -> str:
    text = _INVISIBLE.sub("", unicodedata.normalize("NFC", text))
    while (short := _pass(text)) and short != text:
        text = short
    return text


def normalise_id(value: Any) -> str:
    r"""The form in which an id is compared with others.

    Unicode NFC, because file systems and tables write accents in two ways; no outer spaces; the
    base name of a path, with either separator; no suffix of a slide or feature file; "1001" for
    "1001.0", as pandas and spreadsheets write numbers beside empty cells; and dashes for the dots
    that R puts into TCGA barcodes. Other dots, as before a UUID, belong to the id.

    Examples
    --------
    >>> normalise_id("C:\\slides\\S1.ome.TIFF"), normalise_id(" S1"), normalise_id(1001.0)
    ('S1', 'S1', '1001')
    >>> normalise_id("TCGA.A2.A04P.01A"), normalise_id("TCGA-A2-A04P-01Z-00-DX1.svs.h5")
    ('TCGA-A2-A04P-01A', 'TCGA-A2-A04P-01Z-00-DX1')
    """
    return _normalise(_text(value))


def _text(value: Any) -> str:
    """An id as text; HDF5 gives bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def normalise_ids(
    values: Iterable[Any], what: str, error: type[ValueError] = CohortError
) -> list[str]:
    """Normalised ids; raises `error` if different ids become one, and names them."""
    given = [_text(value) for value in values]
    ids = [_normalise(text) for text in given]
    collided = collisions(given)
    if collided:
        raise error(
            f"{len(collided)} {what} are written in several ways: {both(collided)}. {RULES}"
        )
    return ids


def collisions(given: Iterable[str]) -> dict[str, list[str]]:
    """Ids that different texts become, with these texts."""
    texts: dict[str, list[str]] = {}
    for text in dict.fromkeys(given):
        texts.setdefault(_normalise(text), []).append(text)
    return {name: written for name, written in texts.items() if len(written) > 1}


def both(collided: dict[str, list[str]], n: int = 3) -> str:
    """Name the first `n` collisions with all their texts, in ASCII where they look alike."""
    shown = []
    for name, written in list(collided.items())[:n]:
        alike = len({unicodedata.normalize("NFC", text) for text in written}) < len(written)
        shown.append(f"{' and '.join(map(ascii if alike else repr, written))} (both {name!r})")
    more = f" and {len(collided) - n} more" if len(collided) > n else ""
    return "; ".join(shown) + more


def samples_as_patients(patient_ids: Iterable[Any]) -> dict[str, list[str]]:
    """TCGA sample barcodes among `patient_ids`, by the patient that they are of."""
    samples: dict[str, list[str]] = {}
    for name in dict.fromkeys(str(i) for i in patient_ids if i is not None):
        match = TCGA_BARCODE.match(name)
        if match is not None and match["type"]:
            samples.setdefault(match["patient"].upper(), []).append(name)
    return samples


def _as_numbers(index: Sequence[Any] | pd.Index) -> list[int] | None:
    """The ids as integers; None if one is none or is written with leading zeros."""
    numbers = []
    for value in index:
        text = "" if isinstance(value, bool | np.bool_) else normalise_id(value)
        if not text.isdecimal() or (text[0] == "0" and text != "0"):
            return None
        numbers.append(int(text))
    return numbers


def is_row_number_name(name: Any) -> bool:
    """Whether a column or index of this name may be a numbering of rows, which has no own name."""
    return name is None or str(name).strip().casefold() in _ROW_NUMBER_NAMES


def counts_rows(index: pd.Index) -> bool:
    """Whether an index is a numbering of rows, in any order, from any start, with a few gaps.

    An index with a name of its own is none: who sets an index by a column, or names it, says that
    it holds ids.

    Examples
    --------
    >>> import pandas as pd
    >>> counts_rows(pd.Index([3, 1, 2])), counts_rows(pd.Index([3, 1, 2], name="case_id"))
    (True, False)
    >>> counts_rows(pd.Index([1001, 2044, 8003]))
    False
    """
    if index.nlevels > 1 or len(index) == 0 or not is_row_number_name(index.name):
        return False
    if isinstance(index, pd.RangeIndex):
        return True
    numbers = _as_numbers(index)
    if numbers is None or len(set(numbers)) < len(numbers):
        return False
    if len(numbers) == 1:
        return numbers[0] == 0
    return max(numbers) - min(numbers) < 2 * len(numbers)


def is_numeric_index(index: pd.Index) -> bool:
    """Whether an index holds numbers rather than texts."""
    return pd.api.types.is_numeric_dtype(index) or all(
        isinstance(value, int | float | np.number) for value in index
    )


_SOME_ROWS = 32  # that tell most columns of expression from ids
_MANY_COLUMNS = 200  # of text, of which those without any known id in these rows are passed over


def _kinds(frame: pd.DataFrame) -> NDArray:
    """Kind of each column: i for whole numbers, f for others, O for text, "" for no ids."""
    of_type = {"i": "i", "u": "i", "f": "f", "O": "O", "U": "O", "S": "O", "T": "O"}
    kinds = []
    for dtype in frame.dtypes:
        is_text = isinstance(dtype, pd.CategoricalDtype | pd.StringDtype)
        kinds.append("O" if is_text else of_type.get(getattr(dtype, "kind", ""), ""))
    return np.array(kinds)


def _columns_of_numbers(
    frame: pd.DataFrame, places: NDArray, numbers: set[int], least: int
) -> list[int]:
    """Those `places` of columns of whole numbers of which `least` are among `numbers`."""
    some = np.sort(_floats(frame.iloc[:_SOME_ROWS], places), axis=0)
    whole = ((some % 1 == 0) | np.isnan(some)).all(axis=0)
    places = places[whole & ~(np.diff(some, axis=0) == 0).any(axis=0)]
    values = _floats(frame, places)
    found = (values >= min(numbers)) & (values <= max(numbers))
    places, values = places[found.sum(axis=0) >= least], values[:, found.sum(axis=0) >= least]
    return places[np.isin(values, list(numbers)).sum(axis=0) >= least].tolist()


def _floats(frame: pd.DataFrame, places: NDArray) -> NDArray:
    return frame.iloc[:, places].to_numpy(dtype=float, na_value=np.nan)


def _may_hold_ids(frame: pd.DataFrame, known: set[str], least: int) -> Iterator[int]:
    """Positions of the columns that could hold ids, of frames that may have thousands."""
    kinds = _kinds(frame)
    numbers = {int(name) for name in known if name.isdecimal() and len(name) < 16}
    numeric, texts = np.flatnonzero(np.isin(kinds, ["i", "f"])), np.flatnonzero(kinds == "O")
    places: list[int] = []
    if numbers and len(numeric):
        places += _columns_of_numbers(frame, numeric, numbers, least)
    some = frame.iloc[:_SOME_ROWS, texts].to_numpy(dtype=object)
    for place, column in zip(texts.tolist(), some.T, strict=True):
        values = [str(value) for value in column if value is not None and value == value]
        if len(set(values)) < len(values):
            continue
        if len(texts) <= _MANY_COLUMNS or any(normalise_id(value) in known for value in values):
            places.append(place)
    yield from sorted(places)


def column_of_ids(frame: pd.DataFrame, known: set[str], index: pd.Index) -> Any:
    """The column of `frame` that holds most ids of `known`, each once; None if none does.

    A column must hold at least half of what it can, no fewer ids than `index`, and other values.
    """
    ids = [normalise_id(value) for value in index]
    best, most = None, max(1, len(known.intersection(ids)), min(len(known), len(frame)) // 2)
    doubled = set(frame.columns[frame.columns.duplicated()])
    for place in _may_hold_ids(frame, known, most):
        values = frame.iloc[:, place]
        if values.name in doubled or not values.is_unique:
            continue
        own = [normalise_id(value) for value in values.dropna()]
        found = len(known.intersection(own))
        if found >= most and own != ids:
            best, most = values.name, found + 1
    return best
