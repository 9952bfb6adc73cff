"""Writers of bags: TRIDENT-style HDF5, and one slide as AnnData."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from ..data.arrays import BagArrays
from ..data.bag import Bag, BagInfo
from ..data.hdf5_output import hdf5_output
from ..exceptions import BagError
from .anndata_files import GEOMETRY
from .atomic import atomic_write

if TYPE_CHECKING:
    from anndata import AnnData


_DTYPES = ("float32", "float16")


def _one_slide(bag: Bag) -> BagArrays:
    arrays = bag.load()
    if arrays.slide_index is not None:
        raise BagError(
            f"{bag.name} has {len(bag.slides)} slides, whose coordinates overlap. Write each of "
            "bag.slides."
        )
    return arrays


def _corners(bag: Bag, arrays: BagArrays, patch_size: int) -> NDArray:
    """Top-left corners in level-0 pixels, as integers."""
    info = bag.info
    if arrays.coords is None:
        raise BagError(f"{bag.name} has no coordinates, which a TRIDENT-style file needs.")
    if info.unit == "um":
        raise BagError(
            f"{bag.name} has coordinates in micrometres, a TRIDENT-style file has them in level-0 "
            "pixels. Give Bag(features, coords=...) the coordinates in pixels."
        )
    shift = patch_size / 2 if info.anchor == "centre" else 0
    return np.rint(arrays.coords - shift).astype(np.int64)


def _rows_per_chunk(values: NDArray) -> tuple[int, int]:
    """Chunks of about a mebibyte."""
    rows = max(1, 2**20 // max(1, values[:1].nbytes))
    return min(len(values), rows), values.shape[1]


def write_trident(
    path: str | PathLike,
    bag: Bag,
    *,
    patch_size_level0: int,
    level0_magnification: float | None = None,
    target_magnification: float | None = None,
    dtype: str = "float32",
) -> None:
    """Write a slide as TRIDENT does: ``features`` (N, D), ``coords`` (N, 2) and its attributes.

    What the bag's own file states of encoder, type of features and magnification is written, too; a
    stored graph is not. The file is written beside `path` and then moved there, so `path` is never
    incomplete.

    Parameters
    ----------
    path : path
    bag : Bag
        One slide with coordinates in level-0 pixels; centres of patches become their corners.
    patch_size_level0 : int
        Width of a patch in level-0 pixels.
    level0_magnification, target_magnification : float, optional
        Magnification of the scan and of the encoded patches; by default as the bag's file states
        it, and 40 and 20 where it does not.
    dtype : {"float32", "float16"}, default="float32"

    Raises
    ------
    BagError
        If the bag has no coordinates, has them in micrometres, has several slides, or has
        features too large for `dtype`.
    ValueError
        If `dtype` is another one.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> from sk_momkd import Bag, read_bags, write_trident
    >>> path = tempfile.mkdtemp() + "/S1.h5"
    >>> write_trident(path, Bag(np.ones((2, 3)), [[0, 0], [512, 0]]), patch_size_level0=512)
    >>> read_bags(path)[0].coords.tolist()
    [[0, 0], [512, 0]]
    """
    if dtype not in _DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(_DTYPES)}, got {dtype!r}.")
    arrays = _one_slide(bag)
    coords = _corners(bag, arrays, patch_size_level0)
    with np.errstate(over="ignore"):
        features = arrays.features.astype(dtype)
    if not np.isfinite(features).all():
        raise BagError(f"{bag.name} has features too large for {dtype}; write dtype='float32'.")
    level0, target = _magnifications(
        bag.info, patch_size_level0, level0_magnification, target_magnification
    )
    attributes = {
        "patch_size": round(patch_size_level0 * target / level0),
        "patch_size_level0": patch_size_level0,
        "level0_magnification": level0,
        "target_magnification": target,
        "overlap": 0,
        "name": bag.bag_id or Path(path).stem,
        "level0_width": int(coords[:, 0].max()) + patch_size_level0,
        "level0_height": int(coords[:, 1].max()) + patch_size_level0,
    }
    with atomic_write(Path(path), sync=False) as part, hdf5_output(part) as file:
        for name, values in (("features", features), ("coords", coords)):
            # Checksums reveal bytes that change later; HDF5 has them for chunks.
            file.create_dataset(name, data=values, chunks=_rows_per_chunk(values), fletcher32=True)
        file["coords"].attrs.update(attributes)
        stated = {"encoder": bag.info.encoder, "feat_type": bag.info.feature_type}
        file["features"].attrs.update({k: v for k, v in stated.items() if v is not None})


def _magnifications(
    info: BagInfo, width: int, level0: float | None, target: float | None
) -> tuple[float, float]:
    """Of the scan and of the patches: as given, as the file states, or the most usual ones."""
    if target is None:
        target = info.magnification or 20
    if level0 is None:
        as_stated = info.patch_pixels and info.magnification in (None, target)
        level0 = target * width / info.patch_pixels if as_stated else 40  # type: ignore[operator]
    return level0, target


def anndata_key(name: object) -> str:
    """`name` as a key of an AnnData: without "/", of which HDF5 and zarr make folders."""
    return str(name).replace("/", "_")


def slide_anndata(bag: Bag, scores: Mapping[str, ArrayLike] | None = None) -> AnnData:
    """One slide as AnnData: a row per patch, ready for scanpy or squidpy.

    Parameters
    ----------
    bag : Bag
    scores : mapping of str to array-like, optional
        Per patch: (N,) goes to ``obs`` (attention), (N, m) to ``obsm`` (affinities). A "/" in a
        name becomes "_".

    Returns
    -------
    AnnData
        ``X`` features; ``obsm["spatial"]`` coordinates; ``obsp["spatial_connectivities"]`` the
        stored graph, where row i marks the patches that send to patch i; ``uns["bag"]`` ids,
        format, unit, anchor and patch size, which `read_bags` reads.

    Raises
    ------
    BagError
        If a score has another number of rows than the bag, or the bag has several slides.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import Bag, slide_anndata
    >>> slide_anndata(Bag(np.ones((2, 3))), {"attention": [0.2, 0.8]}).obs["attention"].tolist()
    [0.2, 0.8]
    """
    from anndata import AnnData

    features, coords, edges, _ = _one_slide(bag)
    n = len(features)
    slide = AnnData(features, obs=pd.DataFrame(index=[f"patch_{i}" for i in range(n)]))
    if coords is not None:
        slide.obsm["spatial"] = np.asarray(coords)
    if edges is not None:
        ones = np.ones(edges.shape[1], dtype=np.float32)
        slide.obsp["spatial_connectivities"] = sparse.csr_matrix((ones, edges[::-1]), shape=(n, n))
    for name, values in (scores or {}).items():
        name = anndata_key(name)
        array = np.asarray(values)
        if len(array) != n:
            raise BagError(f"Score {name!r} has {len(array)} rows, {bag.name} has {n} instances.")
        if array.ndim == 1:
            slide.obs[name] = array
        else:
            slide.obsm[name] = array
    ids = {"bag_id": bag.bag_id, "patient_id": bag.patient_id}
    described = {key: getattr(bag.info, key) for key in ("format", *GEOMETRY)}
    slide.uns["bag"] = {key: v for key, v in (ids | described).items() if v is not None}
    return slide
