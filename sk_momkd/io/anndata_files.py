"""Bags in AnnData files, as LazySlide writes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ..data.arrays import BagArrays
from ..data.bag import BagInfo
from ..exceptions import BagFileError, OmicsError
from .hdf5_checks import check_h5ad
from .named_arrays import number, stated
from .read_errors import errors_that_name, h5ad_errors

if TYPE_CHECKING:
    from anndata import AnnData

NUMBERS = ("patch_size", "magnification", "patch_pixels")
GEOMETRY = ("unit", "anchor", "encoder", "feature_type", *NUMBERS)  # of BagInfo in ``uns["bag"]``


class AnnDataBag:
    """A ``.h5ad`` of one slide as LazySlide writes it: X, ``obsm["spatial"]``, tile spec."""

    def __init__(self, path: str, format: str = "auto", *, allow_external: bool = False) -> None:
        self.path, self.format, self.allow_external = path, format, allow_external

    def shape(self) -> tuple[int, ...]:
        """(n_instances, n_features)."""
        with self._header() as slide:
            return slide.shape

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

    @property
    def stated_in(self) -> list[str]:
        """The file."""
        return [self.path]

    def info(self) -> BagInfo:
        """Keys, unit and patch size, as far as the file holds them."""
        with self._header() as slide:
            return self._stated(slide)

    def _stated(self, slide: AnnData) -> BagInfo:
        keys = ["X"] + ["spatial"] * ("spatial" in slide.obsm)
        keys += ["spatial_connectivities"] * ("spatial_connectivities" in slide.obsp)
        known = stated(slide.uns.get, has_coords="spatial" in slide.obsm) | _of_lazyslide(slide)
        stored = slide.uns.get("bag", {})  # as slide_anndata stores it
        stored = {k: stored[k] for k in GEOMETRY if k in stored} if isinstance(stored, dict) else {}
        numbers = {k: number(v) for k, v in stored.items() if k in NUMBERS}
        return BagInfo("anndata", tuple(keys), **(known | stored | numbers))

    @contextmanager
    def _header(self) -> Iterator[AnnData]:
        """The slide with X on disk."""
        slide = self._load(backed="r")
        try:
            yield slide
        finally:
            slide.file.close()

    def _load(self, backed: Literal["r"] | None = None) -> AnnData:
        import anndata

        try:
            check_h5ad(self.path, allow_external=self.allow_external)
        except OmicsError as error:  # a damaged sparse matrix
            raise BagFileError(str(error)) from error
        with errors_that_name(self.path, ".h5ad file", h5ad_errors()):
            slide = anndata.read_h5ad(self.path, backed=backed)
        if slide.X is None if backed is None else "X" not in slide.file:
            slide.file.close()
            raise BagFileError(f"{self.path} has no X; put the patch features there.")
        return slide


def _of_lazyslide(slide: AnnData) -> dict[str, float]:
    """Width and magnification of patches from LazySlide's tile specification."""
    spec = slide.uns.get("tile_spec", {})
    if not isinstance(spec, dict):
        return {}
    known = {
        "patch_size": number(spec.get("base_width")),
        "patch_pixels": number(spec.get("width")),
        "magnification": number(spec.get("magnification")),
    }
    return {name: value for name, value in known.items() if value is not None}
