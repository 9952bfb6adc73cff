"""Digests of bags and omics, by which a study that goes on knows its cohort again."""

from __future__ import annotations

import numpy as np

from ..data.arrays import BagArrays
from ..data.bag import Bag
from ..data.omics import OmicsTable
from ..data.patient import PatientSource
from ..data.value_digest import array_digest, digest, value_text
from .cache import CachedFile
from .local_files import sample_digest
from .readers import SlideFile

_ROWS = 256  # of omics that are read at once


def bag_digest(bag: Bag) -> str:
    """Digest of the content of a bag; of files, that of sizes and samples, not of paths.

    Bags in memory and of other sources, such as those that a user defines, are read as a whole.

    Raises
    ------
    BagFileError
        If a file cannot be read.
    """
    steps = [value_text(step) for step in bag._steps]
    extra = [_of_array(bag._coords), _of_array(bag._edge_index)]
    return digest(_of_source(bag), *extra, *steps)


def _of_source(bag: Bag) -> str:
    source = bag._source
    if isinstance(source, np.ndarray):
        return array_digest(source)
    if isinstance(source, SlideFile):
        return digest(source.format, sample_digest(source.parts))
    if isinstance(source, CachedFile):
        return digest(source.dtype, source.file.format, sample_digest(source.file.parts))
    if isinstance(source, PatientSource):
        return digest(*map(bag_digest, source.slides))
    arrays: BagArrays = source.read()
    return digest(*map(_of_array, arrays))


def _of_array(values: object) -> str:
    return "" if values is None else array_digest(np.asarray(values))


def omics_digests(omics: OmicsTable) -> dict[str, str]:
    """Digest of the values of each row, by its id."""
    found: dict[str, str] = {}
    for start in range(0, len(omics.ids), _ROWS):
        rows = omics.rows(np.arange(len(omics.ids))[start : start + _ROWS], finite=False)
        found |= {str(i): array_digest(v) for i, v in zip(rows.index, rows.to_numpy(), strict=True)}
    return found
