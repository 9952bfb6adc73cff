"""Bags in AnnData files, as LazySlide writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ..data.arrays import BagArrays
from ..data.bag import BagInfo
from ..exceptions import BagFileError
from .hdf5 import number
from .read_errors import errors_that_name

if TYPE_CHECKING:
    from anndata import AnnData

GEOMETRY = ("unit", "anchor", "patch_size", "encoder")  # fields of BagInfo in ``uns["bag"]``


class AnnDataBag:
    """A ``.h5ad`` of one slide as LazySlide writes it: X, ``obsm["spatial"]``, tile spec."""

    def __init__(self, path: str, format: str = "auto") -> None:
        self.path, self.format = path, format

    def shape(self) -> tuple[int, ...]:
        """(n_instances, n_features)."""
        return self._load().shape

    def read(self) -> BagArrays:
        """Features, coordinates and, where stored, the spatial graph."""
        slide = self._load()
        features = slide.X.toarray() if sparse.issparse(slide.X) else slide.X
        graph = slide.obsp.get("spatial_connectivities")
        if graph is not None:  # row i lists the patches that send to i
            graph = np.stack(sparse.coo_array(graph).coords)[::-1].astype(np.int64)
        coords = slide.obsm.get("spatial")
        return BagArrays(features, None if coords is None else np.asarray(coords), graph)

    def coords(self) -> NDArray | None:
        """Coordinates, None where the slide has none."""
        return self.read().coords

    @property
    def parts(self) -> list[str]:
        """The file."""
        return [self.path]

    def info(self) -> BagInfo:
        """Keys, unit and patch size, as far as the file holds them."""
        slide = self._load()
        keys = ["X"] + ["spatial"] * ("spatial" in slide.obsm)
        keys += ["spatial_connectivities"] * ("spatial_connectivities" in slide.obsp)
        spec = slide.uns.get("tile_spec", {})
        size = spec.get("base_width") if isinstance(spec, dict) else None
        unit = "level-0 px" if "spatial" in slide.obsm else None
        stored = slide.uns.get("bag", {})  # as slide_anndata stores it
        known = {k: stored[k] for k in GEOMETRY if k in stored} if isinstance(stored, dict) else {}
        if "patch_size" in known:
            known["patch_size"] = number(known["patch_size"])
        return BagInfo("anndata", tuple(keys), **{"unit": unit, "patch_size": number(size)} | known)

    def _load(self) -> AnnData:
        import anndata

        with errors_that_name(self.path, ".h5ad file"):
            slide = anndata.read_h5ad(self.path)
        if slide.X is None:
            raise BagFileError(f"{self.path} has no X; put the patch features there.")
        return slide
