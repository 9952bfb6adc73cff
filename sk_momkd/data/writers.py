"""Bags to files: TRIDENT-style HDF5, and one slide as AnnData."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import ArrayLike
from scipy import sparse

from ..exceptions import BagError
from .bag import Bag


def write_trident(
    path: str | PathLike,
    bag: Bag,
    *,
    patch_size_level0: int,
    level0_magnification: float = 40,
    target_magnification: float = 20,
    dtype: str = "float32",
) -> None:
    """Write a bag as TRIDENT does: ``features`` (N, D), ``coords`` (N, 2) and its attributes.

    The file appears whole or not at all: it is written beside `path` and then moved.

    Parameters
    ----------
    path : path
    bag : Bag
        Needs coordinates, level-0 pixels.
    patch_size_level0 : int
        Width of a patch in level-0 pixels.
    level0_magnification, target_magnification : float
        Of the scan, and of the patches that were encoded.
    dtype : {"float32", "float16"}

    Raises
    ------
    BagError
        If the bag has no coordinates.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> from sk_momkd import Bag, read_bags, write_trident
    >>> path = tempfile.mkdtemp() + "/S1.h5"
    >>> write_trident(path, Bag(np.ones((2, 3)), [[0, 0], [512, 0]]), patch_size_level0=512)
    >>> read_bags(path)[0].coords.tolist()
    [[0, 0], [512, 0]]
    """
    features, coords, *_ = bag.load()
    if coords is None:
        raise BagError(f"{bag.name} has no coordinates, which a TRIDENT-style file needs.")
    scale = target_magnification / level0_magnification
    attributes = {
        "patch_size": round(patch_size_level0 * scale),
        "patch_size_level0": patch_size_level0,
        "level0_magnification": level0_magnification,
        "target_magnification": target_magnification,
        "overlap": 0,
        "name": bag.bag_id or Path(path).stem,
        "level0_width": int(coords[:, 0].max()) + patch_size_level0,
        "level0_height": int(coords[:, 1].max()) + patch_size_level0,
    }
    folder = Path(path).parent
    handle, part = tempfile.mkstemp(suffix=".part", dir=folder)
    os.close(handle)
    try:
        with h5py.File(part, "w") as file:
            file["features"] = features.astype(dtype)
            file["coords"] = coords.astype(np.int64)
            file["coords"].attrs.update(attributes)
        os.replace(part, path)
    finally:
        Path(part).unlink(missing_ok=True)


def slide_to_anndata(bag: Bag, scores: Mapping[str, ArrayLike] | None = None) -> AnnData:
    """One slide as AnnData: a row per patch, ready for scanpy or squidpy.

    Parameters
    ----------
    bag : Bag
    scores : mapping of str to array-like, optional
        Per patch: (N,) goes to ``obs`` (attention), (N, m) to ``obsm`` (affinities).

    Returns
    -------
    AnnData
        ``X`` features; ``obsm["spatial"]`` coordinates; ``obsp["spatial_connectivities"]`` the
        bag's own graph, row i marking what patch i receives from; ``uns["bag"]`` ids and format.

    Raises
    ------
    BagError
        If a score has another number of rows than the bag.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import Bag, slide_to_anndata
    >>> slide_to_anndata(Bag(np.ones((2, 3))), {"attention": [0.2, 0.8]}).obs["attention"].tolist()
    [0.2, 0.8]
    """
    features, coords, edges, _ = bag.load()
    n = len(features)
    slide = AnnData(features, obs=pd.DataFrame(index=[f"patch_{i}" for i in range(n)]))
    if coords is not None:
        slide.obsm["spatial"] = np.asarray(coords)
    if edges is not None:
        ones = np.ones(edges.shape[1], dtype=np.float32)
        slide.obsp["spatial_connectivities"] = sparse.csr_matrix((ones, edges[::-1]), shape=(n, n))
    for name, values in (scores or {}).items():
        array = np.asarray(values)
        if len(array) != n:
            raise BagError(f"Score {name!r} has {len(array)} rows, {bag.name} has {n} instances.")
        if array.ndim == 1:
            slide.obs[name] = array
        else:
            slide.obsm[name] = array
    ids = {"bag_id": bag.bag_id, "patient_id": bag.patient_id, "format": bag.info.format}
    slide.uns["bag"] = {key: value for key, value in ids.items() if value is not None}
    return slide
